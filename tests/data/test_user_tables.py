"""reader=table: column names, splits, paths and labels of real-world tables."""

from __future__ import annotations

import gzip
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fgvc.data import dataset
from fgvc.data.datasets import table
from fgvc.types import TEST, TRAIN, VAL, UserError
from tests.dataset_conf import table_conf

PICTURES = tuple(f"{number}.jpg" for number in range(6))
LABELS = ("wren", "gull", "wren", "gull", "wren", "gull")
SPLIT = ("train", "train", "train", "train", "test", "test")


def read(file: Path, root: Path | None = None, fraction: float = 0.34, **keys: str):
    columns = {f"{role}_column": name for role, name in keys.items()}
    return table.read(table_conf(file, root, test_fraction=fraction, **columns))


def assert_refused(file: Path, message: str, **options):
    with pytest.raises(UserError, match=message) as caught:
        read(file, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def all_notes(index) -> str:
    return "\n".join(index.notes + index.warnings)


@pytest.fixture
def table_folder(tmp_path):
    """A folder with 0.jpg to 5.jpg, both in images/ and at its top."""
    (tmp_path / "images").mkdir()
    for name in PICTURES:
        (tmp_path / name).touch()
        (tmp_path / "images" / name).touch()
    return tmp_path


@pytest.fixture
def frame(table_folder):
    """`frame(name=cells, ...)` -> t.csv of these columns, written by pandas."""

    def make(columns: dict[str, object], name: str = "t.csv", **options: object) -> Path:
        pd.DataFrame(columns).to_csv(table_folder / name, index=False, **options)  # type: ignore[call-overload]
        return table_folder / name

    return make


# --- 8: the user's split ---


@pytest.mark.parametrize(
    "name", ["Split", "SPLIT", "set", "Set", "subset", "data set", "partition", "phase", "usage"]
)
@pytest.mark.parametrize(
    "words", [("train", "test"), ("Training", "Testing"), ("TRAIN_SET", "Test-Set")]
)
def test_the_users_split_is_used_and_reported(frame, name, words):
    cells = [words[split == "test"] for split in SPLIT]
    index = read(frame({"path": PICTURES, "label": LABELS, name: cells}))
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2
    assert index.test_source == "test"
    assert f"the split is column {name}" in all_notes(index)


def test_validation_rows_are_validation(frame, conf, tmp_path, jpeg):
    cells = ["train", "train", "valid", "validation", "test", "test"]
    file = frame({"path": PICTURES, "label": LABELS, "split": cells})
    for place, name in enumerate(PICTURES):
        (tmp_path / name).write_bytes(jpeg(place))
    loaded = dataset.load(conf("table", tmp_path, table=str(file)), tmp_path / "cache")
    assert loaded.manifest.split_N.tolist() == [TRAIN, TRAIN, VAL, VAL, TEST, TEST]
    assert loaded.split.val_N.tolist() == [2, 3]
    assert (loaded.test_source, loaded.warnings) == ("test", ())


def test_validation_is_the_test_where_there_is_no_test(frame, conf, tmp_path, jpeg):
    cells = ["train", "train", "train", "train", "val", "val"]
    file = frame({"path": PICTURES, "label": LABELS, "split": cells})
    for place, name in enumerate(PICTURES):
        (tmp_path / name).write_bytes(jpeg(place))
    loaded = dataset.load(conf("table", tmp_path, table=str(file)), tmp_path / "cache")
    assert loaded.split.test_N.tolist() == [4, 5]
    assert loaded.test_source == "val"
    assert any("its validation split is the test" in warning for warning in loaded.warnings)
    assert set(loaded.warnings) <= set(loaded.notes)


@pytest.mark.parametrize("split", [{}, {"split": ["train"] * 6}], ids=["none", "only train"])
def test_a_test_is_carved(frame, split):
    index = read(frame({"path": PICTURES, "label": LABELS, **split}))
    assert Counter(index.split_N.tolist()) == {TRAIN: 4, TEST: 2}
    assert index.test_source == "carved"


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"is_train": [1, 1, 1, 1, 0, 0]}, "aaaabb"),
        ({"is_training_image": [1, 1, 1, 1, 0, 0]}, "aaaabb"),
        ({"train": [True, True, True, True, False, False]}, "aaaabb"),
        ({"is_test": ["no", "No", "no", "no", "yes", "YES"]}, "aaaabb"),
        ({"is_train": [1, 1, 0, 0, 0, 0], "is_test": [0, 0, 0, 0, 1, 1]}, "aaccbb"),
        ({"is_valid": [0, 0, 1, 1, 0, 0], "is_test": [0, 0, 0, 0, 1, 1]}, "aaccbb"),
    ],
)
def test_flags_are_splits(frame, columns, expected):
    index = read(frame({"path": PICTURES, "label": LABELS, **columns}))
    split_of = {"a": TRAIN, "b": TEST, "c": VAL}
    assert index.split_N.tolist() == [split_of[letter] for letter in expected]
    assert all(f"column {name}" in all_notes(index) or name in all_notes(index) for name in columns)


