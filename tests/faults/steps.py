"""Steps and options that the fault tests share."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

# 16 patches and the smallest backbone, for tests that do not depend on the pixels
SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")


def folder_run(run, root, *more):
    return run("dataset=folder", f'dataset.root="{root}"', *SMALL, *more, birds=False)


def assert_one_line(ran, *words):
    assert ran.code == 1
    assert ran.folder is None
    assert ran.err.count("\n") == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err, ran.err


def listed_images(ran, part):
    """Paths of a split, as listed in the record."""
    return (ran.folder / f"splits/{part}.txt").read_text(encoding="utf-8").splitlines()


EVERYTHING = (  # every random, averaged or counted option, with a state after every step
    "task.drop_path=0.3",
    "task.mixup=0.8",
    "task.cutmix=1.0",
    "task.ema=0.9",
    "task.epochs=6",
    "task.select=loss",
    "runtime.save_every=1",
    "runtime.run_id=r",
)


def state_names(run_files):
    return {path.name for path in run_files("in-progress/resume/state-*.pt")}


def read_status(run_files):
    (path,) = run_files("in-progress/status.json")
    return json.loads(path.read_text())


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def set_key(facts: dict[str, Any], key: str, value: object) -> None:
    """Set the value of a dotted key in nested mappings."""
    *nodes, name = key.split(".")
    for node in nodes:
        facts = facts[node]
    facts[name] = value


def call_with_limited_memory(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call with at most 3 GiB of address space beyond the currently mapped memory."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * 2**30, before[1]))
    try:
        return call(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
