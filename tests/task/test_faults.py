"""A user's mistakes and a machine's: one line each, non-zero, nothing that looks complete."""

from __future__ import annotations

import contextlib
import html
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from fgvc.store.lock import lock


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder of one's own: awkward names, three classes that differ in brightness."""
    root = tmp_path / "my birds = 2024 é"
    rng = np.random.default_rng(0)
    for level, name in enumerate(("Pie grièche", "a=b, c", "Ram C∕V 'x'")):
        for split, count in (("train", 8), ("test", 4)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 40, (40 + i, 60, 3)) + 70 * level
                Image.fromarray(noise.astype(np.uint8)).save(folder / f"é {i}=.jpg")
    return root


SPLITS = ("train", "val", "test")
# 16 patches and the smallest backbone: for what is not about pixels
SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")


def folder_run(run, root, *more):
    return run("dataset=folder", f'dataset.root="{root}"', *SMALL, *more, birds=False)


def one_line(ran, *words):
    assert ran.code == 1
    assert ran.folder is None
    assert ran.err.count("\n") == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err, ran.err


def test_awkward_names_work_end_to_end(run, pictures):
    ran = folder_run(run, pictures)
    assert ran.code == 0, ran.err
    names = [one["name"] for one in ran.json("labelmap.json")["classes"]]
    assert set(names) == {"Pie grièche", "a=b, c", "Ram C∕V 'x'"}
    assert ran.json("metrics.json")["test"]["top1"] > 0.8
    paths = set(pq.read_table(ran.folder / "predictions.parquet")["path"].to_pylist())
    assert "test/a=b, c/é 0=.jpg" in paths
    assert all((pictures / path).is_file() for path in paths)


def test_missing_root(run, tmp_path):
    one_line(folder_run(run, tmp_path / "nowhere"), "nowhere", "dataset.root")


def test_empty_class(run, pictures):
    (pictures / "train" / "empty one").mkdir()
    one_line(folder_run(run, pictures), "empty one")


