"""reader=cub: files are joined by id, and copies with contradictions are refused."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from fgvc.config import schema
from fgvc.data import cub_files
from fgvc.data.datasets import cub as reader
from fgvc.data.index import check_counts, check_coverage
from fgvc.types import TEST, TRAIN, UserError


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def assert_refused(root: Path, message: str, partial: bool = False) -> None:
    with pytest.raises(UserError, match=message) as caught:
        reader.read(root, partial)
    assert "\n" not in str(caught.value)


def test_columns(cub):
    index = reader.read(cub, partial=False)
    assert len(index) == 27
    assert index.path[0] == "images/001.Black_Gull/bird 0 ü=1.jpg"
    assert all((cub / path).is_file() for path in index.path)
    assert index.labelmap.ids == ("1", "2", "3")
    assert index.labelmap.names[2] == "003.Red_Wren"
    assert index.label_N.tolist() == [0] * 9 + [1] * 9 + [2] * 9
    assert index.label_N.dtype == np.int64
    assert index.split_N.tolist() == ([TRAIN] * 6 + [TEST] * 3) * 3
    assert index.split_N.dtype == np.uint8


def test_boxes_and_parts(cub):
    index = reader.read(cub, partial=False)
    assert index.box_N4 is not None
    assert index.parts is not None
    assert index.box_N4.dtype == index.parts.xy_NK2.dtype == np.float32
    assert index.box_N4[4].tolist() == [1.0, 2.0, 30.0, 20.5]
    assert index.parts.names == ("beak", "left eye")
    assert index.parts.xy_NK2[0, 0].tolist() == [10.0, 12.5]
    assert np.isnan(index.parts.xy_NK2[:, 1]).all()


def test_boxes_and_parts_may_be_absent(cub):
    (cub / "bounding_boxes.txt").unlink()
    (cub / "parts" / "part_locs.txt").unlink()
    index = reader.read(cub, partial=False)
    assert index.box_N4 is None
    assert index.parts is None


def test_root_may_be_the_parent(cub, tmp_path):
    inner = tmp_path / "data" / "CUB_200_2011"
    inner.parent.mkdir()
    cub.rename(inner)
    assert reader.read(inner.parent, partial=False).root == inner


def test_order_of_lines_changes_no_label(cub):
    before = reader.read(cub, partial=False)
    for name in ("image_class_labels", "train_test_split", "classes", "bounding_boxes"):
        file = cub / f"{name}.txt"
        file.write_text("\n".join(reversed(file.read_text().split("\n"))))
    after = reader.read(cub, partial=False)
    assert after.labelmap == before.labelmap
    assert after.label_N.tolist() == before.label_N.tolist()
    assert after.split_N.tolist() == before.split_N.tolist()


def test_windows_line_ends_and_byte_order_mark(cub):
    before = reader.read(cub, partial=False)
    for name in ("images", "classes"):
        file = cub / f"{name}.txt"
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    after = reader.read(cub, partial=False)
    assert (after.path, after.labelmap) == (before.path, before.labelmap)


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("classes", "2 002.Grey_Gull", "2 001.Black_Gull", "name listed twice: 001.Black_Gull"),
        ("classes", "2 002.Grey_Gull", "3 002.Grey_Gull", "class id listed twice: 3"),
        ("classes", "3 003.Red_Wren", "4 003.Red_Wren", "class ids 1 to 4 lack 3.*partial=true"),
        ("classes", "3 003.Red_Wren", "three 003.Red_Wren", r"classes\.txt:3: expected a number"),
        ("classes", "3 003.Red_Wren", "3", r"classes\.txt:3: expected 2 columns, found '3'"),
        ("classes", "\n3 003.Red_Wren", "", "class ids that classes.txt does not list: 3"),
        ("image_class_labels", "1 1\n", "1 0\n", "does not list: 0 .it lists 1 to 3"),
        ("image_class_labels", "1 1\n", "", "lacks image ids 1 of images.txt"),
        ("image_class_labels", "1 1\n", "1 1\n99 1\n", "images.txt does not list: 99"),
        ("image_class_labels", "1 1\n", "1 1\n1 2\n", r"labels\.txt:2: image id 1 listed twice"),
        (
            "image_class_labels",
            "1 1\n",
            "1 2\n",
            "1 images are in the folder of another class.*002",
        ),
        (
            "image_class_labels",
            "1 1\n",
            "1 1.5\n",
            r"labels\.txt:1: expected a number, found '1.5'",
        ),
        ("train_test_split", "1 1\n", "", "lacks image ids 1"),
        ("train_test_split", "1 1\n", "1 2\n", "is_training is 0 or 1, not 2"),
        ("images", "2 001", "1 001", r"images\.txt:2: image id 1 listed twice"),
        ("images", "bird 1 ü", "bird 0 ü", "path listed twice"),
        ("images", "001.Black_Gull/bird 0", "../bird 0", r"images\.txt:1: expected a path inside"),
        ("bounding_boxes", "1 1.0 2.0 30.0 20.5", "1 1.0 2.0", r"boxes\.txt:1: expected 5 columns"),
        (
            "bounding_boxes",
            "1 1.0 2.0 30.0 20.5",
            "1 1.0 2.0 30.0 20.5\n1 1.0 1.0 9.0 9.0",
            r"boxes\.txt:2: image id 1 listed twice",
        ),
        (
            "parts/part_locs",
            "1 1 10.0",
            "1 9 10.0",
            r"part_locs\.txt:1: part 9 is not in parts.txt",
        ),
    ],
)
def test_contradictions_are_refused(cub, name, old, new, message):
    edit(cub / f"{name}.txt", old, new)
    assert_refused(cub, message)


@pytest.mark.fault(25)
def test_swapped_class_names_are_seen_in_the_folders(cub):
    (cub / "classes.txt").write_text("1 002.Grey_Gull\n2 001.Black_Gull\n3 003.Red_Wren\n")
    assert_refused(cub, "18 images are in the folder of another class")


def test_a_partial_copy_may_have_gaps(cub):
    edit(cub / "classes.txt", "3 003.Red_Wren", "7 003.Red_Wren")
    labels = cub / "image_class_labels.txt"
    labels.write_text(re.sub(r" 3\n", " 7\n", labels.read_text()))
    assert_refused(cub, "lack 3, 4, 5, 6")
    index = reader.read(cub, partial=True)
    assert index.labelmap.ids == ("1", "2", "7")
    assert index.label_N.max() == 2


def test_images_txt_alone_names_the_files_to_add(cub):
    for name in cub_files.INDEX_FILES[1:]:
        (cub / name).unlink()
    missing = ", ".join(cub_files.INDEX_FILES[1:])
    assert_refused(cub, f"^{re.escape(str(cub))}: holds no {missing}; take them from CUB_200_2011")


@pytest.mark.parametrize("name", cub_files.INDEX_FILES)
def test_missing_index_file_is_named(cub, name):
    (cub / name).unlink()
    assert_refused(cub, f"holds no {re.escape(name)}")


def test_missing_root(tmp_path):
    assert_refused(tmp_path / "nowhere", "nowhere: no such folder; set dataset.root=")


def test_the_older_cub_is_recognised(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "files.txt").touch()
    assert_refused(tmp_path, r"CUB-200 \(2010\)")


def official_counts(**counts: int) -> schema.OfficialCounts:
    return schema.OfficialCounts(**({"classes": 3, "train": 18, "test": 9} | counts))


def test_counts(cub):
    index = reader.read(cub, partial=False)
    assert check_counts(index, official_counts(), partial=False) == (False, ())
    none = official_counts(classes=0, train=0, test=0)
    assert check_counts(index, none, partial=False) == (False, ())
    partial, notes = check_counts(index, official_counts(), partial=True)
    assert not partial
    assert "complete" in notes[0]
    with pytest.raises(UserError, match=r"18 of 20 train.*dataset\.partial=true"):
        check_counts(index, official_counts(train=20), partial=False)
    assert check_counts(index, official_counts(train=20), partial=True) == (
        True,
        ("partial copy: 18 of 20 train",),
    )
    for partial in (False, True):
        with pytest.raises(UserError, match="9 of 8 test: more than the official"):
            check_counts(index, official_counts(test=8), partial)


def test_class_without_training_image_is_refused_and_without_test_image_noted(cub):
    split = cub / "train_test_split.txt"
    lines = split.read_text().split("\n")
    split.write_text("\n".join([f"{i + 1} 0" for i in range(9)] + lines[9:]))
    with pytest.raises(UserError, match=r"1 of 3 classes have no training image \(001"):
        check_coverage(reader.read(cub, partial=False))
    split.write_text("\n".join([f"{i + 1} 1" for i in range(9)] + lines[9:]))
    notes = check_coverage(reader.read(cub, partial=False))
    assert notes == ("1 class has no test image (001.Black_Gull)",)
