"""fgvc.data.dataset.load and conf/dataset/*.yaml: config node -> dataset ready to be read."""

from __future__ import annotations

import hashlib
import json
import random
import re
import unicodedata
from dataclasses import asdict, astuple, fields, replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from fgvc.config import schema
from fgvc.data import dataset
from fgvc.data.dataset_spec import readers
from fgvc.data.index import check_boxes, take
from fgvc.types import ABSENT, TEST, TRAIN, Manifest, Split, UserError, nfc
from tests.narrow import not_none

CONF = Path(__file__).parents[2] / "conf" / "dataset"


def test_cub(conf, cub, tmp_path):
    progress = []
    loaded = dataset.load(
        conf("cub", cub), tmp_path / "cache", lambda n, note="": progress.append(n)
    )
    assert (loaded.name, loaded.partial, loaded.notes, loaded.subset) == ("cub", False, (), None)
    assert sum(progress) == len(loaded.manifest) == 27
    assert loaded.card["license"] == "CC0-1.0"
    split = loaded.split
    assert (len(split.train_N), len(split.val_N), len(split.test_N)) == (14, 4, 9)
    assert (loaded.manifest.split_N[split.val_N] == TRAIN).all()
    assert (loaded.manifest.split_N[split.test_N] == TEST).all()


def test_partial_copy_has_to_be_accepted(conf, cub, tmp_path):
    official = schema.OfficialCounts(200, 5994, 5794)
    with pytest.raises(UserError, match=r"3 of 200 classes.*dataset\.partial=true"):
        dataset.load(conf("cub", cub, official=official), tmp_path / "cache")
    loaded = dataset.load(conf("cub", cub, official=official, partial=True), tmp_path / "cache")
    assert loaded.partial
    assert loaded.notes == ("partial copy: 3 of 200 classes, 18 of 5994 train, 9 of 5794 test",)


def test_folder(conf, classes, tmp_path):
    root = classes({"gull": 8, "wren": 8})
    loaded = dataset.load(conf("folder", root), tmp_path / "cache")
    assert loaded.labelmap.names == ("gull", "wren")
    assert (len(loaded.split.train_N), len(loaded.split.val_N), len(loaded.split.test_N)) == (
        10,
        2,
        4,
    )


def test_changed_files_of_the_user_are_a_new_manifest_with_a_note(conf, classes, jpeg, tmp_path):
    root = classes({"gull": 8, "wren": 8})
    table = tmp_path / "birds.csv"
    rows = [f"moths/{name}/{n}.jpg,{name}" for name in ("gull", "wren") for n in range(8)]
    table.write_text("\n".join(["path,label", *rows]))
    confs = conf("folder", root), conf("table", tmp_path, table=str(table))
    before = [dataset.load(chosen, tmp_path / "cache").manifest.digest for chosen in confs]
    (root / "wren" / "3.jpg").write_bytes(jpeg(77))
    for chosen, digest in zip(confs, before, strict=True):
        loaded = dataset.load(chosen, tmp_path / "cache")
        (note,) = [note for note in loaded.notes if "files changed since" in note]
        assert re.fullmatch(r"1 of 16 files changed .*wren/3\.jpg\): hashed again; the .*", note)
        assert loaded.manifest.digest != digest
        again = dataset.load(chosen, tmp_path / "cache")
        assert not any("files changed since" in note for note in again.notes)
        assert again.manifest.digest == loaded.manifest.digest


def test_changed_files_of_an_official_dataset_are_accepted_by_a_key(conf, cub, jpeg, tmp_path):
    before = dataset.load(conf("cub", cub), tmp_path / "cache").manifest.digest
    (cub / "images" / "001.Black_Gull" / "bird 2 ü=1.jpg").write_bytes(jpeg(77))
    with pytest.raises(UserError, match=r"; restore it, or add dataset\.accept_altered=true to "):
        dataset.load(conf("cub", cub), tmp_path / "cache")
    loaded = dataset.load(conf("cub", cub, accept_altered=True), tmp_path / "cache")
    assert loaded.notes[0].startswith("1 of 27 files changed since")
    again = dataset.load(conf("cub", cub), tmp_path / "cache")
    assert before != loaded.manifest.digest == again.manifest.digest


