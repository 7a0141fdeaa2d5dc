"""A small dataset of synthetic birds and one way to start a run, as a user does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fgvc.run import main

BIRDS = (
    "dataset.generator.classes=6",
    "dataset.generator.train_per_class=10",
    "dataset.generator.test_per_class=5",
    "dataset.generator.side=128",
)
BASE = ("backbone=vit_tiny", "backbone.pretrained=false", "runtime.num_workers=0")


@dataclass(frozen=True)
class Ran:
    """One finished run: its exit code, its folder (None if it failed) and what it printed."""

    overrides: tuple[str, ...]
    code: int
    folder: Path | None
    out: str
    err: str

    def json(self, name: str) -> Any:
        assert self.folder is not None, self.err
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="session")
def shared_places(tmp_path_factory) -> dict[str, Path]:
    """Data and cache are shared by the tests of this folder: content is addressed by digest."""
    return {name: tmp_path_factory.mktemp(name) for name in ("data", "cache")}


@pytest.fixture
def places(shared_places, tmp_path) -> list[str]:
    return [
        f"runtime.data_root={shared_places['data']}",
        f"runtime.cache_root={shared_places['cache']}",
        f"runtime.output_root={tmp_path / 'outputs'}",
        f"runtime.multirun_root={tmp_path / 'multirun'}",
        f"runtime.weights_root={tmp_path / 'weights'}",
    ]


@pytest.fixture
def run(places, tmp_path, capfd) -> Callable[..., Ran]:
    """Run fgvc in this process with the given overrides; later ones win."""

    def start(*overrides: str, birds: bool = True, bare: bool = False) -> Ran:
        defaults = () if bare else (*BASE, *(BIRDS if birds else ()))
        # an override given twice is an error to Hydra: the last one stands
        chosen: dict[str, str] = {}
        for item in (*defaults, *places, *overrides):
            chosen[item.partition("=")[0]] = item
        before = set(complete_folders(tmp_path))
        capfd.readouterr()
        code = main(list(chosen.values()))
        said = capfd.readouterr()
        new = sorted(set(complete_folders(tmp_path)) - before)
        return Ran(tuple(chosen.values()), code, new[0] if new else None, said.out, said.err)

    return start


@pytest.fixture
def sweep(places, capfd) -> Callable[..., tuple[int, str]]:
    """Run a sweep; its exit code and what it printed."""

    def start(*overrides: str) -> tuple[int, str]:
        capfd.readouterr()
        code = main(["-m", *BASE, *places, *overrides])
        return code, capfd.readouterr().out

    return start


def complete_folders(root: Path) -> list[Path]:
    return [
        status.parent for status in root.rglob("status.json") if status.parent.name != "in-progress"
    ]
