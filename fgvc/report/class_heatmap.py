"""Lines of a group -> accuracy by class and line. C classes, L lines."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any

import numpy as np

from fgvc.html.class_names import display_names
from fgvc.html.confusion import drawn_groups
from fgvc.html.formats import plain
from fgvc.record import verify
from fgvc.record.prediction_tables import read_class_rows, read_hierarchy
from fgvc.record.verify import DamageError
from fgvc.report.aggregate_seeds import Line

PER_CLASS, LABEL_MAP = "per_class.csv", "labelmap.json"
MAX_LINES, CLASSES = 12, 200  # the best lines and the hardest classes are shown
STEPS = 10  # of the colour scale
Recall = dict[int, tuple[str, float]]  # class index -> class name, recall


def class_heatmap(lines: Sequence[tuple[str, Line]]) -> dict[str, Any] | None:
    """Accuracy by class and line, averaged over seeds; None for a single line.

    Returns:
        columns: place and name of each line. rows: class name, mean, and accuracy per line, as
        fractions, the hardest class first. groups: if classes are left out, the same for the
        super-categories, each the mean over its classes; their names end in the number of classes.
        low: the accuracy at the pale end of the colours, a multiple of a tenth. classes: number of
        all classes. problems: one message per unreadable line.
    """
    if len(lines) < 2:
        return None
    recalls: dict[tuple[int, str], Recall] = {}
    problems = []
    for place, (name, line) in enumerate(lines[:MAX_LINES], 1):
        try:
            recall = _mean_recall(line)
            if any(other.keys() != recall.keys() for other in recalls.values()):
                raise DamageError(f"{PER_CLASS}: other classes than the other lines of its group")
            recalls[place, name] = recall
        except DamageError as error:
            problems.append(f"{place}. {name}: {error}")
    if not recalls:
        return None
    first = next(iter(recalls.values()))
    names = display_names([name for name, _ in first.values()])
    recall_CL = np.array([[of_line[index][1] for of_line in recalls.values()] for index in first])
    mean_C = recall_CL.mean(axis=1)
    hardest = np.argsort(mean_C, kind="stable")[:CLASSES]
    low = min(0.9, np.floor(10 * recall_CL.min(initial=1.0)) / 10)
    return {
        "columns": list(recalls),
        "rows": [(names[c], float(mean_C[c]), recall_CL[c].tolist()) for c in hardest],
        "groups": _group_rows(lines[0][1], [*first], recall_CL) if len(names) > CLASSES else [],
        "low": float(low),
        "steps": STEPS,
        "classes": len(names),
        "problems": problems,
    }


def _group_rows(
    line: Line, indices: Sequence[int], recall_CL: np.ndarray
) -> list[tuple[str, float, list[float]]]:
    """The rows of the super-categories of a line's label map, the hardest first; few or none."""
    path = line.first.path
    try:
        data = verify.read_verified(path, LABEL_MAP, verify.read_index(path))
        groups = drawn_groups(read_hierarchy(verify.parse_object(LABEL_MAP, data)))
        group_C = None if groups is None else groups.place_C[list(indices)]
    except (DamageError, LookupError, TypeError, ValueError):
        return []  # the table of the classes does not need it
    if groups is None:
        return []
    rows = []
    for group, name in enumerate(groups.names):
        in_group_C = group_C == group
        if in_group_C.any():
            accuracy_L = recall_CL[in_group_C].mean(axis=0)
            text = f"{plain(name)} ({int(in_group_C.sum()):,})"
            rows.append((text, float(accuracy_L.mean()), accuracy_L.tolist()))
    return sorted(rows, key=itemgetter(1, 0))


def _mean_recall(line: Line) -> Recall:
    """Recall averaged over the seeds, for the classes that have test images."""
    recalls: list[Recall] = []
    for run in line.runs:
        data = verify.read_verified(run.path, PER_CLASS, verify.read_index(run.path))
        try:
            rows = read_class_rows(data)
        except (KeyError, TypeError, ValueError) as error:
            raise DamageError(f"{PER_CLASS}: not readable by this version") from error
        recalls.append({row["index"]: (row["name"], row["recall"]) for row in rows})
    return {
        index: (name, sum(recall[index][1] for recall in recalls) / len(recalls))
        for index, (name, _) in recalls[0].items()
    }
