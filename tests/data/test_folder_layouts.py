"""reader=folder: finding the classes below the root, split folders, and ambiguous roots.

Where torchvision's ImageFolder reads the same folder, its samples are the oracle.
"""

from __future__ import annotations

import numpy as np
import pytest
from torchvision.datasets import ImageFolder

from fgvc.data.datasets import folder
from fgvc.types import TEST, TRAIN, VAL, UserError

BIRDS = {"gull": 3, "wren": 2}


def read(root, fraction=0.25):
    return folder.read(root, fraction, 0)


def counts_under(*folders, classes=BIRDS):
    """Counts of images of the classes in each folder."""
    return {f"{place}/{name}": count for place in folders for name, count in classes.items()}


def samples(index, split=None):
    """(path, class) of the images of a split; None: of all splits."""
    rows = range(len(index)) if split is None else np.flatnonzero(index.split_N == split).tolist()
    names = index.labelmap.names
    return {(index.root / index.path[row], names[index.label_N[row]]) for row in rows}


def imagefolder_samples(place):
    """The samples of torchvision's ImageFolder."""
    read_by = ImageFolder(str(place))
    return {(type(place)(path), read_by.classes[label]) for path, label in read_by.samples}


def assert_refused(root, *parts, fraction=0.25):
    with pytest.raises(UserError) as caught:
        read(root, fraction)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    return message


# --- a root that is too high, or too low ---


@pytest.mark.parametrize(
    "below", ["birds", "images", "archive/birds-525", "birds/birds", "a/b/c", "train"]
)
def test_classes_below_the_root_are_found_and_reported(classes, below):
    root = classes(counts_under(below))
    index = read(root)
    assert samples(index) == imagefolder_samples(root / below)
    message = any(f"read {root / below}" in note for note in index.notes)
    assert (message, index.root) == ((False, root) if below == "train" else (True, root / below))
    assert index.test_source == "carved"


@pytest.mark.parametrize("below", ["birds", "archive/birds-525", "birds/birds"])
def test_splits_below_the_root_are_found_and_reported(classes, below):
    root = classes(counts_under(f"{below}/train", f"{below}/test"))
    (root / below / "README.txt").touch()
    (root / "licence.pdf").touch()
    index = read(root)
    for split, name in ((TRAIN, "train"), (TEST, "test")):
        assert samples(index, split) == imagefolder_samples(root / below / name)
    assert any(f"read {root / below}" in note for note in index.notes)


def test_images_by_session_stay_in_their_class(classes):
    root = classes({"gull/2019": 2, "gull/2020": 1, "wren/2019": 2, "owl": 2})
    assert samples(read(root)) == imagefolder_samples(root)


def test_subfolders_of_every_class_are_reported(classes):
    index = read(classes({f"{c}/{s}": 2 for c in BIRDS for s in ("adult", "juvenile")}))
    assert index.labelmap.names == ("gull", "wren")
    assert any("adult, juvenile" in note for note in index.notes)


@pytest.mark.parametrize(
    "places",
    [("gull",), ("train/gull",), ("a/gull",), ("a/b/c/gull",), ("train/gull", "test/gull")],
)
def test_one_class_is_refused(classes, places):
    assert_refused(classes(dict.fromkeys(places, 4)), "dataset.root=", "one class (gull)")


def test_a_class_folder_as_root_names_the_folder_above(classes):
    root = classes({"gull": 3, "wren": 2})
    message = assert_refused(
        root / "gull", f"dataset.root={root / 'gull'}", f"dataset.root={root},"
    )
    assert "3 images" in message
    assert len(read(root)) == 5


def test_two_datasets_below_the_root_are_ambiguous(classes):
    root = classes(counts_under("cub/train", "cub/test", "dogs/train", "dogs/test"))
    assert_refused(root, f"dataset.root={root / 'cub'}", f"dataset.root={root / 'dogs'}")
    assert len(read(root / "cub")) == 10


def test_one_dataset_beside_other_images_is_found(classes):
    root = classes({**counts_under("birds/train", "birds/test"), "docs": 1})
    index = read(root)
    assert index.root == root / "birds"
    assert any("docs" in note for note in index.notes)


@pytest.mark.parametrize("other", ["docs", "masks/gull", "annotations/trimaps"])
def test_images_beside_other_images_are_ambiguous(classes, other):
    root = classes({**counts_under("images"), other: 2})
    assert_refused(root, f"dataset.root={root / 'images'}")
    assert samples(read(root / "images")) == imagefolder_samples(root / "images")


