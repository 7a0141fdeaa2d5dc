"""Images per second: compared only between rows that were measured alike."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from fgvc.config.compose import composed, typed
from fgvc.record import measured_rate, run_page
from fgvc.record.measured_rate import MeasuredRate
from fgvc.record.run_page.gallery import Album
from fgvc.report.aggregate_seeds import Line, aggregate_seeds
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.comparable_rates import rate_notes
from fgvc.report.run_rows import read_run
from fgvc.report.terminal_table import print_table

IDLE = {"images_per_s": 50.0, "other_load": 0.1, "load_average": 1.0, "threads": 2, "cores": 2}
ROWS = {  # conditions -> a note, or None where the rate is compared
    "idle": (IDLE, None),
    "idle too": ({**IDLE, "images_per_s": 60.0, "other_load": 0.4}, None),
    "busy": (
        {**IDLE, "images_per_s": 9.0, "other_load": 1.25},
        "other processes used 1.2 of 2 cores",
    ),
    "one thread": ({**IDLE, "threads": 1}, "measured on cpu with 1 thread of 2 cores"),
    "old": (
        dict.fromkeys(IDLE) | {"images_per_s": 70.0},
        "measured on cpu, threads and load unknown",
    ),
}


@pytest.fixture
def rows(forge):
    for head, (cost, _) in ROWS.items():
        forge(head, config={"head": {"name": head}}, numbers={"cost": cost})


def lines(folder: Path, names: Iterable[str]) -> list[Line]:
    return aggregate_seeds(read_run(next((folder / name).glob("*/*"))) for name in names)


@pytest.mark.usefixtures("rows")
def test_rates_of_the_usual_conditions_are_compared_and_others_say_why(output_root):
    assert rate_notes(lines(output_root, ROWS)) == [note for _, note in ROWS.values()]
    assert rate_notes(lines(output_root, ["old"])) == [None]
    assert rate_notes(lines(output_root, ["busy"])) == [ROWS["busy"][1]]
    assert rate_notes(lines(output_root, ["one thread"])) == [None]
    assert rate_notes([]) == []


def test_a_line_of_several_seeds_is_compared_only_if_all_were_measured_alike(forge, output_root):
    for seed, load in enumerate((0.0, 2.0)):
        cost = {**IDLE, "other_load": load}
        forge(f"s{seed}", config={"seed": seed}, numbers={"cost": cost})
    (line,) = lines(output_root, ("s0", "s1"))
    assert rate_notes([line]) == ["other processes used 2.0 of 2 cores"]
    assert line.columns()["other_load"] == [0.0, 2.0]


@pytest.mark.usefixtures("rows")
def test_the_page_greys_rates_and_does_not_sort_them(output_root, opened):
    write_baselines(output_root, output_root)
    page = opened(output_root / "baselines.html").page
    first = page.locator(".lines").first
    column = first.locator("thead th").all_inner_texts().index("images/s")
    cells = first.locator(f"tbody tr td:nth-child({column + 1})")
    names = [name.split(" · ")[1] for name in first.locator(".name").all_inner_texts()]
    assert dict(zip(names, cells.all_inner_texts(), strict=True)) == {
        "idle": "50.0",
        "idle too": "60.0",
        "busy": "(9.00)",
        "one thread": "(50.0)",
        "old": "(70.0)",
    }
    grey, plain = (cells.filter(has_text=text) for text in ("(9.00)", "60.0"))
    assert grey.get_attribute("title") == "not compared: other processes used 1.2 of 2 cores"
    colour = "it => getComputedStyle(it).color"
    assert grey.locator("span").evaluate(colour) != plain.evaluate(colour)
    for _ in range(2):
        first.locator("thead th").nth(column).locator("button").click()
        is_grey = [text.startswith("(") for text in cells.all_inner_texts()]
        assert is_grey == [False, False, True, True, True]


@pytest.mark.usefixtures("rows")
def test_the_terminal_brackets_rates_with_a_legend(output_root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_table(build_table(output_root.glob("*/*/*")))
    out = capsys.readouterr().out
    assert re.search(r"│ +\(9\) │", out)
    assert re.search(r"│ +60 │", out)
    assert "( ) images/s that do not compare with the others" in " ".join(out.split())
    assert max(len(line) for line in out.splitlines() if "images/s that" in line) <= 80


def test_a_fifth_of_the_cores_is_a_load_and_old_records_are_not_known_to_have_any():
    assert MeasuredRate(9.0, 0.41, 5.0, 2, 2).load_note == "other processes used 0.4 of 2 cores"
    assert MeasuredRate(9.0, 0.40, 5.0, 2, 2).load_note is None
    assert measured_rate.from_cost({"images_per_s": 3.0}).load_note is None


def test_a_run_records_the_conditions_of_its_rate(real):
    for file in real.glob("*/*/*/metrics.json"):
        rate = measured_rate.from_cost(json.loads(file.read_text())["cost"])
        assert None not in (rate.images_per_s, rate.threads, rate.cores)
        assert rate.other_load is None or rate.other_load >= 0


def test_the_page_of_a_run_greys_a_rate_of_a_busy_machine(outputs):
    folder = next(outputs.glob("*/*/*/metrics.json")).parent
    numbers = json.loads((folder / "metrics.json").read_text())
    conf = typed(composed(["backbone=vit_tiny", "backbone.pretrained=false"]))
    album = Album(lambda path: np.zeros((64, 64, 3), np.uint8))

    def page(load: float | None) -> str:
        numbers["cost"] |= {"images_per_s": 9.0, "other_load": load, "threads": 2, "cores": 2}
        (folder / "metrics.json").write_text(json.dumps(numbers))
        return run_page.derive(folder, conf, "a name", "1" * 64, [], album)

    quiet, unknown, busy = map(page, (0.4, None, 1.25))
    assert "<dd>9.00 images/s on cpu, 2 threads</dd>" in quiet
    assert unknown == quiet
    grey = '<dd><span class="soft">(9.00 images/s)</span> on cpu, 2 threads; other processes used'
    assert f"{grey} 1.2 of 2 cores</dd>" in busy
