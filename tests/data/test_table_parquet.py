"""reader=table: Parquet as Hugging Face writes it: image bytes, class names, shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fgvc.data import dataset, doctor
from fgvc.data.datasets import table
from fgvc.data.find_root import named_root
from fgvc.store import temporary_files
from fgvc.store.hashing import sha256_bytes
from fgvc.types import TEST, TRAIN, VAL, Progress, UserError
from tests.dataset_conf import table_conf

NAMES = ["gull", "wren"]
# what the `datasets` library writes into a schema
FEATURES = {
    "image": {"_type": "Image"},
    "label": {"names": NAMES, "_type": "ClassLabel"},
}
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def images(jpeg: Callable[..., bytes]) -> list[bytes]:
    return [jpeg(seed) for seed in range(12)]


def write(
    file: Path,
    images: Sequence[bytes | None],
    labels: list[int],
    features: dict | None = FEATURES,
    paths: Sequence[str | None] | None = None,
    **columns: list,
) -> Path:
    cells = [
        {"bytes": data, "path": None if paths is None else paths[place]}
        for place, data in enumerate(images)
    ]
    parquet = pa.table({"image": pa.array(cells, IMAGE), "label": labels, **columns})
    if features is not None:
        metadata = json.dumps({"info": {"features": features}})
        parquet = parquet.replace_schema_metadata({"huggingface": metadata})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(parquet, file, row_group_size=4)
    return file


@pytest.fixture
def load(conf, tmp_path):
    def make(file: Path, **fields: object):
        chosen = conf("table", tmp_path, table=str(file), **fields)
        chosen.root = None
        return dataset.load(chosen, tmp_path / "cache")

    return make


def test_bytes_are_unpacked_once_and_hashed_as_files_are(images, load, tmp_path):
    file = write(tmp_path / "birds.parquet", images, [0, 1] * 6)
    birds = load(file)
    assert list(birds.manifest.sha256) == [sha256_bytes(data) for data in images]
    assert birds.labelmap.names == ("gull", "wren")
    assert birds.manifest.label_N.tolist() == [0, 1] * 6
    assert birds.test_source == "carved"
    assert any(note.startswith(f"test carved: {file} has no test split") for note in birds.notes)
    (note,) = [note for note in birds.notes if "images of column image are unpacked" in note]
    below = birds.manifest.root.parent.relative_to(tmp_path / "cache")
    size = sum(map(len, images)) / 2**20
    assert f"12 images of column image are unpacked into runtime.cache_root/{below} " in note
    assert f"({size:.1f} MiB); fgvc never removes this folder" in note
    shutil.rmtree(tmp_path / "cache" / below)  # the way out; then all is unpacked again
    assert load(file).notes == birds.notes
    states = [(birds.manifest.root / path).stat().st_ino for path in birds.manifest.path]
    again = load(file)
    assert again.manifest.digest == birds.manifest.digest
    assert [(again.manifest.root / path).stat().st_ino for path in again.manifest.path] == states


def test_another_table_is_another_dataset(images, load, tmp_path):
    before = load(write(tmp_path / "birds.parquet", images, [0, 1] * 6))
    after = load(write(tmp_path / "birds.parquet", images[::-1], [0, 1] * 6))
    assert list(after.manifest.sha256) == [sha256_bytes(data) for data in images[::-1]]
    assert after.manifest.root != before.manifest.root


def test_names_are_the_rows_and_what_the_images_were_called(images, load, tmp_path):
    paths = ["a/b.png", None, "..\\c.jpg", "d", *[None] * 8]
    birds = load(write(tmp_path / "birds.parquet", images, [0, 1] * 6, paths=paths))
    assert birds.manifest.path[:4] == (
        "000000-b.png",
        "000001.jpg",
        "000002-c.jpg",
        "000003-d.jpg",
    )
    assert all(path.endswith(".jpg") for path in birds.manifest.path[4:])


def _flip(root: Path, path: str) -> None:
    data = bytearray((root / path).read_bytes())
    data[100] ^= 1
    (root / path).write_bytes(data)


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "damage",
    [
        _flip,
        lambda root, path: (root / path).unlink(),
        lambda root, path: (root / path).write_bytes(b""),
        lambda root, path: (root.parent / "files.json").write_text("{"),
        lambda root, path: _flip(root.parent, "files.json"),
        lambda root, path: (root.parent / "files.json").unlink(),
    ],
)
def test_a_damaged_folder_is_unpacked_again(images, load, tmp_path, damage):
    file = write(tmp_path / "birds.parquet", images, [0, 1] * 6)
    birds = load(file)
    damage(birds.manifest.root, birds.manifest.path[0])
    again = load(file)
    assert again.manifest.digest == birds.manifest.digest
    for path, data in zip(again.manifest.path, images, strict=True):
        assert (again.manifest.root / path).read_bytes() == data


@pytest.mark.fault(51)
def test_files_of_a_dead_process_are_removed(images, load, tmp_path):
    file = write(tmp_path / "birds.parquet", images, [0, 1] * 6)
    root = load(file).manifest.root
    owner = f"{temporary_files.this_host()}.999999999"
    temporary = root.parent.with_name(f".{root.parent.name}.{owner}.00000000.tmp")
    (root.parent).rename(temporary)
    (temporary / "images" / "foreign.jpg").touch()
    assert load(file).manifest.root == root
    assert sorted(path.name for path in root.iterdir()) == sorted(
        path.name for path in root.iterdir() if path.name != "foreign.jpg"
    )
    assert not temporary.exists()


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_plain_binary_is_an_image_too(images, load, tmp_path, kind):
    columns = {"img": pa.array(images, kind), "species": ["gull", "wren"] * 6}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    birds = load(tmp_path / "t.parquet")
    assert list(birds.manifest.sha256) == [sha256_bytes(data) for data in images]
    assert any("path is column img, the label is column species" in note for note in birds.notes)


def test_shards_bring_their_splits(images, load, tmp_path):
    data = tmp_path / "birds" / "data"
    write(data / "train-00000-of-00002.parquet", images[:4], [0, 1, 0, 1])
    write(data / "train-00001-of-00002.parquet", images[4:8], [0, 1, 0, 1])
    write(data / "validation-00000-of-00001.parquet", images[8:10], [0, 1])
    write(data / "test-00000-of-00001-0a1b2c.parquet", images[10:], [0, 1])
    (tmp_path / "birds" / "README.md").touch()
    birds = load(tmp_path / "birds")
    sha256 = {sha256_bytes(image): place for place, image in enumerate(images)}
    order = [sha256[digest] for digest in birds.manifest.sha256]
    split = dict(zip(order, birds.manifest.split_N.tolist(), strict=True))
    expected = [TRAIN] * 8 + [VAL] * 2 + [TEST] * 2
    assert [split[place] for place in range(12)] == expected
    assert birds.test_source == "test"
    assert any("the split is the names of the files" in note for note in birds.notes)
    pattern = load(data / "[tv][ra]*.parquet")
    assert (len(pattern.manifest), pattern.test_source) == (10, "val")


def test_folders_of_the_converted_branch_bring_their_splits(images, load, tmp_path):
    write(tmp_path / "birds" / "default" / "train" / "0000.parquet", images[:8], [0, 1] * 4)
    write(tmp_path / "birds" / "default" / "test" / "0000.parquet", images[8:], [0, 1] * 2)
    birds = load(tmp_path / "birds")
    assert (len(birds.split.test_N), birds.test_source) == (4, "test")


def test_shards_without_a_split_beside_others_are_refused(images, load, tmp_path):
    write(tmp_path / "birds" / "train-00000-of-00001.parquet", images[:8], [0, 1] * 4)
    write(tmp_path / "birds" / "more.parquet", images[8:], [0, 1] * 2)
    with pytest.raises(UserError, match=r"more\.parquet: the name contains no split"):
        load(tmp_path / "birds")


def test_unlabelled_shards_are_refused_with_the_rows(images, load, tmp_path):
    write(tmp_path / "birds" / "train-00000-of-00001.parquet", images[:8], [0, 1] * 4)
    write(tmp_path / "birds" / "test-00000-of-00001.parquet", images[8:], [-1] * 4)
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet:1: no label, nor in any"):
        load(tmp_path / "birds")


def test_a_split_column_takes_precedence_over_file_names(images, load, tmp_path):
    split = ["train", "train", "train", "train", "test", "test"] * 2
    file = write(tmp_path / "train-00000-of-00001.parquet", images, [0, 1] * 6, split=split)
    assert len(load(file).split.test_N) == 4


def test_two_class_columns_are_refused_with_the_key(images, load, tmp_path):
    features = {
        "image": {"_type": "Image"},
        "fine": {"names": ["a", "b"], "_type": "ClassLabel"},
        "coarse": {"names": ["c", "d"], "_type": "ClassLabel"},
    }
    cells = pa.array([{"bytes": data, "path": None} for data in images], IMAGE)
    parquet = pa.table({"image": cells, "fine": [0, 1] * 6, "coarse": [1, 0] * 6})
    metadata = json.dumps({"info": {"features": features}})
    file = tmp_path / "t.parquet"
    pq.write_table(parquet.replace_schema_metadata({"huggingface": metadata}), file)
    with pytest.raises(
        UserError, match=r"columns fine and coarse .*set dataset\.label_column=fine"
    ):
        load(file)
    assert load(file, label_column="coarse").labelmap.names == ("c", "d")
    pq.write_table(pa.table({"pixels": cells, "kind": [0, 1] * 6}), file)
    with pytest.raises(UserError, match=r"no column label, only pixels, kind; set dataset\.label"):
        load(file)
    assert load(file, label_column="kind").labelmap.names == ("0", "1")


def test_rows_without_bytes_are_named(images, load, tmp_path):
    file = write(tmp_path / "t.parquet", [*images[:5], None, *images[6:]], [0, 1] * 6)
    with pytest.raises(UserError, match=r"t\.parquet:6: column image holds no image bytes"):
        load(file)
    assert not list((tmp_path / "cache").glob("tables/*/images"))
    assert not list((tmp_path / "cache").glob("tables/.*"))


def test_damage_ends_in_one_line_or_in_images_of_other_bytes(images, load, tmp_path):
    data = write(tmp_path / "t.parquet", images, [0, 1] * 6).read_bytes()
    messages, file = [], tmp_path / "damaged.parquet"
    for place in range(4, len(data), len(data) // 12):
        flipped = bytes(byte ^ 0xFF for byte in data[place : place + 8])
        for content in (data[:place] + flipped + data[place + 8 :], data[:place]):
            file.write_bytes(content)
            try:
                assert len(load(file).manifest) == 12
            except UserError as error:
                messages.append(str(error))
    assert len(messages) > 12
    assert all(str(file) in message and "\n" not in message for message in messages)
    assert not list((tmp_path / "cache").glob("tables/.*"))


def test_images_that_only_name_their_files_are_paths(images, load, tmp_path):
    for place, data in enumerate(images):
        (tmp_path / f"{place:02}.jpg").write_bytes(data)
    paths = [str(tmp_path / f"{place:02}.jpg") for place in range(12)]
    birds = load(write(tmp_path / "t.parquet", [None] * 12, [0, 1] * 6, paths=paths))
    assert birds.manifest.root == tmp_path
    assert list(birds.manifest.sha256) == [sha256_bytes(data) for data in images]


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()), pa.int16()],
    ids=str,
)
def test_columns_of_other_types_are_their_text(tmp_path, kind):
    for name in ("0.jpg", "1.jpg"):
        (tmp_path / name).touch()
    labels = [3, 5] if pa.types.is_integer(kind) else ["3", "5"]
    text = pa.string() if pa.types.is_integer(kind) else kind
    columns = {
        "path": pa.array(["0.jpg", "1.jpg"]).cast(text),
        "label": pa.array(labels).cast(kind),
        "is_train": [True, False],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    index = table.read(table_conf(tmp_path / "t.parquet"))
    assert index.labelmap.names == ("3", "5")
    assert index.split_N.tolist() == [TRAIN, TEST]


@pytest.mark.parametrize(
    ("column", "cells", "message"),
    [
        ("label", [[1], [2]], r"column label holds list<.*, not text; convert it"),
        ("label", [1.5, 2.5], r"column label holds double, not text"),
        ("path", [{"a": 1}, {"a": 2}], r"column path holds struct<a: int64>, not paths or images"),
    ],
)
def test_lists_and_structs_are_refused(tmp_path, column, cells, message):
    columns = {"path": ["0.jpg", "1.jpg"], "label": ["x", "y"], column: cells}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=message):
        table.read(table_conf(tmp_path / "t.parquet"))


def test_repeated_columns_are_refused(tmp_path):
    parquet = pa.Table.from_arrays([pa.array(["x"])] * 3, names=["path", "label", "label"])
    pq.write_table(parquet, tmp_path / "t.parquet")
    with pytest.raises(UserError, match="several columns are called label; rename them"):
        table.read(table_conf(tmp_path / "t.parquet"))


def test_a_root_beside_images_inside_is_reported_as_not_read(images, load, tmp_path):
    file = write(tmp_path / "t.parquet", images, [0, 1] * 6)
    index = table.read(table_conf(file, tmp_path, test_fraction=0.5), cache_root=tmp_path / "cache")
    assert f"dataset.root={tmp_path}: not read, because t.parquet holds the images" in index.notes
    assert not any("dataset.root" in note for note in load(file).notes)


def test_the_paths_of_shards_are_relative_to_their_folder(jpeg, tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number))
    columns = {"path": [f"{number}.jpg" for number in range(4)], "label": ["x", "y"] * 2}
    pq.write_table(pa.table(columns), tmp_path / "shard.parquet")
    index = table.read(table_conf(tmp_path, test_fraction=0.5))
    assert index.root == named_root(None, str(tmp_path)) == tmp_path


def test_counted_without_a_cache(images, tmp_path):
    file = write(tmp_path / "t.parquet", images, [0, 1] * 6)
    index = table.read(table_conf(file, test_fraction=0.5))
    assert np.bincount(index.split_N).tolist() == [6, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.parquet"]


@contextmanager
def silent(*about: object) -> Iterator[Progress]:
    yield lambda n, note="": None


def test_the_doctor_examines_the_images(images, conf, tmp_path):
    file = write(tmp_path / "t.parquet", images, [0, 1] * 6)
    chosen = conf("table", tmp_path, table=str(file))
    chosen.root = None
    examination = doctor.examine(chosen, 1, silent, tmp_path / "cache")
    assert not examination.wrong
    assert examination.facts["pictures"]["read"] == 12  # type: ignore[index]