def test_versions_of_the_same_images_are_ambiguous(classes):
    root = classes(counts_under("original", "augmented"))
    assert_refused(root, f"dataset.root={root / 'original'}", f"dataset.root={root / 'augmented'}")


def test_a_nested_copy_is_skipped(classes):
    """As in Kaggle's flowers: flowers/flowers/daisy beside flowers/daisy."""
    root = classes({**BIRDS, **counts_under("moths")})
    assert root.name == "moths"
    index = read(root)
    assert index.labelmap.names == ("gull", "wren")
    assert len(index) == 5
    assert any("moths" in note and "5 images" in note for note in index.notes)


def test_a_nested_copy_of_the_splits_is_skipped(classes):
    root = classes(counts_under("train", "test", "moths/train", "moths/test"))
    index = read(root)
    assert len(index) == 10
    assert any("moths" in note and "10 images" in note for note in index.notes)


@pytest.mark.parametrize("sibling", ["test", "Validation"])
def test_a_root_too_low_is_reported(classes, sibling):
    root = classes(counts_under("train", sibling))
    index = read(root / "train")
    assert samples(index) == imagefolder_samples(root / "train")
    assert any(
        str(root / sibling) in note and f"dataset.root={root}" in note for note in index.notes
    )


def test_images_without_class_folders_name_the_table(classes):
    root = classes({"train": 3})
    (root / "train.csv").write_text("path,label\n")
    assert_refused(root, "dataset.table=" + str(root / "train.csv"))


# --- splits ---


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Training", "Testing"),
        ("TRAIN", "TEST"),
        ("train_set", "test_set"),
        ("Training Data", "Test Data"),
        ("cars_train", "cars_test"),
        ("images.train", "images.test"),
        ("01_train", "02_test"),
        ("training_set/training_set", "test_set/test_set"),
        ("seg_train/seg_train", "seg_test/seg_test"),
        ("train/train", "test/test"),
        ("train/images", "test/images"),
    ],
)
def test_train_and_test_by_other_names(classes, train, test):
    root = classes(counts_under(train, test))
    index = read(root)
    assert samples(index, TRAIN) == imagefolder_samples(root / train)
    assert samples(index, TEST) == imagefolder_samples(root / test)
    assert index.test_source == "test"
    assert any(train.split("/")[0] in note and test.split("/")[0] in note for note in index.notes)


@pytest.mark.parametrize(
    ("train", "val"), [("train", "val"), ("training", "validation"), ("Train", "dev")]
)
def test_val_is_the_test_where_there_is_no_test(classes, train, val):
    root = classes(counts_under(train, val))
    index = read(root, fraction=0.0)
    assert samples(index, TRAIN) == imagefolder_samples(root / train)
    assert samples(index, TEST) == imagefolder_samples(root / val)
    assert not (index.split_N == VAL).any()
    assert index.test_source == "val"


def test_val_is_validation_where_there_is_a_test(classes):
    root = classes(counts_under("train", "valid", "test"))
    (root / "data.yaml").touch()
    index = read(root)
    for split, name in ((TRAIN, "train"), (VAL, "valid"), (TEST, "test")):
        assert samples(index, split) == imagefolder_samples(root / name)
    assert index.test_source == "test"


def test_only_train_carves_a_test(classes):
    root = classes(counts_under("train"))
    index = read(root)
    assert samples(index) == imagefolder_samples(root / "train")
    assert np.bincount(index.label_N[index.split_N == TEST]).tolist() == [1, 1]
    assert index.test_source == "carved"
    assert_refused(root, "dataset.test_fraction=0.0", "no test", fraction=0.0)


@pytest.mark.parametrize("names", [("test",), ("test", "val"), ("val",)])
def test_without_train_the_way_out_works(classes, names):
    root = classes(counts_under(*names))
    assert_refused(root, "no train/", f"dataset.root={root / names[0]}")
    assert len(read(root / names[0])) == 5
    (root / names[0]).rename(root / "train")
    assert len(read(root)) == 5 * len(names)


@pytest.mark.parametrize("pair", [("train", "training"), ("val", "valid"), ("train", "train2")])
def test_two_folders_for_one_split_are_refused(classes, pair):
    root = classes(counts_under("train", "test", *pair))
    assert_refused(root, f"{pair[0]}/", f"{pair[1]}/")


def test_a_split_and_its_alias_are_one(classes):
    root = classes(counts_under("train", "test"))
    (root / "training").symlink_to("train")
    assert len(read(root)) == 10


def test_a_class_named_like_a_split_is_a_class(classes):
    root = classes({"train": 3, "car": 3, "plane/jet": 3})
    assert samples(read(root)) == imagefolder_samples(root)


