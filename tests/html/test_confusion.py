"""The plot of a confusion matrix: true to every cell, legible with any number of classes, inert."""

from __future__ import annotations

import io
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from fgvc.html import confusion, confusion_order
from fgvc.html.class_groups import ClassGroups
from fgvc.types import ConfusionCounts, Hierarchy

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = (
    "<b>x</b>",
    "$x$ & \"y\" 'z'",
    "]]></style><script>alert(1)</script>",
    "{{ 7 * 7 }}",
    "a\x00\x1b[0m\n\u202eb\ufffe\uffff",
    "\ud800 lone \udfff",
    "大きな鳥の名前" * 9,
    "n" * 200,
)


def confusion_svg(matrix: np.ndarray, *args, **more) -> str:
    return confusion.confusion_svg(ConfusionCounts.of(matrix), *args, **more)


def confusion_image(matrix: np.ndarray) -> np.ndarray:
    return confusion.confusion_image(ConfusionCounts.of(matrix))


def page_plot(matrix: np.ndarray, *args, **more) -> dict[str, Any]:
    return confusion.page_plot(ConfusionCounts.of(matrix), *args, **more)


def planted(classes: int, mistakes: list[tuple[int, int]], of: int = 30) -> np.ndarray:
    """The matrix of correct predictions except one error per (true, predicted)."""
    matrix = np.hstack([np.eye(classes, dtype=int) * of, np.zeros((classes, 1), int)])
    for label, pred in mistakes:
        matrix[label, label] -= 1
        matrix[label, pred] += 1
    return matrix


def scattered(classes: int, seed: int = 0, images: int = 30) -> np.ndarray:
    """A matrix in which about a fifth of the images are errors, and some are unreadable."""
    rng = np.random.default_rng(seed)
    label_N = np.repeat(np.arange(classes), images)
    pred_N = np.where(
        rng.random(len(label_N)) < 0.8, label_N, rng.integers(0, classes + 1, len(label_N))
    )
    matrix = np.zeros((classes, classes + 1), int)
    np.add.at(matrix, (label_N, pred_N), 1)
    return matrix


def named(classes: int) -> list[str]:
    return [f"{index}.A_$bird_{index}" for index in range(classes)]


@pytest.fixture
def by_index(monkeypatch) -> None:
    """Plots with the classes in the order of their indices, as with very many classes."""
    monkeypatch.setattr(confusion_order, "ORDERED_UP_TO", 0)


def in_order(matrix: np.ndarray) -> np.ndarray:
    """The matrix with the classes in the order of the plot."""
    order_C = confusion_order.cluster_order(ConfusionCounts.of(matrix))
    return np.hstack([matrix[np.ix_(order_C, order_C)], matrix[order_C, len(matrix) :]])


def draw(matrix: np.ndarray, title: str = "birds", **more) -> ElementTree.Element:
    return ElementTree.fromstring(confusion_svg(matrix, named(len(matrix)), title, **more))


def group(root: ElementTree.Element, name: str) -> ElementTree.Element:
    (element,) = (g for g in root.iter(f"{SVG}g") if g.get("class") == name)
    return element


def marks(root: ElementTree.Element) -> list[tuple[int, int, int]]:
    """Row, column and level of each mark, in drawing order."""
    drawn = []
    for path in group(root, "cells"):
        level, steps = int(path.get("class", "")[1:]), path.get("d", "")
        moves = re.findall(r"m(-?\d+) (\d+)h0", steps)
        assert "".join(f"m{x} {y}h0" for x, y in moves) == steps
        column_V, row_V = np.cumsum(np.array(moves, int), axis=0).T.tolist()
        drawn += [(row, column, level) for row, column in zip(row_V, column_V, strict=True)]
    return drawn


def scale(root: ElementTree.Element) -> tuple[float, float, float]:
    """Left and upper edge of the plot, and the side of a cell, in pixels."""
    transform = group(root, "cells").get("transform", "")
    left, top, cell = re.findall(r"[\d.]+", transform)[:3]
    return float(left), float(top), float(cell)


