"""2,000 run folders -> the duration of task=report, and of reading their bytes.

The folders are complete copies of one real run, with different configs, predictions and accuracies.
Every row is compared with the best row, so all predictions are read. It only runs if it is named
(`python -m benchmarks report`), because the folders take a minute to write.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.side_by_side import Row
from fgvc import metrics
from fgvc.record import checkpoint
from fgvc.record import run_dir as folders
from fgvc.report.baselines import write_baselines
from fgvc.run import main
from fgvc.store import hashing

RUNS, IMAGES, CLASSES, SECONDS = 2_000, 515, 20, 10.0
SMALL = (
    "backbone=vit_tiny",
    "backbone.pretrained=false",
    "dataset.generator.classes=20",
    "dataset.generator.train_per_class=4",
    "dataset.generator.test_per_class=2",
    "dataset.generator.side=64",
    "dataset.val_fraction=0.25",
    "resolution.side=64",
    "resolution.name=r64",
    "task.c_count=3",
    "runtime.num_workers=0",
)


def rows(folder_root: Path) -> list[Row]:
    """The second of two times, because the first waits for the disk."""
    source, outputs = run_probe(folder_root / "one"), folder_root / "outputs"
    for number in range(RUNS):
        _forge_run(source, outputs, number)
    seconds, table = [], None
    for _ in range(2):
        start = time.perf_counter()
        table = write_baselines(outputs, outputs)
        seconds.append(time.perf_counter() - start)
    assert table is not None
    assert not table.damaged
    start = time.perf_counter()
    size = sum(len(file.read_bytes()) for file in outputs.rglob("*") if file.is_file())
    read_seconds = time.perf_counter() - start
    detail = f"{RUNS / seconds[-1]:.0f} runs/s; {size / 2**20:.0f} MiB read in {read_seconds:.1f} s"
    work = f"task=report over {RUNS:,} runs of {IMAGES} images: seconds"
    return [Row(work, "–", seconds[-1], SECONDS, detail, True)]


def run_probe(home: Path) -> Path:
    """Run a probe on synthetic birds; return its run folder."""
    folder_root = [f"runtime.{name}_root={home / name}" for name in ("output", "cache", "data")]
    assert main([*SMALL, *folder_root]) == 0
    return next((home / "output").glob("*/*/*/ckpt.bin")).parent


def copy_run(source: Path, outputs: Path, number: int) -> tuple[Path, Path]:
    """Copy a run with another grid of C; returns the copy and the folder that it belongs into."""
    work = shutil.copytree(source, outputs / f"run-{number:05d}" / "work")
    config = json.loads((work / "config.canonical.json").read_bytes())
    config["task"]["c_high"] = 1e5 + number
    (work / "config.canonical.json").write_bytes(hashing.canonical_json(config))
    name = hashing.sha256_json(config)
    update_json(work / "env_stamp.json", {"config_hash": name, "run_id": f"run-{number:05d}"})
    tensors, metadata, _ = checkpoint.read(source)
    checkpoint_id = checkpoint.write(work, tensors, {**metadata, "config_hash": name})
    return work, work.parent / name[: folders.SHORT] / checkpoint_id[: folders.SHORT]


def _forge_run(source: Path, outputs: Path, number: int) -> Path:
    """A copy with other predictions, as a complete run folder."""
    work, target = copy_run(source, outputs, number)
    _write_predictions(work, np.random.default_rng(number))
    (work / "artifacts.json").write_text(json.dumps(folders.index_files(work)))
    folders.write_status(work, "done", folders.now(), of="/".join(target.parts[-3:]))
    target.parent.mkdir()
    return work.rename(target)


def _write_predictions(work: Path, rng: np.random.Generator) -> None:
    """Write predictions for the same images, about 90 % correct, with logits, as a probe does."""
    label_N = np.arange(IMAGES) % CLASSES
    right_N = rng.random(IMAGES) < rng.uniform(0.85, 0.95)
    logits_NC = rng.standard_normal((IMAGES, CLASSES)).astype(np.float32)
    columns = {
        "path": [f"{label:03d}.Some_species/image_{n:05d}.jpg" for n, label in enumerate(label_N)],
        "split": ["test"] * IMAGES,
        "label": pa.array(label_N, pa.int32()),
        "pred": pa.array(np.where(right_N, label_N, (label_N + 1) % CLASSES), pa.int32()),
        "logits": pa.array(list(logits_NC), pa.list_(pa.float32())),
    }
    pq.write_table(pa.table(columns), work / "predictions.parquet", compression="zstd")
    hits = int(right_N.sum())
    interval = list(metrics.wilson(hits, IMAGES))
    update_json(
        work / "metrics.json",
        {"test": {"n": IMAGES, "top1": hits / IMAGES, "top1_ci95": interval}},
    )


def update_json(file: Path, change: dict[str, object]) -> None:
    plain = json.loads(file.read_bytes())
    for key, value in change.items():
        plain[key] = {**plain[key], **value} if isinstance(value, dict) else value
    file.write_bytes(json.dumps(plain).encode())