def test_flags_that_contradict_each_other_are_refused(frame):
    flags = {"is_train": [1, 1, 1, 1, 0, 0], "is_test": [0, 0, 0, 1, 1, 1]}
    file = frame({"path": PICTURES, "label": LABELS, **flags})
    assert_refused(file, r"t\.csv:5: is train and test by is_train, is_test")


def test_a_flag_that_is_neither_yes_nor_no_is_refused(frame):
    file = frame({"path": PICTURES, "label": LABELS, "is_train": [1, 1, "maybe", 1, 0, 0]})
    assert_refused(file, r"t\.csv:4: is_train 'maybe': neither yes nor no")


@pytest.mark.parametrize("name", ["split", "Set", "partition"])
@pytest.mark.parametrize("numbers", [[0, 0, 0, 0, 1, 2], [0, 0, 0, 0, 1, 1]])
def test_numbers_are_no_splits(frame, name, numbers):
    file = frame({"path": PICTURES, "label": LABELS, name: numbers})
    assert_refused(
        file, rf"t\.csv:2: {name} '0' does not state which rows are train; write one of train"
    )


def test_columns_with_other_things_than_splits_are_skipped_and_reported(frame):
    index = read(frame({"path": PICTURES, "label": LABELS, "fold": range(6), "usage": ["a"] * 6}))
    assert index.test_source == "carved"
    assert "column fold holds no splits (0, 1, 2 and 3 more)" in all_notes(index)
    assert "column usage holds no splits (a)" in all_notes(index)


def test_a_column_that_looks_like_splits_and_is_not_read_is_named(frame):
    file = frame({"path": PICTURES, "label": LABELS, "mine": SPLIT})
    index = read(file)
    assert index.test_source == "carved"
    (warning,) = index.warnings
    assert "column mine holds words for splits and is not read" in warning
    assert "dataset.split_column=mine" in warning
    index = read(file, split="mine")
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2
    assert index.warnings == ()
    both = frame({"path": PICTURES, "label": LABELS, "split": SPLIT, "mine": SPLIT[::-1]})
    assert "column mine holds words for splits and is not read" in all_notes(read(both))


def test_two_splits_are_refused_unless_they_agree(frame):
    columns = {"path": PICTURES, "label": LABELS, "Set": SPLIT}
    assert_refused(
        frame({**columns, "subset": SPLIT[::-1]}), r"columns Set and subset could each be the"
    )
    assert read(frame({**columns, "subset": SPLIT})).split_N.tolist() == [TRAIN] * 4 + [TEST] * 2


