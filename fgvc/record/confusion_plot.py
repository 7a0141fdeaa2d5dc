"""A confusion matrix -> confusion.svg, with the title of its run and the most confused pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fgvc import metrics
from fgvc.html import confusion


def confusion_plot(
    matrix: np.ndarray, names: Sequence[str], model: str, dataset: str, partial: bool
) -> str:
    """The text of confusion.svg.

    Args:
        model: name and size of the backbone.
        partial: whether the run read a partial copy of the dataset.
    """
    title = f"{model} on {dataset}{' (partial copy)' if partial else ''}, test"
    worst = metrics.worst_pairs(matrix, confusion.PAIRS)
    pairs = [(pair["label"], pair["pred"], pair["count"]) for pair in worst]
    return confusion.confusion_svg(matrix, names, title, pairs)