@pytest.mark.fault(50)
@pytest.mark.parametrize("cached", [True, False], ids=["hashed before", "never hashed"])
def test_altered_synthetic_birds_are_drawn_again_with_a_note(conf, jpeg, tmp_path, cached):
    drawn = conf("synthetic", tmp_path / "birds", generator=schema.Generator(1, 2, 3, 1, 64, 0))
    before = dataset.load(drawn, tmp_path / "cache").manifest
    (before.root / before.path[0]).write_bytes(jpeg(1))
    again = dataset.load(drawn, tmp_path / ("cache" if cached else "another"))
    assert again.manifest.digest == before.digest
    (note,) = [note for note in again.notes if "damaged" in note]
    assert note.startswith(f"{before.root}: damaged synthetic birds (")
    assert note.endswith("): drawn again")
    accepted = replace(drawn, accept_altered=True)
    (before.root / before.path[0]).write_bytes(jpeg(1))
    assert dataset.load(accepted, tmp_path / "cache").manifest.digest != before.digest


@pytest.mark.parametrize(
    ("reader", "way"),
    [
        ("folder", "restore or remove such files, or dataset.on_bad_image=skip"),
        ("table", "restore such files or remove their rows from the table, or dataset.on_bad"),
        ("cub", "unpack the images again, or dataset.on_bad_image=skip"),
    ],
)
def test_a_missing_file_names_the_ways_out_of_its_reader(conf, cub, classes, tmp_path, reader, way):
    root = cub if reader == "cub" else classes({"gull": 8, "wren": 8})
    fields = {}
    rows = [f"{name}/{n}.jpg,{name}" for name in ("gull", "wren") for n in range(8)]
    if reader == "table":
        (root / "t.csv").write_text("\n".join(["path,label", *rows]))
        fields = {"table": str(root / "t.csv")}
    file = next(path for path in sorted(root.rglob("*.jpg")))
    file.unlink()
    file.symlink_to("nowhere.jpg")
    with pytest.raises(UserError, match="a broken link") as caught:
        dataset.load(conf(reader, root, **fields), tmp_path / "cache")
    assert way in str(caught.value)
    skipping = conf(reader, root, on_bad_image="skip", **fields)
    loaded = dataset.load(skipping, tmp_path / "cache")
    assert list(loaded.manifest.sha256).count(ABSENT) == 1
    assert any("images cannot be read" in note for note in loaded.notes)
    if reader == "folder":
        file.unlink()
    elif reader == "table":
        (root / "t.csv").write_text("\n".join(["path,label", *rows[1:]]))
    else:
        return
    smaller = dataset.load(conf(reader, root, **fields), tmp_path / "cache")
    assert len(smaller.manifest) == 15


def test_the_validation_split_of_a_folder(conf, classes, tmp_path):
    root = classes({f"{split}/{name}": 4 for split in ("train", "val") for name in ("a", "b")})
    loaded = dataset.load(conf("folder", root), tmp_path / "cache")
    assert loaded.test_source == "val"
    assert [len(rows) for rows in astuple(loaded.split)] == [6, 2, 8]
    assert [note for note in loaded.notes if note in loaded.warnings] == list(loaded.warnings)
    assert any(note.startswith("test = val: ") for note in loaded.warnings)
    (root / "val").rename(root / "test")
    (root / "train").rename(root / "valid")
    for name in ("a", "b"):
        (root / "train" / name).mkdir(parents=True)
        (root / "valid" / name / "0.jpg").rename(root / "train" / name / "0.jpg")
    loaded = dataset.load(conf("folder", root), tmp_path / "cache")
    assert (loaded.test_source, loaded.warnings) == ("test", ())
    assert [len(rows) for rows in astuple(loaded.split)] == [2, 6, 8]
    assert any("dataset.val_fraction=0.2 is not used" in note for note in loaded.notes)


def test_the_split_of_a_card_is_what_was_read_unless_the_user_wrote_it(conf, classes, tmp_path):
    root = classes({"gull": 8, "wren": 8})
    card = schema.Card("here", "none", "CC0-1.0", "none", "none", "none", "by year")
    for text, recorded in (
        ("by year", "by year"),
        ("from the data: any", "from the data: test is a"),
    ):
        read = conf("folder", root, card=replace(card, split=text))
        loaded = dataset.load(read, tmp_path / "cache")
        assert loaded.card["split"].startswith(recorded)
    for name in ("folder", "table"):
        shipped = OmegaConf.load(CONF / f"{name}.yaml")
        assert shipped.card.split.startswith("from the data: ")


