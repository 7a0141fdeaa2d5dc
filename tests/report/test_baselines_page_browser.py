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
    page.get_by_label("head").select_option("")
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
    browser.page.emulate_media(media="print", color_scheme="dark")
    paper, ink = browser.colours()
    assert paper == 255 > 60 > ink
    assert not browser.page.locator(".choices").is_visible()
    assert (
        browser.page.locator(".heat .scroll").first.evaluate("e => e.scrollHeight - e.clientHeight")
        <= 0
    )
    assert browser.page.pdf().startswith(b"%PDF")


def test_a_row_links_to_its_run(file, opened):
    browser = opened(file)
    browser.page.locator(".lines .name").first.click()
    assert browser.page.url.endswith("report.html")
    assert browser.page.locator("h1").inner_text()
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
    assert browser.console == []
