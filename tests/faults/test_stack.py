"""A machine without network or without the device: one line with the way out."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys

import pytest
import torch

from tests.faults.steps import (
    assert_one_line,
)
from tests.jobs import HANG, import_path


def connections(server: socket.socket) -> int:
    """How many clients have connected to a server that has accepted none of them."""
    server.setblocking(False)
    clients = []
    with contextlib.suppress(BlockingIOError):
        while True:
            clients.append(server.accept()[0])
    for client in clients:
        client.close()
    return len(clients)


@pytest.mark.fault(29)
@pytest.mark.parametrize("offline", [True, False], ids=["HF_HUB_OFFLINE", "silent"])
def test_no_weights_and_no_network(tmp_path, offline):
    """One line that names the model and both ways out, after five seconds of looking at most."""
    hub = socket.create_server(("127.0.0.1", 0))  # which never answers
    endpoint = f"http://127.0.0.1:{hub.getsockname()[1]}"
    env = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": endpoint, "NO_PROXY": "*"}
    env["PYTHONPATH"] = import_path()
    if offline:
        env["HF_HUB_OFFLINE"] = "1"
    before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    done = subprocess.run(
        [sys.executable, "-m", "fgvc.run", "backbone=vit_small", "dataset=synthetic"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG,
    )
    spent = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before
    assert spent < 5  # imports and all; a loaded machine may take longer over them
    with hub:
        assert connections(hub) == (0 if offline else 1)  # the hub's own client would retry
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    for word in ("vit_small_patch16_224", "main", "hf download", "backbone.weights=PATH"):
        assert word in line
    assert list(tmp_path.glob("outputs/**/metrics.json")) == []


@pytest.mark.fault(41)
def test_device_that_is_not_here(run):
    missing = "mps" if not torch.backends.mps.is_available() else "cuda"
    assert_one_line(run(f"runtime.device={missing}"), missing, "cpu", "auto")
