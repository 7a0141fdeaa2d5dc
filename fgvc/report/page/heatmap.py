"""per_class.csv of the best lines of a group -> accuracy by class and line, hardest class first.

C classes, L lines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fgvc.record import verify
from fgvc.record.verify import DamageError
from fgvc.report.aggregate_seeds import Line
from fgvc.report.run_rows import Run
from fgvc.untrusted.escape import uncell

FILE = "per_class.csv"
LINES, CLASSES = 12, 200  # shown at most: the best lines, the hardest classes
Recall = dict[str, tuple[str, float]]  # by class index: its name, its share of right answers


@dataclass(frozen=True)
class Heatmap:
    """rows: class name, mean and accuracy by line, as fractions. classes: how many there are.

    columns: place and name of a line. lost: what could not be read, and why.
    """

    columns: tuple[tuple[int, str], ...]
    rows: tuple[tuple[str, float, tuple[float, ...]], ...]
    classes: int
    lost: tuple[str, ...]


def class_heatmap(lines: Sequence[tuple[str, Line]]) -> Heatmap | None:
    """The map of a group, a seed's mean for each line; None where there is nothing to compare."""
    if len(lines) < 2:
        return None
    found: dict[tuple[int, str], Recall] = {}
    lost = []
    for place, (name, line) in enumerate(lines[:LINES], 1):
        try:
            found[place, name] = _like(_of_line(line), found)
        except DamageError as why:
            lost.append(f"{place}. {name}: {why}")
    return _map(found, lost) if found else None


def _like(recall: Recall, found: Mapping[tuple[int, str], Recall]) -> Recall:
    """The same, if it is of the classes that the others are of, as their key promises."""
    if any(one.keys() != recall.keys() for one in found.values()):
        raise DamageError(f"{FILE}: other classes than the rest of its comparability key")
    return recall


def _map(found: dict[tuple[int, str], Recall], lost: Sequence[str]) -> Heatmap:
    first = next(iter(found.values()))
    recall_CL = np.array([[of_line[index][1] for of_line in found.values()] for index in first])
    mean_C = recall_CL.mean(axis=1)
    names = [name for name, _ in first.values()]
    rows = tuple(
        (names[c], float(mean_C[c]), tuple(recall_CL[c].tolist()))
        for c in np.argsort(mean_C, kind="stable")[:CLASSES]
    )
    return Heatmap(tuple(found), rows, len(names), tuple(lost))


def _of_line(line: Line) -> Recall:
    """The mean over its seeds, of the classes that the test images hold."""
    of_seeds = [_read(run) for run in line.runs]
    return {
        index: (name, sum(of_seed[index][1] for of_seed in of_seeds) / len(of_seeds))
        for index, (name, _) in of_seeds[0].items()
    }


def _read(run: Run) -> Recall:
    data = verify.read_verified(run.path, FILE, verify.read_index(run.path))
    try:
        rows = csv.DictReader(io.StringIO(data.decode()))
        return {
            row["index"]: (uncell(row["name"]), float(row["recall"]))
            for row in rows
            if int(row["support"])
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(f"{FILE}: not one that this version reads") from error
