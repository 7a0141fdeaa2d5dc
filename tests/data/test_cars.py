"""reader=cars: both layouts, nested copies, and annotations that do not match the images."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from fgvc.config import schema
from fgvc.data import dataset
from fgvc.data.datasets import cars
from fgvc.types import TEST, TRAIN, UserError
from tests.narrow import not_none

NAMES = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo 2012")


def assert_refused(root: Path, message: str, partial: bool = False) -> None:
    with pytest.raises(UserError, match=message) as caught:
        cars.read(root, partial)
    assert "\n" not in str(caught.value)


def rewrite(file: Path, field: str, values: list) -> None:
    """Put other values into a field of a file's struct array."""
    variables = loadmat(file)
    for row, value in zip(variables["annotations"][0], values, strict=True):
        row[field] = value
    savemat(file, {name: variables[name] for name in variables if not name.startswith("__")})


@pytest.mark.parametrize("layout", ["whole", "devkit"])
def test_columns(copies, layout):
    root = copies.cars(layout)
    index = cars.read(root, partial=False)
    assert index.labelmap.ids == ("1", "2", "3")
    assert index.labelmap.names == NAMES
    assert index.label_N.dtype == np.int64
    assert np.bincount(index.label_N[index.split_N == TRAIN]).tolist() == [4, 4, 4]
    assert np.bincount(index.label_N[index.split_N == TEST]).tolist() == [2, 2, 2]
    box_N4 = not_none(index.box_N4)
    assert box_N4.dtype == np.float32
    assert box_N4.tolist() == [[5, 6, 20, 30]] * 18
    assert all((index.root / path).is_file() for path in index.path)
    assert labels_by_brightness(index) == index.label_N.tolist()


def labels_by_brightness(index) -> list[int]:
    from PIL import Image

    means = [np.asarray(Image.open(index.root / path)).mean() for path in index.path]
    return [round((mean - 30) / 80) for mean in means]


def test_the_two_layouts_name_their_images_as_they_are_published(copies):
    index = cars.read(copies.cars("devkit"), partial=False)
    assert index.path[0] == "cars_train/00001.jpg"
    assert index.path[12] == "cars_test/00001.jpg"
    assert (index.split_N == [TRAIN] * 12 + [TEST] * 6).all()
    index = cars.read(copies.cars("whole"), partial=False)
    assert index.path[0] == "car_ims/000001.jpg"


@pytest.mark.parametrize("labels", [".", "devkit"])
def test_test_labels_at_the_root_or_in_the_devkit(copies, labels):
    assert len(cars.read(copies.cars(labels=labels), partial=False)) == 18


@pytest.mark.parametrize("layout", ["whole", "devkit"])
@pytest.mark.parametrize("above", [".", "stanford_cars", "mirror/v2"])
def test_nested_mirrors(copies, tmp_path, layout, above):
    root = copies.cars(layout, nested="{}/")
    outer = tmp_path / "outer"
    (outer / above).parent.mkdir(parents=True, exist_ok=True)
    root.rename(outer / above) if above != "." else root.rename(outer)
    index = cars.read(outer, partial=False)
    assert all((index.root / path).is_file() for path in index.path)
    assert labels_by_brightness(index) == index.label_N.tolist()


def test_196_classes_do_not_wrap_around_in_uint8(copies):
    root = copies.cars("whole")
    file = root / "cars_annos.mat"
    variables = loadmat(file)
    names = np.empty((1, 256), dtype=object)
    names[0] = [f"car {number}" for number in range(1, 257)]
    for row in variables["annotations"][0]:
        row["class"] = np.array([[255]], np.uint8)
        row["bbox_x1"], row["bbox_x2"] = np.array([[250]], np.uint8), np.array([[10]], np.uint8)
    savemat(file, {"annotations": variables["annotations"], "class_names": names})
    index = cars.read(root, partial=True)
    assert index.labelmap.names == ("car 255",)
    assert not_none(index.box_N4)[0].tolist() == [250, 6, -240, 30]


