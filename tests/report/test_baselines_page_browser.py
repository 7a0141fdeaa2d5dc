"""baselines.html in a real browser: sorting, filtering, printing, and no network requests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fgvc.report.baselines import write_baselines

NASTY = "<b>x</b> & \"y\" 'z'"
HITS = {"linear": 270, "knn": 260, "mlp": 200}


@pytest.fixture
def file(forge, output_root) -> Path:
    """Three lines of one group, one of another, and a damaged run; names that need escaping."""
    for head, hits in HITS.items():
        right_N = np.random.default_rng(hits).permutation(np.arange(300) < hits)
        more = {"backbone": {"name": NASTY}} if head == "mlp" else {}
        cost = {"cost": {"macs": 10**9 + hits, "images_per_s": 1000 - hits}}
        forge(head, config={"head": {"name": head}, **more}, numbers=cost, right=right_N)
    forge("alone", numbers={"comparability_key": "f" * 64})
    (forge("torn") / "metrics.json").unlink()
    write_baselines(output_root, output_root)
    return output_root / "baselines.html"


def visible_names(page) -> list[str]:
    """The heads of the visible rows of the first table, in order."""
    names = page.locator(".lines").first.locator("tbody tr:visible .name").all_inner_texts()
    return [name.split(" · ")[1] for name in names]


def test_the_table_sorts_by_mouse_and_by_keyboard(file, opened):
    browser = opened(file)
    page, first = browser.page, browser.page.locator(".lines").first
    assert visible_names(page) == ["linear", "knn", "mlp"]
    rate = first.locator("thead th", has_text="images/s")
    rate.locator("button").click()
    assert rate.get_attribute("aria-sort") == "ascending"
    assert visible_names(page) == ["linear", "knn", "mlp"]
    rate.locator("button").press("Enter")
    assert rate.get_attribute("aria-sort") == "descending"
    assert visible_names(page) == ["mlp", "knn", "linear"]
    first.locator("thead th", has_text="run").locator("button").press("Space")
    assert rate.get_attribute("aria-sort") is None
    assert visible_names(page) == ["mlp", "knn", "linear"]
    first.locator("thead th", has_text="#").locator("button").click()
    assert visible_names(page) == ["linear", "knn", "mlp"]
    classes = page.locator(".heat table").first
    before = classes.locator("tbody th").all_inner_texts()
    classes.locator("thead button").first.click()
    assert classes.locator("tbody th").all_inner_texts() == sorted(before)
    assert (browser.console, browser.requests) == ([], [file.as_uri()])


def test_the_filter_hides_rows_points_and_whole_groups(file, opened):
    page = opened(file).page
    assert page.locator("output").inner_text() == "4 of 4 lines"
    page.get_by_label("head").select_option("knn")
    assert visible_names(page) == ["knn"]
    assert page.locator("section.group:visible").count() == 1
    assert page.locator("g.point:visible").count() == 1
    # the class table and the counts follow
    heat = page.locator(".heat table").first
    assert heat.locator("thead th:visible").count() == 3  # class, mean, and the line
    assert heat.locator("tbody tr").first.locator("td:visible").count() == 2
    for mean, accuracy in heat.evaluate(
        "t => [...t.tBodies[0].rows].map(r => [r.cells[1].textContent,"
        " [...r.cells].slice(2).find(c => !c.hidden).textContent])"
    ):
        assert mean == accuracy
    assert page.locator("section.group:visible .count").inner_text() == "1 of 3 lines"
    assert page.locator(".contents li:visible").all_inner_texts()[0].endswith(" 1 of 3 lines")
    page.get_by_label("head").select_option("")
    assert page.locator("section.group .count").first.inner_text() == "3 lines"
    assert heat.locator("thead th:visible").count() == 5
    page.get_by_label("contains").fill("vit LINEAR")
    assert page.locator("output").inner_text() == "2 of 4 lines"
    page.get_by_label("contains").fill("no such line")
    assert page.locator("section.group:visible").count() == 0


def test_names_are_shown_as_text(file, opened):
    page = opened(file).page
    assert page.locator(".lines .name", has_text=NASTY).count() == 1
    page.get_by_label("backbone").select_option(NASTY)
    assert visible_names(page) == ["mlp"]
    assert page.locator("#damaged").inner_text().count("metrics.json: missing") == 1


def test_the_page_fits_a_laptop_and_follows_the_colour_scheme(file, opened):
    for scheme in ("light", "dark"):
        browser = opened(file, scheme)
        paper, ink = browser.colours()
        assert (paper > 240 > 60 > ink) if scheme == "light" else (paper < 40 < 200 < ink)
        assert browser.overflow() == 0
        browser.page.add_style_tag(content="html { font-size: 80% !important }")
        assert browser.overflow() == 0
    browser.picture("baselines-dark")
    browser.page.emulate_media(media="print", color_scheme="dark")
    paper, ink = browser.colours()
    assert paper == 255 > 60 > ink
    assert not browser.page.locator(".choices").is_visible()
    assert (
        browser.page.locator(".heat .scroll").first.evaluate("e => e.scrollHeight - e.clientHeight")
        <= 0
    )
    # a repeated header shows text: Chromium repeats no button
    head = browser.page.locator(".lines th").nth(1)
    assert not head.locator("button").is_visible()
    assert head.evaluate("e => getComputedStyle(e, '::before').content") == '"run"'
    assert browser.page.locator("thead").first.evaluate("e => getComputedStyle(e).display") == (
        "table-header-group"
    )
    assert browser.page.pdf().startswith(b"%PDF")


def test_a_phone_shows_what_matters_and_the_glossary_opens(file, opened):
    browser = opened(file, width=390)
    page = browser.page
    browser.picture("baselines-390")
    assert browser.overflow() == 0
    table = page.locator(".lines").first
    for column in ("run", "top-1, %", "− best"):
        box = table.locator("thead th", has_text=column).bounding_box()
        assert box
        assert box["x"] + box["width"] <= 390, column
    assert not page.locator(".glossary dl").is_visible()
    page.locator(".glossary summary").click()
    assert page.locator(".glossary dt", has_text="comparable").is_visible()
    assert browser.overflow() == 0
    # strong colour means good, and the legend says so
    colours = page.locator(".scale span").evaluate_all(
        "spans => spans.slice(1, -1).map(s => getComputedStyle(s).backgroundColor)"
    )
    alphas = [
        float(colour.rstrip(")").split(",")[3]) if colour.count(",") == 3 else 1
        for colour in colours
    ]
    assert alphas == sorted(alphas)
    assert alphas[-1] > 0.9
    cells = page.locator(".heat tbody td[data-v]").evaluate_all(
        "cells => cells.map(c => [Number(c.dataset.v), Number(c.className.slice(1))])"
    )
    assert [step for _, step in sorted(cells)] == sorted(step for _, step in cells)
    assert len({step for _, step in cells}) > 3


def test_a_row_links_to_its_run(file, opened):
    browser = opened(file)
    browser.page.locator(".lines .name").first.click()
    assert browser.page.url.endswith("report.html")
    assert browser.page.locator("h1").inner_text()
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.console == []
