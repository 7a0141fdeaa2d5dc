"""Runs with images that cannot be read: named, or counted by policy, never replaced."""

from __future__ import annotations

import html
import shutil

import pyarrow.parquet as pq
import pytest

from fgvc.config.compose import composed, typed
from fgvc.data import dataset as datasets
from fgvc.report.audit import run_audit
from tests.faults.steps import (
    assert_one_line,
    folder_run,
    listed_images,
)

SPLITS = ("train", "val", "test")


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 torn", None])
def test_eval_offers_no_setting_that_it_refuses(run, pictures, content):
    """content: of the file; None: a broken link."""
    fitted = folder_run(run, pictures)
    victim = pictures / "test/a=b, c/é 1=.jpg"
    sound = victim.read_bytes()
    victim.unlink()
    if content is None:
        victim.symlink_to("nowhere.jpg")
    else:
        victim.write_bytes(content)
    again = ("task=eval", f"checkpoint={fitted.folder}", "runtime.run_id=again")
    refused = run(*again, bare=True)
    assert refused.code == 1
    assert "é 1=.jpg" in refused.err
    assert "on_bad_image=skip" not in refused.err
    assert "dataset.on_bad_image=error of its checkpoint" in refused.err
    victim.unlink()
    victim.write_bytes(sound)
    assert run(*again, bare=True).code == 0


@pytest.mark.fault(20, 21)
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"\xff\xd8\xff\xe0 torn", None])
@pytest.mark.parametrize("split", ["train", "test"])
def test_image_that_is_no_image(run, pictures, content, split):
    """Named under error; under skip left out of training, wrong in the test, N unchanged.

    content: of the file; None: a broken link.
    """
    victim = f"{split}/a=b, c/é 1=.jpg"
    if content is None:
        (pictures / victim).unlink()
        (pictures / victim).symlink_to("nowhere.jpg")
    else:
        (pictures / victim).write_bytes(content)
    assert_one_line(folder_run(run, pictures), "é 1=.jpg", "dataset.on_bad_image=skip")
    ran = folder_run(run, pictures, "dataset.on_bad_image=skip")
    assert ran.code == 0, ran.err
    numbers = ran.json("metrics.json")
    lost = {part: int(victim in listed_images(ran, part)) for part in ("train", "val", "test")}
    assert numbers["unreadable"] == lost
    assert sum(lost.values()) == 1
    assert numbers["test"]["n"] == 12
    table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    test = table[table.split == "test"]
    wrong = test[test.pred == -1]
    assert len(test) == 12
    assert list(wrong.path) == (["test/a=b, c/é 1=.jpg"] if split == "test" else [])
    assert numbers["test"]["top1"] == pytest.approx((test.pred == test.label).mean())
    if split == "train":
        assert numbers["fitted_on"] == 23


