"""Logistic regression at iNaturalist's size: units, time per unit, and memory above the features.

Features like those of a backbone are made in a file; a child process maps the file and solves for
one C. Progress goes to stderr, one line per Newton step. By hand, at the full size:

python -m benchmarks.logistic_size 579184 768 5089 1e-4 1e-2

The features take rows x width x 4 bytes in $TMPDIR. N rows, B rows of a block, D width, C classes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch

from benchmarks.side_by_side import Row
from fgvc.learn.logistic import Solver

GENERA = 8  # classes of a genus, on average
BLOCK = 16_384  # rows that are made at once


def rows(folder: Path) -> list[Row]:
    """A sixteenth of iNaturalist's rows and classes, solved once to a loose gap."""
    return logistic_size(folder, 36_199, 768, 318, 1e-4, 1e-2)


def logistic_size(
    folder: Path, rows: int, width: int, classes: int, c: float, gap: float
) -> list[Row]:
    """Solve for one C in a child process: the rate of its products, and its memory."""
    features = folder / "logistic_size.npy"
    make_features(features, rows, width, classes)
    command = [sys.executable, "-m", "benchmarks.logistic_size", "child", str(features)]
    try:
        child = subprocess.run(
            [*command, str(classes), str(c), str(gap)], check=True, stdout=subprocess.PIPE
        )
    finally:
        features.unlink()
        label_path(features).unlink()
    result = json.loads(child.stdout)
    work = f"logistic regression, {rows:,} x {width} x {classes:,}, C = {c:g}"
    detail = ", ".join(f"{name} {value:.3g}" for name, value in result.items())
    return [
        Row(f"{work}: GFLOP/s", "X W in float32", result["ratio"], 0.5, detail),
        Row(
            f"{work}: GiB above the features",
            "3 GiB",
            result["gib_above_features"],
            3.0,
            "the interpreter included",
            upper_bound=True,
        ),
    ]


def label_path(features: Path) -> Path:
    """The file with the labels of a file of features."""
    return features.with_suffix(".labels.npy")


def make_features(path: Path, rows: int, width: int, classes: int) -> None:
    """Write float32 features and their labels: genera of classes, a long tail, falling spectrum."""
    rng = np.random.default_rng(0)
    label_N = rng.permutation(np.repeat(np.arange(classes), class_counts(rows, classes)))
    genus_C = rng.integers(0, max(classes // GENERA, 1), classes)
    genus_GD = rng.normal(size=(genus_C.max() + 1, width))
    centre_CD = 0.5 * genus_GD[genus_C] + 0.5 * rng.normal(size=(classes, width))
    scale_D = 3.0 * np.arange(1, width + 1) ** -0.5
    rotation_DD = np.linalg.qr(rng.normal(size=(width, width)))[0]
    centre_CD, noise_DD = (
        (matrix @ rotation_DD).astype(np.float32)
        for matrix in (centre_CD * scale_D, np.diag(scale_D))
    )
    shape = rows, width
    x_ND = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    for start in range(0, rows, BLOCK):
        label_B = label_N[start : start + BLOCK]
        noise_BD = rng.standard_normal((len(label_B), width), dtype=np.float32)
        x_ND[start : start + BLOCK] = 0.5 + centre_CD[label_B] + noise_BD @ noise_DD
    x_ND.flush()
    np.save(label_path(path), label_N)


def class_counts(rows: int, classes: int) -> np.ndarray:
    """Images per class: log-normal, from 14 to 3,000 as in iNaturalist if the mean allows it."""
    low, high = min(14, max(rows // classes // 4, 1)), min(3000, max(rows // 4, 1))
    normal = NormalDist(sigma=1.2)
    spread_C = np.exp([normal.inv_cdf(1 - (i + 0.5) / classes) for i in range(classes)])

    def counts(median: float) -> np.ndarray:
        return np.round(np.clip(median * spread_C, low, high)).astype(int)

    below, above = 1e-3, float(rows)
    for _ in range(100):
        median = (below * above) ** 0.5
        if counts(median).sum() > rows:
            above = median
        else:
            below = median
    count_C = counts(below)
    count_C[0] += rows - count_C.sum()
    return count_C


def solve(path: Path, classes: int, c: float, gap: float) -> dict[str, float]:
    """Solve in this process, with the machine's float32 product measured between the steps."""
    x_ND, label_N = np.load(path, mmap_mode="r"), np.load(label_path(path))
    left_CD = torch.randn(classes, x_ND.shape[1])
    right_DB = torch.randn(x_ND.shape[1], 2048)
    flops = 2 * left_CD.numel() * right_DB.shape[1]
    product_times: list[float] = []
    begin, aside, aside_cpu = time.perf_counter(), 0.0, 0.0

    def measure(bound: float, units: float) -> None:
        nonlocal aside, aside_cpu
        start, start_cpu = time.perf_counter(), time.process_time()
        for _ in range(3):
            before = time.perf_counter()
            torch.mm(left_CD, right_DB)
            product_times.append(time.perf_counter() - before)
        print(
            f"{start - begin - aside:8.0f} s, {units:7.1f} units, gap at least {bound:.2e}, "
            f"X W {flops / min(product_times[-3:]) / 1e9:.0f} GFLOP/s, {peak_gib():.2f} GiB",
            file=sys.stderr,
            flush=True,
        )
        aside += time.perf_counter() - start
        aside_cpu += time.process_time() - start_cpu

    solver = Solver(x_ND, label_N, classes, np.inf, 1, on_step=measure)
    setup = time.perf_counter() - begin
    print(f"{setup:8.0f} s for the checks and the principal axes", file=sys.stderr, flush=True)
    measure(np.inf, 0.0)
    begin_cpu, aside_cpu = time.process_time(), 0.0
    solution = solver.solve(c, gap)
    cpu_seconds = time.process_time() - begin_cpu - aside_cpu
    seconds = time.perf_counter() - begin - aside - setup
    rate = solution.units * 4 * x_ND.size * classes / seconds / 1e9
    product_rate = flops / float(np.median(product_times)) / 1e9
    return {
        "units": solution.units,
        "iterations": solution.iterations,
        "gap": solution.gap,
        "seconds": seconds,
        "seconds_per_unit": seconds / solution.units,
        "cpu_seconds_per_unit": cpu_seconds / solution.units,
        "setup_seconds": setup,
        "gflops": rate,
        "product_gflops": product_rate,
        "ratio": rate / product_rate,
        "gib_above_features": peak_gib() - x_ND.nbytes / 2**30,
    }


def peak_gib() -> float:
    """The largest resident memory of this process, mapped files included (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**20


def main(arguments: list[str]) -> None:
    if arguments[0] == "child":
        path, classes, c, gap = arguments[1:]
        print(json.dumps(solve(Path(path), int(classes), float(c), float(gap))))
        return
    rows, width, classes = (int(value) for value in arguments[:3])
    c, gap = (float(value) for value in arguments[3:])
    with tempfile.TemporaryDirectory() as folder:
        for row in logistic_size(Path(folder), rows, width, classes, c, gap):
            print(f"{row.work}: {row.value:.3g} (target {row.target:g}; {row.detail})")


if __name__ == "__main__":
    main(sys.argv[1:])
