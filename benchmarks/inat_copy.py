"""A made copy of iNaturalist 2017's shape: its folders, counts and JSON files, with tiny images.

python -m benchmarks.inat_copy FOLDER [DIVISOR]

A divisor of 1 gives 579,184 training and 95,986 test images of 5,089 species in 13 branches of
life; a divisor of 16 gives a sixteenth of the images and of the species. Every image is a different
JPEG of about 1 KB that decodes to the size in the JSON file. Counts per species have a long tail.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import NormalDist
from typing import IO

import numpy as np
from PIL import Image

CLASSES, TRAIN, TEST = 5089, 579_184, 95_986
BRANCHES = {  # species per branch of life
    "Plantae": 2101, "Insecta": 1021, "Aves": 964, "Reptilia": 289, "Mammalia": 186, "Fungi": 121,
    "Amphibia": 115, "Mollusca": 93, "Animalia": 77, "Arachnida": 56, "Actinopterygii": 53,
    "Chromista": 9, "Protozoa": 4,
}  # fmt: skip
TRAIN_RANGE, TEST_RANGE = (14, 3000), (4, 44)  # images per species
TRAIN_SPREAD, TEST_SPREAD = 1.3, 0.4  # standard deviation of the logarithm of a count
SIZES = ((48, 36), (36, 48), (48, 32), (40, 40), (44, 33), (48, 27))
GRID = (7, 9)  # random grey values of which an image is interpolated


def make(root: Path, divisor: int = 1) -> int:
    """Write the copy and return its number of images."""
    classes, rng = CLASSES // divisor, np.random.default_rng(0)
    order_C = rng.permutation(classes)
    train_C = long_tail(classes, TRAIN // divisor, TRAIN_RANGE, TRAIN_SPREAD)[order_C]
    test_C = long_tail(classes, TEST // divisor, TEST_RANGE, TEST_SPREAD)[order_C]
    branch = [name for name, count in BRANCHES.items() for _ in range(count)][::divisor]
    species = [f"Genus{label // 4} species{label:04d}" for label in range(classes)]
    categories = [
        {"id": label, "name": species[label], "supercategory": branch[label]}
        for label in range(classes)
    ]
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        writers = [
            _JsonWriter(stack.enter_context((root / f"{split}2017.json").open("w")), first)
            for split, first in (("train", 0), ("val", int(train_C.sum())))
        ]
        for label in range(classes):
            folder = f"train_val_images/{branch[label]}/{species[label]}"
            (root / folder).mkdir(parents=True)
            for writer, count in zip(writers, (train_C[label], test_C[label]), strict=True):
                for _ in range(count):
                    path = f"{folder}/{rng.bytes(16).hex()}.jpg"
                    width, height = SIZES[rng.integers(len(SIZES))]
                    (root / path).write_bytes(_jpeg(rng, width, height))
                    writer.add(path, label, width, height)
        for writer in writers:
            writer.finish(categories)
    return int(train_C.sum() + test_C.sum())


def long_tail(classes: int, total: int, limits: tuple[int, int], spread: float) -> np.ndarray:
    """Counts per class, descending: quantiles of a lognormal distribution, clipped to `limits`."""
    quantile_C = np.array([NormalDist().inv_cdf((c + 0.5) / classes) for c in range(classes)])[::-1]

    def counts(mean: float) -> np.ndarray:
        return np.clip(np.exp(mean + spread * quantile_C), *limits).astype(np.int64)

    low, high = 0.0, 12.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if counts(middle).sum() <= total else (low, middle)
    count_C = counts(low)
    missing = total - int(count_C.sum())
    free = np.flatnonzero(count_C < limits[1])
    count_C[free[: missing % len(free)]] += 1
    count_C[free] += missing // len(free)
    return count_C


def _jpeg(rng: np.random.Generator, width: int, height: int) -> bytes:
    grid = Image.fromarray(rng.integers(0, 256, (*GRID, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    grid.resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


class _JsonWriter:
    """Writes one of the two files row by row; annotations wait in memory."""

    def __init__(self, file: IO[str], first: int) -> None:
        self.file, self.first, self.labels = file, first, list[int]()
        file.write('{"images": [')

    def add(self, path: str, label: int, width: int, height: int) -> None:
        number = self.first + len(self.labels)
        image = {"id": number, "file_name": path, "width": width, "height": height}
        self.file.write(("" if not self.labels else ", ") + json.dumps(image))
        self.labels.append(label)

    def finish(self, categories: Sequence[dict[str, object]]) -> None:
        rows = (
            json.dumps({"id": number, "image_id": number, "category_id": label})
            for number, label in enumerate(self.labels, self.first)
        )
        self.file.write('], "annotations": [')
        self.file.writelines(row if row_no == 0 else f", {row}" for row_no, row in enumerate(rows))
        self.file.write(f'], "categories": {json.dumps(categories)}}}')


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
