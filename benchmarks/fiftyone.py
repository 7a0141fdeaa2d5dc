"""50,000 images of 200 classes -> a FiftyOne dataset: CPU time and memory of writing it.

It is written in its own process, so that the peak memory is of the writing only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.side_by_side import Row

IMAGES, CLASSES, WIDTH = 50_000, 200, 192
WRITE = f"""
import os, resource, sys, time
from pathlib import Path
import numpy as np
from fgvc.record.fiftyone import dataset
from fgvc.record.fiftyone.samples import RunResults
from fgvc import metrics
from fgvc.types import Features, Manifest
import sklearn.decomposition
def peak():
    status = Path("/proc/self/status")  # getrusage includes the peak of the parent process
    if status.is_file():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
rng, N, C = np.random.default_rng(0), {IMAGES}, {CLASSES}
row_N = np.arange(N)
logits_NC = rng.standard_normal((N, C), np.float32)
x_ND = rng.standard_normal((N, {WIDTH}), np.float32)
path = tuple(f"images/class {{row % C:03d}}/{{row:08d}}.jpg" for row in range(N))
predictions = metrics.from_logits(row_N, row_N % C, logits_NC)
manifest = Manifest(Path("."), path, row_N % C, np.ones(N, np.uint8), ())
results = RunResults(manifest, ".", [f"class {{c:03d}}" for c in range(C)], "a" * 64,
                     {{"test": predictions}}, Features(x_ND, row_N))
about = {{"name": "n", "run_id": "r", "started": "2026-11-24T12:00:00+00:00"}}
before, start = peak(), time.process_time()
dataset.write(Path(sys.argv[1]), results, about)
seconds = time.process_time() - start
grown = peak() - before
data = (Path(sys.argv[1]) / "samples.json").read_bytes()
start = time.perf_counter()
with open(Path(sys.argv[1]) / "bare", "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
print(seconds, grown, time.perf_counter() - start, len(data))
"""


def rows(folder_root: Path) -> list[Row]:
    """Logits and features of each image, without FiftyOne and without a database."""
    folder = folder_root / "fiftyone"
    folder.mkdir()
    command = [sys.executable, "-c", WRITE, str(folder)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, grown, write_seconds, size = map(float, result.stdout.split()[-4:])
    work = f"FiftyOne dataset of {IMAGES:,} images, {CLASSES} classes"
    detail = (
        f"{size / 2**20:.0f} MiB; {seconds / max(write_seconds, 1e-9):.0f} times the bare write"
    )
    return [
        Row(f"{work}: seconds of a core", "–", seconds, 10, detail, upper_bound=True),
        Row(f"{work}: memory beyond its inputs, MiB", "–", grown, 400, "", upper_bound=True),
    ]
