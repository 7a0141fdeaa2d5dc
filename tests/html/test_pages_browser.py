"""Each page as people see it: on a laptop, a phone, at night and on paper, from forged records.

With FGVC_PICTURES, pictures of every page remain there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fgvc.report import search_table, sweep_page
from fgvc.report.baselines import write_baselines
from fgvc.report.compare import compare_runs
from fgvc.report.compare_page import PairAlbum, render_comparison
from fgvc.report.sweep_table import Row, SweepTable
from tests.conftest import Opened
from tests.report.conftest import forge, real, runs

__all__ = ["forge", "real", "runs"]  # fixtures

WORD = "Unterscheidungsmerkmal_" * 4  # wider than a phone, without a space
ERROR = f"RuntimeError: /{WORD}: no such folder"
COMMON = 300
PAGES = ("run", "table", "sweep", "search", "compare")


@pytest.fixture(scope="module")
def pages() -> dict[str, Path]:
    """The page of each kind; made by the first test."""
    return {}


@pytest.fixture
def page(pages, forge, tmp_path_factory) -> Callable[[str], Path]:
    def find(kind: str) -> Path:
        if not pages:
            pages.update(make(forge, tmp_path_factory.mktemp("pages")))
        return pages[kind]

    return find


def make(forge: Callable[..., Path], home: Path) -> dict[str, Path]:
    pair = [
        forge(
            head,
            config={"head": {"name": head}},
            stamp={"dataset": WORD},
            right=np.arange(COMMON) % every > 0,
        )
        for head, every in (("linear", 5), ("knn", 3))
    ]
    output = pair[0].parents[2]
    write_baselines(output, output)

    jobs = [(f"head={head}", f"dataset.root={WORD}{seed}") for head in "ab" for seed in (0, 1)]
    folder = str(pair[0].relative_to(output))
    rows = [Row(job, "done", 0, seconds=2.0, folder=folder) for job in jobs[:-1]]
    failed = Row(jobs[-1], "failed", 1, ERROR, f"Traceback: {WORD}", 2.0)
    table = SweepTable(WORD, f"python -m fgvc.run -m {WORD}", (*rows, failed), (), output)
    sweep_page.write_page(table, home)

    done = {"state": "done", "error": None, "n": 50, "epoch": 3, "seconds": 12.0}
    values = {"task.learning_rate": 0.1, f"task.{WORD}": 2.0}
    trials = [
        {"number": number, "values": values, **done, "top1": top1, "loss": 1 - top1}
        for number, top1 in enumerate((0.5, 0.7))
    ]
    trials.append({"number": 2, "values": values, "state": "failed", "error": ERROR})
    record = {"run_id": WORD, "space": values, "select": "top1", "asked": 3, "trials": trials}
    search_table.write_page(home, record, trials[1])

    result = compare_runs(pair[0], pair[1], force=False)
    names = {row["name"]: f"{WORD}{row['name']}" for row in result["classes"]}
    album = PairAlbum(lambda path: np.full((40, 60, 3), 127, np.uint8), [])
    compared = home / "compare.html"
    compared.write_text(render_comparison(result, pair, names, album, home), encoding="utf-8")
    return {
        "run": pair[0] / "report.html",
        "table": output / "baselines.html",
        "sweep": home / "sweep.html",
        "search": home / "search.html",
        "compare": compared,
    }


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_fits_a_laptop_a_phone_the_night_and_paper(kind, page, opened):
    browser: Opened = opened(page(kind))
    for width, scheme in ((1280, "light"), (390, "dark")):
        browser.page.set_viewport_size({"width": width, "height": 800})
        browser.page.emulate_media(color_scheme=scheme)
        assert browser.overflow() == 0, width
        paper, ink = browser.colours()
        assert (paper > 240 > 60 > ink) if scheme == "light" else (paper < 40 < 200 < ink)
        browser.picture(f"{kind}-{width}-{scheme}")
    browser.page.emulate_media(media="print", color_scheme="dark")
    browser.page.set_viewport_size({"width": 1032, "height": 703})  # A4 within its margins
    assert browser.overflow() == 0
    paper, ink = browser.colours()
    assert paper == 255 > 60 > ink
    browser.picture(f"{kind}-print")
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [page(kind).as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_accuracy_of_the_class_table_is_legible(scheme, page, opened):
    """A contrast of at least 4.5 at each step of the colours, as WCAG requires."""
    cell = opened(page("table"), scheme).page.locator(".heat td[data-v]").first
    for step in range(11):
        cell.evaluate("(cell, step) => { cell.className = `h${step}`; }", step)
        assert cell.evaluate(CONTRAST) >= 4.5, step


CONTRAST = """cell => {
  const parse = (name, of) => getComputedStyle(of)[name].match(/[\\d.]+/g).map(Number);
  const paper = parse("backgroundColor", document.body);
  const [r, g, b, alpha = 1] = parse("backgroundColor", cell);
  const shown = [r, g, b].map((value, i) => alpha * value + (1 - alpha) * paper[i]);
  const luminance = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => {
    const value = colour[i] / 255;
    return sum + weight * (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  }, 0.05);
  const both = [luminance(shown), luminance(parse("color", cell))];
  return Math.max(...both) / Math.min(...both);
}"""


def test_without_scripts_no_control_waits_for_one(page, chromium):
    browser = chromium.new_page(java_script_enabled=False)
    for kind in PAGES:
        browser.goto(page(kind).as_uri())
        assert browser.locator("form:visible, select:visible, input:visible").count() == 0, kind
    browser.close()


def test_the_class_table_stands_beside_the_cost_chart_where_both_fit(page, opened):
    browser = opened(page("table"))
    plot, heat = (browser.page.locator(f".{name}").bounding_box() for name in ("plot", "heat"))
    assert plot["y"] == heat["y"]
    assert heat["x"] >= plot["x"] + plot["width"]
