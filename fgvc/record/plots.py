"""A confusion matrix -> a picture that stays readable at 200 classes.

C classes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np

NAMED_UP_TO = 40  # classes; above, names would overlap and only every n-th index is shown
METADATA = {"Software": None}  # matplotlib's version would change the bytes


def confusion_png(matrix: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """Row-normalised confusion as PNG bytes; rows are the true classes.

    Args:
        matrix: C rows; columns past the C-th (unreadable images) count in the row's total only.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    side = float(np.clip(0.28 * len(names) + 2.5, 5, 12))
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    support_C1 = np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(matrix[:, : len(names)] / support_C1, cmap="viridis", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    _ticks(axes, names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    out = io.BytesIO()
    with warnings.catch_warnings():
        # a script that the font lacks is drawn as boxes; the names stand in confusion.csv
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(out, format="png", dpi=110, metadata=METADATA)
    return out.getvalue()


def _ticks(axes, names: Sequence[str]) -> None:
    count = len(names)
    step = 1 if count <= NAMED_UP_TO else int(np.ceil(count / 20))
    at = range(0, count, step)
    shown = [short(names[i]) if count <= NAMED_UP_TO else str(i) for i in at]
    # a `$` in a class name is no formula
    axes.set_xticks(list(at), shown, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(list(at), shown, fontsize=7, parse_math=False)


def short(name: str, length: int = 26) -> str:
    """A class name that fits beside an axis or in a table."""
    plain = name.replace("_", " ")
    return plain if len(plain) <= length else plain[: length - 1] + "…"