def test_split_seed_moves_validation_and_never_test(conf, cub, tmp_path):
    first, second = (
        dataset.load(conf("cub", cub, split_seed=seed), tmp_path / "cache").split for seed in (0, 1)
    )
    assert first.val_N.tolist() != second.val_N.tolist()
    assert first.test_N.tolist() == second.test_N.tolist()


def test_unknown_reader_and_missing_generator(conf, cub, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.reader=cab: one of cars, cub, dogs, folder,"):
        dataset.load(conf("cab", cub), tmp_path)
    with pytest.raises(UserError, match=r"dataset\.generator=null"):
        dataset.load(conf("synthetic", cub), tmp_path)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("synthetic") / "birds"


@pytest.mark.parametrize("val_fraction", [0.0, 0.1])
def test_synthetic_tiny_covers_every_kept_class_in_every_split(conf, root, tmp_path, val_fraction):
    generator = schema.Generator(1, 9, 4, 3, 64, 0)
    chosen = conf("synthetic", root, subset="tiny", generator=generator, val_fraction=val_fraction)
    loaded = dataset.load(chosen, tmp_path / "cache")
    assert len(loaded.labelmap) == 8
    assert loaded.notes[0] == "approved: generated"
    for rows in (loaded.split.train_N, loaded.split.val_N, loaded.split.test_N):
        assert len(rows) <= 16  # two batches of 8
    assert loaded.subset is not None
    expected = {"train": 8, "val": 8 if val_fraction else 0, "test": 8}
    assert loaded.subset["coverage"] == expected
    assert loaded.subset["checksum"] == loaded.manifest.digest
    assert loaded.subset["test"] == 16
    assert dataset.load(chosen, tmp_path / "cache").subset == loaded.subset


def test_synthetic_whole(conf, root, tmp_path):
    generator = schema.Generator(1, 9, 4, 3, 64, 0)
    loaded = dataset.load(conf("synthetic", root, generator=generator), tmp_path / "cache")
    assert np.bincount(loaded.manifest.label_N).tolist() == [7] * 9
    assert not loaded.partial


@pytest.mark.parametrize("name", sorted(readers()))
def test_conf_files_fill_the_schema_exactly(name):
    node = OmegaConf.load(CONF / f"{name}.yaml")
    assert node.name == name
    assert set(node) == {field.name for field in fields(schema.Dataset)}
    config = OmegaConf.create({"runtime": {"data_root": "data"}, "dataset": node})
    config.dataset = OmegaConf.merge(OmegaConf.structured(schema.Dataset), config.dataset)
    dataset_conf = OmegaConf.to_object(config.dataset)
    assert isinstance(dataset_conf, schema.Dataset)
    assert dataset_conf.reader in readers()
    assert (
        dataset_conf.root is None
        if name == "table"
        else str(dataset_conf.root).startswith(f"data/{name}")
    )
    assert dataset_conf.table is None
    assert dataset_conf.box_crop is False
    assert all(len(value) > 3 for value in asdict(dataset_conf.card).values())
    assert not OmegaConf.missing_keys(config)


def test_every_conf_file_is_tested():
    assert {file.stem for file in CONF.glob("*.yaml")} == set(readers())
    assert len(readers()) == 8


OFFICIAL = {
    "cub": (200, 5994, 5794),
    "cars": (196, 8144, 8041),
    "dogs": (120, 12000, 8580),
    "nabirds": (555, 23929, 24633),
    "inat2017": (5089, 579184, 95986),
}


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_counts(name):
    official = OmegaConf.load(CONF / f"{name}.yaml").official
    assert (official.classes, official.train, official.test) == OFFICIAL[name]


READ = {
    "cars": lambda copies: copies.cars(),
    "dogs": lambda copies: copies.dogs(),
    "nabirds": lambda copies: copies.nabirds(),
    "inat2017": lambda copies: copies.inat2017(),
}


@pytest.mark.parametrize("name", READ)
def test_every_published_layout_loads_whole(conf, copies, tmp_path, name):
    official = schema.OfficialCounts(3, 12, 6)
    loaded = dataset.load(conf(name, READ[name](copies), official=official), tmp_path / "cache")
    assert (loaded.name, loaded.partial, loaded.notes) == (name, False, ())
    assert [
        len(rows) for rows in (loaded.split.train_N, loaded.split.val_N, loaded.split.test_N)
    ] == [
        10,
        2,
        6,
    ]
    assert (loaded.hierarchy is not None) == (name in ("nabirds", "inat2017"))


@pytest.mark.fault(25)
@pytest.mark.parametrize("name", READ)
def test_more_than_official_is_refused(conf, copies, tmp_path, name):
    official = schema.OfficialCounts(3, 11, 6)
    with pytest.raises(UserError, match="12 of 11 train: more than the official dataset holds"):
        dataset.load(conf(name, READ[name](copies), official=official), tmp_path / "cache")


@pytest.mark.parametrize("name", ["cub", *READ])
def test_the_order_in_which_files_list_images_changes_no_row(
    conf, cub, copies, tmp_path, monkeypatch, name
):
    chosen = conf(name, cub if name == "cub" else READ[name](copies))
    original = dataset.load(chosen, tmp_path / "cache")
    spec, order = readers()[name], np.random.default_rng(3).permutation
    shuffled = replace(
        spec, read=lambda *arguments: take(index := spec.read(*arguments), order(len(index)))
    )
    monkeypatch.setattr(f"fgvc.data.datasets.{name}.DATASET", shuffled)
    other = dataset.load(chosen, tmp_path / "cache")
    assert (
        original.manifest.path
        == other.manifest.path
        == tuple(sorted(original.manifest.path, key=nfc))
    )
    for column in ("label_N", "split_N", "box_N4", "key_N"):
        np.testing.assert_array_equal(
            getattr(original.manifest, column), getattr(other.manifest, column)
        )
    assert original.manifest.sha256 == other.manifest.sha256
    if original.manifest.parts is not None:
        parts = not_none(other.manifest.parts)
        np.testing.assert_array_equal(original.manifest.parts.xy_NK2, parts.xy_NK2)
    for column in ("train_N", "val_N", "test_N"):
        assert getattr(original.split, column).tolist() == getattr(other.split, column).tolist()


def test_a_shuffled_table_and_a_shuffled_json_are_the_same_datasets(
    conf, classes, copies, tmp_path
):
    root = classes({"gull": 8, "wren é": 8})
    images = [path.relative_to(root).as_posix() for path in root.rglob("*.jpg")]
    for seed in (0, 1):
        random.Random(seed).shuffle(images)
        lines = [
            f"{path},{path.split('/')[0]},{'test' if path.endswith('/0.jpg') else 'train'}"
            for path in images
        ]
        (root / f"{seed}.csv").write_text("\n".join(["path,label,split", *lines]))
    original, shuffled = (
        dataset.load(conf("table", root, table=str(root / f"{seed}.csv")), tmp_path / "cache")
        for seed in (0, 1)
    )
    assert original.manifest.path == shuffled.manifest.path
    assert original.manifest.label_N.tolist() == shuffled.manifest.label_N.tolist()
    wild = copies.inat2017()
    before = dataset.load(conf("inat2017", wild), tmp_path / "cache").manifest
    file = wild / "train2017.json"
    plain = json.loads(file.read_text())
    for rows in ("images", "annotations", "categories"):
        plain[rows].reverse()
    file.write_text(json.dumps(plain))
    after = dataset.load(conf("inat2017", wild), tmp_path / "cache").manifest
    assert after.path == before.path
    assert after.label_N.tolist() == before.label_N.tolist()


def test_a_key_is_of_the_path_in_its_composed_form(tmp_path):
    nothing_N = np.zeros(3, np.int64)
    path = ("a/é.jpg", unicodedata.normalize("NFD", "a/é.jpg"), "a/e.jpg")
    loaded = Manifest(tmp_path, path, nothing_N, nothing_N, ())
    same, again, other = loaded.key_N.tolist()
    assert same == again != other
    assert same == int.from_bytes(hashlib.sha256("a/é.jpg".encode()).digest()[:8], "big")
    assert loaded.key_N.dtype == np.uint64


def test_a_name_stored_in_another_unicode_form_is_the_same_image():
    """Copies of one folder on macOS and Linux are one dataset."""
    labels_N, split_N = np.zeros(2, np.int64), np.array([0, 1], np.uint8)
    forms = [
        Manifest(Path(), (f"train/{name}.jpg", "b.jpg"), labels_N, split_N, ("0" * 64, "1" * 64))
        for name in ("\u00e9", "e\u0301")
    ]
    composed, decomposed = forms
    assert composed.path != decomposed.path
    assert composed.digest == decomposed.digest
    split = Split(np.array([0]), np.array([], np.int64), np.array([1]))
    assert split.digest(composed.path) == split.digest(decomposed.path)


def test_cropping_to_boxes_changes_the_digest(conf, cub, tmp_path):
    uncropped = dataset.load(conf("cub", cub), tmp_path / "cache")
    crop = dataset.load(conf("cub", cub, box_crop=True), tmp_path / "cache")
    assert uncropped.manifest.digest != crop.manifest.digest
    (note,) = crop.notes
    assert "every image, in test too, is cropped to its bounding box" in note
    boxes = cub / "bounding_boxes.txt"
    boxes.write_text(boxes.read_text().replace("30.0 20.5", "29.0 20.5", 1))
    assert dataset.load(conf("cub", cub), tmp_path / "cache").manifest.digest == (
        uncropped.manifest.digest
    )
    moved = dataset.load(conf("cub", cub, box_crop=True), tmp_path / "cache")
    assert moved.manifest.digest != crop.manifest.digest


def test_box_crop_needs_boxes(conf, cub, classes, tmp_path):
    boxes = cub / "bounding_boxes.txt"
    boxes.write_text("\n".join(boxes.read_text().split("\n")[1:]))
    with pytest.raises(
        UserError, match=r"box_crop=true: 1 of 27 images have no bounding box .*0 ü"
    ):
        dataset.load(conf("cub", cub, box_crop=True), tmp_path / "cache")
    root = classes({"gull": 8, "wren": 8})
    with pytest.raises(UserError, match=r"has no bounding boxes; set dataset\.box_crop=false"):
        dataset.load(conf("folder", root, box_crop=True), tmp_path / "cache")


def test_other_generator_settings_have_another_root():
    node = OmegaConf.load(CONF / "synthetic.yaml")
    roots = set()
    for key in [None, *(field.name for field in fields(schema.Generator))]:
        config = OmegaConf.create({"runtime": {"data_root": "data"}, "dataset": node})
        if key is not None:
            config.dataset.generator[key] = 63
        roots.add(config.dataset.root)
    assert len(roots) == 7


def with_box(cub, number: int, box: str) -> None:
    """Give one image of a copy another bounding box."""
    boxes = cub / "bounding_boxes.txt"
    lines = boxes.read_text().splitlines()
    lines[number - 1] = f"{number} {box}"
    boxes.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("1.0 2.0 0.0 20.5", "a bounding box without area"),
        ("1.0 2.0 30.0 -20.5", "a bounding box without area"),
        ("-40.0 2.0 30.0 20.5", "a bounding box outside the"),
        ("1.0 -20.5 30.0 20.5", "a bounding box outside the"),
        ("1.0 2.0 inf 20.5", "no bounding box"),
    ],
)
def test_a_box_that_cannot_be_cut_is_refused_before_anything_is_computed(
    conf, cub, tmp_path, box, message
):
    with_box(cub, 4, box)
    with pytest.raises(UserError, match=rf"box_crop=true: 1 of 27 images have {message} .*bird 3"):
        dataset.load(conf("cub", cub, box_crop=True), tmp_path / "cache")
    assert dataset.load(conf("cub", cub), tmp_path / "cache").manifest.digest  # nothing is cut


def test_boxes_are_held_against_the_sizes_that_the_index_states(conf, cub):
    index = dataset.read(conf("cub", cub), None)
    size_N2 = np.full((len(index), 2), (48, 36), np.float32)
    stated = replace(index, size_N2=size_N2)
    box_N4 = not_none(stated.box_N4)
    assert len(check_boxes(stated)) == 1
    box_N4[3] = 48, 0, 5, 5
    with pytest.raises(UserError, match=r"outside the .*bird 3 .*: 48, 0, 5, 5"):
        check_boxes(stated)
    box_N4[3] = 40, -2, 20, 5
    (_, note) = check_boxes(stated)
    assert note.startswith("1 bounding boxes are partly outside")
    assert "40, -2, 20, 5" in note


def test_boxes_in_fractions_of_the_image_are_refused(conf, cub, tmp_path):
    for number in range(1, 28):
        with_box(cub, number, "0.1 0.2 0.5 0.6")
    with pytest.raises(UserError, match=r"all boxes .* are within 0\.\.1 .*multiply"):
        dataset.load(conf("cub", cub, box_crop=True), tmp_path / "cache")