@pytest.mark.parametrize("above", ["", "images/", "birds/images/"])
def test_split_folders_in_the_paths_are_the_split(table_folder, above):
    for place, split in enumerate(SPLIT):
        (table_folder / above / split).mkdir(parents=True, exist_ok=True)
        (table_folder / above / split / f"{place}.jpg").touch()
    rows = [f"{above}{split}/{n}.jpg,{LABELS[n]}" for n, split in enumerate(SPLIT)]
    (table_folder / "t.csv").write_text("path,label\n" + "\n".join(rows))
    index = read(table_folder / "t.csv")
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2
    assert "the split is the folders in the paths" in all_notes(index)


def test_unlabelled_rows_are_named(frame):
    labels = [*LABELS[:4], None, None]
    file = frame({"path": PICTURES, "label": labels, "split": SPLIT})
    assert_refused(
        file, r"t\.csv:6: no label, nor in any other row of split test \(2\): .*task=predict"
    )
    assert_refused(
        frame({"path": PICTURES, "label": labels}), r"t\.csv:6: no label; fill it in.*2 of 6"
    )
    empty = frame({"path": PICTURES, "label": LABELS, "Set": [*SPLIT[:5], None]})
    assert_refused(empty, r"t\.csv:7: no Set; fill it in")


# --- 9: names of columns ---


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("filename", "class"),
        ("Path", "Label"),
        ("file_name", "label"),
        ("Image Path", "Class Name"),
        ("filepaths", "labels"),
        ("image", "species"),
        ("img", "Category"),
        ("id", "breed"),
        ("image_id", "y"),
    ],
)
def test_usual_names_in_any_case_are_used_and_reported(frame, path, label):
    index = read(frame({label: LABELS, path: PICTURES, "split": SPLIT, "width": range(6)}))
    assert index.path == PICTURES
    assert [index.labelmap.names[place] for place in index.label_N] == list(LABELS)
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2
    assert f"the path is column {path}, the label is column {label}" in all_notes(index)


@pytest.mark.parametrize(
    ("columns", "path", "label"),
    [
        # of Kaggle's 100 birds: the class id is another name of the class
        (("class id", "filepaths", "labels", "data set"), "filepaths", "labels"),
        (("image_id", "filename", "class_id", "class_name"), "filename", "class_name"),
        (("Path", "path_id", "label", "species"), "Path", "label"),
        (("id", "name", "label"), "name", "label"),
        (("image", "file", "y"), "image", "y"),
    ],
)
def test_the_better_of_two_usual_names_is_taken(frame, columns, path, label):
    cells = {name: ["train"] * 3 + ["test"] * 3 for name in columns}
    cells |= {name: [f"no {n}" for n in range(6)] for name in columns if "id" in name}
    index = read(frame({**cells, path: PICTURES, label: LABELS}))
    assert index.path == PICTURES
    assert index.labelmap.names == ("gull", "wren")
    assert f"the path is column {path}, the label is column {label}" in all_notes(index)


def test_two_equally_usual_names_are_refused_with_the_key(frame):
    columns = {"path": PICTURES, "species": LABELS, "breed": LABELS[::-1], "split": SPLIT}
    assert_refused(frame(columns), r"columns species and breed .*set dataset\.label_column=species")
    index = read(frame(columns), label="breed")
    assert [index.labelmap.names[place] for place in index.label_N] == list(LABELS[::-1])


def test_keys_name_the_columns(frame):
    columns = {"wo": PICTURES, "was": LABELS, "wofür": SPLIT, "path": ["x"] * 6, "label": ["y"] * 6}
    index = read(frame(columns), path="wo", label="was", split="wofür")
    assert index.path == PICTURES
    assert index.labelmap.names == ("gull", "wren")
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2
    assert_refused(
        frame(columns), r"dataset\.label_column=waz: .* no such column, only wo, was", label="waz"
    )
    assert_refused(frame(columns), r"dataset\.path_column=Wa: ", path="Wa")
    assert_refused(
        frame(columns), r"dataset\.label_column=wo: is dataset\.path_column", path="wo", label="wo"
    )


def test_missing_columns_are_named_with_their_keys(frame):
    file = frame({"where": PICTURES, "what": LABELS})
    assert_refused(
        file, r"no column path, label, only where, what; set dataset\.path_column= and dataset\.l"
    )
    assert_refused(
        file, r"no column label, only where, what; set dataset\.label_column=", path="where"
    )


