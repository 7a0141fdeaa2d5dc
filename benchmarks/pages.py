"""Runs of iNaturalist 2017's shape -> time, memory and bytes of their pages, table and comparison.

95,986 test images of 5,089 classes in 13 super-categories, with a long tail; 85 % are right, and
four of five errors are within the super-category. The runs are copies of one small real run with
other predictions. Each step is a process of its own, so its peak memory is its own. It only runs if
it is named (`python -m benchmarks pages`); FGVC_BENCH_SHARE=16 takes a sixteenth of the images.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import copy_run, run_probe, update_json
from benchmarks.side_by_side import Row
from fgvc import metrics, untrusted
from fgvc.record import prediction_tables
from fgvc.record import run_dir as folders
from fgvc.report.baselines import write_baselines
from fgvc.report.compare import class_display_names, compare_runs
from fgvc.report.compare_page import PairAlbum, render_comparison
from fgvc.store import atomic, hashing
from fgvc.task.audit import render_page
from fgvc.types import LabelMap

GROUPS = {
    "Plantae": 2101,
    "Insecta": 1021,
    "Aves": 964,
    "Reptilia": 289,
    "Mammalia": 186,
    "Fungi": 121,
    "Amphibia": 115,
    "Mollusca": 93,
    "Animalia": 77,
    "Arachnida": 56,
    "Actinopterygii": 53,
    "Chromista": 9,
    "Protozoa": 4,
}
IMAGES, RIGHT, WITHIN = 95_986, 0.85, 0.8
RUNS = 4
SECONDS, GIB = 600.0, 4.0
SIZES = ("report.html", "confusion.csv", "confusion.svg", "per_class.csv", "predictions.parquet")


def rows(folder_root: Path) -> list[Row]:
    """The pages of a run, the table of RUNS runs, and the comparison of two."""
    source, outputs = run_probe(folder_root / "one"), folder_root / "outputs"
    images = IMAGES // int(os.environ.get("FGVC_BENCH_SHARE", "1"))
    runs = [forge_run(source, outputs, number, images) for number in range(RUNS)]
    run, against = runs[:2]
    steps = {
        "confusion and pages of a run": functools.partial(write_run_pages, run),
        "the same, second run": functools.partial(write_run_pages, against),
        f"task=report over {RUNS} runs": functools.partial(report, outputs),
        "task=compare of two runs": functools.partial(compare, run, against, outputs),
    }
    return [_measure(f"{name}, {images:,} images", step) for name, step in steps.items()]


def forge_run(
    source: Path, outputs: Path, number: int, images: int, groups: dict[str, int] | None = None
) -> Path:
    """A copy of a real run with other classes and predictions, sealed, with its old page."""
    groups = GROUPS if groups is None else groups
    work, target = copy_run(source, outputs, number)
    _write_predictions(work, np.random.default_rng(number), images, groups)
    target.parent.mkdir()
    seal(work.rename(target))
    return target


def seal(run: Path) -> None:
    (run / "artifacts.json").write_text(json.dumps(folders.index_files(run)))
    folders.write_status(run, "done", folders.now(), of="/".join(run.parts[-3:]))


def class_names(groups: dict[str, int]) -> tuple[list[str], list[str]]:
    """Class names such as people read, and the super-category of each."""
    first, second = ("Rubus", "Carex", "Setophaga", "Amanita"), ("vulgaris", "canadensis", "minor")
    above = [group for group, count in groups.items() for _ in range(count)]
    names = [f"{first[k % 4]} {second[k % 3]}-{group.lower()} {k}" for k, group in enumerate(above)]
    return names, above


def _write_predictions(
    work: Path, rng: np.random.Generator, images: int, groups: dict[str, int]
) -> None:
    names, above = class_names(groups)
    classes, group_C = len(names), np.repeat(np.arange(len(groups)), list(groups.values()))
    tail = np.random.default_rng(0)  # the same test images for every run
    share_C = tail.permutation(1 / (np.arange(classes) + 20))
    rest = max(images - classes, 0)
    label_N = np.concatenate(
        [np.arange(classes)[:images], tail.choice(classes, rest, p=share_C / share_C.sum())]
    )
    # the classes of a super-category are neighbours, and so are those that are confused
    start_C = np.searchsorted(group_C, group_C)
    size_C = np.array(list(groups.values()))[group_C]
    near_N = (
        start_C[label_N]
        + (label_N - start_C[label_N] + rng.geometric(0.3, images)) % (size_C[label_N])
    )
    wrong_N = np.where(rng.random(images) < WITHIN, near_N, rng.integers(0, classes, images))
    right_C = np.clip(RIGHT + np.random.default_rng(1).normal(0, 0.12, classes), 0, 1)
    pred_N = np.where(rng.random(images) < right_C[label_N], label_N, wrong_N)
    confidence_N = rng.uniform(0.2, 1, images)
    columns = {
        "path": [
            f"{above[label]}/{names[label]}/{hashing.sha256_bytes(str(n).encode())[:32]}.jpg"
            for n, label in enumerate(label_N.tolist())
        ],
        "split": ["test"] * images,
        "label": pa.array(label_N, pa.int32()),
        "pred": pa.array(pred_N, pa.int32()),
        "confidence": pa.array(confidence_N),
    }
    pq.write_table(pa.table(columns), work / "predictions.parquet", compression="zstd")
    rows = [{"index": k, "id": str(k), "name": name} for k, name in enumerate(names)]
    labelmap = {"classes": rows, "checksum": "", "parents": [[name] for name in above]}
    labelmap["nodes"] = {name: name for name in groups}
    (work / "labelmap.json").write_text(json.dumps(labelmap))
    counts, hits = metrics.tally(pred_N, label_N, classes), int((pred_N == label_N).sum())
    pairs = [
        {**pair, "label_name": names[pair["label"]], "pred_name": names[pair["pred"]]}
        for pair in metrics.worst_pairs(counts, prediction_tables.WORST)
    ]
    interval = list(metrics.wilson(hits, images))
    numbers = {"n": images, "top1": hits / images, "top1_ci95": interval}
    update_json(work / "metrics.json", {"worst_pairs": pairs, "test": numbers})


def write_run_pages(run: Path) -> str:
    """Derive the class files and the page of a run from its predictions, and seal it again."""
    labelmap = json.loads((run / "labelmap.json").read_text())
    names = [row["name"] for row in labelmap["classes"]]
    table = prediction_tables.read_predictions(run / "predictions.parquet", ["label", "pred"])
    label_N, pred_N = (table[name].to_numpy() for name in ("label", "pred"))
    counts = metrics.tally(pred_N, label_N, len(names))
    metrics.class_intervals(counts)
    ids = tuple(str(k) for k in range(len(names)))
    lines = prediction_tables.class_rows_csv(
        metrics.class_rows(counts, names), LabelMap(ids, tuple(names))
    )
    atomic.write_text(run / "per_class.csv", lines)
    atomic.write_text(run / "confusion.csv", prediction_tables.confusion_csv(counts, names))
    tree = prediction_tables.read_hierarchy(labelmap)
    plot = prediction_tables.confusion_plot(counts, names, tree, "vit base", "inat2017", False)
    atomic.write_text(run / "confusion.svg", plot)
    page = render_page(run, untrusted.parse_yaml((run / "config.yaml").read_text()))
    atomic.write_text(run / "report.html", page)
    seal(run)
    return ", ".join(f"{name} {(run / name).stat().st_size:,}" for name in SIZES)


def report(outputs: Path) -> str:
    table = write_baselines(outputs, outputs)
    assert not table.damaged
    names = ("baselines.html", "baselines.json", "baselines.csv")
    return ", ".join(f"{name} {(outputs / name).stat().st_size:,}" for name in names)


def compare(run: Path, against: Path, to: Path) -> str:
    result = compare_runs(run, against, force=False)
    names = class_display_names(run, against)
    page = render_comparison(result, (run, against), names, PairAlbum(None, []), to)
    atomic.write_text(to / "compare.html", page)
    atomic.write_json(to / "compare.json", result)
    return ", ".join(
        f"{name} {(to / name).stat().st_size:,}" for name in ("compare.html", "compare.json")
    )


def _measure(work: str, step: Callable[[], str]) -> Row:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        seconds, gib, detail = pool.apply(_timed, (step,))
    met = f"{gib:.2f} GiB ({'≤' if gib <= GIB else 'MORE THAN'} {GIB:g}); bytes: {detail}"
    return Row(f"{work}: seconds", "–", seconds, SECONDS, met, True)


def _timed(step: Callable[[], str]) -> tuple[float, float, str]:
    """Seconds, peak memory of this process in GiB, and what the step says."""
    start = time.perf_counter()
    detail = step()
    seconds = time.perf_counter() - start
    # Linux: the ru_maxrss of a new process begins with that of its parent
    status = Path("/proc/self/status").read_text()
    return seconds, int(re.findall(r"VmHWM:\s*(\d+) kB", status)[0]) / 2**20, detail
