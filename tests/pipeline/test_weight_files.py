"""Runs from weights in common formats: messages, record, and search by digest."""

from __future__ import annotations

import json
import shutil

import pytest
import timm
import torch

from fgvc.config.checkpoint_rows import published_rows
from fgvc.record import checkpoint

SMALL = (
    "backbone=vit",
    "backbone.size=mini",
    "backbone.pretrained=true",
    "resolution.side=64",
    "resolution.name=r64",
    "head=knn",
    "head.k=3",
)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """The state dict of the test model of backbone=vit."""
    row = published_rows("vit")["mini"]
    torch.manual_seed(0)
    return timm.create_model(row["model"], num_classes=0, **row["architecture"]).state_dict()


def test_the_part_that_was_read_is_reported_and_recorded_with_a_warm_cache_too(
    run, state, tmp_path
):
    ema = {f"module.{key}": value + 0.01 for key, value in state.items()}
    torch.save({"state_dict": state, "state_dict_ema": ema, "epoch": 3}, tmp_path / "last.pth.tar")
    note = (
        "weights last.pth.tar: read from `state_dict_ema.module`, the EMA, as timm does; "
        "ignored: `state_dict` fits too"
    )
    for again in ("cold", "warm"):
        ran = run(*SMALL, f"backbone.weights={tmp_path}/last.pth.tar", f"runtime.run_id={again}")
        assert ran.code == 0, ran.err
        assert f"note: {note}" in ran.out
        assert note in ran.json("metrics.json")["notes"]
        assert "weights_notes" not in ran.json("metrics.json")["cost"]
        _, facts, _ = checkpoint.read(ran.folder)
        assert note in facts["fit"]["notes"]
    assert ran.json("metrics.json")["cost"]["forwarded"] == 0


def test_a_checkpoint_finds_sharded_weights_again_by_their_digest(run, state, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    names = list(state)
    parts = {"a.bin": names[::2], "b.bin": names[1::2]}
    for name, keys in parts.items():
        torch.save({key: state[key] for key in keys}, folder / name)
    index = {"weight_map": {key: name for name, keys in parts.items() for key in keys}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    fitted = run(*SMALL, f"backbone.weights={folder}")
    assert fitted.code == 0, fitted.err
    shutil.rmtree(folder)
    again = run("task=eval", f"checkpoint={fitted.folder}", bare=True)
    assert again.code == 0, again.err
    for name in ("metrics.json", "env_stamp.json"):
        first, second = fitted.json(name), again.json(name)
        key = "test" if name == "metrics.json" else "weights_digest"
        assert first[key] == second[key]


def test_weights_that_are_not_finite_end_before_any_image_is_read(run, state, tmp_path):
    state = {**state, "norm.bias": torch.full_like(state["norm.bias"], float("nan"))}
    torch.save(state, tmp_path / "w.pth")
    ran = run(*SMALL, f"backbone.weights={tmp_path}/w.pth")
    assert ran.code == 1
    (line,) = [line for line in ran.err.splitlines() if "NaN" in line]
    assert f"weights {tmp_path}/w.pth: " in line
    assert "norm.bias are NaN or infinite" in line
