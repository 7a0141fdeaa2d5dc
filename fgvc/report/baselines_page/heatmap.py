"""per_class.csv of the best lines of a group -> accuracy by class and line, hardest class first.

C classes, L lines.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from fgvc.record import verify
from fgvc.record.verify import DamageError
from fgvc.report.aggregate_seeds import Line
from fgvc.untrusted.escape import uncell

FILE = "per_class.csv"
MAX_LINES, CLASSES = 12, 200  # the best lines and the hardest classes are shown
Recall = dict[str, tuple[str, float]]  # class index -> class name, recall


def class_heatmap(lines: Sequence[tuple[str, Line]]) -> dict[str, Any] | None:
    """Accuracy by class and line, averaged over seeds; None for a single line.

    Returns:
        columns: place and name of each line. rows: class name, mean, and accuracy per line, as
        fractions. classes: number of all classes. problems: one message per unreadable line.
    """
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
    if not recalls:
        return None
    first = next(iter(recalls.values()))
    names = [name for name, _ in first.values()]
    recall_CL = np.array([[of_line[index][1] for of_line in recalls.values()] for index in first])
    mean_C = recall_CL.mean(axis=1)
    rows = [
        (names[c], float(mean_C[c]), recall_CL[c].tolist())
        for c in np.argsort(mean_C, kind="stable")[:CLASSES]
    ]
    columns = list(recalls)
    return {"columns": columns, "rows": rows, "classes": len(names), "problems": problems}


def _mean_recall(line: Line) -> Recall:
    """Recall averaged over the seeds, for the classes that have test images."""
    recalls: list[Recall] = []
    for run in line.runs:
        data = verify.read_verified(run.path, FILE, verify.read_index(run.path))
        try:
            rows = [
                row for row in csv.DictReader(io.StringIO(data.decode())) if int(row["support"])
            ]
            recalls.append(
                {row["index"]: (uncell(row["name"]), float(row["recall"])) for row in rows}
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DamageError(f"{FILE}: not readable by this version") from error
    return {
        index: (name, sum(recall[index][1] for recall in recalls) / len(recalls))
        for index, (name, _) in recalls[0].items()
    }
