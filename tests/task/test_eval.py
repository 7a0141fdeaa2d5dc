"""task=eval: a checkpoint repeats its numbers exactly, or is refused in one line."""

from __future__ import annotations

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest
import timm
import torch
from omegaconf import OmegaConf

from fgvc.record import checkpoint
from fgvc.report.audit import run_audit
from fgvc.types import UserError
from fgvc.untrusted import shell

# 16 patches and the smallest backbone: for what is not about pixels
SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")


@pytest.mark.parametrize("head", ["linear", "knn"])
def test_eval_reproduces_the_recorded_numbers_exactly(run, finished, head):
    fitted = finished(f"head={head}")
    again = repeat(run, fitted.folder)
    assert again.code == 0, again.err
    assert again.folder != fitted.folder
    assert again.folder.parts[-2:] == fitted.folder.parts[-2:]
    assert again.folder.parts[-3] != fitted.folder.parts[-3]
    assert again.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]
    both = []
    for ran in (fitted, again):
        table = pq.read_table(ran.folder / "predictions.parquet")
        both.append(table.filter(table["split"].to_numpy() == "test"))
    assert both[0].equals(both[1])
    assert again.json("env_stamp.json")["task"] == "eval"
    assert again.json("env_stamp.json")["run_id"] != fitted.json("env_stamp.json")["run_id"]
    assert (
        again.json("env_stamp.json")["config_hash"] == fitted.json("env_stamp.json")["config_hash"]
    )


def repeat(run, path, *more):
    """task=eval with only paths and runtime, as required."""
    return run("task=eval", f"checkpoint={path}", *more, bare=True)


def test_eval_needs_no_folder_around_the_checkpoint(run, finished, tmp_path):
    fitted = finished("head=linear")
    alone = tmp_path / "alone" / "my checkpoint.bin"
    alone.parent.mkdir()
    shutil.copy(fitted.folder / "ckpt.bin", alone)
    root = OmegaConf.load(fitted.folder / "config.yaml").dataset.root
    again = repeat(run, f'"{alone}"', f"dataset.root={root}")
    assert again.code == 0, again.err
    assert again.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]


