"""Runs with damaged states and wrong weights: one line, and never other numbers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.faults.steps import (
    EVERYTHING,
    assert_one_line,
    flip_byte,
)


@pytest.mark.fault(8, 9)
@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(flip_byte, id="flipped", marks=pytest.mark.slow),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:1000]), id="truncated"),
    ],
)
def test_a_damaged_newest_state_is_skipped(
    finetune, stop_finetune, run_files, read_outcome, undisturbed_outcome, harm
):
    stop_finetune(8)
    _, newest = run_files("in-progress/resume/state-*.pt")
    harm(newest)
    ran = finetune(*EVERYTHING)
    assert ran.code == 0, ran.err
    assert newest.name in ran.out
    assert f"{newest}" in ran.out
    assert "resumed after step 7" in ran.out
    assert ran.json("metrics.json")["resumed"]["step"] == 7
    assert read_outcome(ran.folder) == undisturbed_outcome()


@pytest.mark.fault(8)
@pytest.mark.slow
def test_without_a_whole_state_training_starts_from_step_0(
    finetune, stop_finetune, run_files, read_outcome, undisturbed_outcome
):
    stop_finetune(4)
    for path in run_files("in-progress/resume/state-*.pt"):
        flip_byte(path)
    ran = finetune(*EVERYTHING)
    assert ran.code == 0, ran.err
    assert "the training starts from step 0" in ran.out
    assert read_outcome(ran.folder) == undisturbed_outcome()


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


@pytest.mark.fault(11)
@pytest.mark.parametrize("fault", WRONG_WEIGHTS)
def test_wrong_weights(run, weights, fault, tmp_path):
    file = tmp_path / "wrong.pth"
    file.write_bytes(WRONG_WEIGHTS[fault](weights.read_bytes()))
    assert_one_line(run(f"backbone.weights={file}", "backbone.pretrained=true"), "wrong.pth")


@pytest.mark.fault(12)
def test_weights_of_another_architecture(run, weights):
    ran = run("backbone=vit_small", f"backbone.weights={weights}", "backbone.pretrained=true")
    assert_one_line(ran, "vit.pth", "vit_small", "192", "384")


@pytest.mark.fault(9, 30)
def test_one_flipped_byte_against_the_recorded_digest(run, weights, tmp_path):
    """Without the digest, the wrong weights would load silently."""
    good = tmp_path / "good.pth"
    shutil.copy(weights, good)
    pretrained = (f"backbone.weights={good}", "backbone.pretrained=true")
    fitted = run(*pretrained, "dataset.subset=tiny", "head=knn", "head.k=3")
    assert fitted.code == 0, fitted.err
    digest = fitted.json("env_stamp.json")["weights_digest"]
    data = bytearray(good.read_bytes())
    data[len(data) // 2] ^= 1
    good.write_bytes(data)
    ran = run(*pretrained, f"backbone.weights_sha256={digest}")
    assert ran.code == 2
    assert digest in ran.err
    again = run("task=eval", f"checkpoint={fitted.folder}", bare=True)
    assert again.code != 0
    assert digest in again.err
