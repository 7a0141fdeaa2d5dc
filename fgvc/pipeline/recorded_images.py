"""The folder of a finished run -> the images that it read, if they are still there.

H x W pixels, 3 channels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from fgvc import untrusted
from fgvc.data.decode import ImageError, decode
from fgvc.data.find_root import named_root, safe_relative
from fgvc.record.fiftyone import two_runs
from fgvc.record.fiftyone.dataset import FOLDER
from fgvc.record.prediction_tables import read_predictions

ReadImage = Callable[[str], "np.ndarray | None"]  # path -> uint8 HW3, None if it cannot be read


def image_reader(
    run_folder: Path, given: Mapping[str, str], data_root: Path
) -> tuple[ReadImage | None, list[Path]]:
    """A function that reads the images of a run; None if they are in none of the roots.

    Args:
        given, data_root: as of `candidate_roots`.

    Returns:
        The function, and the roots that were tried.
    """
    try:
        roots = candidate_roots(run_folder, given, data_root)
        first, below = _first_image(run_folder)
    except (ValueError, TypeError, LookupError, OSError, StopIteration):
        return None, []  # a damaged or older record: a page without pictures is still a page
    for folder in (root / below for root in roots):
        if (folder / first).is_file():
            return functools.partial(_read, folder), roots
    return None, roots


def candidate_roots(run_folder: Path, given: Mapping[str, str], data_root: Path) -> list[Path]:
    """The folders that may hold the images of a run.

    The command's folder; without one, the recorded folder, then the one of its name in
    runtime.data_root.

    Args:
        given: the values in the command, by key. data_root: runtime.data_root.

    Raises:
        ValueError, TypeError, KeyError: config.yaml is damaged.
    """
    root, table = given.get("dataset.root"), given.get("dataset.table")
    if root is not None or table is not None:
        return [named_root(root, table)]
    text = untrusted.read_text(run_folder / "config.yaml")
    dataset = untrusted.parse_yaml(text)["dataset"]
    recorded = named_root(dataset["root"], dataset["table"])
    return [recorded, data_root.expanduser() / recorded.name]


def _first_image(run_folder: Path) -> tuple[str, str]:
    """Path of the first test image, and the folder below the root that such paths start from.

    Only the FiftyOne samples state that folder; their first sample is the first test image.
    """
    columns = read_predictions(run_folder / "predictions.parquet", ["path", "split"]).to_pylist()
    first = next(row["path"] for row in columns if row["split"] == "test")
    sample = str(next(two_runs.samples(run_folder / FOLDER))["filepath"])
    below = sample.removesuffix(first) if sample.endswith(first) else ""
    return first, safe_relative(below) or "."


def _read(folder: Path, path: str) -> np.ndarray | None:
    if safe_relative(path) is None:
        return None
    try:
        pixels_CHW = decode(untrusted.read_bytes(folder / path, untrusted.IMAGE), path)
    except (OSError, ImageError, ValueError):
        return None
    return pixels_CHW.permute(1, 2, 0).numpy()
