"""Small real datasets on disk: a CUB copy of 3 classes, and a folder of classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fgvc.config import schema
from tests.dataset_conf import dataset_conf

CLASSES = ("001.Black_Gull", "002.Grey_Gull", "003.Red_Wren")
TRAIN, TEST = 6, 3  # images a class


@pytest.fixture
def cub(tmp_path: Path, jpeg: Callable[..., bytes]) -> Path:
    """A consistent copy in CUB's layout, in a folder with a space, `=` and an umlaut."""
    root = tmp_path / "vögel a=b"
    columns = {name: [] for name in ("images", "image_class_labels", "train_test_split")}
    boxes, parts = [], []
    image = 0
    for label, name in enumerate(CLASSES, start=1):
        (root / "images" / name).mkdir(parents=True)
        for number in range(TRAIN + TEST):
            image += 1
            path = f"{name}/bird {number} ü=1.jpg"
            (root / "images" / path).write_bytes(jpeg(image))
            columns["images"].append(f"{image} {path}")
            columns["image_class_labels"].append(f"{image} {label}")
            columns["train_test_split"].append(f"{image} {int(number < TRAIN)}")
            boxes.append(f"{image} 1.0 2.0 30.0 20.5")
            parts += [f"{image} 1 10.0 12.5 1", f"{image} 2 0.0 0.0 0"]
    columns["classes"] = [f"{label} {name}" for label, name in enumerate(CLASSES, start=1)]
    columns |= {"bounding_boxes": boxes, "parts/parts": ["1 beak", "2 left eye"]}
    columns["parts/part_locs"] = parts
    (root / "parts").mkdir()
    for name, lines in columns.items():
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


@pytest.fixture
def classes(tmp_path: Path, jpeg: Callable[..., bytes]) -> Callable[[dict[str, int]], Path]:
    """`classes({"train/robin": 3, ...})` -> a root with that many images in each folder."""

    def make(counts: dict[str, int]) -> Path:
        root = tmp_path / "moths"
        for place, (folder, count) in enumerate(counts.items()):
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                (root / folder / f"{number}.jpg").write_bytes(jpeg(1000 * place + number))
        return root

    return make


@pytest.fixture
def conf() -> Callable[..., schema.Dataset]:
    """`conf(reader, root, **fields)` -> the dataset node, no official counts unless given."""
    return dataset_conf
