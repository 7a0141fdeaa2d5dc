"""A run folder -> its files as typed values for the checks of an audit; no file is trusted.

Recompute derives config and page again: the pipeline, which composes and renders, passes it in.

N images of a split, C classes, K top predictions per image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fgvc import metrics, untrusted
from fgvc.metrics import TOP, UNREADABLE
from fgvc.record import checkpoint, command_file, fitted_images, verify
from fgvc.record.env_stamp import GitState
from fgvc.record.fitted_images import FittedImages
from fgvc.record.prediction_tables import read_hierarchy, read_predictions
from fgvc.record.verify import DamageError
from fgvc.report.run_rows import run_path
from fgvc.types import ConfusionCounts, Hierarchy, LabelMap, Predictions
from fgvc.untrusted import shell

PREDICTIONS, STAMP, CONFIG = "predictions.parquet", "env_stamp.json", "config.yaml"
COMMAND, MAX_COMMAND = command_file.FILE, 100_000  # characters; Linux allows 131,072 bytes
MAX_CONFIG = 1 << 20  # characters of config.yaml, which has about 5,000
SPLITS = ("train", "val", "test")


class CannotComposeError(ValueError):
    """A command or config that cannot be composed on this machine; the message is one line."""


@dataclass(frozen=True)
class Recompute:
    """The running code and its functions.

    code: commit and patch of the running code. places: keys of config.yaml that differ by machine.
    composed: the arguments of a command and its run_id -> config_hash of each of its jobs, with the
    whole config in the form of config.yaml, as plain data. page: run folder and config.yaml ->
    report.html, with the photographs of the folder's own page. Both raise CannotComposeError.
    """

    code: GitState
    places: frozenset[str]
    composed: Callable[[Sequence[str], str], dict[str, dict[str, Any]]]
    page: Callable[[Path, dict[str, Any]], str]


@dataclass(frozen=True)
class Rows:
    """Rows of predictions.parquet of one split.

    An unreadable image has UNREADABLE in top_NK, -inf in logits_NC and NaN in the other values.
    logits_NC: None if logits were not kept. entropy_N: only stored without logits.
    """

    path: tuple[str, ...]
    sha256: tuple[str, ...]
    label_N: np.ndarray
    pred_N: np.ndarray
    confidence_N: np.ndarray
    label_logprob_N: np.ndarray
    top_NK: np.ndarray
    score_NK: np.ndarray
    logits_NC: np.ndarray | None
    entropy_N: np.ndarray | None

    def predictions(self, row_N: np.ndarray) -> Predictions | None:
        """Predictions for these manifest rows; None without logits and entropy."""
        if self.logits_NC is not None:
            return metrics.from_logits(row_N, self.label_N, self.logits_NC, keep=True)
        if self.entropy_N is None:
            return None
        columns = (self.top_NK, self.score_NK, self.label_logprob_N, self.entropy_N)
        return Predictions(row_N, self.label_N, *columns)


class Record:
    """A run folder. A file that cannot be read raises a DamageError that names the file."""

    def __init__(self, path: Path, recompute: Recompute | None = None) -> None:
        self.path, self.recompute = path.resolve(), recompute
        self.place = run_path(self.path)

    def data(self, name: str) -> bytes:
        return verify.read_file(self.path, name)

    def text(self, name: str) -> str:
        try:
            return self.data(name).decode()
        except UnicodeDecodeError as error:
            raise DamageError(f"{name}: not UTF-8") from error

    def json(self, name: str) -> dict[str, Any]:
        return verify.parse_object(name, self.data(name))

    def command_words(self) -> list[str]:
        """The arguments of the run's own command in command.txt.

        Raises:
            DamageError: as `_words`, for either command in the file.
        """
        words, _ = self.commands()
        return words

    def commands(self) -> tuple[list[str], list[str] | None]:
        """The arguments of the run's own command, and of its sweep's; None: of no sweep.

        Raises:
            DamageError: as `_words`.
        """
        own, sweep = command_file.split(self.text(COMMAND))
        return self._words(own), None if sweep is None else self._words(sweep)

    def _words(self, line: str) -> list[str]:
        """The arguments of a command in command.txt.

        A forger may write any text there. A line is accepted only if pasting it into a shell runs
        `python -m fgvc.run` only: quoting its words again must give the same line.

        Raises:
            DamageError: fgvc does not write such a line; the message does not quote the line.
        """
        program = list(shell.PROGRAM)
        if len(line) > MAX_COMMAND:
            length = f"{len(line)} characters, at most {MAX_COMMAND}"
            raise DamageError(f"{COMMAND}: {length}: not shown")
        if shell.UNSEEN.search(line):
            raise DamageError(f"{COMMAND}: has several lines or control characters: not shown")
        try:
            parts = shell.split(line)
        except ValueError:
            parts = []
        if parts[: len(program)] != program:
            expected = " ".join(program)
            raise DamageError(f"{COMMAND}: not a command of fgvc ({expected} …): not shown")
        if shell.command(parts) != line:
            raise DamageError(f"{COMMAND}: a shell would do more than run fgvc: not shown")
        return parts[len(program) :]

    @cached_property
    def artifacts(self) -> dict[str, Any]:
        return self.json("artifacts.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.canonical.json")

    @cached_property
    def stamp(self) -> dict[str, Any]:
        return self.json(STAMP)

    @cached_property
    def shown_config(self) -> dict[str, Any]:
        """config.yaml: the whole config, with paths and descriptions.

        Raises:
            DamageError: not YAML, not a mapping, too long, or as `untrusted.parse_yaml`.
        """
        text = self.text(CONFIG)
        if len(text) > MAX_CONFIG:
            raise DamageError(f"{CONFIG}: {len(text)} characters, at most {MAX_CONFIG}")
        try:
            value = untrusted.parse_yaml(text)
        except ValueError as error:
            raise DamageError(f"{CONFIG}: not YAML that this version reads ({error})") from error
        if not isinstance(value, dict):
            raise DamageError(f"{CONFIG}: not a YAML mapping")
        return value

    @cached_property
    def numbers(self) -> dict[str, Any]:
        return self.json("metrics.json")

    @cached_property
    def _checkpoint(self) -> tuple[dict[str, Any], FittedImages]:
        """Facts and fitted images of ckpt.bin, whose digest covers every tensor."""
        tensors, facts, _ = checkpoint.read(self.path / checkpoint.FILE)
        return facts, fitted_images.from_checkpoint(facts, tensors)

    @property
    def facts(self) -> dict[str, Any]:
        return self._checkpoint[0]

    @property
    def fitted_images(self) -> FittedImages:
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
        """The tree above the classes; None if the dataset has none."""
        return read_hierarchy(self.json("labelmap.json"))

    def tally(self, rows: Rows) -> ConfusionCounts:
        """The confusion matrix of a split; ValueError as in `metrics.tally`."""
        return metrics.tally(rows.pred_N, rows.label_N, len(self.labelmap))

    def split(self, name: str) -> list[str]:
        """The paths of a split, in the order of its file."""
        return self.text(f"splits/{name}.txt").splitlines()

    def files(self) -> Iterator[str]:
        """The path of every file in the folder; links are listed, but not followed."""
        for path in sorted(self.path.rglob("*")):
            if path.is_symlink() or not path.is_dir():
                yield path.relative_to(self.path).as_posix()

    @cached_property
    def predictions(self) -> dict[str, Rows]:
        """Rows per split, for the splits that occur."""
        try:
            table = read_predictions(self.data(PREDICTIONS))
            split_N = table["split"].to_numpy()
            tables = {name: table.filter(pa.array(split_N == name)) for name in SPLITS}
            if sum(map(len, tables.values())) != len(table):
                raise DamageError(f"{PREDICTIONS}: rows of an unknown split")
            return {
                name: rows_of(table, lambda: len(self.labelmap))
                for name, table in tables.items()
                if len(table)
            }
        except (pa.ArrowException, KeyError, TypeError, ValueError) as error:
            raise DamageError(f"{PREDICTIONS}: not readable by this version") from error


def rows_of(table: pa.Table, classes: Callable[[], int]) -> Rows:
    """Columns of predictions.parquet of one split as arrays.

    Args:
        classes: returns the number of classes; called only if no image of the split is readable.
            Otherwise the stored lists give the widths.
    """
    has_logits, has_entropy = (name in table.column_names for name in ("logits", "entropy"))
    all_unreadable = table["topk_labels"].null_count == len(table)
    width, width_top = (classes(), min(TOP, classes())) if all_unreadable else (None, None)
    return Rows(
        tuple(table["path"].to_pylist()),
        tuple(table["sha256"].to_pylist()),
        table["label"].to_numpy(),
        table["pred"].to_numpy(),
        table["confidence"].to_numpy(),
        table["label_logprob"].to_numpy(),
        _stack_lists(table["topk_labels"], UNREADABLE, width_top),
        _stack_lists(table["topk_scores"], np.nan, width_top),
        _stack_lists(table["logits"], -np.inf, width) if has_logits else None,
        table["entropy"].to_numpy() if has_entropy else None,
    )


def _stack_lists(column: pa.ChunkedArray, fill: float, width: int | None) -> np.ndarray:
    """Lists of equal length (width) as rows of a matrix, null as a row of `fill`."""
    valid_N = column.is_valid().to_numpy()
    flat = column.combine_chunks().flatten().to_numpy()
    if width is None:
        width = len(flat) // max(int(valid_N.sum()), 1)
    rows_NK = np.full((len(valid_N), width), fill, flat.dtype)
    rows_NK[valid_N] = flat.reshape(-1, width)
    return rows_NK