@pytest.mark.parametrize(
    "header",
    [
        *("path,label,path", "path,label,label", "Path,path,label", "path,label,LABEL"),
        *("path,split,label,split", "path,split,label,Split"),
    ],
)
def test_repeated_columns_are_refused(table_folder, header):
    row = ",".join(["0.jpg", "train", "wren", "test"][: header.count(",") + 1])
    (table_folder / "t.csv").write_text(f"{header}\n{row}\n")
    assert_refused(table_folder / "t.csv", "several columns are called|could each be the")


def test_a_table_without_delimiter_is_refused(table_folder):
    (table_folder / "t.txt").write_text("path label\n0.jpg wren\n")
    assert_refused(
        table_folder / "t.txt",
        r"single column \('path label'\); columns are separated by comma, tab",
    )


def test_a_table_without_a_header_is_refused(table_folder):
    (table_folder / "t.csv").write_text("images/0.jpg,wren\nimages/1.jpg,gull\n")
    assert_refused(
        table_folder / "t.csv",
        r"t\.csv:1: holds images/0\.jpg, wren, which is a row, not names of columns",
    )


# --- 9: paths ---


def paths(table_folder: Path, cells: list[str], **options):
    rows = [f'"{cell}",{LABELS[n]}' for n, cell in enumerate(cells)]
    (table_folder / "t.csv").write_text("path,label\n" + "\n".join(rows))
    return read(table_folder / "t.csv", **options).path


def test_absolute_paths_below_the_root_are_relative(table_folder):
    assert paths(table_folder, [str(table_folder / name) for name in PICTURES]) == PICTURES
    (table_folder / "link").symlink_to(table_folder / "images")
    read_paths = paths(
        table_folder,
        [str(table_folder / "link" / name) for name in PICTURES],
        root=table_folder / "link",
    )
    assert read_paths == PICTURES
    below = paths(
        table_folder,
        [str(table_folder / "images" / name) for name in PICTURES],
        root=table_folder / "link",
    )
    assert below == PICTURES


