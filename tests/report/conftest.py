"""A few real runs, computed once per session, and forged runs that are derived from them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from fgvc import metrics
from fgvc.record import checkpoint
from fgvc.run import main
from fgvc.store import hashing
from fgvc.store.file_lock import lock
from tests.faults.forger import reseal

BIRDS = (
    "dataset=synthetic",
    "dataset.generator.classes=6",
    "dataset.generator.train_per_class=6",
    "dataset.generator.test_per_class=5",
    "dataset.generator.side=64",
    "dataset.val_fraction=0.2",
    "resolution.side=64",
    "resolution.name=r64",
    "task.c_count=5",
)
Forge = Callable[..., Path]

# of 300 test images, those that the two compared runs have right
RIGHT_N, OTHER_N = np.arange(300) % 5 < 3, np.arange(300) % 7 < 4


@pytest.fixture(scope="session")
def real(shared_tmp_path) -> Path:
    """outputs/ of one sweep: linear and knn, two seeds, fitted on train and on trainval.

    The first worker that needs it runs the sweep; the others wait for it.
    """
    home = shared_tmp_path / "sweep-of-reports"
    finished = home / "finished"
    with lock(shared_tmp_path / "sweep-of-reports.lock", wait=True):
        if not finished.exists():
            run_sweep(home)
            finished.touch()
    return home / "output"


def run_sweep(home: Path) -> None:
    places = [
        f"runtime.{name}_root={home / name}" for name in ("output", "cache", "data", "weights")
    ]
    with pytest.MonkeyPatch.context() as patch:
        # the same code for all runs, even if the checkout is edited meanwhile
        patch.setenv("GIT_DIR", str(home / "no-git"))
        code = main(
            [
                "-m",
                "backbone=vit_tiny",
                "backbone.pretrained=false",
                "runtime.num_workers=0",
                "runtime.run_id=first",
                f"runtime.multirun_root={home / 'multirun'}",
                "head=linear,knn",
                "seed=0,1",
                "final_fit=train,trainval",
                *BIRDS,
                *places,
            ]
        )
    assert code == 0


@pytest.fixture
def runs(real: Path) -> Callable[..., Path]:
    """The real run of a head, seed and final_fit."""

    def find_run(head: str = "linear", seed: int = 0, final_fit: str = "trainval") -> Path:
        for file in real.glob("*/*/*/config.canonical.json"):
            conf = json.loads(file.read_text())
            if (conf["head"]["name"], conf["seed"], conf["final_fit"]) == (head, seed, final_fit):
                return file.parent
        raise AssertionError((head, seed, final_fit))

    return find_run


@pytest.fixture
def outputs(real: Path, tmp_path: Path) -> Path:
    """A copy of all real runs, to be damaged."""
    return shutil.copytree(real, tmp_path / "outputs")


@pytest.fixture
def forge(runs, tmp_path: Path) -> Forge:
    """`forge(run_id, config=…, stamp=…, numbers=…, right=…)` -> a sealed folder under made/.

    Nested mappings change single keys in the files of the real run. right: whether each prediction
    is right. wrong: distance of a wrong class index from the label. facts, tensors: changes of the
    metadata and the tensors of the checkpoint. A report derives the comparability key from the
    other files, so a given key is written as the digest of the label map.
    """

    def make(
        run_id: str,
        source: Path | None = None,
        config: Mapping[str, Any] | None = None,
        stamp: Mapping[str, Any] | None = None,
        numbers: Mapping[str, Any] | None = None,
        right: np.ndarray | None = None,
        facts: Mapping[str, Any] | None = None,
        tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
        wrong: int = 1,
    ) -> Path:
        work = shutil.copytree(source or runs(), tmp_path / "made" / run_id / "work")
        if right is not None:
            _answer(work, right, wrong)
        if numbers and "comparability_key" in numbers:
            stamp = {**(stamp or {}), "labelmap_digest": numbers["comparability_key"]}
        plain = _change(work / "config.canonical.json", config, canonical=True)
        name = hashing.sha256_bytes(hashing.canonical_json(plain))
        _change(work / "env_stamp.json", {**(stamp or {}), "config_hash": name, "run_id": run_id})
        idle = {"cost": {"other_load": 0.0}}  # whatever else this machine does
        _change(work / "metrics.json", _merged(idle, numbers or {}))
        stored_tensors, stated_facts, _ = checkpoint.read(source or runs())
        stated_facts = _merged({**stated_facts, "config_hash": name}, facts or {})
        checkpoint_id = checkpoint.write(work, tensors(stored_tensors), stated_facts)
        reseal(work)
        target = work.parent / name[:16] / checkpoint_id[:16]
        target.parent.mkdir()
        return work.rename(target)

    return make


@pytest.fixture
def output_root(tmp_path: Path) -> Path:
    """The output root that `forge` writes into."""
    return tmp_path / "made"


@pytest.fixture
def seal() -> Callable[[Path], None]:
    return reseal


def _change(file: Path, change: Mapping[str, Any] | None, canonical: bool = False) -> Any:
    plain = _merged(json.loads(file.read_text()), change or {})
    file.write_bytes(hashing.canonical_json(plain) if canonical else json.dumps(plain).encode())
    return plain


def _merged(old: Any, new: Mapping[str, Any]) -> Any:
    merged = dict(old)
    for key, value in new.items():
        nested = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if nested else value
    return merged


def _answer(folder: Path, right: np.ndarray, wrong: int) -> None:
    """Replace the predictions by len(right) test images of six classes in turn."""
    n = len(right)
    label = np.arange(n) % 6
    table = {
        "path": [f"{hashlib.sha256(str(i).encode()).hexdigest()[:8]}.jpg" for i in range(n)],
        "split": ["test"] * n,
        "label": pa.array(label, pa.int32()),
        "pred": pa.array(np.where(right, label, (label + wrong) % 6), pa.int32()),
    }
    pq.write_table(pa.table(table), folder / "predictions.parquet")
    numbers = json.loads((folder / "metrics.json").read_text())
    hits = int(right.sum())
    numbers["test"] |= {"n": n, "top1": hits / n, "top1_ci95": list(metrics.wilson(hits, n))}
    numbers["predictions_digest"] = hashing.sha256_bytes(right.tobytes() + bytes([wrong]))
    (folder / "metrics.json").write_text(json.dumps(numbers))


@pytest.fixture
def pair(forge) -> tuple[Path, Path]:
    """Two runs of 300 test images of six classes; the second has another head."""
    return (
        forge("a", right=RIGHT_N),
        forge("b", config={"head": {"name": "knn", "k": 20}}, right=OTHER_N),
    )