@pytest.mark.fault(16, 24)
def test_a_repaired_image_makes_a_new_run(run, pictures):
    victim = pictures / "test/a=b, c/é 1=.jpg"
    original = victim.read_bytes()
    victim.write_bytes(original[: len(original) // 2])
    again = ("dataset.on_bad_image=skip", "runtime.run_id=again")
    assert folder_run(run, pictures, *again).code == 0
    victim.write_bytes(original)
    refused = folder_run(run, pictures, *again)
    assert "files changed since they were last hashed (first: test/a=b, c/" in refused.out
    assert_one_line(
        refused, "is complete, with another manifest_digest", "give a new runtime.run_id"
    )
    ran = folder_run(run, pictures, "runtime.run_id=new")
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["unreadable"] == {"train": 0, "val": 0, "test": 0}


TORN = ("train/a=b, c/é 1=.jpg", "train/Ram C∕V 'x'/é 3=.jpg", "test/a=b, c/é 0=.jpg")


TRAINED = ("task=train", "task.epochs=1", "task.batch_size=6", "runtime.stack_check=false")


@pytest.mark.fault(20, 21)
@pytest.mark.parametrize("task", [("task=probe",), ("head=knn", "head.k=1"), TRAINED])
@pytest.mark.parametrize("fit", ["train", "trainval"])
def test_images_that_cannot_be_read_are_counted_and_named(run, pictures, task, fit):
    for path in TORN:
        (pictures / path).write_bytes(b"torn")
    skip = ("dataset.on_bad_image=skip", "dataset.val_fraction=0.25", f"final_fit={fit}")
    ran = folder_run(run, pictures, *skip, *task)
    assert ran.code == 0, ran.err
    numbers, parts = ran.json("metrics.json"), {part: listed_images(ran, part) for part in SPLITS}
    lost = {part: [path for path in TORN if path in parts[part]] for part in SPLITS}
    assert numbers["unreadable"] == {part: len(paths) for part, paths in lost.items()}
    fitted = ("train", "val") if fit == "trainval" else ("train",)
    readable = sum(len(parts[part]) - len(lost[part]) for part in fitted)
    assert numbers["fitted_on"] == readable
    rows = ran.json("unreadable.json")
    assert sorted((row["path"], row["split"]) for row in rows) == sorted(
        (path, part) for part, paths in lost.items() for path in paths
    )
    assert all(row["path"] in row["reason"] for row in rows)
    assert "unreadable.json" in ran.json("artifacts.json")
    (note,) = [note for note in numbers["notes"] if "cannot be read" in note]
    assert note.startswith("3 images cannot be read")
    assert (
        f"; the fit leaves out those of {' and '.join(name for name in fitted if lost[name])}; "
        in note
    )
    assert f"note: {note}\n" in ran.out
    page = html.unescape((ran.folder / "report.html").read_text(encoding="utf-8"))
    for path in TORN:
        assert path in note
        assert path in page


def test_a_training_that_stops_before_test_names_them_too(run, pictures):
    for path in TORN:
        (pictures / path).write_bytes(b"torn")
    ran = folder_run(
        run, pictures, "dataset.on_bad_image=skip", *TRAINED, "runtime.stop_before_test=true"
    )
    assert ran.code == 0, ran.err
    (line,) = [line for line in ran.out.splitlines() if "cannot be read" in line]
    assert line.startswith("note: 2 images cannot be read")
    assert TORN[2] not in line


@pytest.mark.fault(21)
def test_an_evaluation_names_the_images_that_it_cannot_read(run, pictures):
    for path in TORN:
        (pictures / path).write_bytes(b"torn")
    trained = folder_run(run, pictures, "dataset.on_bad_image=skip")
    root = f'dataset.root="{pictures}"'
    ran = run("task=eval", f'checkpoint="{trained.folder}"', root, bare=True)
    assert ran.json("metrics.json")["unreadable"] == {"train": 0, "val": 0, "test": 1}
    assert [row["path"] for row in ran.json("unreadable.json")] == [TORN[2]]
    notes = ran.json("metrics.json")["notes"]
    assert (
        f"1 image cannot be read (1 of test): {TORN[2]}; those of test count as wrong; "
        "unreadable.json lists them all"
    ) in notes
    of_fit = (
        f"of the fit: 2 images cannot be read (2 of train): {TORN[1]}, {TORN[0]}; the fit leaves "
        "out those of train"
    )
    assert of_fit in notes
    assert f"note: {of_fit}\n" in ran.out
    assert sum(note.startswith("of the fit: ") for note in notes) == len(
        [note for note in trained.json("metrics.json")["notes"] if "occurs" not in note]
    )


@pytest.mark.fault(20)
@pytest.mark.parametrize("task", [("task=probe",), ("head=knn", "head.k=1"), TRAINED])
def test_classes_that_lose_every_image_of_a_split_are_counted_and_named(
    run, pictures, tmp_path, task
):
    """All training images of one class, all validation images of another."""
    skip = ("dataset.on_bad_image=skip", "dataset.val_fraction=0.25", "final_fit=train")
    complete = folder_run(run, shutil.copytree(pictures, tmp_path / "whole"), *skip, *task)
    classes = [row["name"] for row in complete.json("labelmap.json")["classes"]]
    first, second, _ = classes
    for path in listed_images(complete, "train"):
        if f"/{first}/" in path:
            (pictures / path).write_bytes(b"torn")
    for path in listed_images(complete, "val"):
        if f"/{second}/" in path:
            (pictures / path).write_bytes(b"torn")
    ran = folder_run(run, pictures, *skip, *task)
    assert ran.code == 0, ran.err
    notes = ran.json("metrics.json")["notes"]
    assert [note for note in notes if "no readable image" in note] == [
        f"1 of 3 classes have no readable image in train ({first}), so the head cannot learn "
        "them; replace these images",
        f"1 of 3 classes have no readable image in val ({second}), so validation says nothing "
        "about them; replace these images",
    ]
    (note,) = [note for note in notes if "cannot be read" in note]
    assert "the fit leaves out those of train; those of val count as wrong; " in note


def test_a_run_whose_images_can_all_be_read_names_none(run, pictures):
    options = ("dataset.on_bad_image=skip", "dataset.val_fraction=0.25", "task.c_count=45")
    ran = folder_run(run, pictures, *options)
    assert ran.json("metrics.json")["unreadable"] == {"train": 0, "val": 0, "test": 0}
    assert not (ran.folder / "unreadable.json").exists()
    assert ran.json("metrics.json")["notes"] == []


@pytest.mark.fault(21)
def test_every_test_image_unreadable(run, pictures):
    for picture in (pictures / "test").rglob("*.jpg"):
        picture.write_bytes(b"torn")
    ran = folder_run(run, pictures, "dataset.on_bad_image=skip")
    assert ran.code == 0, ran.err
    numbers = ran.json("metrics.json")["test"]
    assert (numbers["top1"], numbers["unreadable"], numbers["loss"]) == (0.0, 12, None)


@pytest.mark.fault(20, 21)
def test_an_image_that_cannot_be_read(finetune, birds, tmp_path):
    """Named under error; under skip left out of training, wrong in the test, N unchanged."""
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    name = dict(line.split() for line in (root / "images.txt").open())
    parts = [line.split() for line in (root / "train_test_split.txt").open()]
    victim = {
        part: next(name[key] for key, part_of_name in parts if part_of_name == part)
        for part in "01"
    }
    for path in victim.values():
        (root / "images" / path).write_bytes(b"<html>404</html>")
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", "task.epochs=2")
    ran = finetune(*cub, "dataset.val_fraction=0", "final_fit=trainval")
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert victim["1"] in ran.err
    skipped = finetune(*cub, "dataset.on_bad_image=skip")
    assert skipped.code == 0, skipped.err
    numbers = skipped.json("metrics.json")
    train, val = ((skipped.folder / f"splits/{part}.txt").read_text() for part in ("train", "val"))
    assert numbers["unreadable"] == {
        "train": train.count(victim["1"]),
        "val": val.count(victim["1"]),
        "test": 1,
    }
    assert numbers["fitted_on"] == 12 - train.count(victim["1"])
    assert (numbers["test"]["n"], numbers["test"]["unreadable"]) == (12, 1)


def torn_copy(birds, tmp_path, tears):
    """Options of a copy of the birds with torn images. tears(path, part): part 1 train, 0 test."""
    root = shutil.copytree(birds, tmp_path / "copy")
    name = dict(line.split() for line in (root / "images.txt").open())
    for key, part in map(str.split, (root / "train_test_split.txt").open()):
        if tears(name[key], int(part)):
            (root / "images" / name[key]).write_bytes(name[key].encode())
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", "task.epochs=1")
    return (*cub, "dataset.on_bad_image=skip")


@pytest.mark.fault(20, 21)
def test_unreadable_images_count_whether_or_not_a_step_drew_them(finetune, birds, tmp_path):
    """The only step draws 7 of 12 images. The other 5 cannot all be among the 4 readable ones. No
    test image can be read; the audit computes the same numbers."""
    torn = torn_copy(birds, tmp_path, lambda path, part: not part or path.split(".")[0] < "005")
    ran = finetune(*torn, "dataset.val_fraction=0", "final_fit=trainval", "task.batch_size=7")
    assert ran.code == 0, ran.err
    numbers = ran.json("metrics.json")
    assert numbers["fitted_on"] == 4
    assert numbers["unreadable"] == {"train": 8, "val": 0, "test": 12}
    assert [result for result in run_audit(ran.folder)[1] if result.state == "FAIL"] == []


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("of", "more", "message"),
    [
        ("val", (), "0 of the 6 validation images can be read, so no epoch can be chosen"),
        ("train", (), "0 of the 12 training images can be read"),
        ("train", ("task.debug=overfit",), "0 of the 4 images of task.debug=overfit can be read"),
    ],
)
def test_a_split_without_a_readable_image(finetune, birds, tmp_path, of, more, message):
    usual = ("dataset=cub", "dataset.partial=true", "dataset.subset=tiny")
    conf = typed(composed([*usual, f"dataset.root={birds}"]))
    split = datasets.load(conf.dataset, tmp_path / "cache")
    row_N = getattr(split.split, f"{of}_N").tolist()
    torn = {split.manifest.path[row].removeprefix("images/") for row in row_N}
    ran = finetune(*torn_copy(birds, tmp_path, lambda path, part: path in torn), *more)
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert f"dataset.on_bad_image=skip: {message}" in ran.err


@pytest.mark.parametrize("part_attention", ["off", "transfg"])
@pytest.mark.parametrize("family", ["vit", "dinov3", "clip", "siglip2"])
def test_a_batch_without_a_readable_image(finetune, birds, tmp_path, family, part_attention):
    """Its forward pass is skipped, because libraries cannot reshape an empty batch."""
    root = shutil.copytree(birds, tmp_path / "copy")
    name = dict(line.split() for line in (root / "images.txt").open())
    trained = (
        key for key, part in map(str.split, (root / "train_test_split.txt").open()) if int(part)
    )
    (root / "images" / name[next(trained)]).write_bytes(b"torn")
    ran = finetune(
        f"backbone={family}",
        f"part_attention={part_attention}",
        *("dataset=cub", f"dataset.root={root}", "dataset.partial=true"),
        *("dataset.val_fraction=0", "final_fit=trainval", "dataset.on_bad_image=skip"),
        *("task.epochs=1", "task.batch_size=1", "task.drop_path=0.2"),
    )
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["fitted_on"] == 11