def test_paths_outside_the_root_name_the_folder_to_set(table_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("elsewhere")
    cells = [str(table_folder / "images" / name) for name in PICTURES]
    with pytest.raises(UserError) as caught:
        paths(table_folder, cells, root=root)
    assert f"t.csv:2: '{cells[0]}' is not below" in str(caught.value)
    advised = Path(str(caught.value).rsplit("dataset.root=", 1)[1])
    assert paths(table_folder, cells, root=advised) == PICTURES
    assert paths(table_folder, cells, root=Path("/"))[0] == cells[0][1:]


def test_paths_up_from_the_tables_folder_work_below_the_advised_root(table_folder):
    (table_folder / "lists").mkdir()
    rows = [f"../images/{name},{LABELS[n]}" for n, name in enumerate(PICTURES)]
    (table_folder / "lists" / "t.csv").write_text("path,label\n" + "\n".join(rows))
    message = assert_refused(
        table_folder / "lists" / "t.csv", r"t\.csv:2: '\.\./images/0\.jpg' is not below"
    )
    advised = Path(message.rsplit("dataset.root=", 1)[1])
    assert read(table_folder / "lists" / "t.csv", root=advised).path == PICTURES


@pytest.mark.parametrize(
    ("form", "note"),
    [
        ("images\\{}.jpg", "backslashes"),
        (".\\images\\{}.jpg", "backslashes"),
        ("./images/{}.jpg", None),
        ("  images/{}.jpg ", None),
        ("images//{}.jpg", None),
        ("images/{}", "no suffix"),
        ("images/{}.JPG", "upper and lower case"),
    ],
)
def test_paths_in_other_forms(table_folder, form, note):
    cells = [form.format(number) for number in range(6)]
    assert paths(table_folder, cells) == tuple(f"images/{name}" for name in PICTURES)
    notes = all_notes(read(table_folder / "t.csv"))
    assert note is None or ("6 of 6 paths" in notes and note in notes)


def test_a_name_without_suffix_that_several_files_match_is_refused(table_folder):
    (table_folder / "images" / "0.png").touch()
    with pytest.raises(UserError, match=r"t\.csv:2: .*0\.jpg, 0\.png could each be '0'"):
        paths(table_folder, [f"images/{number}" for number in range(6)])


@pytest.mark.parametrize(
    "address",
    ["https://a.b/0.jpg", "HTTP://a/0.jpg", "s3://a/0.jpg", "gs://a/0", "data:image/png;base64,AA"],
)
def test_an_address_is_recognized(table_folder, address):
    with pytest.raises(UserError, match=r"t\.csv:2: '.*' is an address.*download the images first"):
        paths(table_folder, [address, *PICTURES[1:]])


def test_an_absolute_path_of_windows_is_recognized(table_folder):
    with pytest.raises(UserError, match=r"t\.csv:2: .* is an absolute path of Windows"):
        paths(table_folder, ["C:\\pictures\\0.jpg", *PICTURES[1:]])


def test_where_all_files_are_missing_the_place_is_advised(table_folder):
    for name in PICTURES:
        (table_folder / name).unlink()
    with pytest.raises(UserError) as caught:
        paths(table_folder, list(PICTURES))
    assert f"t.csv:2: no file {table_folder / '0.jpg'}, nor the file of any other row of 6" in str(
        caught.value
    )
    assert f"set dataset.root={table_folder / 'images'}, where it is" in str(caught.value)
    assert read(table_folder / "t.csv", root=table_folder / "images").path == PICTURES


# --- 9: text ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_texts_are_read_as_pandas_reads_them(table_folder, encoding, delimiter, end):
    rows = [("path", "label"), *zip(PICTURES, ["Möwe", "鳥"] * 3, strict=True)]
    text = end.join(delimiter.join(row) for row in rows) + end
    (table_folder / "t.csv").write_bytes(text.encode(encoding))
    expected = pd.read_csv(table_folder / "t.csv", sep=delimiter, encoding=encoding)
    index = read(table_folder / "t.csv")
    assert index.path == tuple(expected["path"])
    assert [index.labelmap.names[label] for label in index.label_N] == expected["label"].tolist()


def test_excels_own_first_line_and_upper_case_suffixes(table_folder):
    (table_folder / "T.CSV").write_text(
        "sep=;\npath;label;set\n0.jpg;wren, the;train\n1.jpg;gull;test\n"
    )
    assert read(table_folder / "T.CSV").labelmap.names == ("gull", "wren, the")
    (table_folder / "T.CSV").write_text("sep=;\npath;label\n0.jpg;wren\n1.jpg;\n")
    assert_refused(table_folder / "T.CSV", r"T\.CSV:4: no label")


def test_json_lines_are_read(frame, table_folder):
    columns = {"file_name": PICTURES, "label": LABELS, "split": SPLIT}
    pd.DataFrame(columns).to_json(table_folder / "metadata.jsonl", orient="records", lines=True)
    index, same = read(table_folder / "metadata.jsonl"), read(frame(columns))
    assert (index.path, index.labelmap) == (same.path, same.labelmap)
    assert index.split_N.tolist() == same.split_N.tolist()


def test_the_line_that_is_no_utf8_is_named(table_folder):
    (table_folder / "t.csv").write_bytes(
        "path,label\r\n0.jpg,wren\r\n1.jpg,Möwe\r\n".encode("cp1252")
    )
    assert_refused(table_folder / "t.csv", r"t\.csv:3: not UTF-8 text; save the table as UTF-8")


def _workbook(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


@pytest.mark.parametrize("name", ["t.csv", "t.own", "t.parquet"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (_workbook, "is an Excel workbook or another ZIP archive; save the workbook as CSV UTF-8"),
        (
            lambda file: file.write_bytes(gzip.compress(b"path,label\n")),
            "gzip archive, .*; unpack it",
        ),
        (lambda file: file.write_text('[{"path": "0.jpg"}]'), "is JSON; save it as CSV"),
        (lambda file: file.write_text('{"path": "0.jpg"}\n'), r"JSON lines .* t\.jsonl"),
        (lambda file: pd.DataFrame({"path": ["x"]}).to_pickle(file), "a Python pickle, not a"),
        (lambda file: file.write_text("<!DOCTYPE html><p>"), "is an HTML page, not a table"),
        (lambda file: file.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), r"workbook \(\.xls\)"),
    ],
)
def test_what_is_no_table_is_named(table_folder, name, write, message):
    write(table_folder / name)
    assert_refused(table_folder / name, message)


def test_a_folder_without_parquet_names_what_may_be_meant(table_folder):
    assert_refused(
        table_folder, r"without Parquet files; .* or read a folder per class with dataset=folder"
    )
    (table_folder / "metadata.csv").write_text("file_name,label\n")
    assert_refused(table_folder, r"without Parquet files; set dataset\.table=/.*/metadata\.csv")


def test_a_parquet_is_read_under_the_name_of_a_text(table_folder):
    columns = {"path": PICTURES, "label": LABELS, "split": SPLIT}
    pq.write_table(
        pa.table({name: list(cells) for name, cells in columns.items()}), table_folder / "t.csv"
    )
    assert read(table_folder / "t.csv").path == PICTURES


# --- 10: labels, and 1: a single class ---


@pytest.mark.parametrize(
    ("labels", "note"),
    [
        (("nan", "wren"), "nan is a class here"),
        (("None", "wren"), "None is a class here"),
        (("NULL", "N/A"), "N/A, NULL is a class here"),
        (("1", "1.0"), "equal as numbers are separate classes: 1, 1.0"),
        (("01", "1"), "equal as numbers are separate classes: 01, 1"),
        (("['gull', 'wren']", "['wren']"), "look like lists"),
        (("Wren", "wren"), "differ only in case, spaces, hyphens or underscores .* Wren, wren"),
        (
            ("red wren", "red_wren"),
            "differ only in case, spaces, hyphens or underscores .* red wren, red_w",
        ),
    ],
)
def test_labels_that_look_like_slips_are_noted_and_stay(table_folder, labels, note):
    rows = [f'{name},"{labels[n % 2]}"' for n, name in enumerate(PICTURES)]
    (table_folder / "t.csv").write_text("path,label\n" + "\n".join(rows))
    index = read(table_folder / "t.csv")
    assert index.labelmap.names == tuple(sorted(labels))
    assert np.bincount(index.label_N).tolist() == [3, 3]
    assert re.search(note, all_notes(index))


def test_a_single_class_is_refused(frame):
    file = frame({"path": PICTURES, "label": ["wren"] * 6})
    assert_refused(
        file, r"dataset\.table=.*: holds a single class \(wren\); a classifier needs at least two"
    )


# --- splits that a table says in other ways ---


@pytest.mark.parametrize(
    ("name", "yes"),
    [
        ("is_training_img", TRAIN),
        ("is_training_set", TRAIN),
        ("training_set", TRAIN),
        ("isTrainSplit", TRAIN),
        ("train_flag", TRAIN),
        ("for_training", TRAIN),
        ("in_test_set", TEST),
        ("is_holdout", TEST),
        ("testset", TEST),
    ],
)
def test_flags_under_other_names_are_read(frame, name, yes):
    flags = [int((split == "train") == (yes == TRAIN)) for split in SPLIT]
    index = read(frame({"path": PICTURES, "label": LABELS, name: flags}))
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2
    assert f"the split is column {name}" in all_notes(index)


@pytest.mark.parametrize(
    "name", ["train_test", "TrainTest", "train_val_test_split", "split_id", "valid"]
)
def test_a_column_named_like_several_splits_is_named(frame, name):
    flags = [int(split == "train") for split in SPLIT]
    index = read(frame({"path": PICTURES, "label": LABELS, name: flags}))
    assert index.test_source == "carved"
    assert any(f"column {name}" in warning for warning in index.warnings)
    assert not read(frame({"path": PICTURES, "label": LABELS, "age": flags})).warnings


@pytest.mark.parametrize("name", ["train_score", "test_accuracy", "valid", "training_time"])
def test_numbers_under_other_names_are_no_flags(frame, name):
    index = read(frame({"path": PICTURES, "label": LABELS, name: [0, 1, 0, 1, 0, 1]}))
    assert index.test_source == "carved"


def test_flags_of_floats_in_parquet_are_read(table_folder):
    flags = [float(split == "test") for split in SPLIT]
    columns = pd.DataFrame({"path": PICTURES, "label": LABELS, "is_test": flags})
    columns.to_parquet(table_folder / "t.parquet")
    assert read(table_folder / "t.parquet").split_N.tolist() == [TRAIN] * 4 + [TEST] * 2


def test_usage_of_fer2013(frame):
    usage = ["Training"] * 2 + ["PublicTest"] * 2 + ["PrivateTest"] * 2
    index = read(frame({"image": PICTURES, "label": LABELS, "Usage": usage}))
    assert index.split_N.tolist() == [TRAIN] * 2 + [VAL] * 2 + [TEST] * 2


def _moved(table_folder: Path, folders: list[str]) -> list[str]:
    paths = [f"{folder}/{name}" for folder, name in zip(folders, PICTURES, strict=True)]
    for path in paths:
        (table_folder / path).parent.mkdir(parents=True, exist_ok=True)
        (table_folder / path).touch()
    return paths


def test_folders_at_any_depth_say_the_split(frame, table_folder):
    paths = _moved(table_folder, [f"a/b/c/d/{split}/e" for split in SPLIT])
    index = read(frame({"path": paths, "label": LABELS}))
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2


def test_folders_that_say_the_split_of_some_paths_are_named(frame, table_folder):
    paths = _moved(table_folder, ["x/train", "x/train", "x/train", "x/extra", "x/test", "x/test"])
    index = read(frame({"path": paths, "label": LABELS}))
    assert index.test_source == "carved"
    assert any("train, test" in note and "extra" in note for note in index.warnings)


# --- one column per class, and paths as addresses write them ---


@pytest.mark.parametrize("yes", [("1", "0"), ("1.0", "0.0"), ("True", "False")])
def test_a_column_per_class_names_the_way_to_one_column(frame, yes):
    """Roboflow's _classes.csv, Plant Pathology, ISIC."""
    columns = {"filename": PICTURES}
    for name in ("wren", "gull"):
        columns[name] = tuple(yes[label != name] for label in LABELS)
    message = assert_refused(frame(columns), "wren, gull")
    assert "label_column" not in message
    data = pd.read_csv(frame(columns))
    assert "table.iloc[:, 1:3].idxmax(axis=1)" in message
    data["label"] = data.iloc[:, 1:3].idxmax(axis=1)
    index = read(frame({"filename": data["filename"], "label": data["label"]}))
    assert [index.labelmap.names[label] for label in index.label_N] == list(LABELS)


def test_columns_of_which_several_are_yes_name_the_limit(frame):
    columns = {"filename": PICTURES, "wren": [1] * 6, "gull": [0, 1] * 3}
    assert "single label" in assert_refused(frame(columns), "wren, gull")
    unrelated = {"filename": PICTURES, "flash": [0] * 5 + [1], "zoom": [0] * 6}
    assert "flash, zoom; set dataset.label_column=" in assert_refused(
        frame(unrelated), "no column label"
    )


@pytest.mark.parametrize(
    ("path", "label"), [("id_code", "diagnosis"), ("Image Index", "dx"), ("image", "emotion")]
)
def test_names_of_usual_datasets(frame, path, label):
    index = read(frame({path: PICTURES, label: LABELS}))
    assert f"the path is column {path}, the label is column {label}" in all_notes(index)


def test_fine_and_coarse_labels_are_refused_with_the_key(frame):
    columns = {"image": PICTURES, "fine_label": LABELS, "coarse_label": ("a", "b") * 3}
    assert_refused(frame(columns), "set dataset.label_column=fine_label")


def test_paths_as_addresses_write_them_are_read_where_the_disk_has_no_such_name(
    frame, table_folder
):
    for name in PICTURES:
        (table_folder / f"a b é {name}").touch()
    (table_folder / "a%20b%20%C3%A9%200.jpg").touch()
    paths = [f"a%20b%20%C3%A9%20{name}" for name in PICTURES]
    index = read(frame({"path": paths, "label": LABELS}))
    assert index.path[0] == paths[0]
    assert index.path[1:] == tuple(f"a b é {name}" for name in PICTURES[1:])
    assert "5 of 6 paths" in all_notes(index)


@pytest.mark.parametrize("folders", [("cars_train", "cars_test"), ("01_train", "02_test")])
def test_folders_that_agree_but_for_a_word_say_the_split(frame, table_folder, folders):
    paths = _moved(table_folder, [folders[split == "test"] for split in SPLIT])
    index = read(frame({"path": paths, "label": LABELS}))
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2


@pytest.mark.parametrize("name", ["split", "dataset", "source"])
def test_cells_that_agree_but_for_a_word_say_the_split(frame, name):
    columns = {"path": PICTURES, "label": LABELS, name: [f"birds_{split}" for split in SPLIT]}
    index = read(frame(columns))
    if name == "source":
        assert "set dataset.split_column=source" in "".join(index.warnings)
        index = read(frame(columns), split=name)
    assert index.split_N.tolist() == [TRAIN] * 4 + [TEST] * 2


def test_marks_under_the_names_of_splits_are_named(frame):
    marks = {name: ["x" if split == name else "" for split in SPLIT] for name in ("train", "test")}
    index = read(frame({"path": PICTURES, "label": LABELS, **marks}))
    assert all(f"column {name}" in "".join(index.warnings) for name in marks)


def test_the_setid_of_oxford_flowers_is_named(frame):
    index = read(frame({"path": PICTURES, "label": LABELS, "setid": [1, 1, 2, 2, 3, 3]}))
    assert "column setid" in "".join(index.warnings)


@pytest.mark.parametrize("other", ["sea gull\u200b", "sea-gull", "sea  gull"])
def test_labels_that_look_similar_are_noted(frame, other):
    labels = ["wren", "sea gull", "wren", "sea gull", other, other]
    assert "separate classes" in all_notes(read(frame({"path": PICTURES, "label": labels})))


def test_minus_one_and_one_do_not_look_similar(frame):
    columns = {"path": PICTURES, "label": [-1, 1] * 3, "set": ["A", "B"] * 3}
    index = read(frame(columns))
    assert "separate classes" not in all_notes(index)
    assert all_notes(index).count("column set") == 1


def test_a_column_of_folders_is_recognized(frame):
    columns = {"path": ["images"] * 6, "filename": PICTURES, "label": LABELS}
    assert_refused(frame(columns), "column path .*images is a folder; set dataset.path_column=")


@pytest.mark.parametrize("suffix", ["", ".jpg"])
def test_names_scattered_over_parts_are_found(frame, tmp_path, suffix):
    """HAM10000's part_1/ and part_2/, ChestX-ray14's images_001/images/."""
    names = [f"ISIC_{number}" for number in range(6)]
    places = [f"parts/images_{number % 2}/images/{name}.jpg" for number, name in enumerate(names)]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    file = frame({"image_id": [name + suffix for name in names], "dx": LABELS})
    index = read(file)
    assert index.path == tuple(places)
    assert "6 of 6 paths are found by file name alone, each in one folder below" in all_notes(index)
    (tmp_path / "parts/images_0/images/ISIC_1.jpg").touch()
    assert_refused(file, "no file")
