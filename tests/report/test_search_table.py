"""Trials of a search -> search.html, which is self-contained and shows what search.json holds."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

import pytest

from fgvc.record.run_dir import now
from fgvc.report.search_table import best_trial, write_page, write_search
from fgvc.report.sweep_page import Running
from fgvc.untrusted import read_json

KEYS = {"task.learning_rate": "tag(log,interval(1e-4,1e-1))", "task.drop_path": "0,0.2"}


def trial(number: int, top1: float | None = None, error: str | None = None) -> dict:
    values = {"task.learning_rate": 1.23456 / 10**number, "task.drop_path": 0.2}
    row = {"number": number, "values": values}
    if top1 is None:
        return {**row, "state": "failed", "error": error}
    numbers = {"top1": top1, "loss": 1 - top1, "n": 50, "epoch": 3, "seconds": 12.0}
    return {**row, "state": "done", "error": None, **numbers}


def written(folder: Path, trials: list[dict], select: str = "top1") -> tuple[str, dict]:
    best = best_trial(trials, select)
    record = {"run_id": "s<b>", "space": KEYS, "select": select, "asked": 9, "trials": trials}
    write_search(folder, record, best)
    assert read_json(folder / "search.json") == record
    return (folder / "search.html").read_text(encoding="utf-8"), record


def rows_of(text: str) -> list[list[str]]:
    """The texts of the cells of each row."""
    rows = re.findall(r"<tr>(?!<th)(.*?)</tr>", text, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in rows]
    return [[unescape(re.sub("<[^>]+>", "", cell)).strip() for cell in row] for row in cells]


def wrong(text: str) -> list[str]:
    """The paragraphs below "What went wrong"."""
    section = text.partition("<h2>What went wrong</h2>")[2].partition("</section>")[0]
    paragraphs = re.findall(r"<p>(.*?)</p>", section, re.DOTALL)
    return [unescape(re.sub("<[^>]+>", "", paragraph)).strip() for paragraph in paragraphs]


def test_the_page_lists_every_trial_and_marks_the_best(tmp_path):
    text, _ = written(tmp_path, [trial(0, 0.5), trial(1, 0.75), trial(2, error="the loss is nan")])
    assert rows_of(text) == [
        ["1", "50.0", "0.500", "1.23", "0.2", "3", "12.0 s", ""],
        ["2", "75.0", "0.250", "0.123", "0.2", "3", "12.0 s", "best"],
        ["3", "–", "–", "0.0123", "0.2", "–", "–", "failed"],
    ]
    assert wrong(text) == ["trial 3 the loss is nan"]
    # a word that the shell expands, and that Hydra reads as one string
    assert 'experiment="\\"$MULTIRUN_ROOT/s<b>/best.yaml\\""' in unescape(text)
    assert "3 of 9 trials" in text
    assert text.count("<svg") == 1
    assert not re.search(r'(src|href)="(https?:)?//', text)


@pytest.mark.parametrize(("select", "number"), [("top1", 2), ("loss", 2)])
def test_the_chart_ends_at_the_best_value(tmp_path, select, number):
    text, record = written(tmp_path, [trial(0, 0.5), trial(1, 0.75), trial(2, 0.6)], select)
    best = best_trial(record["trials"], select)
    assert best is not None
    assert best["number"] + 1 == number
    (line,) = re.findall(r'points="([^"]+)"', text)
    places = [tuple(point.split(",")) for point in line.split()]
    (_, first), (_, second), (_, third) = places
    assert first != second == third
    circles = [
        tuple(f"{float(value):g}" for value in at)
        for at in re.findall(r'cx="([^"]+)" cy="([^"]+)"', text)
    ]
    assert circles[:3] == places  # the dots of the line
    assert circles[3:5] == places[:2]  # the trials
    assert circles[5][1] != third


def test_a_search_without_a_winner_has_a_page(tmp_path):
    text, _ = written(tmp_path, [trial(0, error="<script>alert(1)</script>")])
    assert "<svg" not in text
    assert "best.yaml" not in text
    assert "<script>alert" not in text
    assert wrong(text) == ["trial 1 <script>alert(1)</script>"]


def test_equal_errors_are_printed_once(tmp_path):
    errors = ["a", "b", "a"]
    text, _ = written(tmp_path, [trial(n, error=error) for n, error in enumerate(errors)])
    assert wrong(text) == ["trials 1, 3 a", "trial 2 b"]


def test_the_page_names_no_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    text, _ = written(tmp_path, [trial(0, error=f"{tmp_path}/birds: no such folder")])
    assert str(tmp_path) not in text
    assert "birds: no such folder" in text


def test_the_page_of_a_running_search_reloads_and_prints_no_command_of_a_winner(tmp_path):
    text, record = written(tmp_path, [trial(0, 0.5)])
    assert "refresh" not in text
    assert "MULTIRUN_ROOT=" in text
    best = record["trials"][0]
    write_page(tmp_path, record, best, Running(now(), "1 of 9 trials have ended"))
    live = (tmp_path / "search.html").read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh"' in live
    assert "1 of 9 trials have ended. Last written at 20" in live
    assert "MULTIRUN_ROOT=" not in live  # best.yaml is written at the end
    write_page(tmp_path, {**record, "trials": []}, None, Running(now(), "0 of 9"))  # at the start