@pytest.mark.parametrize(
    "names",
    [
        ("train", "test"),
        ("training", "validation"),
        ("Train", "VALID", "Test"),
        ("train", "test", "x"),
        ("cars_train", "cars_test"),
        ("trainA", "testA", "trainB", "testB"),
        ("images", "masks"),
        ("JPEGImages", "SegmentationClass", "SegmentationObject"),
        ("HAM10000_images_part_1", "HAM10000_images_part_2"),
        ("batch1", "batch2", "batch10"),
        ("fold_0/gull", "fold_0/wren", "fold_1/gull", "fold_1/wren"),
        ("drive-download-2020-001", "drive-download-2020-002"),
        ("train/images", "train/masks", "test/images", "test/masks"),
    ],
)
def test_classes_that_are_named_like_splits_are_refused(classes, names):
    split_names = {
        name.split("/")[0] if "fold" in name else name.split("/")[-1] for name in names[:2]
    }
    assert_refused(classes(dict.fromkeys(names, 3)), *split_names, "dataset=table", "rename them")


@pytest.mark.parametrize("test", ["test", "test/images", "test1/test1", "test/unknown"])
def test_a_test_without_labels_is_no_test(classes, test):
    root = classes({**counts_under("train", "val"), test: 4})
    index = read(root)
    assert samples(index, TEST) == imagefolder_samples(root / "val")
    assert index.test_source == "val"
    assert any(test.split("/")[0] in note and "4 images" in note for note in index.notes)
    only_train = read(root / "train")
    assert only_train.test_source == "carved"


def test_images_of_all_classes_in_one_folder_are_refused(classes):
    """A detection dataset, as exported by Roboflow."""
    root = classes({f"{split}/images": 3 for split in ("train", "valid", "test")})
    (root / "train" / "labels").mkdir()
    (root / "train" / "labels" / "0.txt").touch()
    assert_refused(root, "one class (images)", "dataset=table")


def test_a_link_to_the_dataset_beside_it_is_the_same(classes):
    root = classes(counts_under("v2"))
    (root / "current").symlink_to("v2")
    assert samples(read(root)) == imagefolder_samples(root / "v2")


def test_an_archive_as_root_is_refused(classes):
    root = classes(counts_under("."))
    (root / "birds.zip").write_bytes(b"PK\x03\x04")
    assert_refused(
        root / "birds.zip",
        f"dataset.root={root / 'birds.zip'}: a file (ZIP archive), not a folder; unpack",
    )


def test_an_empty_test_folder_is_reported(classes):
    root = classes(counts_under("train"))
    (root / "test").mkdir()
    index = read(root)
    assert index.test_source == "carved"
    assert any("test/ holds no images" in note for note in index.notes)


@pytest.mark.fault(25)
@pytest.mark.parametrize("split", ["test", "val"])
def test_classes_that_train_lacks_are_refused(classes, split):
    root = classes({**counts_under("train", "test", "val"), f"{split}/owl": 1})
    assert_refused(root, f"{root / split}: holds classes that train/ lacks: owl")
    (root / split / "owl").rename(root / "owl")
    assert len(read(root)) == 15


def test_a_stray_image_beside_class_folders_is_reported(classes):
    root = classes({**counts_under("train", "test"), "train": 2})
    index = read(root)
    assert len(index) == 10
    assert any("2 images" in note and "train" in note for note in index.notes)


def test_a_class_folder_beside_the_splits_is_reported(classes):
    root = classes({**counts_under("train", "test"), "owl": 4, "train_extra/gull": 2})
    index = read(root)
    assert len(index) == 10
    assert any("owl (4 images)" in note for note in index.notes)
    assert any("train_extra (2 images)" in note for note in index.notes)


def test_train_beside_several_classes_is_ambiguous(classes):
    root = classes({"train/steam": 2, "train/diesel": 2, "car": 2, "plane": 2})
    assert_refused(root, f"dataset.root={root / 'train'}", "car, plane")
    assert read(root / "train").labelmap.names == ("diesel", "steam")


def test_splits_within_each_class(classes):
    root = classes({f"{name}/{split}": 2 for name in BIRDS for split in ("train", "Test")})
    index = read(root)
    assert index.labelmap.names == ("gull", "wren")
    assert index.test_source == "test"
    assert {path.parent.name for path, _ in samples(index, TRAIN)} == {"train"}
    assert {path.parent.name for path, _ in samples(index, TEST)} == {"Test"}
    assert len(index) == 8
    (root / "wren" / "0.jpg").write_bytes((root / "wren" / "train" / "0.jpg").read_bytes())
    assert_refused(root, "wren/", "gull/")