def test_index_naming_a_missing_file(run, birds, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    victim = sorted(root.glob("images/*/*.jpg"))[3]
    victim.unlink()
    ran = run("dataset=cub", "dataset.partial=true", f"dataset.root={root}", birds=False)
    one_line(ran, victim.name)


def test_label_out_of_range(run, birds, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    labels = root / "image_class_labels.txt"
    labels.write_text(labels.read_text().replace(" 6\n", " 7\n", 1))
    ran = run("dataset=cub", "dataset.partial=true", f"dataset.root={root}", birds=False)
    one_line(ran, "7")


def test_partial_copy_is_refused_with_counts_unless_declared(run, birds):
    cub = ("dataset=cub", f"dataset.root={birds}", *SMALL)
    one_line(run(*cub, birds=False), "5994", "60", "dataset.partial=true")
    ran = run(*cub, "dataset.partial=true", birds=False)
    assert ran.code == 0
    assert ran.json("env_stamp.json")["partial"] is True
    assert "PARTIAL" in ran.out


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0 torn", None])
def test_eval_offers_no_setting_that_it_refuses(run, pictures, content):
    """content: of the file; None: a broken link."""
    made = folder_run(run, pictures)
    victim = pictures / "test/a=b, c/é 1=.jpg"
    sound = victim.read_bytes()
    victim.unlink()
    if content is None:
        victim.symlink_to("nowhere.jpg")
    else:
        victim.write_bytes(content)
    again = ("task=eval", f"checkpoint={made.folder}", "runtime.run_id=again")
    refused = run(*again, bare=True)
    assert refused.code == 1
    assert "é 1=.jpg" in refused.err
    assert "on_bad_image=skip" not in refused.err
    assert "dataset.on_bad_image=error of its checkpoint" in refused.err
    victim.unlink()
    victim.write_bytes(sound)
    assert run(*again, bare=True).code == 0


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
    one_line(folder_run(run, pictures), "é 1=.jpg", "dataset.on_bad_image=skip")
    ran = folder_run(run, pictures, "dataset.on_bad_image=skip")
    assert ran.code == 0, ran.err
    numbers = ran.json("metrics.json")
    lost = {part: int(victim in listed(ran, part)) for part in ("train", "val", "test")}
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


def test_a_repaired_picture_is_another_answer_than_that_of_the_finished_run(run, pictures):
    victim = pictures / "test/a=b, c/é 1=.jpg"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    again = ("dataset.on_bad_image=skip", "runtime.run_id=again")
    assert folder_run(run, pictures, *again).code == 0
    victim.write_bytes(whole)
    refused = folder_run(run, pictures, *again)
    assert "files changed since they were last hashed (first: test/a=b, c/" in refused.out
    one_line(refused, "is complete, with another manifest_digest", "give a new runtime.run_id")
    ran = folder_run(run, pictures, "runtime.run_id=new")
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["unreadable"] == {"train": 0, "val": 0, "test": 0}


def listed(ran, part):
    """The images of a part of the split, as the record lists them."""
    return (ran.folder / f"splits/{part}.txt").read_text(encoding="utf-8").splitlines()


TORN = ("train/a=b, c/é 1=.jpg", "train/Ram C∕V 'x'/é 3=.jpg", "test/a=b, c/é 0=.jpg")
TRAINED = ("task=train", "task.epochs=1", "task.batch_size=6", "runtime.stack_check=false")


@pytest.mark.parametrize("task", [("task=probe",), ("head=knn", "head.k=1"), TRAINED])
@pytest.mark.parametrize("fit", ["train", "trainval"])
def test_images_that_cannot_be_read_are_counted_and_named(run, pictures, task, fit):
    for path in TORN:
        (pictures / path).write_bytes(b"torn")
    skip = ("dataset.on_bad_image=skip", "dataset.val_fraction=0.25", f"final_fit={fit}")
    ran = folder_run(run, pictures, *skip, *task)
    assert ran.code == 0, ran.err
    numbers, parts = ran.json("metrics.json"), {part: listed(ran, part) for part in SPLITS}
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


def test_an_evaluation_names_the_images_that_it_cannot_read(run, pictures):
    for path in TORN:
        (pictures / path).write_bytes(b"torn")
    made = folder_run(run, pictures, "dataset.on_bad_image=skip")
    root = f'dataset.root="{pictures}"'
    ran = run("task=eval", f'checkpoint="{made.folder}"', root, bare=True)
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
        [note for note in made.json("metrics.json")["notes"] if "occurs" not in note]
    )


@pytest.mark.parametrize("task", [("task=probe",), ("head=knn", "head.k=1"), TRAINED])
def test_classes_that_lose_every_image_of_a_split_are_counted_and_named(
    run, pictures, tmp_path, task
):
    """All training images of one class, all validation images of another."""
    skip = ("dataset.on_bad_image=skip", "dataset.val_fraction=0.25", "final_fit=train")
    whole = folder_run(run, shutil.copytree(pictures, tmp_path / "whole"), *skip, *task)
    classes = [row["name"] for row in whole.json("labelmap.json")["classes"]]
    first, second, _ = classes
    for path in listed(whole, "train"):
        if f"/{first}/" in path:
            (pictures / path).write_bytes(b"torn")
    for path in listed(whole, "val"):
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
    ran = folder_run(run, pictures, "dataset.on_bad_image=skip", "dataset.val_fraction=0.25")
    assert ran.json("metrics.json")["unreadable"] == {"train": 0, "val": 0, "test": 0}
    assert not (ran.folder / "unreadable.json").exists()
    assert ran.json("metrics.json")["notes"] == []


def test_classes_without_a_validation_image_are_counted_and_named(run, tmp_path):
    """6, 1 and 0 validation images of three classes."""
    root, rng = tmp_path / "birds", np.random.default_rng(0)
    for level, (name, count) in enumerate((("gull", 60), ("tern", 10), ("wren", 3))):
        for split, images in (("train", count), ("test", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(images):
                noise = rng.integers(0, 40, (40, 40, 3)) + 70 * level
                Image.fromarray(noise.astype(np.uint8)).save(folder / f"{i}.jpg")
    ran = folder_run(run, root)
    assert ran.code == 0, ran.err
    assert [line.count("/wren/") for line in listed(ran, "val")] == [0] * 7
    (note,) = ran.json("metrics.json")["notes"]
    assert note.startswith(
        "dataset.val_fraction=0.1: 1 of 3 classes have no validation image (wren)"
    )
    assert note.endswith("raise dataset.val_fraction")
    assert ran.out.count(f"note: {note}\n") == 2  # before any work, and beside the numbers
    assert ran.out.index(note) < ran.out.index("features train")
    assert note in html.unescape((ran.folder / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_folders_called_train_and_test_in_any_case(run, pictures, split):
    (pictures / split).rename(pictures / split.capitalize())
    ran = folder_run(run, pictures)
    assert ran.code == 0, ran.err
    assert len(ran.json("labelmap.json")["classes"]) == 3


def test_a_pipe_among_the_pictures_is_passed_over_not_waited_for(run, pictures):
    os.mkfifo(pictures / "train" / "a=b, c" / "pipe.jpg")
    ran = folder_run(run, pictures)
    assert ran.code == 0, ran.err
    assert "1 FIFO, socket or device" in ran.out


def test_every_test_image_unreadable(run, pictures):
    for picture in (pictures / "test").rglob("*.jpg"):
        picture.write_bytes(b"torn")
    ran = folder_run(run, pictures, "dataset.on_bad_image=skip")
    assert ran.code == 0, ran.err
    numbers = ran.json("metrics.json")["test"]
    assert (numbers["top1"], numbers["unreadable"], numbers["loss"]) == (0.0, 12, None)


def test_index_lines_in_another_order_share_no_wrong_feature(run, birds, tmp_path):
    """Features are kept by row: a permuted index must not read another image's."""
    accuracy = []
    for name in ("as written", "reversed"):
        root = tmp_path / name
        shutil.copytree(birds, root)
        if name == "reversed":
            index = root / "images.txt"
            index.write_text("\n".join(reversed(index.read_text().splitlines())) + "\n")
        ran = run(
            "dataset=cub",
            "dataset.partial=true",
            "head=knn",
            "head.k=3",
            *SMALL,
            f'dataset.root="{root}"',
            birds=False,
        )
        table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
        test = table[table.split == "test"].sort_values("path")
        accuracy.append(test.pred.to_list())
    assert accuracy[0] == accuracy[1]


def test_an_image_of_an_official_dataset_altered_since_the_manifest(run, birds, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", *SMALL)
    assert run(*cub, birds=False).code == 0
    victim = sorted(root.rglob("*.jpg"))[7]
    Image.new("RGB", (50, 50), "red").save(victim)
    one_line(run(*cub, birds=False), victim.name, "dataset.accept_altered=true")


WRONG_WEIGHTS = {
    "truncated": lambda good: good[: len(good) // 2],
    "html": lambda good: b"<!DOCTYPE html><html>not found</html>",
    "empty": lambda good: b"",
    "lfs": lambda good: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=1000)
    file = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(model.state_dict(), file)
    return file


@pytest.mark.parametrize("fault", WRONG_WEIGHTS)
def test_wrong_weights(run, weights, fault, tmp_path):
    file = tmp_path / "wrong.pth"
    file.write_bytes(WRONG_WEIGHTS[fault](weights.read_bytes()))
    one_line(run(f"backbone.weights={file}", "backbone.pretrained=true"), "wrong.pth")


def test_weights_of_another_architecture(run, weights):
    ran = run("backbone=vit_small", f"backbone.weights={weights}", "backbone.pretrained=true")
    one_line(ran, "vit.pth", "vit_small", "192", "384")


def test_one_flipped_byte_against_the_recorded_digest(run, weights, tmp_path):
    """Loads silently as wrong weights everywhere else: only the digest catches it."""
    good = tmp_path / "good.pth"
    shutil.copy(weights, good)
    pretrained = (f"backbone.weights={good}", "backbone.pretrained=true")
    made = run(*pretrained, "dataset.subset=tiny", "head=knn", "head.k=3")
    assert made.code == 0, made.err
    digest = made.json("env_stamp.json")["weights_digest"]
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    good.write_bytes(data)
    ran = run(*pretrained, f"backbone.weights_sha256={digest}")
    assert ran.code == 2
    assert digest in ran.err
    again = run("task=eval", f"checkpoint={made.folder}", bare=True)
    assert again.code != 0
    assert digest in again.err


@pytest.mark.parametrize("offline", [True, False], ids=["HF_HUB_OFFLINE", "unreachable"])
def test_no_weights_and_no_network(tmp_path, offline):
    """One line that names the model and both ways out, after five seconds of looking at most."""
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    if offline:
        env["HF_HUB_OFFLINE"] = "1"
    start = time.monotonic()
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    done = subprocess.run(
        [sys.executable, "-m", "fgvc.run", "backbone=vit_small", "dataset=synthetic"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    assert spent < 5  # imports and all; a loaded machine may take longer over them
    assert time.monotonic() - start < 20  # the hub's own retries go on for longer
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    for word in ("vit_small_patch16_224", "main", "hf download", "backbone.weights=PATH"):
        assert word in line
    assert list(tmp_path.glob("outputs/**/metrics.json")) == []


def test_output_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    ran = run(f"runtime.output_root={tmp_path / 'file' / 'outputs'}")
    one_line(ran, str(tmp_path / "file"), "output_root")
    assert "features" not in ran.out  # before any work


def test_device_that_is_not_here(run):
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    one_line(run(f"runtime.device={missing}"), missing, "cpu", "auto")


def test_two_runs_of_one_folder(run, tmp_path):
    first = run("runtime.run_id=same", *SMALL)
    home = first.folder.parent
    with lock(home / ".lock"):
        one_line(run("runtime.run_id=same", *SMALL), str(os.getpid()), ".lock")


def test_a_complete_run_is_skipped_never_overwritten(run):
    first = run("runtime.run_id=same", *SMALL)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    second = run("runtime.run_id=same", *SMALL)
    assert second.code == 0
    assert second.folder is None  # nothing new
    assert f"complete already: {first.folder}" in second.out
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before
    assert not (first.folder.parent / "in-progress").exists()


def test_a_complete_run_of_other_data_is_never_mixed_in(run, pictures):
    same = "runtime.run_id=same"
    assert folder_run(run, pictures, same).code == 0
    Image.new("RGB", (50, 50), "red").save(pictures / "train" / "a=b, c" / "new.jpg")
    one_line(folder_run(run, pictures, same), "manifest_digest", "runtime.run_id")


def test_outside_a_git_checkout_the_run_goes_on(run, monkeypatch, tmp_path):
    """No git, no conda, no nvidia-smi: null in the stamp."""
    from fgvc.record import stamp

    monkeypatch.setattr(stamp, "CODE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(stamp.code, "__defaults__", (tmp_path,))
    ran = run(*SMALL)
    assert ran.code == 0, ran.err
    stamped = ran.json("env_stamp.json")
    assert stamped["git_commit"] is None
    assert stamped["git_dirty"] is None
    assert stamped["driver_version"] is None
    assert stamped["requirements_checksum"] is None
    assert len(stamped["env_hash"]) == 64
    assert not (ran.folder / "code.patch").exists()


def test_a_dirty_tree_is_stamped_with_its_patch(tmp_path):
    from fgvc.record.stamp import code

    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    (tmp_path / "a.txt").write_text("one\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    clean = code(tmp_path)
    assert (clean.dirty, clean.patch, len(clean.commit)) == (False, None, 40)
    (tmp_path / "a.txt").write_text("two\n")
    (tmp_path / "new file.py").write_text("added\n")
    dirty = code(tmp_path)
    assert dirty.dirty is True
    assert b"+two" in dirty.patch
    assert b"+added" in dirty.patch
    assert dirty.patch_sha256 != clean.patch_sha256


@pytest.mark.parametrize(
    ("most", "warm", "victim"),
    [(40_000, False, ".safetensors"), (20_000, True, "confusion.png")],
    ids=["features", "record"],
)
def test_disk_full(started, tmp_path, most, warm, victim):
    """A file that cannot grow: the line names it and the bytes, what is there stays, exit 1."""
    usual = (*(SMALL if warm else ()), f"runtime.cache_root={tmp_path / 'cache'}")
    if warm:
        assert started(*usual, "runtime.run_id=before").wait() == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    job = started(*usual, "runtime.run_id=r", most=most)
    assert job.wait() == 1
    assert victim in job.line
    assert "bytes" in job.line
    assert "Traceback" not in job.said
    assert [path for path in tmp_path.glob("outputs/r/*/*") if path.name[0] not in ".i"] == []
    (status,) = tmp_path.glob("outputs/r/*/in-progress/status.json")
    assert json.loads(status.read_text())["state"] == "failed"
    assert all(path.read_bytes() == data for path, data in before.items())


# --- death at any moment ---


def test_sigterm_is_preempted_and_resumable(started, tmp_path):
    usual = ("runtime.run_id=r", f"runtime.cache_root={tmp_path / 'cache'}")
    job = started(*usual)
    job.until(lambda: list(tmp_path.glob("outputs/r/*/in-progress/status.json")))
    job.send(signal.SIGTERM)
    assert job.wait() == 75, job.said
    assert "runtime.run_id" in job.line
    (status,) = tmp_path.glob("outputs/r/*/in-progress/status.json")
    assert json.loads(status.read_text())["state"] == "preempted"
    assert started(*usual).wait() == 0
    assert not list(tmp_path.glob("outputs/r/*/in-progress"))


MOMENTS = (  # what has just been written when the process dies
    "cache/features/*/*.safetensors",
    "outputs/r/*/*/status.json",
    "outputs/r/*/*/env_stamp.json",
    "outputs/r/*/*/predictions.parquet",
    "outputs/r/*/*/ckpt.bin",
    "outputs/r/*/*/artifacts.json",
)


def written(root, moment):
    found = {}
    for path in root.glob(moment):
        with contextlib.suppress(FileNotFoundError):  # renamed meanwhile
            found[path] = path.stat().st_mtime_ns
    return found.items()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigkill_at_any_moment_leaves_nothing_that_looks_complete(started, wait_until, tmp_path):
    """Killed at several moments, then run to the end: the bytes of an undisturbed run."""
    usual = (*SMALL, "runtime.run_id=r", f"runtime.cache_root={tmp_path / 'cache'}")
    codes = []
    for moment in MOMENTS:
        before = written(tmp_path, moment)
        job = started(*usual)
        wait_until(lambda j=job, m=moment, b=before: written(tmp_path, m) - b or j.ended)
        job.process.kill()
        codes.append(job.wait())
        for folder in tmp_path.glob("outputs/r/*/*"):
            assert folder.name in ("in-progress", ".lock") or (folder / "metrics.json").is_file()
    # a machine that looks away for a second sees a later moment, or the end
    assert codes[:2] == [-signal.SIGKILL] * 2
    assert set(codes) <= {-signal.SIGKILL, 0}
    last = started(*usual)
    assert last.wait() == 0, last.said
    (folder,) = (p.parent for p in tmp_path.glob("outputs/r/*/*/metrics.json"))
    other = started(
        *usual, *(f"runtime.{name}_root={tmp_path / 'other'}" for name in ("cache", "output"))
    )
    assert other.wait() == 0, other.said
    (undisturbed,) = (p.parent for p in tmp_path.glob("other/r/*/*/metrics.json"))
    for name in ("predictions.parquet", "ckpt.bin"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()


def test_what_a_reader_must_know_stands_beside_the_numbers(run, pictures):
    """A picture that is in both train and test, byte for byte."""
    shutil.copy(pictures / "train/a=b, c/é 1=.jpg", pictures / "test/a=b, c/é 0=.jpg")
    ran = folder_run(run, pictures)
    (note,) = [note for note in ran.json("metrics.json")["notes"] if "both train and test" in note]
    assert ran.out.partition("top-1 [95 %]")[2].count(f"note: {note}\n") == 1
    page = html.unescape((ran.folder / "report.html").read_text(encoding="utf-8"))
    assert note in page.partition("What ran")[0]
