"""A probe of iNaturalist 2017's shape from cached features, from the command to the audit.

python -m benchmarks.full_run ROOT WORK C GAP [override …]

ROOT is a copy of the dataset as `python -m benchmarks index` makes it. WORK gets the features, the
run folder and the table. Features are made, not computed: no image is decoded but those that the
page shows. C: one value, or `path` to choose it on validation. GAP: the relative objective gap of
every solve. Each step runs in its own process, whose seconds and peak memory are printed.
N images, D width, C classes.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.bench_dataset import load
from fgvc.config.compose import composed, typed
from fgvc.model.backbone import weights
from fgvc.pipeline.features import FeatureExtractor
from fgvc.types import TEST, Features

WIDTH = 768  # of ViT-B
SPREAD = 0.28  # of the class centres, over the noise within a class: about two of three are right
SEED = 2017


class MadeFeatures(FeatureExtractor):
    """Writes features of class centres and noise where the extractor would run the backbone."""

    def compute(
        self, role: str, shards: Sequence[np.ndarray], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, Features]]:
        """Features of each shard: the centre of the class, and noise with the shard's own seed."""
        label_N, classes = self.dataset.manifest.label_N, len(self.dataset.labelmap)
        scale_D = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5  # a decaying spectrum
        centre_CD = np.random.default_rng(SEED).standard_normal((classes, WIDTH), np.float32)
        for index, row_n in enumerate(shards):
            noise = np.random.default_rng([SEED, int(row_n[0])])
            noise_nD = noise.standard_normal((len(row_n), WIDTH), np.float32)
            advance(len(row_n))
            yield index, Features((SPREAD * centre_CD[label_N[row_n]] + noise_nD) * scale_D, row_n)


def write_features(arguments: list[str]) -> None:
    """Fill the cache that a run with these overrides reads."""
    conf = typed(composed(arguments))
    dataset = load(conf)
    extractor = MadeFeatures(conf, dataset, weights.find(conf.backbone), torch.device("cpu"))
    split_N = dataset.manifest.split_N
    extractor.extract("train", np.flatnonzero(split_N != TEST))
    extractor.extract("test", np.flatnonzero(split_N == TEST))


def main(root: str, work: str, c: str, gap: str, *more: str) -> None:
    """Write the features, probe, print the table, audit; each in its own process."""
    folder = Path(work)
    places = [f"runtime.{name}_root={folder / name}" for name in ("cache", "output")]
    dataset = ["dataset=inat2017", f"dataset.root={root}", "backbone=vit_base"]
    chosen = [] if c == "path" else [f"task.c_low={c}", f"task.c_high={c}", "task.c_count=1"]
    gaps = [f"task.gap={gap}", f"task.final_gap={gap}"]
    probe = [*dataset, "backbone.pretrained=false", *places, "head=linear", *chosen, *gaps, *more]
    fgvc = [sys.executable, "-m", "fgvc.run"]
    _step("features", [sys.executable, "-m", "benchmarks.full_run", "features", *probe])
    log = _step("probe", [*fgvc, *probe])
    recorded = re.findall(r"record: (.+)", log)
    assert recorded, "the run names its folder"
    run = Path(recorded[-1].strip())
    _step("audit", [*fgvc, "task=audit", f"run={run}", *places])
    _step("report", [*fgvc, "task=report", *places])
    for file in sorted((path for path in run.rglob("*") if path.is_file()), key=_size):
        if _size(file) > 2**20:
            print(f"{file.relative_to(run)}: {_size(file) / 2**20:.1f} MiB")


def _size(file: Path) -> int:
    return file.stat().st_size


def _step(name: str, command: list[str]) -> str:
    """Run a command, show what it prints, and print its seconds and its peak memory."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    seconds = time.perf_counter() - start
    print(f"== {name}: exit {process.returncode}, {seconds:.0f} s, {peak:.0f} MiB", flush=True)
    if process.returncode:
        sys.exit(process.returncode)
    return "".join(lines)


if __name__ == "__main__":
    if sys.argv[1] == "features":
        write_features(sys.argv[2:])
    else:
        main(*sys.argv[1:])
