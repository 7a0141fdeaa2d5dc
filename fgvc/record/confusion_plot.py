"""A confusion matrix -> a plot that is legible with 12, 200 and 1,000 classes.

Up to NAMED_UP_TO classes it is a table of counts with class names. With more classes a cell can be
smaller than a pixel, so every nonzero cell is drawn as a mark, and the most confused pairs are
listed beside the plot.
C classes, V nonzero cells.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fgvc.metrics import worst_pairs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colorizer import ColorizingArtist
    from matplotlib.colors import PowerNorm

NAMED_UP_TO = 40  # classes; more names would overlap, so only every n-th index is shown
PAIRS = 20  # listed beside a large matrix
METADATA = {"Software": None}  # matplotlib's version would change the bytes


def confusion_title(backbone: str, size: str | None, dataset: str, partial: bool) -> str:
    """The title of the confusion matrix of a run."""
    return f"{backbone} {size} on {dataset}{' (partial copy)' if partial else ''}, test"


def confusion_png(matrix: np.ndarray, names: Sequence[str], title: str) -> bytes:
    """The row-normalised confusion matrix as PNG bytes; rows are the true classes.

    Args:
        matrix: C rows; columns after the C-th (unreadable images) only count in the row's total.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(names)
    side = float(np.clip(0.28 * count + 2.5, 5, 12))
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    FigureCanvasAgg(figure)
    if count <= NAMED_UP_TO:
        axes = figure.add_subplot()
        artist = _draw_table(axes, matrix, count)
    else:
        figure.set_size_inches(14, 11)
        axes, list_axes = figure.subplots(1, 2, width_ratios=(10, 3))
        artist = _draw_marks(axes, matrix, count)
        _draw_pairs(list_axes, matrix, names)
    figure.colorbar(
        artist, ax=axes, label="share of the true class", shrink=0.7, aspect=30, pad=0.02
    )
    _set_ticks(axes, names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    out = io.BytesIO()
    with warnings.catch_warnings():
        # missing glyphs are drawn as boxes; the names are in confusion.csv
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(out, format="png", dpi=110, metadata=METADATA)
    return out.getvalue()


def _draw_table(axes: Axes, matrix: np.ndarray, classes: int) -> ColorizingArtist:
    """Draw coloured cells with counts."""
    share_CC = _row_fraction(matrix, classes)
    for row, column in zip(*np.nonzero(share_CC), strict=True):
        colour = "white" if share_CC[row, column] > 0.4 else "black"
        text = str(matrix[row, column])
        axes.text(column, row, text, color=colour, ha="center", va="center", fontsize=7)
    return axes.imshow(share_CC, cmap="Blues", norm=_color_norm(0.5))


def _draw_marks(axes: Axes, matrix: np.ndarray, classes: int) -> ColorizingArtist:
    """Draw a mark per nonzero cell, at least three pixels wide, the darkest marks on top."""
    share_CC = _row_fraction(matrix, classes)
    row_V, column_V = np.nonzero(share_CC)
    order_V = np.argsort(share_CC[row_V, column_V], kind="stable")
    row_V, column_V = row_V[order_V], column_V[order_V]
    points = 72 * 8.0 / classes  # side of a cell in axes about eight inches wide
    artist = axes.scatter(
        column_V,
        row_V,
        c=share_CC[row_V, column_V],
        s=max(points, 2.0) ** 2,
        marker="s",
        linewidths=0,
        cmap="YlGnBu",
        norm=_color_norm(0.35),
    )
    axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), aspect="equal")
    return artist


def _row_fraction(matrix: np.ndarray, classes: int) -> np.ndarray:
    return matrix[:, :classes] / np.maximum(matrix.sum(axis=1, keepdims=True), 1)


def _color_norm(power: float) -> PowerNorm:
    """A color scale on which one error in thirty images is visible."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(power, vmin=0, vmax=1)


def _draw_pairs(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    """List the most confused pairs by the indices on the axes and by name."""
    wrong = int(matrix.sum() - np.trace(matrix))
    lines = [f"{wrong} mistakes; the most frequent:", ""]
    for pair in worst_pairs(matrix, PAIRS):
        label, pred, support = pair["label"], pair["pred"], matrix[pair["label"]].sum()
        lines.append(f"{pair['count']} of {support}:  {label}  {short(names[label])}")
        lines.append(f"      taken for {pred}  {short(names[pred])}")
    axes.axis("off")
    axes.text(0, 1, "\n".join(lines), va="top", fontsize=8, linespacing=1.5, parse_math=False)


def _set_ticks(axes: Axes, names: Sequence[str]) -> None:
    count = len(names)
    step = 1 if count <= NAMED_UP_TO else int(np.ceil(count / 20))
    positions = range(0, count, step)
    labels = [short(names[i]) if count <= NAMED_UP_TO else str(i) for i in positions]
    # a `$` in a class name must not start a formula
    axes.set_xticks(list(positions), labels, rotation=90, fontsize=7, parse_math=False)
    axes.set_yticks(list(positions), labels, fontsize=7, parse_math=False)


def short(name: str, length: int = 26) -> str:
    """A class name shortened to fit beside an axis or in a table."""
    plain = name.replace("_", " ")
    return plain if len(plain) <= length else plain[: length - 1] + "…"
