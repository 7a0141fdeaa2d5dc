"""A dataset of iNaturalist 2017's size -> duration and memory of the start of a run.

675,170 small files with different bytes in 5,089 folders, and two JSON files like the real ones.
It only runs if it is named (`python -m benchmarks index`), because writing the files takes minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.side_by_side import Row

CLASSES, TRAIN, TEST = 5089, 579_184, 95_986
START = """
import resource, sys, time
start = time.perf_counter()
from pathlib import Path
from fgvc.config.compose import composed, typed
from fgvc.data import dataset
import fgvc.task.probe
conf = typed(composed(["dataset=inat2017", f"dataset.root={sys.argv[1]}"]))
made = dataset.load(conf.dataset, Path(sys.argv[2]))
made.manifest.digest, made.split_digest
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(time.perf_counter() - start, peak / (2**20 if sys.platform == "darwin" else 2**10))
"""


def rows(folder_root: Path) -> list[Row]:
    """The second start of a run, which checks sizes and times of files and hashes nothing."""
    root = folder_root / "inat2017"
    _make(root)
    _start(root, folder_root / "cache")  # the first hashes every file
    seconds, peak = _start(root, folder_root / "cache")
    start = time.perf_counter()
    json.loads((root / "train2017.json").read_bytes())
    json_seconds = time.perf_counter() - start
    detail = f"{json_seconds:.1f} s for json.loads of the training half alone"
    return [
        Row(f"start of a run on {TRAIN + TEST:,} images: seconds", "–", seconds, 20, detail, True),
        Row("its peak memory, torch imported: MiB", "–", peak, 1024, "", True),
    ]


def _start(root: Path, cache: Path) -> tuple[float, float]:
    command = [sys.executable, "-c", START, str(root), str(cache)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = map(float, result.stdout.split()[-2:])
    return seconds, peak


def _make(root: Path) -> None:
    species = [f"Genus species {label:04d}" for label in range(CLASSES)]
    folders = [f"train_val_images/Branch{label % 13}/{species[label]}" for label in range(CLASSES)]
    for folder in folders:
        (root / folder).mkdir(parents=True)
    categories = [
        {"id": label, "name": species[label], "supercategory": f"Branch{label % 13}"}
        for label in range(CLASSES)
    ]
    for name, first, count in (("train", 0, TRAIN), ("val", TRAIN, TEST)):
        images, marks = [], []
        for number in range(first, first + count):
            path = f"{folders[number % CLASSES]}/{number:032x}.jpg"
            (root / path).write_bytes(b"%d" % number)  # hashed, never decoded
            images.append({"id": number, "file_name": path, "width": 800, "height": 600})
            marks.append({"id": number, "image_id": number, "category_id": number % CLASSES})
        document = {"images": images, "annotations": marks, "categories": categories}
        (root / f"{name}2017.json").write_text(json.dumps(document))