FAULTS = {
    "flipped byte": (lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "sha256 mismatch"),
    "truncated": (lambda data: data[: len(data) // 2], "sha256 mismatch"),
    "empty": (lambda data: b"", "0 bytes"),
    "html": (lambda data: b"<!DOCTYPE html><html>404</html>", "HTML"),
    "lfs": (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
    "pickle": (lambda data: b"\x80\x04\x95" + b"." * 60, "pickle"),
}


@pytest.mark.fault(9, 11)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("inside", [True, False], ids=["in its folder", "copied away"])
def test_a_damaged_checkpoint_never_loads(run, copied, fault, inside, tmp_path):
    fitted = copied("head=linear")
    damage, message = FAULTS[fault]
    data = damage((fitted.folder / "ckpt.bin").read_bytes())
    file = fitted.folder / "ckpt.bin" if inside else tmp_path / "ckpt.bin"
    file.write_bytes(data)
    ran = repeat(run, file)
    assert ran.code == 1
    assert ran.folder is None
    assert ran.err.count("\n") == 1
    if not inside and fault == "truncated":
        message = "not a checkpoint"
    if inside and fault not in ("flipped byte", "truncated"):
        message = "sha256 mismatch"
    assert message in ran.err


@pytest.mark.fault(10)
def test_a_malicious_pickle_executes_nothing(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    file = tmp_path / "ckpt.bin"
    torch.save({"head": Bomb()}, file)
    with pytest.raises(UserError, match="pickle"):
        checkpoint.read(file)
    assert not (tmp_path / "executed").exists()


@pytest.mark.fault(12, 25)
def test_a_checkpoint_of_another_label_map_is_refused_with_both(run, birds, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(birds, tmp_path / name)
    index = tmp_path / "two" / "classes.txt"
    last = index.read_text().split()[-1]
    for file in (index, tmp_path / "two" / "images.txt"):
        file.write_text(file.read_text().replace(last, "006.Another_Bird"))
    (tmp_path / "two/images" / last).rename(tmp_path / "two/images/006.Another_Bird")
    cub = ("dataset=cub", "dataset.partial=true")
    fitted = run(*cub, *SMALL, f"dataset.root={tmp_path / 'one'}", birds=False)
    assert fitted.code == 0, fitted.err
    ran = repeat(run, fitted.folder, f"dataset.root={tmp_path / 'two'}")
    assert ran.code == 1
    assert "another label map" in ran.err


def test_a_checkpoint_is_evaluated_on_a_copy_that_is_declared_partial(run, birds, tmp_path):
    official = [f"dataset.official.{count}" for count in ("classes=6", "train=60", "test=30")]
    fitted = run("dataset=cub", *official, *SMALL, f"dataset.root={birds}", birds=False)
    assert fitted.code == 0, fitted.err
    root = tmp_path / "part"
    shutil.copytree(birds, root)
    split = root / "train_test_split.txt"
    missing_id = next(
        line.split()[0] for line in split.read_text().splitlines() if line.endswith(" 0")
    )
    for file in ("images.txt", "image_class_labels.txt", "train_test_split.txt"):
        lines = (root / file).read_text().splitlines(keepends=True)
        (root / file).write_text("".join(line for line in lines if line.split()[0] != missing_id))
    refused = repeat(run, fitted.folder, f"dataset.root={root}")
    assert refused.code == 1
    assert "29 of 30 test" in refused.err
    ran = repeat(run, fitted.folder, f"dataset.root={root}", "dataset.partial=true")
    assert ran.code == 0, ran.err
    assert ran.json("env_stamp.json")["partial"] is True
    assert ran.json("metrics.json")["test"]["n"] == 29


def test_altered_files_of_an_official_dataset_are_accepted_by_the_command_alone(
    run, birds, tmp_path
):
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", *SMALL)
    fitted = run(*cub, "dataset.accept_altered=true", birds=False)
    assert fitted.code == 0, fitted.err
    with next(iter(sorted(root.rglob("*.jpg")))).open("ab") as file:
        file.write(b"more")
    refused = repeat(run, fitted.folder)
    assert refused.code == 1
    assert "add dataset.accept_altered=true to accept the files as they are now" in refused.err
    ran = repeat(run, fitted.folder, "dataset.accept_altered=true")
    assert ran.code == 0, ran.err
    assert "1 of 90 files changed since they were last hashed" in ran.out
    stamps = [result.json("env_stamp.json") for result in (fitted, ran)]
    assert stamps[0]["config_hash"] == stamps[1]["config_hash"]
    assert stamps[0]["manifest_digest"] != stamps[1]["manifest_digest"]


@pytest.mark.fault(30)
def test_weights_that_moved_are_found_by_their_digest(run, tmp_path):
    """A run stores local weights by digest, so the checkpoint works after the file has moved."""
    torch.manual_seed(0)
    file = tmp_path / "vit.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=10).state_dict(), file)
    small = ("dataset.subset=tiny", "head=knn", "head.k=3")
    fitted = run(f"backbone.weights={file}", "backbone.pretrained=true", *small)
    assert fitted.code == 0, fitted.err
    file.unlink()
    again = repeat(run, fitted.folder)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]


def test_a_run_ends_with_commands_that_work_and_last_is_recorded_as_a_path(run, copied, birds):
    fitted = copied("head=linear")
    printed = fitted.out.partition("\nnext:\n")[2].replace(" \\\n", " ").splitlines()
    predict, *others = [shell.split(line.strip())[3:] for line in printed]
    assert predict[:2] == ["task=predict", f"checkpoint={fitted.folder.name[:8]}"]
    assert [words[0] for words in others[:1] + others[-1:]] == ["task=view", "task=report"]
    image = next(iter(sorted((birds / "images").glob("*/*.jpg"))))
    # a copy of the run: the output root of this test, thus without that of the printed command
    ran = run(*predict[:2], f'image="{image}"', "task.format=json", bare=True)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["checkpoint"] == fitted.json("artifacts.json")["ckpt.bin"]["sha256"]
    assert f"note: {predict[1]}: {fitted.folder}\n" in ran.err
    again = repeat(run, "last")
    assert again.code == 0, again.err
    for name in ("command.txt", "config.yaml"):
        text = (again.folder / name).read_text()
        assert str(fitted.folder) in text
        assert "last" not in re.split(r"[ =:\n]", text)
    assert f"checkpoint={fitted.folder.name[:8]} image=" in again.out.replace(" \\\n   ", "")


def test_the_same_eval_twice_is_skipped(run, finished):
    fitted = finished("head=linear")
    first = repeat(run, fitted.folder, "runtime.run_id=twice")
    again = repeat(run, fitted.folder, "runtime.run_id=twice")
    assert (first.code, again.code) == (0, 0)
    assert again.folder is None
    assert "complete already" in again.out


@pytest.mark.fault(9)
@pytest.mark.parametrize("name", ["artifacts.json", "config.yaml"])
def test_a_damaged_file_beside_the_checkpoint_is_named(run, copied, name):
    fitted = copied("head=linear")
    (fitted.folder / name).write_text("a: [")
    ran = repeat(run, fitted.folder)
    assert ran.code == 1
    assert name in ran.err
    assert ran.err.count("\n") == 1


def test_eval_of_nothing_and_of_a_missing_file(run, tmp_path):
    assert repeat(run, tmp_path / "none.bin").code == 2
    ran = run("task=eval", bare=True)
    assert ran.code == 2
    assert "checkpoint=PATH" in ran.err


# --- what a head was fitted on, and what it is evaluated on ---

CUB = ("dataset=cub", "dataset.partial=true", "head=knn", "head.k=3", *SMALL)


@pytest.fixture
def roots(birds, tmp_path, monkeypatch):
    """The same birds twice; the second copy tests on what the first trains on."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no-git"))
    pair = [shutil.copytree(birds, tmp_path / name) for name in ("one", "two")]
    index = pair[1] / "train_test_split.txt"
    rows = [line.split() for line in index.read_text().splitlines()]
    index.write_text("".join(f"{name} {1 - int(train)}\n" for name, train in rows))
    return pair


def report(run, root):
    """Rows of baselines.json by run_id, and the terminal output."""
    ran = run("task=report", bare=True)
    assert ran.code == 0, ran.err
    rows = json.loads((root / "baselines.json").read_text())["rows"]
    return {row["run_id"][0]: row for row in rows}, ran.out


def test_a_head_that_was_fitted_on_the_test_images_is_in_no_ranking(run, roots, tmp_path):
    first_root, second_root = (f"dataset.root={root}" for root in roots)
    fitted = {}
    for root, name in ((second_root, "rival"), (first_root, "fitted")):
        fitted[name] = run(*CUB, root, f"runtime.run_id={name}", birds=False)
        assert fitted[name].code == 0, fitted[name].err
    again = repeat(run, fitted["fitted"].folder, second_root, "runtime.run_id=eval")
    assert again.code == 0, again.err
    n = again.json("metrics.json")["test"]["n"]
    assert again.json("metrics.json")["overlap"] == {"images": n}
    assert f"{n} of the {n} test images fitted or chose the head" in again.out
    assert fitted["rival"].json("metrics.json")["overlap"] == {"images": 0}
    assert fitted["fitted"].json("metrics.json")["overlap"] == {"images": 0}

    rows, out = report(run, tmp_path / "outputs")
    assert rows["eval"]["group"] not in {rows[name]["group"] for name in fitted}
    assert rows["rival"]["place"] == rows["fitted"]["place"] == 1
    unranked = rows["eval"]
    assert (unranked["place"], unranked["best"], unranked["tie_with_best"]) == (None, False, None)
    assert (unranked["overlap"], unranked["p_holm"]) == (n, None)
    assert f"{n} of the {n} test images" in unranked["outside"]
    assert f"{n} of the {n} test images" in " ".join(out.split())

    failed_checks = {
        check.id: check for check in run_audit(again.folder)[1] if check.state == "FAIL"
    }
    assert failed_checks.keys() == {"no-test-image-fitted"}
    assert f"{n} of {n} test images" in failed_checks["no-test-image-fitted"].evidence


def test_other_images_make_another_group_in_table_and_audit(run, roots, tmp_path):
    """Fitted on one copy, evaluated on another that shares no image with the fit."""
    first_root, second_root = roots
    for file in sorted((second_root / "images").rglob("*.jpg")):
        file.write_bytes(file.read_bytes() + b"\0")  # a decoder stops before it
    fitted = run(*CUB, f"dataset.root={first_root}", "runtime.run_id=fitted", birds=False)
    rival = run(*CUB, f"dataset.root={second_root}", "runtime.run_id=rival", birds=False)
    again = repeat(run, fitted.folder, f"dataset.root={second_root}", "runtime.run_id=eval")
    assert (fitted.code, rival.code, again.code) == (0, 0, 0), again.err
    fit, here = fitted.json("metrics.json"), again.json("metrics.json")
    parts = here["comparability"]
    assert parts["fitted_manifest"] == fit["comparability"]["manifest"]
    assert parts["fitted_split"] == fit["comparability"]["split"]
    assert parts["manifest"] == again.json("env_stamp.json")["manifest_digest"]
    assert here["comparability_key"] != rival.json("metrics.json")["comparability_key"]
    assert here["overlap"] == {"images": 0}
    assert here["fitted_on"] == fit["fitted_on"]
    rows, out = report(run, tmp_path / "outputs")
    assert (rows["eval"]["place"], rows["rival"]["place"]) == (1, 1)
    assert rows["eval"]["group"] != rows["rival"]["group"]
    assert f"fitted on other data ({parts['fitted_manifest'][:8]})" in " ".join(out.split())
    assert [check.id for check in run_audit(again.folder)[1] if check.state == "FAIL"] == []


def test_identical_files_in_train_and_test_exclude_the_run_from_the_ranking(run, roots, tmp_path):
    root = roots[0]
    is_train = dict(
        line.split() for line in (root / "train_test_split.txt").read_text().splitlines()
    )
    path = dict(line.split() for line in (root / "images.txt").read_text().splitlines())
    train, test = ([path[key] for key in path if is_train[key] == flag] for flag in "10")
    for name in range(2):
        shutil.copy(root / "images" / train[name], root / "images" / test[name])
    fitted = run(*CUB, f"dataset.root={root}", "runtime.run_id=a", birds=False)
    assert fitted.code == 0, fitted.err
    assert fitted.json("metrics.json")["overlap"] == {"images": 2}
    rows, _ = report(run, tmp_path / "outputs")
    assert (rows["a"]["place"], rows["a"]["overlap"]) == (None, 2)


@pytest.mark.parametrize(
    ("head", "chooses"),
    [
        (("head=linear", "task.c_count=3"), True),
        (("head=knn",), False),
        (("task=train", "task.epochs=1", "task.batch_size=8", "runtime.stack_check=false"), True),
    ],
)
def test_validation_images_that_selected_the_head_count_as_overlap(
    run, birds, tmp_path, monkeypatch, head, chooses
):
    """final_fit=train: C is chosen on images that are the test of the second run; k is given."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no-git"))
    first_root = shutil.copytree(birds, tmp_path / "one")
    fixed = ("dataset=cub", "dataset.partial=true", "dataset.val_fraction=0.3", *SMALL, *head)
    fitted = run(
        *fixed, f"dataset.root={first_root}", "final_fit=train", "runtime.run_id=made", birds=False
    )
    assert fitted.code == 0, fitted.err
    assert fitted.json("metrics.json")["overlap"] == {"images": 0}
    assert [check.id for check in run_audit(fitted.folder)[1] if check.state == "FAIL"] == []
    second_root = shutil.copytree(first_root, tmp_path / "two")
    chosen = (fitted.folder / "splits/val.txt").read_text().split()
    path = dict(line.split() for line in (second_root / "images.txt").read_text().splitlines())
    index = second_root / "train_test_split.txt"
    rows = [line.split() for line in index.read_text().splitlines()]
    is_train = {key: int(f"images/{path[key]}" not in chosen) for key, _ in rows}
    index.write_text("".join(f"{key} {flag}\n" for key, flag in is_train.items()))
    again = repeat(run, fitted.folder, f"dataset.root={second_root}", "runtime.run_id=eval")
    assert again.code == 0, again.err
    n = again.json("metrics.json")["test"]["n"]
    assert n == len(chosen) > 0
    assert again.json("metrics.json")["overlap"] == {"images": n if chooses else 0}
    rows, _ = report(run, tmp_path / "outputs")
    assert (rows["eval"]["place"] is None) is chooses
    failed_checks = {check.id for check in run_audit(again.folder)[1] if check.state == "FAIL"}
    assert failed_checks == ({"no-test-image-fitted"} if chooses else set())


# --- the same answer again ---


def test_evaluations_with_equal_predictions_are_repeats_of_their_run(run, roots, tmp_path):
    fitted = run(*CUB, f"dataset.root={roots[0]}", "runtime.run_id=made", birds=False)
    for name, size in (("a", 64), ("b", 7)):
        again = repeat(
            run, fitted.folder, f"runtime.run_id={name}", f"runtime.eval_batch_size={size}"
        )
        assert again.code == 0, again.err
    rows, _ = report(run, tmp_path / "outputs")
    assert rows.keys() == {"made"}
    assert (rows["made"]["repeats"], rows["made"]["place"]) == (2, 1)