def counts(root: ElementTree.Element) -> dict[tuple[int, int], int]:
    """The number in each cell of a table."""
    left, top, cell = scale(root)
    texts = list(group(root, "counts").iter(f"{SVG}text"))
    places = [(float(text.get("y", "")), float(text.get("x", ""))) for text in texts]
    cells = [(int((y - top) // cell), int((x - left) // cell)) for y, x in places]
    assert len(set(cells)) == len(cells)
    return {at: int(text.text or "") for at, text in zip(cells, texts, strict=True)}


def test_names_that_are_too_long_stay_different():
    """Forms of one bird are often confused with each other."""
    forms = ("Female/Immature male", "Adult male", "Female/Eclipse male")
    names = [f"Black-throated Blue Warbler ({form})" for form in forms]
    svg = confusion_svg(np.ones((4, 5), int), [*names, "Wood Duck"], "")
    texts = [text.text for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    labels = {text for text in texts if text and text.startswith(("Black", "Wood"))}
    assert len(labels) == 4
    assert "Wood Duck" in labels
    assert all(len(label) <= 28 for label in labels)


@pytest.mark.parametrize("classes", [1, 3, 12, 40])
def test_a_table_has_every_count_and_every_name_on_both_axes(classes):
    matrix = scattered(classes)
    root, ordered = draw(matrix), in_order(matrix)
    nonzero = zip(*np.nonzero(ordered[:, :classes]), strict=True)
    assert counts(root) == {(row, column): ordered[row, column] for row, column in nonzero}
    texts = [text for text in root.iter(f"{SVG}text") if "A $bird" in (text.text or "")]
    order = confusion_order.cluster_order(ConfusionCounts.of(matrix)).tolist()
    names = [named(classes)[index].replace("_", " ") for index in order]
    rows, columns = texts[::2], texts[1::2]
    for axis in (rows, columns):
        assert [text.text for text in axis] == names
    assert [float(text.get("y", "")) for text in rows] == sorted(
        float(text.get("y", "")) for text in rows
    )


@pytest.mark.parametrize("classes", [3, 12, 40, 41, 200, 1000])
def test_every_nonzero_cell_is_drawn_once_and_the_strongest_on_top(classes):
    matrix = scattered(classes)
    root = draw(matrix)
    drawn = marks(root)
    share_CC = in_order(matrix)[:, :classes] / 30
    levels = {(row, column): level for row, column, level in drawn}
    assert len(levels) == len(drawn) == np.count_nonzero(share_CC)
    for (row, column), level in levels.items():
        low = confusion.BOUNDS[level - 1] if level else 0
        assert low < share_CC[row, column] <= confusion.BOUNDS[level]
    assert [level for *_, level in drawn] == sorted(level for *_, level in drawn)
    side = float(group(root, "cells").get("stroke-width", "")) * scale(root)[2]
    assert side >= confusion.MARK - 0.01


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("classes", [12, 40, 200, 1000])
def test_one_mistake_of_thirty_leaves_a_mark(classes, scheme, opened, tmp_path, by_index):
    pixels = []
    for mistakes in ([], [(classes // 8, classes - 1 - classes // 8)]):
        file = tmp_path / f"{len(mistakes)}.svg"
        file.write_text(confusion_svg(planted(classes, mistakes), named(classes), "birds"))
        page = opened(file, scheme).page
        page.set_viewport_size({"width": 1100, "height": 1100})
        with Image.open(io.BytesIO(page.screenshot())) as image:
            pixels.append(np.asarray(image.convert("RGB")).astype(int))
    left, top, cell = scale(draw(planted(classes, [])))
    row, column = int(top + (classes // 8) * cell), int(left + (classes - 1 - classes // 8) * cell)
    differ_HW = np.abs(pixels[0] - pixels[1]).max(axis=2) > 40
    near_HW = differ_HW[row - 3 : row + 45, column - 3 : column + 45]
    assert near_HW.sum() >= 4
    differ_HW[:, : column - 3] = False  # the cell of the class itself
    assert near_HW.sum() == differ_HW.sum()
    assert (pixels[0][0, 0] > 200).all() == (scheme == "light")


def test_the_same_matrix_gives_the_same_text():
    assert confusion_svg(scattered(41), named(41), "a") == confusion_svg(
        scattered(41), named(41), "a"
    )


def test_a_plot_with_marks_lists_its_worst_pairs():
    matrix = planted(60, [(7, 9), (7, 9), (3, 4)])
    root = draw(matrix, pairs=[(7, 9, 2), (3, 4, 1)])
    assert [text.text for text in group(root, "pairs")] == [
        "3 mistakes; the most frequent:",
        "2 of 30:  7  7.A $bird 7",
        "taken for  9  9.A $bird 9",
        "1 of 30:  3  3.A $bird 3",
        "taken for  4  4.A $bird 4",
    ]
    alone = draw(matrix)
    assert "pairs" not in {g.get("class") for g in alone.iter(f"{SVG}g")}
    assert float(alone.get("width", "")) < float(root.get("width", "")) - 200
    many = draw(matrix, pairs=[(7, 9, 1)] * 90)
    assert len(group(many, "pairs")) == 1 + 2 * confusion.PAIRS


def test_unreadable_images_count_in_the_total_of_their_row_only():
    matrix = np.array([[10, 0, 20], [0, 30, 0]])
    root = draw(matrix)
    assert counts(root) == {(0, 0): 10, (1, 1): 30}
    (share,) = (level for row, _, level in marks(root) if row == 0)
    assert confusion.BOUNDS[share - 1] < 10 / 30 <= confusion.BOUNDS[share]
    np.testing.assert_array_equal(
        confusion_image(matrix)[0, 0], confusion_image(np.array([[10, 20], [0, 30]]))[0, 0]
    )


@pytest.mark.fault(53)
@pytest.mark.parametrize("classes", [len(HOSTILE), 41])
def test_hostile_names_are_text_in_well_formed_xml(classes):
    names = [*HOSTILE, *named(classes)][:classes]
    pairs = [(label, 0, 1) for label in range(len(HOSTILE))]
    for title in HOSTILE:
        text = confusion_svg(scattered(classes), names, title, pairs)
        assert "\x00" not in text
        root = ElementTree.fromstring(text.encode())
        tags = {element.tag.removeprefix(SVG) for element in root.iter()}
        assert tags <= {"svg", "style", "rect", "text", "path", "g", "line"}
        texts = [element.text or "" for element in root.iter(f"{SVG}text")]
        assert max(map(len, texts)) < 100
        for shown in ("<b>x</b>", "{{ 7 * 7 }}", "\\ud800 lone \\udfff", "$x$ & \"y\" 'z'"):
            assert any(line.endswith(shown) for line in texts), shown
        assert any("a\\x00\\x1b[0m\\n\\u202eb" in line for line in texts)


def test_it_touches_nothing_beside_itself_and_requests_nothing():
    text = confusion_svg(scattered(41), named(41), "birds", [(0, 1, 2)])
    outside = r"\b(id|href|src|on\w+)=|url\(|@import|<script|http"
    assert not re.search(outside, text.replace('xmlns="http://www.w3.org/2000/svg"', "", 1))
    style = re.sub(r"@media [^{]*\{", "", re.findall(r"<style>(.*?)</style>", text, re.DOTALL)[0])
    selectors = [part for rule in re.findall(r"([^{}]+)\{", style) for part in rule.split(",")]
    assert len(selectors) > 20
    assert all(part.strip().startswith(".confusion-matrix ") for part in selectors)
    for colours in (1, 2):
        for level, row in enumerate(confusion.LEVELS):
            assert f".confusion-matrix .k{level} {{ stroke: {row[colours]}; }}" in style


def test_the_size_is_bounded_and_the_plot_says_what_it_leaves_out():
    classes = 400
    rng = np.random.default_rng(0)
    matrix = np.hstack([rng.integers(1, 4, (classes, classes)), np.zeros((classes, 1), int)])
    matrix[np.arange(classes), np.arange(classes)] = 99
    names = ["n" * 200] * classes
    text = confusion_svg(matrix, names, "birds", [(0, 1, 2)] * 40)
    assert len(text) < 250_000
    assert "the strongest 20,000 of 160,000 nonzero cells" in text
    drawn = marks(ElementTree.fromstring(text))
    assert len({(row, column) for row, column, _ in drawn}) == len(drawn) == 20_000
    ordered = in_order(matrix)
    share_CC = ordered[:, :classes] / ordered.sum(axis=1, keepdims=True)
    least = min(share_CC[row, column] for row, column, _ in drawn)
    assert (share_CC > least).sum() <= 20_000 <= (share_CC >= least).sum()
    assert "nonzero" not in confusion_svg(scattered(50), named(50), "birds")


def test_of_equal_cells_the_drawn_ones_are_spread_over_all_rows():
    classes = 300
    matrix = np.hstack([np.ones((classes, classes), int), np.zeros((classes, 1), int)])
    per_row_C = np.bincount([row for row, _, _ in marks(draw(matrix))], minlength=classes)
    assert per_row_C.sum() == 20_000
    assert per_row_C.max() <= 1.5 * per_row_C.mean() <= 2 * per_row_C.min() + 20


def test_the_axes_of_a_plot_by_index_have_round_indices(by_index):
    root = draw(scattered(200))
    left, top, cell = scale(root)
    texts = {(text.get("x"), text.get("y")): text.text for text in root.iter(f"{SVG}text")}
    assert "true" in texts.values()
    assert "predicted" in texts.values()
    for index in (0, 50, 100, 150):
        x, y = left + (index + 0.5) * cell, top + (index + 0.5) * cell
        across = [float(at[0] or 0) for at, name in texts.items() if name == str(index)]
        down = [float(at[1] or 0) - 4 for at, name in texts.items() if name == str(index)]
        assert any(abs(at - x) < 0.1 for at in across)
        assert any(abs(at - y) < 0.1 for at in down)


def test_a_plot_with_marks_says_how_its_classes_are_ordered():
    texts = [text.text for text in draw(scattered(60)).iter(f"{SVG}text")]
    assert "predicted; classes that are confused with each other stand side by side" in texts
    assert not any(text and text.isdecimal() and int(text) > 100 for text in texts)


def test_a_page_shows_the_whole_matrix_or_its_worst_block():
    small = page_plot(scattered(20), named(20))
    root = ElementTree.fromstring(str(small["svg"]))
    assert len(group(root, "counts").findall(f".//{SVG}text")) == np.count_nonzero(
        scattered(20)[:, :20]
    )
    assert small["classes"] == small["all_classes"] == 20
    assert small["errors"] == small["all_errors"] - scattered(20)[:, 20].sum()
    blocks = [(4 * start + a, 4 * start + b) for start in (3, 20, 41) for a, b in ((0, 1), (2, 1))]
    matrix = planted(200, [*blocks * 3, (7, 190)])
    large = page_plot(matrix, named(200))
    assert {key: large[key] for key in ("classes", "errors", "all_classes", "all_errors")} == {
        "classes": 11,  # three groups of three classes, and the pair
        "errors": 19,
        "all_classes": 200,
        "all_errors": 19,
    }
    root = ElementTree.fromstring(str(large["svg"]))
    assert {27, 3, 1} == set(counts(root).values()) - {24, 29, 30}
    assert "pairs" not in {g.get("class") for g in root.iter(f"{SVG}g")}
    assert page_plot(planted(200, []), named(200))["svg"] is None


def test_with_groups_the_matrix_is_that_of_the_groups_beside_the_pairs_of_classes():
    matrix = planted(60, [(0, 1), (0, 1), (0, 40), (45, 2)])
    matrix[59, 60] += 4  # unreadable
    groups = ClassGroups(("all <birds>", "fungi", "plants"), np.arange(60) // 20)
    root = draw(matrix, pairs=[(0, 1, 2), (45, 2, 1)], groups=groups)
    drawn = counts(root)
    assert sorted(drawn.values()) == [1, 1, 599, 599, 600]
    assert sum(drawn.values()) == matrix[:, :60].sum()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert texts.count("all <birds>") == 2
    assert {"60 classes in 3 groups", "share of the true group, %"} <= {*texts}
    assert [text.text for text in group(root, "pairs")][:2] == [
        "8 mistakes; the most frequent:",
        "2 of 30:  0  0.A $bird 0",
    ]
    low = float(list(group(root, "pairs"))[-1].get("y", ""))
    assert low < float(root.get("height", ""))
    page = page_plot(matrix, named(60), groups)
    assert (page["within"], page["all_errors"]) == (2, 8)
    shown = ElementTree.fromstring(str(page["groups_svg"]))
    assert counts(shown) == drawn
    assert page_plot(planted(40, []), named(40), groups)["groups_svg"] is None


def test_groups_are_drawn_only_if_their_names_fit():
    for several, expected in ((1, None), (40, 40), (41, None)):
        chains = tuple((f"{k % several}",) for k in range(100))
        groups = confusion.drawn_groups(Hierarchy(chains, {f"{k}": f"{k}" for k in range(100)}))
        assert (groups and len(groups.names)) == expected


# --- pixels ---


@pytest.mark.parametrize(
    ("classes", "side"), [(3, 600), (12, 600), (40, 600), (400, 800), (555, 555), (1000, 600)]
)
def test_an_image_has_a_pixel_for_every_mistake(classes, side):
    clean_HWC = confusion_image(planted(classes, []))
    assert clean_HWC.shape == (side, side, 3)
    assert clean_HWC.dtype == np.uint8
    label, pred = classes // 8, classes - 1 - classes // 8
    marked_HWC = confusion_image(planted(classes, [(label, pred)]))
    rows, columns = np.nonzero((clean_HWC != marked_HWC).any(axis=2))
    row, column = label * side // classes, pred * side // classes
    assert row <= rows.min() < row + max(1, side / classes)
    assert column <= columns.max() < column + max(1, side / classes)
    at = marked_HWC[row, column].tolist()
    assert bytes(at).hex() == confusion.LEVELS[2][1][1:]
    assert (np.abs(255 - np.array(at)) > 40).any()


def test_a_pixel_of_several_cells_has_the_colour_of_the_strongest():
    matrix = planted(1200, [(3, 1)] * 3 + [(2, 0)] * 29)
    image_HWC = confusion_image(matrix)
    assert image_HWC.shape == (600, 600, 3)
    assert bytes(image_HWC[1, 0].tolist()).hex() == confusion.LEVELS[9][1][1:]
    assert bytes(image_HWC[0, 0].tolist()).hex() == confusion.LEVELS[9][1][1:]
    assert (image_HWC[0, 1] == 255).all()
