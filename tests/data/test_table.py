"""reader=table: CSV, TSV and Parquet, labels of all kinds, and refused tables."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fgvc.config import schema
from fgvc.data import dataset
from fgvc.data.datasets import table
from fgvc.types import TEST, TRAIN, UserError
from tests.dataset_conf import table_conf

LABELS = ("Möwe = große, weiße", "Ram C/V $2", "鳥 (juvenile) $1")
KINDS = ["csv", "tsv", "parquet"]


def read(file, root=None, fraction=0.25, seed=0):
    return table.read(table_conf(file, root, test_fraction=fraction, split_seed=seed))


def assert_refused(file, message, **options):
    with pytest.raises(UserError, match=message) as caught:
        read(file, **options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def csv_of(tmp_path):
    """`csv_of(text, name="t.csv")` -> a table beside images a.jpg, b.jpg and dir/c d.jpg."""

    def make(text: str | bytes, name: str = "t.csv"):
        (tmp_path / "dir").mkdir(exist_ok=True)
        for image in ("a.jpg", "b.jpg", "dir/c d.jpg"):
            (tmp_path / image).touch()
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_columns(copies, kind):
    index = read(copies.table(kind))
    assert index.labelmap.names == index.labelmap.ids == tuple(sorted(LABELS))
    assert index.path[0] == "bilder/é 0=.jpg"
    assert all((index.root / path).is_file() for path in index.path)
    names = [index.labelmap.names[label] for label in index.label_N]
    assert names == [LABELS[place % 3] for place in range(18)]
    assert index.split_N.tolist() == [TRAIN] * 12 + [TEST] * 6
    assert index.notes == ()


def test_the_three_formats_say_the_same(copies):
    indexes = [read(copies.table(kind)) for kind in KINDS]
    assert len({index.labelmap.digest for index in indexes}) == 1
    assert len({index.path for index in indexes}) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_split_a_seeded_part_of_each_class_is_test(copies, kind):
    file = copies.table(kind, split=False)
    index = read(file, fraction=1 / 3)
    assert np.bincount(index.label_N[index.split_N == TEST]).tolist() == [2, 2, 2]
    assert (read(file, fraction=1 / 3).split_N == index.split_N).all()
    others = [read(file, fraction=1 / 3, seed=seed).split_N for seed in (1, 2, 3)]
    assert any((other != index.split_N).any() for other in others)
    assert_refused(file, r"dataset\.test_fraction=0: .*: no split, so a test split has", fraction=0)


def test_a_class_of_one_image_cannot_be_split(csv_of):
    assert_refused(
        csv_of("path,label\na.jpg,x\nb.jpg,x\ndir/c d.jpg,y\n"), r"1 classes hold a single.*y"
    )


def test_paths_are_relative_to_the_root(copies, tmp_path):
    file = copies.table()
    moved = file.rename(tmp_path / "elsewhere.csv")
    assert read(moved, root=copies.root).root == copies.root
    assert_refused(moved, "no such folder", root=tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "path,label,split\na.jpg,x,train\nb.jpg,y,test\n",
        "\ufeffpath,label,split\r\na.jpg,x,train\r\nb.jpg,y,test\r\n",
        "path;label;split\na.jpg;x;train\n\nb.jpg;y; TEST",
        " label , note,split,path\n x ,,train,./a.jpg\ny,other,test,b.jpg",
        'split,path,label\n"train","a.jpg","x"\ntest,"b.jpg",y\n',
    ],
)
def test_people_write_tables_in_many_ways(csv_of, text):
    index = read(csv_of(text))
    assert index.path == ("a.jpg", "b.jpg")
    assert index.labelmap.names == ("x", "y")
    assert (index.notes, index.warnings) == ((), ())
    assert index.split_N.tolist() == [TRAIN, TEST]


def test_whole_numbers_are_labels_too_and_mean_their_text(csv_of, tmp_path):
    text = read(csv_of("path,label,split\na.jpg,10,train\nb.jpg,9,test\n"))
    columns = {"path": ["a.jpg", "b.jpg"], "label": [10, 9], "split": ["train", "test"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    parquet = read(tmp_path / "t.parquet")
    assert parquet.labelmap == text.labelmap
    assert text.labelmap.names == ("10", "9")
    assert parquet.label_N.tolist() == text.label_N.tolist() == [0, 1]


def test_categories_of_a_data_frame_are_text(csv_of, tmp_path):
    csv_of("")
    label = pa.array(["x", "y"]).dictionary_encode()
    columns = {"path": ["a.jpg", "b.jpg"], "label": label, "split": ["train", "test"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").labelmap.names == ("x", "y")


def test_labels_are_composed_and_paths_match_the_disk(csv_of, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "vögel") for form in ("NFC", "NFD"))
    file = csv_of(
        f"path,label,split\n{composed}.jpg,{decomposed},train\na.jpg,{composed},test\nb.jpg,x,test\n"
    )
    (tmp_path / f"{decomposed}.jpg").touch()
    index = read(file)
    assert index.labelmap.names == (composed, "x")
    assert index.path[0] == f"{decomposed}.jpg"


def test_labels_that_differ_in_case_are_noted(csv_of):
    index = read(csv_of("path,label,split\na.jpg,Wren,train\nb.jpg,wren,test\n"))
    assert index.labelmap.names == ("Wren", "wren")
    (note,) = index.notes
    assert (
        "differ only in case, spaces, hyphens or underscores are separate classes: Wren, wren"
        in note
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,colour\na.jpg,x\n", "has no column label, only path, colour; set dataset.label_col"),
        ("", "has no column path, label, only an empty line"),
        ("path,label\n", "lists no image"),
        ("path,label,split\na.jpg,,train\n", r"t\.csv:2: no label; fill it in"),
        ("path,label,split\na.jpg,x\n", r"t\.csv:2: no split; fill it in"),
        ("path,label,split\na.jpg,x,val\nb.jpg,y,test", "only test and validation images, none to"),
        ("path,label,split\na.jpg,x,trian\n", r"t\.csv:2: split 'trian': one of train, val, test"),
        ("path,label,split\na.jpg,x,train\n./a.jpg,y,test\n", "path listed twice: a.jpg"),
        (
            "path,label,split\n../a.jpg,x,train\n",
            r"t\.csv:2: '\.\./a\.jpg' is not below dataset.root=",
        ),
        (
            "path,label,split\n/a.jpg,x,train\n",
            r"t\.csv:2: '/a\.jpg' is not below dataset.root=.*remove the slash",
        ),
        ("path,label,split\na.jpg,x, y,train\n", r"t\.csv:2: 4 cells in 3 columns.*is quoted"),
        (b"path,label\n\xff.jpg,x\n", r"t\.csv:2: not UTF-8 text; save the table as UTF-8"),
    ],
)
def test_what_is_refused(csv_of, text, message):
    assert_refused(csv_of(text), message)


def test_files_that_are_no_tables(csv_of, tmp_path):
    assert_refused(tmp_path / "none.csv", r"dataset\.table=.*none\.csv: no such file")
    assert_refused(
        csv_of("path,label\n", "t.xlsx"), r"not one of \.csv, \.tsv, .*save it as CSV UTF-8"
    )
    assert_refused(csv_of("path,label\n", "t.parquet"), "no Parquet file, or a damaged one")
    pq.write_table(pa.table({"path": ["a.jpg"], "label": [1.5]}), tmp_path / "t.parquet")
    assert_refused(tmp_path / "t.parquet", "column label holds double, not text")
    pq.write_table(pa.table({"path": ["a.jpg"], "label": [None]}), tmp_path / "t.parquet")
    assert_refused(tmp_path / "t.parquet", "column label holds null, not text")
    labels = pa.array(["x", None], pa.string())
    pq.write_table(pa.table({"path": ["a.jpg", "b.jpg"], "label": labels}), tmp_path / "t.parquet")
    assert_refused(tmp_path / "t.parquet", r"t\.parquet:2: no label")


def test_loaded_as_a_dataset(copies, conf, tmp_path):
    file = copies.table()
    chosen = conf("table", file.parent, table=str(file))
    loaded = dataset.load(chosen, tmp_path / "cache")
    assert len(loaded.split.test_N) == 6
    chosen.root = None
    assert dataset.load(chosen, tmp_path / "cache").manifest.digest == loaded.manifest.digest
    chosen.table = None
    with pytest.raises(UserError, match=r"dataset\.table=null: reader table needs"):
        dataset.load(chosen, tmp_path / "cache")


def test_a_missing_image_is_named(copies, conf, tmp_path):
    file = copies.table()
    (file.parent / "bilder" / "é 3=.jpg").unlink()
    with pytest.raises(UserError, match=r"é 3=\.jpg: missing \(1 of 18 "):
        dataset.load(conf("table", file.parent, table=str(file)), tmp_path / "cache")


def test_a_class_without_train_images_is_refused(csv_of, conf, tmp_path):
    file = csv_of("path,label,split\na.jpg,x,train\nb.jpg,y,test\n")
    official = schema.OfficialCounts(0, 0, 0)
    with pytest.raises(UserError, match=r"1 of 2 classes have no training image \(y\)"):
        dataset.load(conf("table", file.parent, table=str(file), official=official), tmp_path)
