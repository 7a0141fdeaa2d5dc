"""Bars and lines of progress: one line at any width, with the times in words."""

from __future__ import annotations

import io
import re

import pytest
import rich
from rich.console import Console

from fgvc.html.formats import rounded_time
from fgvc.record import console
from tests.narrow import not_none

LONG = "a dataset whose name is as long as a line of the terminal, and longer by some words"


@pytest.fixture
def terminal(monkeypatch):
    """terminal(width) -> a function that returns the lines of the last frame drawn there."""

    def start(width: int):
        screen = Console(
            width=width, force_terminal=True, record=True, file=io.StringIO(), color_system=None
        )
        monkeypatch.setattr(console, "get_console", lambda: screen)

        def frame() -> list[str]:
            (live,) = screen._live_stack
            lines = screen.render_lines(not_none(live._renderable))
            return ["".join(piece.text for piece in line).rstrip() for line in lines]

        return frame

    rich.reconfigure()
    monkeypatch.setattr(console, "_position", None)  # restored after the test
    return start


def test_a_bar_shows_count_and_times_on_one_line_at_any_width(terminal, monkeypatch):
    monkeypatch.setattr(console._Pace, "seconds", 24.0)
    bars = {}
    for width in (80, 120, 40):
        frame = terminal(width)
        with console.progress("features train", 1115, "images") as advance:
            assert frame()[0].endswith(" 0/1115 images, 24 s")  # no pace yet
            advance(787)
            (bars[width],) = frame()
            advance(328)
            assert frame()[0].endswith(" 1115/1115 images, 24 s")
    text = r"features train ━+[╸╺]? * 787/1115 images, 24 s, 10 s left"
    assert re.fullmatch(text, bars[80])
    assert re.fullmatch(text, bars[120])
    assert len(bars[80]) <= 80 < len(bars[120]) + 20
    assert bars[120].count("━") > bars[80].count("━")
    assert bars[40] == "featur… 787/1115 images, 24 s, 10 s left"


@pytest.mark.parametrize("width", [80, 120])
def test_without_a_total_only_the_count_is_shown_and_a_long_title_is_cut(terminal, width):
    frame = terminal(width)
    with console.progress(LONG, None, "images") as advance:
        advance(1115, "hashing the files of a folder")
        (line,) = frame()
    assert "1115 images, 0 s" in line
    assert "?" not in line
    assert "…" in line
    assert len(line) <= width


def test_in_a_job_of_a_sweep_the_line_below_a_bar_says_which(terminal, monkeypatch, capsys):
    frame = terminal(80)
    monkeypatch.setattr(console, "_position", None)  # restored after the test
    console.set_sweep(console.SweepPosition(f"job 3 of 8: head=knn {LONG}", 300.0))
    with console.training(epochs=2, steps=3) as step:
        step(console.Pulse(1.0, 1e-3, 45.0))
        bar, pulse, place = frame()
    assert bar.startswith("epoch 1/2 step 1/3 ")
    assert pulse == "loss 1, lr 1.00e-03, 45.0 images/s"
    assert place.startswith("job 3 of 8: head=knn ")
    assert len(place) <= 80
    console.set_sweep(console.SweepPosition("job 3 of 8: head=knn", 300.0))
    with console.progress("features", 3, "images"):
        assert frame()[-1] == "job 3 of 8: head=knn; about 5 min left"
    console.provenance("cub", {"license": "for research"})  # the table of the sweep prints it
    assert capsys.readouterr().out == ""


def test_without_a_terminal_lines_have_the_same_words(capsys, monkeypatch):
    monkeypatch.setattr(console, "PLAIN_EVERY", 0.0)
    monkeypatch.setattr(console._Pace, "seconds", 24.0)
    with console.progress("features train", 1115, "images") as advance:
        advance(787)
        advance(328)
    with console.progress("synthetic", None, "files") as advance:
        advance(1115, "hashing")
    assert capsys.readouterr().out.splitlines() == [
        "features train: 787/1115 images, 24 s, 10 s left",
        "features train: 1115/1115 images, 24 s",
        "synthetic hashing: 1115 files, 24 s",
    ]


def test_times_are_rounded_to_what_a_person_reads():
    seconds = (0.4, 24.4, 119.4, 120, 7199, 7200, 360_000)
    expected = ["0 s", "24 s", "119 s", "2 min", "120 min", "2.0 h", "100.0 h"]
    assert [rounded_time(value) for value in seconds] == expected
