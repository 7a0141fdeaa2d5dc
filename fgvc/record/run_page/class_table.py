"""The confusion matrix of a run -> the accuracy of every class, listed by super-category.

Small runs have no such lists: their matrix shows every class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fgvc.html.class_groups import ClassGroups
from fgvc.html.class_lists import LISTED_FROM, ClassLists, ClassRow, class_lists
from fgvc.html.formats import percent
from fgvc.types import ConfusionCounts

HEADINGS = ("class", "right, %", "images", "most often taken for")


def class_table(
    counts: ConfusionCounts, names: Sequence[str], groups: ClassGroups | None
) -> ClassLists | None:
    """The classes with test images, the hardest first; None for fewer than LISTED_FROM classes.

    Args:
        names: that people read.
        groups: the super-categories.
    """
    if counts.classes < LISTED_FROM:
        return None
    taken = _taken_for(counts, names)
    (present_C,) = np.nonzero(counts.support_C)
    recall_C = counts.hit_C[present_C] / counts.support_C[present_C]
    # of equal recalls, that of more images says more
    order = np.lexsort((present_C, -counts.support_C[present_C], recall_C))
    rows = []
    for index in map(int, present_C[order]):
        hits, support = int(counts.hit_C[index]), int(counts.support_C[index])
        cells = (names[index], percent(hits / support), str(support), taken.get(index, ""))
        group = "" if groups is None else groups.name_of(index)
        rows.append(ClassRow(group, (hits, support), cells))
    return class_lists(HEADINGS, rows, _summarize)


def _summarize(rows: Sequence[ClassRow]) -> tuple[float, str]:
    hits, images = (sum(column) for column in zip(*(row.counts for row in rows), strict=True))
    classes = f"{len(rows):,} class{'es' * (len(rows) != 1)}"
    return hits / images, f"{classes}, {percent(hits / images)} % of {images:,} images right"


def _taken_for(counts: ConfusionCounts, names: Sequence[str]) -> dict[int, str]:
    """Class -> the wrong class that is predicted most often for it, and how often."""
    wrong_V = counts.truth_V != counts.pred_V
    truth_V, pred_V = counts.truth_V[wrong_V], counts.pred_V[wrong_V]
    count_V = counts.count_V[wrong_V]
    order = np.lexsort((pred_V, -count_V, truth_V))
    truths, first = np.unique(truth_V[order], return_index=True)
    shown = [*names, "unreadable"]
    return {
        truth: f"{shown[pred]} ({count})"
        for truth, pred, count in zip(
            truths.tolist(),
            pred_V[order][first].tolist(),
            count_V[order][first].tolist(),
            strict=True,
        )
    }