def test_plain_test_annotations_have_no_classes(copies):
    assert_refused(
        copies.cars(labels=None),
        r"cars_test_annos\.mat: holds no classes.*put cars_test_annos_withlabels\.mat",
    )


def test_annotations_of_the_other_layout_are_refused(copies):
    root = copies.cars("devkit")
    shutil.rmtree(root / "devkit")
    copies.cars("whole")
    shutil.rmtree(root / "car_ims")
    assert_refused(root, r"cars_annos\.mat numbers the images of car_ims/.*get the devkit")


def test_annotations_that_name_other_files_are_refused_with_the_first(copies, conf, tmp_path):
    root = copies.cars("devkit")
    for file in sorted((root / "cars_train").iterdir(), reverse=True):
        file.rename(file.with_name(f"{int(file.stem) + 3:05d}.jpg"))
    with pytest.raises(UserError, match=r"cars_train/00001\.jpg: missing \(3 of 18 "):
        dataset.load(conf("cars", root), tmp_path / "cache")


@pytest.mark.fault(25)
@pytest.mark.parametrize(
    ("file", "field", "value", "message"),
    [
        (
            "cars_train_annos",
            "class",
            0,
            r"class ids that cars_meta\.mat does not list: 0 .*1 to 3",
        ),
        ("cars_test_annos_withlabels", "class", 4, r"withlabels\.mat: class ids .*: 4 .*1 to 3"),
        ("cars_train_annos", "class", 1.5, "class holds numbers that are not whole"),
        ("cars_train_annos", "class", "x", "class holds a value that is not a number"),
        ("cars_train_annos", "fname", "00001.jpg", "image listed twice: 00001.jpg"),
    ],
)
def test_contradictions_are_refused(copies, file, field, value, message):
    root = copies.cars("devkit")
    path = root / "devkit" / f"{file}.mat"
    count = loadmat(path)["annotations"].size
    rewrite(path, field, [value] * count)
    assert_refused(root, message)


def test_a_file_that_is_no_mat(copies):
    root = copies.cars("devkit")
    (root / "devkit" / "cars_meta.mat").write_text("<html>Not found</html>")
    assert_refused(root, r"cars_meta\.mat: no MATLAB file, or a damaged one")


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("devkit/cars_meta.mat", r"holds cars_train/ but no cars_meta\.mat; get the devkit"),
        ("devkit/cars_train_annos.mat", r"holds cars_train/ but no cars_train_annos\.mat"),
        ("cars_test", "holds cars_train/ but no cars_test/"),
        ("cars_train", "holds neither car_ims/ with cars_annos"),
    ],
)
def test_what_is_missing_is_named(copies, missing, message):
    root = copies.cars("devkit", labels=".")
    victim = root / missing
    shutil.rmtree(victim) if victim.is_dir() else victim.unlink()
    assert_refused(root, message)


def test_missing_root(tmp_path):
    assert_refused(tmp_path / "nowhere", "nowhere: no such folder; set dataset.root=")


def test_a_partial_copy_leaves_out_classes_without_images(copies, conf, tmp_path):
    root = copies.cars("whole")
    file = root / "cars_annos.mat"
    variables = loadmat(file)
    keep = [row["class"].item() != 2 for row in variables["annotations"][0]]
    cut = variables["annotations"][:, keep]
    savemat(file, {"annotations": cut, "class_names": variables["class_names"]})
    official = schema.OfficialCounts(3, 12, 6)
    loaded = dataset.load(conf("cars", root, partial=True, official=official), tmp_path / "cache")
    assert loaded.labelmap.ids == ("1", "3")
    assert loaded.notes == ("partial copy: 2 of 3 classes, 8 of 12 train, 4 of 6 test",)
    with pytest.raises(UserError, match=r"8 of 12 train.*dataset\.partial=true"):
        dataset.load(conf("cars", root, official=official), tmp_path / "cache")
