"""per_class.csv of the best lines of a group -> accuracy by class and line, hardest class first.

C classes, L lines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc.record import verify
from fgvc.record.verify import DamageError
from fgvc.report.aggregate_seeds import Line
from fgvc.report.run_rows import Run
from fgvc.untrusted.escape import uncell

FILE = "per_class.csv"
MAX_LINES, CLASSES = 12, 200  # the best lines and the hardest classes are shown
Recall = dict[str, tuple[str, float]]  # class index -> class name, recall


@dataclass(frozen=True)
class Heatmap:
    """columns: place and name of each line. rows: class name, mean, and accuracy per line, as
    fractions. classes: number of all classes. problems: one message per unreadable line.
    """

    columns: tuple[tuple[int, str], ...]
    rows: tuple[tuple[str, float, tuple[float, ...]], ...]
    classes: int
    problems: tuple[str, ...]


def class_heatmap(lines: Sequence[tuple[str, Line]]) -> Heatmap | None:
    """Accuracy by class and line, averaged over seeds; None for a single line."""
    if len(lines) < 2:
        return None
    recalls: dict[tuple[int, str], Recall] = {}
    problems = []
    for place, (name, line) in enumerate(lines[:MAX_LINES], 1):
        try:
            recall = _mean_recall(line)
            if any(other.keys() != recall.keys() for other in recalls.values()):
                raise DamageError(f"{FILE}: other classes than the other lines of its group")
            recalls[place, name] = recall
        except DamageError as error:
            problems.append(f"{place}. {name}: {error}")
    return _build_heatmap(recalls, problems) if recalls else None


def _build_heatmap(recalls: dict[tuple[int, str], Recall], problems: Sequence[str]) -> Heatmap:
    first = next(iter(recalls.values()))
    recall_CL = np.array([[of_line[index][1] for of_line in recalls.values()] for index in first])
    mean_C = recall_CL.mean(axis=1)
    names = [name for name, _ in first.values()]
    rows = tuple(
        (names[c], float(mean_C[c]), tuple(recall_CL[c].tolist()))
        for c in np.argsort(mean_C, kind="stable")[:CLASSES]
    )
    return Heatmap(tuple(recalls), rows, len(names), tuple(problems))


def _mean_recall(line: Line) -> Recall:
    """Recall averaged over the seeds, for the classes that have test images."""
    recall_per_seed = [_read_recall(run) for run in line.runs]
    return {
        index: (name, sum(of_seed[index][1] for of_seed in recall_per_seed) / len(recall_per_seed))
        for index, (name, _) in recall_per_seed[0].items()
    }


def _read_recall(run: Run) -> Recall:
    data = verify.read_verified(run.path, FILE, verify.read_index(run.path))
    try:
        rows = csv.DictReader(io.StringIO(data.decode()))
        return {
            row["index"]: (uncell(row["name"]), float(row["recall"]))
            for row in rows
            if int(row["support"])
        }
    except (KeyError, TypeError, ValueError) as error:
        raise DamageError(f"{FILE}: not readable by this version") from error