def test_a_split_list_that_is_not_read_is_named(classes):
    root = classes(counts_under("images"))
    (root / "meta").mkdir()
    (root / "meta" / "train.txt").touch()
    (root / "meta" / "test.txt").touch()
    assert any("meta/test.txt, meta/train.txt" in note for note in read(root).notes)


# --- what Kaggle's archives hold ---


def test_splits_of_fer2013(classes):
    root = classes(counts_under("Training", "PublicTest", "PrivateTest"))
    index = read(root)
    for split, name in ((TRAIN, "Training"), (VAL, "PublicTest"), (TEST, "PrivateTest")):
        assert samples(index, split) == imagefolder_samples(root / name)


def test_a_copy_of_all_classes_is_skipped_for_any_name_of_the_root(classes):
    root = classes({**BIRDS, **counts_under("flowers")})
    index = read(root)
    assert index.labelmap.names == ("gull", "wren")
    assert any("flowers" in note and "5 images" in note for note in index.notes)


def test_a_class_with_folders_like_other_classes_stays_a_class(classes):
    root = classes({"gull": 3, "wren": 3, "hybrid/gull": 2, "hybrid": 2})
    assert read(root).labelmap.names == ("gull", "hybrid", "wren")


def test_a_dataset_beside_a_test_without_labels_is_found(classes):
    root = classes({**counts_under("leaves/leaves/train", "leaves/leaves/valid"), "test/test": 4})
    index = read(root)
    assert samples(index, TRAIN) == imagefolder_samples(root / "leaves/leaves/train")
    assert any("test (4 images)" in note for note in index.notes)


@pytest.mark.parametrize("names", [("gull ", "gull"), ("wren.", "wren"), ("wren. ", "Wren")])
def test_names_that_are_equal_on_windows_are_refused(classes, names):
    assert_refused(classes({**dict.fromkeys(names, 3), "robin": 3}), *names)


def test_subfolders_of_every_class_are_reported_for_splits_too(classes):
    """iNaturalist 2018: the folders in train_val2018/ are Aves, Plantae."""
    root = classes({f"train_val2018/{place}": 3 for place in ("Aves/1", "Aves/2", "Plantae/3")})
    index = read(root)
    assert index.labelmap.names == ("Aves", "Plantae")
    assert any("hold only folders (1, 2, 3)" in note for note in index.notes)


@pytest.mark.fault(39)
def test_ways_out_are_quoted_as_the_shell_and_hydra_take_them(classes):
    root = classes(counts_under("All (v2)/color", "All (v2)/segmented"))
    assert_refused(root, f"'dataset.root=\"{root / 'All (v2)/color'}\"'")


@pytest.mark.parametrize(
    "names",
    [
        ("class_1", "class_2"),
        ("c0", "c1"),
        ("grade1", "grade2"),
        ("part_a", "part_b"),
        ("raw", "new"),
    ],
)
def test_numbered_classes_and_usual_words_stay_classes(classes, names):
    root = classes(dict.fromkeys(names, 3))
    assert samples(read(root)) == imagefolder_samples(root)


def test_a_class_named_like_a_tools_folder_stays_a_class(classes):
    root = classes({"CVS": 3, "Walgreens": 3})
    assert samples(read(root)) == imagefolder_samples(root)


@pytest.mark.parametrize("copy", ["train/train", "train/train_images"])
def test_a_copy_of_the_classes_in_a_split_is_skipped(classes, copy):
    root = classes(counts_under("train", copy, "test"))
    index = read(root)
    assert index.labelmap.names == ("gull", "wren")
    assert len(index) == 10
    assert any(copy.split("/")[1] in note and "5 images" in note for note in index.notes)


def test_one_class_of_folders_beside_classes_of_images_is_reported(classes):
    root = classes({"labeled/gull": 3, "labeled/wren": 3, "unlabeled": 3})
    notes = read(root).notes
    assert any("labeled/" in note and "gull, wren" in note for note in notes)
    assert not any("by day" in note for note in read(classes({"robin/by day": 3})).notes)


def test_a_table_or_parquet_files_as_a_root_name_the_table_to_read(tmp_path):
    (tmp_path / "birds.csv").write_text("path,label\n")
    way_out = f"read it with dataset=table dataset.table={tmp_path}/birds.csv, or"
    assert_refused(tmp_path / "birds.csv", way_out)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    assert_refused(
        tmp_path, f"Parquet files with dataset=table dataset.table={tmp_path}/data, or set"
    )
