"""Fixtures: a folder with awkward names, a stopped finetune, and its undisturbed outcome."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faults.steps import EVERYTHING


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder dataset with awkward names: three classes that differ in brightness."""
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


@pytest.fixture(scope="session")
def outcome_cache():
    """The outcome of `undisturbed_outcome`, shared by all tests."""
    return []


@pytest.fixture
def undisturbed_outcome(finetune, tmp_path, read_outcome, outcome_cache):
    """undisturbed_outcome() -> the outcome of an uninterrupted finetune with EVERYTHING."""

    def run_once():
        if not outcome_cache:
            ran = finetune(*EVERYTHING, f"runtime.output_root={tmp_path / 'undisturbed'}")
            assert ran.code == 0, ran.err
            outcome_cache.append(read_outcome(ran.folder))
        return outcome_cache[0]

    return run_once


@pytest.fixture
def stop_finetune(finetune, stop_after):
    """stop_finetune(steps) stops a finetune in this process by SIGTERM after that step."""

    def start(steps, *more):
        with stop_after(steps):
            ran = finetune(*EVERYTHING, *more)
        assert ran.code == 75, ran.err
        return ran

    return start
