"""A confusion matrix -> an SVG or an image that is legible with 3, 200 and 5,000 classes.

Rows are the true classes, columns the predicted classes. In the SVG, classes that are confused with
each other stand side by side. Up to NAMED_UP_TO classes it is a table of counts with class names.
With more classes a cell can be smaller than a pixel, so every nonzero cell is a mark of at least
MARK pixels, and the most confused pairs are listed beside. With more than ORDERED_UP_TO classes in
groups it is the table of the groups. A page shows a table of the worst block.
C classes, K groups, V nonzero cells, H x W pixels.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc.html import confusion_order
from fgvc.html.charts import BOTTOM, LEFT, RIGHT, Axis, Frame
from fgvc.html.class_groups import ClassGroups, top_groups
from fgvc.html.render import render
from fgvc.types import ConfusionCounts, Hierarchy
from fgvc.untrusted.escape import visible

NAMED_UP_TO = 40  # classes; more names would overlap
BLOCK = 24  # classes of the worst block
PAIRS = 20  # most confused pairs that are listed
MAX_CELLS = 20_000  # drawn
LEVELS = (  # highest share of the true class, colour in light and in dark mode
    (0.01, "#b0dfbb", "#2a4a7c"),
    (0.02, "#8fd2ba", "#2a5f9e"),
    (0.05, "#66c2be", "#2878b5"),  # one error in thirty images
    (0.1, "#41b6c4", "#2391bf"),
    (0.2, "#2ea0c1", "#37abc3"),
    (0.35, "#1f87bb", "#5dc3bf"),
    (0.5, "#2168ad", "#8ad4ba"),
    (0.65, "#254a9c", "#b3e3b4"),
    (0.8, "#1e2f85", "#dbf1b0"),
    (1.0, "#081d58", "#fbfdd0"),
)
BOUNDS = [bound for bound, _, _ in LEVELS]
SIDE, MARK = 640, 2.5  # pixels: of the plot with marks, of a mark at least
TABLE, CELL = 560, (18, 40)  # pixels: of a table with many classes, of its cells
IMAGE = 600  # pixels: side of an image with few classes
HEADER, SWATCH, LISTED = 54, 26, 300  # pixels: height; width of a level in the legend, of the list
LETTER, LONGEST = 6.2, 28  # pixels per letter; letters of a class name
NOT_XML = {code: f"\\u{code:x}" for code in (0xFFFE, 0xFFFF)}


@dataclass(frozen=True)
class Cells:
    """The cells to draw, by ascending row and column. nonzero: number of nonzero cells.

    level_V: in 0..9, the larger the share of the true class the higher.
    """

    row_V: np.ndarray
    column_V: np.ndarray
    count_V: np.ndarray
    level_V: np.ndarray
    nonzero: int


def confusion_svg(
    counts: ConfusionCounts,
    names: Sequence[str],
    title: str,
    pairs: Sequence[tuple[int, int, int]] = (),
    groups: ClassGroups | None = None,
) -> str:
    """The confusion matrix as an SVG document, which may also stand inside a page.

    With more than MAX_CELLS nonzero cells, only those with the largest shares are drawn.

    Args:
        counts: unreadable images only count in the total of their true class.
        title: drawn above the plot; may be empty.
        pairs: true class, predicted class and count of the most confused pairs. A plot with marks
            or of groups lists the first PAIRS.
        groups: draw the matrix of these groups instead of that of the classes.
    """
    all_names, all_counts = names, counts
    if groups is not None:
        names, counts = groups.names, _of_groups(counts, groups)
    classes = len(names)
    order_C = confusion_order.cluster_order(counts)
    cells = _cells(counts, order_C, MAX_CELLS)
    is_table = classes <= NAMED_UP_TO
    labels = _labels([names[int(index)] for index in order_C]) if is_table else []
    cell = max(CELL[0], min(CELL[1], TABLE // classes)) if is_table else SIDE / classes
    longest = max(map(_width, labels), default=0) * LETTER  # pixels
    left, top = round(28 + longest) if is_table else LEFT, HEADER + 24 * bool(title)
    right, bottom = round(left + cell * classes), round(top + cell * classes)
    width = max(right, left + SWATCH * len(LEVELS) + 2 * RIGHT) + RIGHT
    listed = () if is_table and groups is None else pairs[:PAIRS]
    end = bottom + (round(28 + longest * 0.71) if is_table else BOTTOM)  # names at 45 degrees
    frame = Frame(
        width,
        max(end, top + 31 * (len(listed) + 1)),
        Axis("predicted", -0.5, classes - 0.5, left, right),
        Axis("true", classes - 0.5, -0.5, bottom, top),  # class 0 is at the top
    )
    digits = len(str(cells.count_V.max(initial=0)))
    facts = {
        "title": _label(title, int((width - left) / 8)),
        "width": width + LISTED * bool(listed),
        "frame": frame,
        "end": end,
        "cell": round(cell, 6),
        "classes": classes,
        "all_classes": len(all_names),
        "grouped": groups is not None,
        "labels": labels,
        "indexed": classes > confusion_order.ORDERED_UP_TO,
        "mark": max(1, round(MARK / cell, 3)),
        "levels": [_draw_level(cells, level, is_table) for level in np.unique(cells.level_V)],
        "font": round(min(11, 1.5 * cell / digits), 1),  # pixels
        "drawn": len(cells.row_V),
        "nonzero": cells.nonzero,
        "bounds": [f"{100 * bound:g}" for bound in (0, *BOUNDS)],
        "swatch": SWATCH,
        "light": [light for _, light, _ in LEVELS],
        "dark": [dark for _, _, dark in LEVELS],
        "mistakes": all_counts.errors,
        "pairs": [
            {
                "count": count,
                "support": int(all_counts.support_C[label]),
                "true": f"{label}  {_label(all_names[label])}",
                "predicted": f"{pred}  {_label(all_names[pred])}",
            }
            for label, pred, count in listed
        ],
    }
    return render("confusion.svg", facts)


def drawn_groups(hierarchy: Hierarchy | None) -> ClassGroups | None:
    """The groups of the classes, if their names fit a plot."""
    groups = top_groups(hierarchy)
    return groups if groups is not None and len(groups.names) <= NAMED_UP_TO else None


def page_plot(
    counts: ConfusionCounts, names: Sequence[str], groups: ClassGroups | None = None
) -> dict[str, object]:
    """The plot of a page: the whole matrix as a table, or with more classes its worst block.

    Args:
        counts, names: as of `confusion_svg`.
        groups: of the classes, as from `drawn_groups`.

    Returns:
        svg: without title and list; None if a block would be empty. classes: in the plot. errors:
        between these classes. all_classes, all_errors: of the whole matrix. groups_svg: with more
        than NAMED_UP_TO classes the plot of their groups, otherwise None. within: errors between
        classes of one group.
    """
    classes = len(names)
    shown, index_K, groups_svg, within = counts, np.arange(classes), None, 0
    if classes > NAMED_UP_TO:
        index_K = confusion_order.worst_block(counts, BLOCK)
        shown = confusion_order.block(counts, index_K)
        if groups is not None:
            groups_svg = confusion_svg(counts, names, "", groups=groups)
            within = int(_of_groups(counts, groups).hit_C.sum() - counts.hit_C.sum())
    return {
        "svg": confusion_svg(shown, [names[index] for index in index_K.tolist()], "")
        if len(index_K)
        else None,
        "classes": len(index_K),
        "errors": int(shown.predicted_C.sum() - shown.hit_C.sum()),
        "all_classes": classes,
        "all_errors": counts.errors,
        "groups_svg": groups_svg,
        "within": within,
    }


def confusion_image(counts: ConfusionCounts) -> np.ndarray:
    """The confusion matrix as an image, uint8 RGB (H, W, C), in the colours of the SVG.

    A cell has at least a pixel. If there are more classes than pixels, a pixel has the colour of
    the strongest of its cells.
    """
    classes = counts.classes
    cells = _cells(counts, np.arange(classes), len(counts.count_V))
    side = min(classes, IMAGE)
    level_HW = np.zeros((side, side), np.uint8)  # 0: empty
    at = (cells.row_V * side // classes, cells.column_V * side // classes)
    np.maximum.at(level_HW, at, (cells.level_V + 1).astype(np.uint8))
    colours = ("#ffffff", *(light for _, light, _ in LEVELS))
    rgb_L3 = np.array([list(bytes.fromhex(colour[1:])) for colour in colours], np.uint8)
    block = max(1, round(IMAGE / classes))
    return rgb_L3[level_HW].repeat(block, axis=0).repeat(block, axis=1)


def _of_groups(counts: ConfusionCounts, groups: ClassGroups) -> ConfusionCounts:
    place_C = np.append(groups.place_C, len(groups.names))
    return confusion_order.regroup(counts, place_C, len(groups.names))


def _cells(counts: ConfusionCounts, order_C: np.ndarray, most: int) -> Cells:
    """The nonzero cells, or the `most` cells with the largest shares of the true class.

    order_C: the class at each place of both axes.
    """
    place_C = np.argsort(order_C)
    read_V = counts.pred_V < counts.classes
    row_V, column_V = counts.truth_V[read_V], counts.pred_V[read_V]
    count_V = counts.count_V[read_V]
    share_V = count_V / counts.support_C[row_V]
    row_V, column_V = place_C[row_V], place_C[column_V]
    # multiples of the golden ratio spread the drawn ones of equal shares over all rows
    spread_V = np.arange(len(row_V), dtype=np.uint32) * np.uint32(2654435769)
    drawn_V = np.lexsort((spread_V, -share_V))[:most]
    drawn_V = drawn_V[np.lexsort((column_V[drawn_V], row_V[drawn_V]))]
    level_V = np.searchsorted(BOUNDS, share_V)
    drawn = (values_V[drawn_V] for values_V in (row_V, column_V, count_V, level_V))
    return Cells(*drawn, nonzero=len(row_V))


def _draw_level(cells: Cells, level: int, is_table: bool) -> dict[str, object]:
    """The cells of a level: an SVG path in units of cells, and column, row and count of each text.

    In the path each cell is a line of length zero, whose square caps are the mark.
    """
    here_V = cells.level_V == level
    row_V, column_V = cells.row_V[here_V], cells.column_V[here_V]
    count_V = cells.count_V[here_V]
    moves = zip(np.diff(column_V, prepend=0), np.diff(row_V, prepend=0), strict=True)
    texts = zip(column_V.tolist(), row_V.tolist(), count_V.tolist(), strict=True)
    return {
        "level": level,
        "path": "".join(f"m{x} {y}h0" for x, y in moves),
        "texts": list(texts) if is_table else [],
    }


def _labels(names: Sequence[str]) -> list[str]:
    """A label per class. Labels that would be equal keep their ends: (Adult male), (Female)."""
    labels = [_label(name) for name in names]
    count_of = Counter(labels)
    return [
        label if count_of[label] == 1 else _label(name, tail=LONGEST // 2)
        for name, label in zip(names, labels, strict=True)
    ]


def _label(text: str, longest: int = LONGEST, tail: int = 0) -> str:
    """A text for a line of an SVG, cut to `longest` letters, the last `tail` of them its end."""
    line = visible(text.replace("_", " ")).translate(NOT_XML)
    if _width(line) <= longest:
        return line
    end = _fitting(line[::-1], tail)[::-1].lstrip()
    return f"{_fitting(line, longest - tail).rstrip()}…{end}"


def _fitting(line: str, longest: int) -> str:
    """The first letters of a line, narrower than `longest` letters."""
    widths = itertools.accumulate(map(_width, line))
    return line[: sum(width < longest for width in widths)]


def _width(text: str) -> float:
    """Approximate width in letters; Chinese, Japanese and Korean characters are wide."""
    return sum(2 if char >= "\u1100" else 1.3 if "A" <= char <= "Z" else 1 for char in text)
