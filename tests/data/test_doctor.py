"""task=doctor: a consistent copy is sound, and each fault has its finding."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from fgvc.config import schema
from fgvc.data.dataset_spec import readers
from fgvc.data.doctor import Examination, Finding, examine
from fgvc.types import Progress

OFFICIAL = schema.OfficialCounts(3, 18, 9)


@pytest.fixture
def run_doctor(conf) -> Callable[..., Examination]:
    """`run_doctor(root, reader="cub", **fields)`: the examination of a copy."""

    def make(root: Path, reader: str = "cub", **fields: object) -> Examination:
        return examine(conf(reader, root, **{"official": OFFICIAL, **fields}), 2, silent)

    return make


@contextmanager
def silent(title: str, total: int | None, unit: str) -> Iterator[Progress]:
    yield lambda n, note="": None


def only_finding(examination: Examination, check: str, severity: str = "error") -> Finding:
    """The only finding of this check and severity."""
    matching = [f for f in examination.findings if (f.check, f.severity) == (check, severity)]
    assert len(matching) == 1, examination.findings
    return matching[0]


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def images(root: Path) -> list[Path]:
    return sorted((root / "images").rglob("*.jpg"))


def images_of_class(root: Path, name: str) -> list[Path]:
    """Images of one class of the fixture: the first six train, the last three test."""
    return sorted((root / "images" / name).iterdir())


# --- a copy with nothing wrong ---


def test_a_sound_copy(cub, run_doctor):
    examination = run_doctor(cub)
    assert examination.findings == ()
    assert (examination.verdict, examination.wrong) == ("sound", False)
    assert examination.facts["counts"]["train"] == {"found": 18, "official": 18}
    facts = examination.facts["pictures"]
    assert facts["read"] == 27
    assert facts["kinds"] == {"JPEG RGB": 27}
    assert facts["commonest_sizes"] == {"48x36": 27}
    assert facts["short_side"] == {"min": 36, "median": 36, "max": 36}
    assert facts["long_side_histogram"] == {"0": 27}


def test_a_declared_partial_copy_is_no_error(cub, run_doctor):
    official = schema.OfficialCounts(200, 5994, 5794)
    examination = run_doctor(cub, partial=True, official=official)
    assert examination.verdict == "partial"
    assert [(f.severity, f.check) for f in examination.findings] == [("note", "counts")]
    assert "3 of 200 classes, 18 of 5994 train" in examination.findings[0].message
    undeclared = run_doctor(cub, official=official)
    assert undeclared.verdict == "wrong"
    assert "dataset.partial=true" in only_finding(undeclared, "counts").fix


def test_a_complete_copy_that_was_declared_partial_is_not_called_partial(cub, run_doctor):
    assert run_doctor(cub, partial=True).verdict == "sound"


def test_a_folder_and_birds_of_the_user(classes, run_doctor, conf, tmp_path):
    none = schema.OfficialCounts(0, 0, 0)
    root = classes({"train/a=b c": 4, "train/ü": 4, "test/a=b c": 2, "test/ü": 2})
    (root / "train" / "ü" / "read me.txt").write_text("about")
    examination = run_doctor(root, "folder", official=none)
    assert examination.verdict == "sound"
    assert "skipped: 1 .txt" in only_finding(examination, "layout", "note").message
    generator = schema.Generator(
        version=1, classes=2, train_per_class=2, test_per_class=1, side=64, seed=0
    )
    birds = run_doctor(tmp_path / "birds", "synthetic", official=none, generator=generator)
    assert birds.verdict == "sound"
    assert birds.facts["counts"]["train"] == {"found": 4, "official": 4}


def test_validation_images_are_counted_as_such(classes, run_doctor):
    splits = {"train": 4, "val": 3, "test": 2}
    root = classes({f"{split}/{name}": n for split, n in splits.items() for name in "ab"})
    examination = run_doctor(root, "folder", official=schema.OfficialCounts(0, 0, 0))
    counts = {name: count["found"] for name, count in examination.facts["counts"].items()}
    assert counts == {"classes": 2, "train": 8, "val": 6, "test": 4}
    (root / "test").rename(root.parent / "away")
    examination = run_doctor(root, "folder", official=schema.OfficialCounts(0, 0, 0))
    assert only_finding(examination, "layout", "note").message.startswith("test = val: ")


def test_the_same_copy_gives_the_same_json(cub, run_doctor):
    (cub / "images" / "extra.jpg").write_bytes(images(cub)[0].read_bytes())
    assert run_doctor(cub).plain() == run_doctor(cub).plain()


# --- layouts ---


def test_no_such_folder(tmp_path, run_doctor):
    examination = run_doctor(tmp_path / "nowhere")
    assert "nowhere: no such folder" in only_finding(examination, "layout").message
    assert "set dataset.root=" in only_finding(examination, "layout").fix


def test_the_older_cub_is_refused_by_name(tmp_path, jpeg, run_doctor):
    root = tmp_path / "CUB-200"
    for name in ("lists/files.txt", "annotations-mat/001/a.mat", "images/001/a.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(1))
    examination = run_doctor(root)
    assert "CUB-200 (2010)" in only_finding(examination, "layout").message
    assert examination.facts["pictures"]["read"] == 1


def test_another_dataset_is_named(cub, run_doctor):
    assert "dataset=cub" in only_finding(run_doctor(cub, "dogs"), "layout").fix
    (cub / "hierarchy.txt").write_text("1 2\n")
    (cub / "classes.txt").unlink()
    assert "dataset=nabirds" in only_finding(run_doctor(cub), "layout").fix


def test_inaturalist_with_train_and_val_merged(tmp_path, jpeg, run_doctor):
    for name in ("Aves/Sitta pusilla", "Fungi/Amanita muscaria", "Plantae/Acer rubrum"):
        folder = tmp_path / "2017" / name
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(jpeg(len(name)))
    finding = only_finding(run_doctor(tmp_path, "inat2017"), "layout")
    assert "train and val merged" in finding.message
    assert "train_val2017.zip" in finding.fix


def test_a_refused_copy_is_examined_as_far_as_possible(cub, run_doctor):
    (cub / "train_test_split.txt").unlink()
    images(cub)[3].write_bytes(b"")
    examination = run_doctor(cub)
    assert "train_test_split.txt" in only_finding(examination, "layout").message
    assert "an empty file" in only_finding(examination, "pictures").message


def test_gaps_in_the_classes_do_not_end_the_examination(cub, run_doctor):
    edit(cub / "classes.txt", "3 003.Red_Wren", "4 004.Red_Wren")
    labels = cub / "image_class_labels.txt"
    labels.write_text(
        "".join(
            f"{line[:-1]}4\n" if line.endswith(" 3") else f"{line}\n"
            for line in labels.read_text().splitlines()
        )
    )
    (cub / "images" / "003.Red_Wren").rename(cub / "images" / "004.Red_Wren")
    edit_all(cub / "images.txt", "003.Red", "004.Red")
    examination = run_doctor(cub)
    assert "lack 3" in only_finding(examination, "layout").message
    assert examination.facts["pictures"]["read"] == 27


def edit_all(file: Path, old: str, new: str) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


# --- counts, classes, splits ---


def test_more_than_the_official_dataset(cub, run_doctor):
    examination = run_doctor(cub, official=schema.OfficialCounts(3, 17, 9))
    assert "18 of 17 train" in only_finding(examination, "counts").message


def test_ids_outside_the_official_range(cub, run_doctor):
    """Consistent, but not the numbering of published label maps."""
    for name in ("classes", "image_class_labels"):
        file = cub / f"{name}.txt"
        rows = [line.split(" ") for line in file.read_text(encoding="utf-8").splitlines()]
        at = 0 if name == "classes" else 1
        for row in rows:
            row[at] = str(int(row[at]) - 1)
        file.write_text("\n".join(" ".join(row) for row in rows) + "\n", encoding="utf-8")
    errors = [f.message for f in run_doctor(cub).findings if f.severity == "error"]
    assert errors == [
        "class ids 0 are outside the official range 1 to 3",
        "3 classes have another number than their name: 0 001.Black_Gull, 1 002.Grey_Gull and "
        "1 more",
    ]


def test_classes_without_train_or_test_images(cub, run_doctor):
    split = cub / "train_test_split.txt"
    lines = split.read_text().splitlines()
    none = schema.OfficialCounts(3, 0, 0)
    split.write_text("\n".join([f"{n} 0" for n in range(1, 10)] + lines[9:]))
    assert "no training image" in only_finding(run_doctor(cub, official=none), "classes").message
    split.write_text("\n".join([f"{n} 1" for n in range(1, 10)] + lines[9:]))
    examination = run_doctor(cub, official=none)
    assert "no test image" in only_finding(examination, "classes", "note").message
    assert not examination.wrong


# --- files and images ---


def test_missing_and_extra_files(cub, run_doctor):
    first, second, third = images(cub)[:3]
    first.unlink()
    second.rename(second.with_name("moved.jpg"))
    examination = run_doctor(cub)
    missing = [path.relative_to(cub).as_posix() for path in (first, second)]
    finding = only_finding(examination, "files")
    assert finding.offenders == tuple(missing)
    assert finding.message == (
        f"2 of the 27 images are missing, or links to nothing: {', '.join(missing)}"
    )
    assert only_finding(examination, "files", "note").offenders == (
        "images/001.Black_Gull/moved.jpg",
    )
    assert third.is_file()


@pytest.mark.parametrize(
    ("spoilt", "message"),
    [
        (lambda data: b"", r"an empty file"),
        (lambda data: data[: len(data) // 2], r"damaged .*truncated"),
        (lambda data: b"<html>404", r"an HTML page"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", r"Git LFS pointer"),
    ],
)
def test_unreadable_images(cub, run_doctor, spoilt, message):
    file = images(cub)[5]
    file.write_bytes(spoilt(file.read_bytes()))
    finding = only_finding(run_doctor(cub), "pictures")
    assert finding.message.startswith("1 cannot be read: images/001.Black_Gull/bird 5")
    assert len(finding.offenders) == 1
    assert re.search(message, finding.offenders[0])


def test_kinds_are_counted_and_turned_images_measured_as_seen(cub, run_doctor, jpeg):
    files = images(cub)
    files[0].write_bytes(jpeg(90, mode="L"))
    out = io.BytesIO()
    Image.open(files[1]).convert("RGBA").save(out, "PNG")
    files[1].write_bytes(out.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    files[2].write_bytes(jpeg(91, exif=exif, size=(36, 48)))
    examination = run_doctor(cub)
    assert examination.findings == ()
    assert examination.facts["pictures"]["kinds"] == {"JPEG RGB": 25, "JPEG L": 1, "PNG RGBA": 1}
    assert examination.facts["pictures"]["commonest_sizes"] == {"48x36": 27}


# --- copies of an image ---


@pytest.mark.fault(26)
def test_equal_files_in_train_and_test(cub, run_doctor):
    train, test = (
        images_of_class(cub, "001.Black_Gull")[0],
        images_of_class(cub, "001.Black_Gull")[8],
    )
    shutil.copy(train, test)
    examination = run_doctor(cub)
    finding = only_finding(examination, "duplicates")
    names = [path.relative_to(cub).as_posix() for path in (train, test)]
    assert finding.offenders == (" = ".join(names),)
    assert "both train and test" in finding.message
    assert (
        len(examination.findings) == 1
    )  # a byte-equal pair is not reported again as a near duplicate


def test_equal_files_under_two_labels_and_within_a_split(cub, run_doctor):
    gulls, wrens = images_of_class(cub, "001.Black_Gull"), images_of_class(cub, "003.Red_Wren")
    shutil.copy(gulls[0], wrens[0])
    shutil.copy(gulls[1], gulls[2])
    examination = run_doctor(cub)
    assert not examination.wrong
    messages = [f.message for f in examination.findings if f.check == "duplicates"]
    assert "under two labels" in messages[0]
    assert "same split" in messages[1]
    assert len(messages) == 2


def test_near_duplicates_across_the_splits(cub, run_doctor):
    train, test = images_of_class(cub, "002.Grey_Gull")[1], images_of_class(cub, "002.Grey_Gull")[7]
    Image.open(train).resize((96, 72)).point(lambda v: v * 0.8).save(test, quality=60)
    examination = run_doctor(cub)
    finding = only_finding(examination, "duplicates", "note")
    assert "look the same" in finding.message
    assert [str(train.relative_to(cub)), str(test.relative_to(cub))] == finding.offenders[0].split(
        " = "
    )


# --- boxes, parts, sizes ---


def test_boxes_a_little_outside_are_a_note_and_far_outside_an_error(cub, run_doctor):
    boxes = cub / "bounding_boxes.txt"
    edit(boxes, "1 1.0 2.0 30.0 20.5", "1 20.0 2.0 33.0 20.5")  # 53 of 48 px
    examination = run_doctor(cub)
    assert "by 5.0 px" in only_finding(examination, "boxes", "note").message
    assert not examination.wrong
    edit(boxes, "1 20.0 2.0 33.0 20.5", "1 20.5 2.0 33.0 20.5")
    assert "by 5.5 px" in only_finding(run_doctor(cub), "boxes").message
    edit(boxes, "1 20.5 2.0 33.0 20.5", "1 20.5 2.0 0.0 20.5")
    assert "no area" in only_finding(run_doctor(cub), "boxes").message


def test_parts_outside(cub, run_doctor):
    edit(cub / "parts" / "part_locs.txt", "1 1 10.0 12.5 1", "1 1 -9.0 12.5 1")
    assert "by 9.0 px" in only_finding(run_doctor(cub), "boxes").message


def test_a_resized_copy_is_reported_once(cub, run_doctor):
    for file in images(cub):
        Image.open(file).resize((20, 20)).save(file)
    examination = run_doctor(cub)
    finding = only_finding(examination, "sizes")
    assert finding.message.startswith("a resized or cropped copy: boxes or parts of 27 of 27")
    assert len(finding.offenders) == 27
    assert not [f for f in examination.findings if f.check == "boxes"]


def test_sizes_of_the_index_reveal_what_boxes_cannot(cub, run_doctor, monkeypatch):
    """A copy of twice the size: every box is inside its image."""
    from dataclasses import replace

    spec = readers()["cub"]

    def with_sizes(*arguments):
        index = spec.read(*arguments)
        size_N2 = np.tile(np.array([[36, 48]], np.float32), (len(index), 1))  # turned: accepted
        size_N2[-1] = np.nan
        return replace(index, size_N2=size_N2)

    monkeypatch.setattr("fgvc.data.datasets.cub.DATASET", replace(spec, read=with_sizes))
    assert run_doctor(cub).findings == ()
    for file in images(cub):
        Image.open(file).resize((96, 72)).save(file)
    assert only_finding(run_doctor(cub), "sizes").message == (
        "a resized or cropped copy: 26 of 26 images have another size than the index states "
        "(images/001.Black_Gull/bird 0 ü=1.jpg is 96x72, stated 36x48)"
    )


# --- archives ---


@pytest.mark.parametrize("beside", [False, True])
def test_archives_are_held_against_their_digests(cub, run_doctor, beside):
    file = (cub.parent if beside else cub) / "birds.tgz"
    file.write_bytes(b"an archive")
    digests = {
        "md5": hashlib.md5(b"an archive").hexdigest(),
        "sha256": hashlib.sha256(b"an archive").hexdigest(),
    }

    def archive(**other: object) -> dict[str, schema.Archive]:
        values = {"file": "birds.tgz", "url": None, "bytes": 10, **digests, **other}
        return {"birds": schema.Archive(**values)}

    for good in (archive(), archive(sha256=None), archive(bytes=None)):
        examination = run_doctor(cub, archives=good)
        assert examination.findings == ()
        assert examination.facts["archives"] == {str(file): "official"}
    for bad, message in (
        (archive(bytes=11), "10 of 11 bytes"),
        (archive(sha256="0" * 64), "sha256 is"),
        (archive(sha256=None, md5="0" * 32), "md5 is"),
    ):
        assert message in only_finding(run_doctor(cub, archives=bad), "archives").message


def test_every_finding_says_what_to_do(cub, run_doctor):
    files = images(cub)
    files[0].unlink()
    files[1].write_bytes(b"no picture")
    shutil.copy(files[3], files[8])
    edit(cub / "bounding_boxes.txt", "3 1.0", "3 90.0")
    examination = run_doctor(cub, official=schema.OfficialCounts(4, 24, 12))
    assert [f.check for f in examination.findings] == [
        "counts",
        "files",
        "pictures",
        "boxes",
        "duplicates",
    ]
    for finding in examination.findings:
        assert finding.fix
        assert "\n" not in finding.message + finding.fix


def test_images_of_more_than_eight_bits_are_noted_with_their_range(run_doctor, classes):
    root = classes({"train/gull": 4, "test/gull": 2, "train/wren": 4, "test/wren": 2})
    ramp = np.linspace(100, 60000, 36 * 48).reshape(36, 48)
    for number in range(2):
        Image.fromarray(ramp.astype(np.uint16)).save(root / f"train/gull/{number}.jpg", "PNG")
    Image.fromarray((ramp / 65535).astype(np.float32)).save(root / "train/gull/2.jpg", "TIFF")
    Image.fromarray(ramp.astype(np.int32)).save(root / "train/gull/3.jpg", "TIFF")
    examination = run_doctor(root, "folder", official=schema.OfficialCounts(0, 0, 0))
    note = only_finding(examination, "depth", "note")
    assert note.message.startswith("3 have more than 8 bits")
    assert "2 PNG I;16 of 16 bits on 0..65535, seen 100..60000" in note.message
    assert "1 TIFF F of 32 bits on 0..1, seen 0.0015" in note.message
    assert note.offenders == tuple(f"train/gull/{number}.jpg" for number in range(3))
    wrong = only_finding(examination, "pictures")
    assert "train/gull/3.jpg: a TIFF: its signed 32-bit samples" in wrong.message


def test_the_doctor_reads_what_a_run_reads(run_doctor, classes):
    """Large metadata is not damage; a wrong checksum is, and a run refuses it."""
    root = classes({"train/gull": 3, "test/gull": 2, "train/wren": 3, "test/wren": 2})
    out = io.BytesIO()
    text = PngInfo()
    text.add_text("k", "x" * (2 << 20), zip=True)
    Image.open(root / "train/gull/0.jpg").save(out, "PNG", pnginfo=text)
    (root / "train/gull/0.jpg").write_bytes(out.getvalue())
    spoilt = bytearray(out.getvalue())
    spoilt[-20] ^= 1  # in the pixels
    (root / "train/gull/1.jpg").write_bytes(spoilt)
    examination = run_doctor(root, "folder", official=schema.OfficialCounts(0, 0, 0))
    assert "train/gull/1.jpg: damaged " in only_finding(examination, "pictures").message
    assert examination.facts["pictures"]["kinds"] == {"JPEG RGB": 8, "PNG RGB": 1}
