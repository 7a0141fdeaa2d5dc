"""The table of a sweep on the terminal and as a page, from forged jobs: no run is started."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from html import unescape
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from fgvc.report import sweep_axes, sweep_page, sweep_table
from fgvc.report.baselines import build_table
from fgvc.report.sweep_page import Running
from fgvc.report.sweep_table import Row, SweepTable
from tests.narrow import not_none

AXES = {
    "dataset": ("cub", "dogs"),
    "backbone.size": ("small", "base", "large"),
    "head": ("linear", '"knn"'),
    "seed": ("0", "1"),
}
LONG = "baseline_of_a_long_name"
PLACE = "runtime.output_root=/a"


def forged(home: Path, axes: Mapping[str, Sequence[str]], not_done: int = 0) -> SweepTable:
    """A sweep over all combinations; of its last jobs one failed, and the others have not begun.

    Top-1 grows by one point per job. The first job has no page of its run.
    """
    rows = []
    jobs = [
        tuple(f"{k}={v}" for k, v in zip(axes, job, strict=True)) for job in product(*axes.values())
    ]
    for number, choices in enumerate(jobs):
        done = number < len(jobs) - not_done
        folder = f"x/{number:016x}/{number:016x}"
        if done:
            run = home / "outputs" / folder
            run.mkdir(parents=True)
            top1 = number / 100
            test = {"top1": top1, "top1_ci95": [top1 - 0.01, top1 + 0.01], "mean_per_class": 0.5}
            numbers = {"test": test, "comparability_key": choices[0]}
            (run / "metrics.json").write_text(json.dumps(numbers))
            if number:
                (run / "report.html").write_text(f"run {number}")
            row = Row(
                (*choices, PLACE), "done", 0, seconds=1.5, config_hash="f" * 64, folder=folder
            )
        elif number == len(jobs) - not_done:
            row = Row((*choices, PLACE), "failed", 1, "RuntimeError: <b>no</b>", "Trace", 2.0)
        else:
            row = Row((*choices, PLACE), "not begun")
        rows.append(row)
    (home / "multirun/x").mkdir(parents=True)
    return SweepTable("x", "python -m fgvc.run -m seed=0,1", tuple(rows), (), home / "outputs")


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> SweepTable:
    return forged(tmp_path_factory.mktemp("sweep"), AXES, not_done=3)


def page_of(table: SweepTable, **options) -> Path:
    target = table.output_root.parent / "multirun" / "x"
    sweep_page.write_page(table, target, **options)
    return target / sweep_page.PAGE


# --- axes ---


def test_the_axes_are_the_keys_in_which_jobs_differ():
    jobs = [
        ("head=knn", "seed=0", "final_fit=train", "runtime.device=cpu"),
        ("head=linear", "seed=0", 'dataset="a, b"', "runtime.device=cuda"),
    ]
    assert sweep_axes.axes(jobs) == {
        "head": ["knn", "linear"],
        "final_fit": ["train", "–"],
        "dataset": ["–", "a, b"],
    }
    assert sweep_axes.axes(jobs[:1]) == {}
    names = sweep_axes.short_names(["task.name", "backbone.size", "head.name"])
    assert list(names.values()) == ["task.name", "size", "head.name"]


def test_a_pivot_never_averages_numbers_that_do_not_compare(table):
    axes = table.axes()
    pivot = not_none(sweep_axes.pivot(axes, table.results))
    assert (pivot.rows[0], pivot.columns[0]) == ("backbone.size", "dataset")
    assert [cell.mean for cell in pivot.cells[0]] == pytest.approx([0.015, 0.135])
    assert len(pivot.cells[0][0].results) == 4
    mixed = not_none(sweep_axes.pivot(axes, table.results, ("head", "seed")))
    assert {cell.mean for row in mixed.cells for cell in row} == {None}
    assert sweep_axes.pivot({"seed": ["0", "1"]}, [None, None]) is None


def test_the_page_of_an_ended_sweep_says_which_job_is_best(forge, output_root, tmp_path):
    """Two comparable runs, far apart, and one whose numbers compare with neither."""
    hits = {"linear": 270, "knn": 200}
    for head, right in hits.items():
        right_N = np.random.default_rng(right).permutation(np.arange(300) < right)
        forge(head, config={"head": {"name": head}}, right=right_N)
    forge("alone", numbers={"comparability_key": "f" * 64})
    verdicts = sweep_page.against_best(build_table(output_root.glob("*/*/*")).groups)
    words = {folder.split("/")[0]: text for folder, (_, text) in verdicts.items()}
    assert words.keys() == hits.keys()
    assert words["linear"] == "best"
    assert re.fullmatch(r"-23\.3 \[-[\d.]+, -[\d.]+\], p < \.001: lower", words["knn"])
    rows = tuple(Row((f"seed={folder}",), "done", 0, folder=folder) for folder in verdicts)
    table = SweepTable("x", "python -m fgvc.run -m seed=0,1", rows, (), output_root)
    sweep_page.write_page(table, tmp_path, verdicts=verdicts)
    page = unescape((tmp_path / sweep_page.PAGE).read_text())
    assert "− best, after Holm" in page
    assert all(text in page for text in words.values())


# --- the terminal ---


@pytest.mark.parametrize(("width", "has_class"), [(80, False), (120, True)])
def test_the_terminal_has_a_column_per_axis_and_uses_its_width(
    table, width, has_class, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", str(width))
    sweep_table.print_sweep(table)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith(("│", "┃"))]
    assert max(map(len, out.splitlines()[:-1])) <= width
    cells = [[cell.strip() for cell in line[1:-1].split("│")] for line in lines[-24:]]
    expected = ["3", "cub", "small", "knn", "0", "2.0 [1.0, 3.0]"]
    assert cells[2][:6] == expected if has_class else cells[2][:5] == expected[1:]
    assert ("50.0" in cells[2]) is has_class
    assert cells[-3][-3 if has_class else -2] == "failed"
    assert "failed: dataset=dogs backbone.size=large head=linear seed=1: RuntimeError" in out


def test_many_long_axes_still_fit_80_columns(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    axes = {f"head.{name}_option": (f"{LONG}_{name}", "b") for name in "abcde"}
    sweep_table.print_sweep(forged(tmp_path, axes))
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


# --- the page ---


def test_links_are_relative_and_only_to_pages_that_exist(table, tmp_path):
    page = page_of(table)
    links = re.findall(r'href="([^"#][^"]*)"', page.read_text())
    links = [link for link in links if not link.startswith("data:")]
    assert len(links) == 20  # 21 jobs are done, and one of them has no page
    moved = tmp_path / "moved"
    shutil.copytree(table.output_root.parent, moved)
    assert all((moved / "multirun/x" / link).is_file() for link in links)
    assert "table of all runs" not in page.read_text()  # there is none
    (table.output_root / "baselines.html").touch()
    assert 'href="../../outputs/baselines.html"' in page_of(table).read_text()


def test_data_has_the_axes_and_the_numbers_of_every_job(table):
    target = table.output_root.parent / "multirun" / "x"
    sweep_page.write_data(table, target)
    jobs = json.loads((target / "sweep.json").read_text())["jobs"]
    assert jobs[2]["axes"] == dict(zip(AXES, ("cub", "small", "knn", "0"), strict=True))
    assert [jobs[2]["top1"], *jobs[2]["top1_ci95"]] == pytest.approx([0.02, 0.01, 0.03])
    assert jobs[-1]["top1"] is None


def test_in_a_browser_it_sorts_pivots_and_fits_a_phone(table, opened, chromium):
    page = page_of(table)
    browser = opened(page)
    jobs = browser.page.locator(".jobs tbody tr")
    header = browser.page.locator(".jobs thead th")
    names = ["job", "top-1, %", "dataset", "size", "head", "seed", "per class, %", "state", "time"]
    assert header.all_inner_texts() == names
    errors = browser.page.locator("section", has_text="What went wrong").locator("p, summary")
    assert errors.all_inner_texts() == ["job 22 RuntimeError: <b>no</b>", "Traceback"]
    assert jobs.nth(2).locator("td").all_inner_texts()[:6] == [
        *("job 3", "2.0 [1.0, 3.0]", "cub", "small", "knn", "0")
    ]
    for _ in range(2):  # down
        header.nth(1).locator("button").click()
    assert jobs.first.locator("td").first.inner_text() == "job 21"
    pivot = browser.page.locator(".pivot tr")
    assert pivot.first.locator("th").all_inner_texts() == ["size \\ dataset", "cub", "dogs"]
    assert pivot.nth(1).locator("td").first.inner_text().split("\n") == [
        *("1.5", "4 jobs, 0.0 to 3.0")
    ]
    static = pivot.all_inner_texts()  # as the script draws it again, with the same colours
    colours = "cells => cells.map((cell) => getComputedStyle(cell).backgroundColor)"
    drawn = browser.page.locator(".pivot td").evaluate_all(colours)
    assert [colour.count(", 0)") for colour in drawn] == [1, 1, 0, 0, 0, 0]  # lowest per dataset
    without_script = chromium.new_page(java_script_enabled=False)
    without_script.goto(page.as_uri())
    assert without_script.locator(".pivot tr").all_inner_texts() == static
    assert without_script.locator(".axes").is_hidden()
    assert without_script.locator(".pivot td").evaluate_all(colours) == drawn
    without_script.close()
    browser.page.locator("select[name=rows]").select_option(label="head")
    assert pivot.nth(2).locator("th, td").all_inner_texts()[0] == "knn"
    assert pivot.nth(2).locator("td").first.inner_text().startswith("6.5\n6 jobs, 2.0 to ")
    browser.page.locator("select[name=columns]").select_option(label="seed")
    assert "6 jobs that do not compare" in pivot.nth(1).inner_text()
    assert pivot.nth(1).locator("td").first.inner_text().startswith("–\n")
    browser.page.reload()  # as a live page does: the choices stay
    assert jobs.first.locator("td").first.inner_text() == "job 21"
    assert pivot.first.inner_text().startswith("head \\ seed")
    assert browser.console == []
    phone = opened(page, "dark", 390)
    assert phone.overflow() == 0
    phone.picture("sweep-phone")
    browser.picture("sweep")


def test_a_live_page_shows_a_job_that_ended_and_a_dead_one_says_so(
    table, opened, monkeypatch, tmp_path
):
    monkeypatch.setattr(sweep_page, "RELOAD", 0.2)
    now = datetime.datetime.now(datetime.UTC)
    running = Running(now, "21 of 24 jobs have ended, 1 running; about 4 min left")
    page = page_of(table, running=running)
    text = unescape(page.read_text())
    assert f"Last written at {now:%Y-%m-%d %H:%M:%S} UTC" in text
    assert '<meta http-equiv="refresh"' in text
    browser = opened(page)
    last = browser.page.locator(".jobs tbody tr").last
    assert last.locator(".badge").inner_text() == "not begun"
    assert browser.page.locator(".live").inner_text().startswith("running 21 of 24 jobs have ended")
    row = Row(table.rows[-1].choices, "failed", 1, "a new row")
    rows = (*table.rows[:-1], row)
    ended = SweepTable("x", table.command, rows, (), table.output_root)
    page_of(ended, running=running)
    browser.page.get_by_text("a new row").wait_for()
    page_of(ended)
    browser.page.locator(".live").wait_for(state="detached")
    assert "refresh" not in page.read_text()

    long_ago = now - datetime.timedelta(hours=1)
    page_of(table, running=Running(long_ago, running.left))
    dead = opened(page).page
    assert dead.locator(".live").is_hidden()
    assert "not running" in dead.locator(".dead").inner_text()
    assert "runtime.run_id=x" in dead.locator(".dead").inner_text()
    assert not dead.title().startswith("Running")
