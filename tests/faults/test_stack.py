"""A machine without network or without the device: one line with the way out."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time

import pytest
import torch

from tests.faults.steps import (
    assert_one_line,
)


@pytest.mark.fault(29)
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


@pytest.mark.fault(41)
def test_device_that_is_not_here(run):
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    assert_one_line(run(f"runtime.device={missing}"), missing, "cpu", "auto")
