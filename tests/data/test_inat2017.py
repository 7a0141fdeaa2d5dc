"""reader=inat2017: two JSON files, joined on image_id and read as streams."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fgvc.data import json_stream
from fgvc.data.datasets import inat2017
from fgvc.types import TEST, TRAIN, UserError
from tests.narrow import not_none


def assert_refused(root: Path, message: str, partial: bool = False) -> None:
    with pytest.raises(UserError, match=message) as caught:
        inat2017.read(root, partial)
    assert "\n" not in str(caught.value)


def change(file: Path, edit) -> None:
    document = json.loads(file.read_text())
    edit(document)
    file.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("below", "annotations"), [(".", "."), ("inat", "inat"), ("pictures", "json/train_val2017")]
)
def test_columns(copies, below, annotations):
    index = inat2017.read(copies.inat2017(below, annotations), partial=False)
    assert index.labelmap.ids == ("0", "1", "2")
    assert index.labelmap.names == ("Abies alba", "Zosterops lateralis", "Aglais io")
    assert all((index.root / path).is_file() for path in index.path)
    for path, label in zip(index.path, index.label_N.tolist(), strict=True):
        assert path.split("/")[2] == index.labelmap.names[label]
    assert index.split_N.tolist() == [TRAIN] * 12 + [TEST] * 6
    assert not_none(index.size_N2).tolist() == [[60, 45]] * 18
    assert index.box_N4 is None


def test_the_supercategory_is_the_level_above(copies):
    above = not_none(inat2017.read(copies.inat2017(), partial=False).hierarchy)
    assert above.chain == (("Plantae",), ("Aves",), ("Insecta",))
    assert above.names["Aves"] == "Aves"


def test_boxes_are_the_first_of_each_image_and_only_of_some(copies):
    index = inat2017.read(copies.inat2017(boxes=True), partial=False)
    box_N4 = not_none(index.box_N4)
    assert (np.isnan(box_N4).all(axis=1) == (index.label_N == 0)).all()
    boxed = box_N4[index.label_N > 0]
    assert boxed.tolist() == [[5, 6, 20, 30]] * 12


def test_order_of_annotations_and_categories_changes_no_label(copies):
    root = copies.inat2017()
    before = inat2017.read(root, partial=False)

    def shuffle(document):
        document["annotations"].reverse()
        document["categories"].reverse()

    change(root / "train2017.json", shuffle)
    after = inat2017.read(root, partial=False)
    assert after.labelmap == before.labelmap
    assert after.label_N.tolist() == before.label_N.tolist()


def test_one_name_in_two_branches_is_distinguished(copies):
    root = copies.inat2017()
    for part in ("train", "val"):
        change(root / f"{part}2017.json", lambda w: w["categories"][1].update(name="Abies alba"))
        change(root / f"{part}2017.json", rename_folders)
    names = inat2017.read(root, partial=False).labelmap.names
    assert names == ("Abies alba (Plantae)", "Abies alba (Aves)", "Aglais io")


def rename_folders(document):
    for image in document["images"]:
        image["file_name"] = image["file_name"].replace("Zosterops lateralis", "Abies alba")


# --- train and val apart ---


def test_one_merged_file_is_refused_by_name(copies):
    root = copies.inat2017()
    train, val = (json.loads((root / f"{part}2017.json").read_text()) for part in ("train", "val"))
    for key in ("images", "annotations"):
        train[key] += val[key]
    for part in ("train", "val"):
        (root / f"{part}2017.json").unlink()
    (root / "train_val2017.json").write_text(json.dumps(train))
    assert_refused(root, r"train_val2017\.json: train and val merged into one file")
    (root / "train_val2017.json").rename(root / "train2017.json")
    assert_refused(
        root, r"train2017\.json: a single split, or train and val merged: val2017\.json is"
    )


def test_val_inside_train_is_refused(copies):
    root = copies.inat2017()
    val = json.loads((root / "val2017.json").read_text())

    def merge(document):
        document["images"] += val["images"]
        document["annotations"] += val["annotations"]

    change(root / "train2017.json", merge)
    assert_refused(
        root, r"train2017\.json: 6 images are also in val2017\.json .*train and val merged"
    )


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_single_split_is_refused(copies, part):
    root = copies.inat2017()
    (root / f"{part}2017.json").unlink()
    assert_refused(root, rf"a single split, or train and val merged: {part}2017\.json is missing")


def test_no_index_at_all(copies, tmp_path):
    root = copies.inat2017()
    for file in root.glob("*.json"):
        file.unlink()
    assert_refused(root, r"holds no train2017\.json and val2017\.json; set dataset\.root=")
    assert_refused(tmp_path / "nowhere", "no such folder")


def test_categories_that_differ_between_the_files(copies):
    root = copies.inat2017()
    change(root / "val2017.json", lambda w: w["categories"][2].update(name="Aglais urticae"))
    assert_refused(root, r"category ids with another meaning in val2017\.json: 2")


# --- contradictions ---


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w["annotations"].pop(), r"1 images without an annotation: 1000"),
        (lambda w: w["annotations"][0].update(image_id=5), "annotations of images it does not"),
        (lambda w: w["annotations"][0].update(category_id=9), "class ids that categories does not"),
        (lambda w: w["annotations"][0].update(category_id=0), "in the folder of another class"),
        (lambda w: w["annotations"][0].pop("image_id"), r"\(annotations\) has no image_id"),
        (lambda w: w["annotations"][0].update(image_id="a"), r"\(annotations\): "),
        (lambda w: w["images"][1].update(id=1000), "image id listed twice: 1000"),
        (lambda w: w["images"][1].update(file_name="../x.jpg"), "leaves the dataset"),
        (lambda w: w["images"][1].update(w["images"][0], id=7), "file_name listed twice"),
        (
            lambda w: w["annotations"].append({**w["annotations"][0], "category_id": 0}),
            "images of two categories",
        ),
        (lambda w: w["categories"][0].update(id=1), "category id 1 listed twice"),
        (lambda w: w.pop("images"), "lists no images"),
        (lambda w: w.pop("categories"), "lists no categories"),
    ],
)
def test_contradictions_are_refused(copies, edit, message):
    root = copies.inat2017()
    change(root / "train2017.json", edit)
    assert_refused(root, message)


def test_a_partial_copy_leaves_out_categories_without_images(copies):
    root = copies.inat2017()
    for part in ("train", "val"):
        change(root / f"{part}2017.json", without_birds)
    index = inat2017.read(root, partial=True)
    assert index.labelmap.ids == ("0", "2")
    assert not_none(index.hierarchy).chain == (("Plantae",), ("Insecta",))


def without_birds(document):
    birds = {mark["image_id"] for mark in document["annotations"] if mark["category_id"] == 1}
    document["images"] = [image for image in document["images"] if image["id"] not in birds]
    document["annotations"] = [m for m in document["annotations"] if m["image_id"] not in birds]


# --- the stream ---


def test_damaged_json_is_named(copies):
    root = copies.inat2017()
    text = (root / "train2017.json").read_text()
    for broken in (text[: len(text) // 2], text.replace("[", "(", 1), "", "[1, 2]", "<html>"):
        (root / "train2017.json").write_text(broken)
        assert_refused(root, r"train2017\.json: no JSON object, or a damaged one")


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_for_any_size_of_the_pieces(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    document = {
        "info": {"a": [1, {"b": "]}"}]},
        "images": [{"id": 12345, "n": 'é " ] , }'}, {"id": 2}],
        "empty": [],
        "n": 12.5e3,
        "last": [1, 23, None, "x"],
    }
    file = tmp_path / "x.json"
    file.write_text(json.dumps(document, indent=indent, ensure_ascii=False), encoding="utf-8")
    expected = [
        ("info", document["info"]),
        *(("images", image) for image in document["images"]),
        ("n", 12500.0),
        *(("last", value) for value in document["last"]),
    ]
    assert list(json_stream.members(file)) == expected


def test_memory_does_not_grow_with_the_file(tmp_path):
    file = tmp_path / "x.json"
    row = json.dumps({"id": 1, "text": "x" * 1000})
    with file.open("w") as out:
        out.write('{"images": [' + ", ".join([row] * 30_000) + "]}")
    tracemalloc.start()
    count = sum(1 for _ in json_stream.members(file))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 30_000
    assert file.stat().st_size > 30e6
    assert peak < 12e6


def test_missing_images_folder_is_left_to_the_manifest_to_name(copies):
    root = copies.inat2017()
    shutil.rmtree(root / "train_val_images")
    assert inat2017.read(root, partial=False).root == root


def test_an_index_costs_a_few_hundred_bytes_an_image(tmp_path):
    count, classes = 20_000, 50
    for part, first in (("train", 0), ("val", count)):
        number = range(first, first + count)
        path = "train_val_images/Aves/Genus species{}/{:032x}.jpg"
        images = [
            {
                "id": n,
                "width": 800,
                "height": 600,
                "file_name": path.format(n % classes, n),
                "rights_holder": "x" * 200,
            }
            for n in number
        ]
        marks = [{"id": n, "image_id": n, "category_id": n % classes} for n in number]
        names = [f"Genus species{k}" for k in range(classes)]
        rows = [{"id": k, "name": n, "supercategory": "Aves"} for k, n in enumerate(names)]
        document = {"images": images, "annotations": marks, "categories": rows}
        (tmp_path / f"{part}2017.json").write_text(json.dumps(document))
    del document, images, marks
    tracemalloc.start()
    index = inat2017.read(tmp_path, partial=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(index) == 2 * count
    strings = sum(len(path) + 49 for path in index.path)
    assert (peak - strings) / len(index) < 400
