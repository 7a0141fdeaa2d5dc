"""A run folder as the checks of an audit see it: each file read once, and nothing taken on trust.

N images of a split, C classes, K kept predictions of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fgvc import metrics, untrusted
from fgvc.metrics import UNREADABLE
from fgvc.record import checkpoint, fitted_images, verify
from fgvc.record.fitted_images import Fit
from fgvc.record.prediction_tables import TOP, read_predictions
from fgvc.record.verify import DamageError
from fgvc.report.audit.recompute import Recompute
from fgvc.report.plain_yaml import plain_yaml
from fgvc.report.run_rows import run_path
from fgvc.types import Hierarchy, LabelMap

PREDICTIONS = "predictions.parquet"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Rows:
    """predictions.parquet of one split. top_NK: UNREADABLE throughout where an image could not be
    read; its other values are NaN. logits_NC: -inf there; None where logits were not kept."""

    path: tuple[str, ...]
    sha256: tuple[str, ...]
    label_N: np.ndarray
    pred_N: np.ndarray
    confidence_N: np.ndarray
    label_logprob_N: np.ndarray
    top_NK: np.ndarray
    score_NK: np.ndarray
    logits_NC: np.ndarray | None


class Record:
    """A run folder. Whatever cannot be read is a DamageError that names the file."""

    def __init__(self, path: Path, here: Recompute | None = None) -> None:
        self.path, self.here = path.resolve(), here
        self.place = run_path(self.path)

    def data(self, name: str) -> bytes:
        try:
            return untrusted.read_bytes(self.path / name, untrusted.ARRAYS)
        except FileNotFoundError as error:
            raise DamageError(f"{name}: missing") from error
        except OSError as error:
            raise DamageError(f"{name}: unreadable ({error.strerror})") from error

    def text(self, name: str) -> str:
        try:
            return self.data(name).decode()
        except UnicodeDecodeError as error:
            raise DamageError(f"{name}: not UTF-8") from error

    def json(self, name: str) -> dict[str, Any]:
        return verify.parse_object(name, self.data(name))

    @cached_property
    def artifacts(self) -> dict[str, Any]:
        return self.json("artifacts.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.canonical.json")

    @cached_property
    def stamp(self) -> dict[str, Any]:
        return self.json("env_stamp.json")

    @cached_property
    def shown_config(self) -> dict[str, Any]:
        """config.yaml: the whole config, places and descriptions included."""
        return plain_yaml("config.yaml", self.text("config.yaml"))

    @cached_property
    def numbers(self) -> dict[str, Any]:
        return self.json("metrics.json")

    @cached_property
    def _checkpoint(self) -> tuple[dict[str, Any], Fit]:
        """Facts and fit of ckpt.bin, whose digest covers every tensor."""
        tensors, facts, _ = checkpoint.read(self.path / checkpoint.FILE)
        return facts, fitted_images.from_checkpoint(facts, tensors)

    @property
    def facts(self) -> dict[str, Any]:
        """Facts of the checkpoint."""
        return self._checkpoint[0]

    @property
    def fit(self) -> Fit:
        """The images that the head of the checkpoint was fitted on."""
        return self._checkpoint[1]

    @cached_property
    def labelmap(self) -> LabelMap:
        rows = self.json("labelmap.json")["classes"]
        if [row["index"] for row in rows] != list(range(len(rows))):
            raise DamageError("labelmap.json: indices are not 0, 1, 2, … in order")
        ids, names = (tuple(row[key] for row in rows) for key in ("id", "name"))
        return LabelMap(ids, names)

    @property
    def hierarchy(self) -> Hierarchy | None:
        """The tree above the classes, where the dataset has one."""
        told = self.json("labelmap.json")
        if "parents" not in told:
            return None
        return Hierarchy(tuple(map(tuple, told["parents"])), told["nodes"])

    def tally(self, rows: Rows) -> np.ndarray:
        """The confusion matrix of a split, as `metrics.tally` gives it.

        Raises:
            DamageError: a label map of more classes than the stored matrix can have lines.
            ValueError: as `metrics.tally`.
        """
        classes, stored = len(self.labelmap), len(self.data("confusion.csv"))
        if stored < 2 * classes**2:  # a digit and a comma each
            raise DamageError(
                f"confusion.csv: {stored} bytes, too few for the {classes} classes of labelmap.json"
            )
        return metrics.tally(rows.pred_N, rows.label_N, classes)

    def split(self, name: str) -> list[str]:
        """The paths of a split, in the order of its file."""
        return self.text(f"splits/{name}.txt").splitlines()

    def files(self) -> Iterator[str]:
        """Every name in the folder that is not a folder itself; links are not followed."""
        for path in sorted(self.path.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                yield path.relative_to(self.path).as_posix()

    @cached_property
    def predictions(self) -> dict[str, Rows]:
        """By split, those that occur."""
        try:
            table = read_predictions(self.data(PREDICTIONS))
            split_N = table["split"].to_numpy()
            found = {name: table.filter(pa.array(split_N == name)) for name in SPLITS}
            if sum(map(len, found.values())) != len(table):
                raise DamageError(f"{PREDICTIONS}: rows of an unknown split")
            return {
                name: rows_of(one, lambda: len(self.labelmap))
                for name, one in found.items()
                if len(one)
            }
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DamageError(f"{PREDICTIONS}: not one that this version reads") from error


def rows_of(table: pa.Table, classes: Callable[[], int]) -> Rows:
    """Columns of predictions.parquet, of one split, as arrays.

    Args:
        classes: number of classes, called only if no image of the split could be read: otherwise
            the widths are those of the stored lists.
    """
    plain = {name: table[name].to_numpy() for name in ("label", "pred")}
    floats = {name: table[name].to_numpy() for name in ("confidence", "label_logprob")}
    kept = "logits" in table.column_names
    unread = table["topk_labels"].null_count == len(table)
    width, width_top = (classes(), min(TOP, classes())) if unread else (None, None)
    return Rows(
        tuple(table["path"].to_pylist()),
        tuple(table["sha256"].to_pylist()),
        plain["label"],
        plain["pred"],
        floats["confidence"],
        floats["label_logprob"],
        _lists(table["topk_labels"], UNREADABLE, width_top),
        _lists(table["topk_scores"], np.nan, width_top),
        _lists(table["logits"], -np.inf, width) if kept else None,
    )


def _lists(column: pa.ChunkedArray, absent: float, width: int | None) -> np.ndarray:
    """Lists of one length, or null, as rows of a matrix; width: None for that of the lists."""
    whole_N = column.is_valid().to_numpy()
    flat = column.combine_chunks().flatten().to_numpy()
    if width is None:
        width = len(flat) // max(int(whole_N.sum()), 1)
    rows_NK = np.full((len(whole_N), width), absent, flat.dtype)
    rows_NK[whole_N] = flat.reshape(-1, width)
    return rows_NK
