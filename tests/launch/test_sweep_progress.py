"""Lines and page of a running sweep, from rows that the test writes as its jobs would."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fgvc.launch.sweep_progress import SweepProgress
from fgvc.record.run_dir import now
from fgvc.report import sweep_page
from fgvc.report.sweep_table import Row, SweepTable, write_row

PLACE = "runtime.run_id=x"


class Sweep:
    """A sweep of k in `values`, whose jobs start and end when the test says so."""

    def __init__(self, home: Path, values: str, task: str = "probe") -> None:
        self.folder, self.outputs = home / "multirun" / "x", home / "outputs"
        jobs: Any = [
            SimpleNamespace(
                overrides=("head=knn", f"head.k={value}", PLACE),
                conf=SimpleNamespace(
                    task=SimpleNamespace(name="train" if value == "t" else task),
                    dataset=SimpleNamespace(name="cub"),
                ),
            )
            for value in values
        ]

        def table(rows):
            return SweepTable("x", "python -m fgvc.run -m", tuple(rows), (), self.outputs)

        self.progress = SweepProgress(self.folder, jobs, table, self.locate, are_silent=False)

    def locate(self, row: Row) -> Row:
        return replace(row, folder=row.config_hash)

    def start(self, value: str) -> None:
        row = Row(self.choices(value), "running", started=now().isoformat())
        write_row(self.folder, row)
        self.progress.refresh()

    def end(self, value: str, state: str = "done", seconds: float = 100.0) -> None:
        row = Row(self.choices(value), state, 0, seconds=seconds, started=now().isoformat())
        if state == "done":
            row = replace(row, config_hash=f"hash{value}")
            (self.outputs / f"hash{value}").mkdir(parents=True)
            test = {"top1": 0.5, "top1_ci95": [0.4, 0.6], "mean_per_class": 0.5}
            file = self.outputs / f"hash{value}" / "metrics.json"
            file.write_text(json.dumps({"test": test, "comparability_key": "k"}))
        write_row(self.folder, row)
        self.progress.refresh()

    @staticmethod
    def choices(value: str) -> tuple[str, ...]:
        return ("head=knn", f"head.k={value}")

    @property
    def page(self) -> str:
        return (self.folder / sweep_page.PAGE).read_text()


@pytest.fixture
def lines(capsys):
    return lambda: capsys.readouterr().out.splitlines()


@pytest.fixture(autouse=True)
def _no_thread(monkeypatch):
    """The test refreshes; the page is written without the pause after an expensive one."""
    monkeypatch.setattr("fgvc.launch.sweep_progress.POLL", 1000.0)
    monkeypatch.setattr("fgvc.launch.sweep_progress.SHARE", 1e9)


def test_a_job_is_on_the_page_as_soon_as_it_starts_and_ends(tmp_path, lines):
    sweep = Sweep(tmp_path, "123")
    with sweep.progress.watching():
        assert sweep.page.count(">not begun<") == 3  # it exists from the start
        assert "0 of 3 jobs have ended, 0 running; time left unknown" in sweep.page
        sweep.start("1")
        assert sweep.page.count(">running<") == 2  # of the sweep and of its job
        sweep.end("1")
        assert "50.0 <span" in sweep.page
        assert "1 of 3 jobs have ended, 0 running; about 3 min left" in sweep.page
        sweep.start("2")
        sweep.end("2", "failed")
        sweep.end("3", seconds=30.0)  # too fast to be seen running
        assert "3 of 3 jobs have ended, 0 running; the tables follow" in sweep.page
        assert 'http-equiv="refresh"' in sweep.page
    assert 'http-equiv="refresh"' not in sweep.page
    assert lines() == [
        "job 1 of 3: head.k=1; time left unknown until a job ends",
        "job 1 of 3 done: top-1 50.0 [40.0, 60.0], 100.0 s",
        "job 2 of 3: head.k=2; about 3 min left",
        "job 2 of 3 failed: 100.0 s",
        "job 3 of 3 done: top-1 50.0 [40.0, 60.0], 30.0 s",
    ]


def test_jobs_at_once_share_the_time_and_their_ends_have_names(tmp_path, lines):
    sweep = Sweep(tmp_path, "12345678")
    with sweep.progress.watching():
        for value in "12":
            sweep.start(value)
        sweep.end("2")
        sweep.start("3")
        assert sweep.progress.seconds_left() == (pytest.approx(7 * 100 / 2, abs=5), True)
    assert lines()[2:] == [
        "job 2 of 8 done: top-1 50.0 [40.0, 60.0], 100.0 s: head.k=2",
        "job 3 of 8: head.k=3; about 6 min left",
    ]


def test_a_task_that_no_job_has_ended_makes_the_time_a_lower_bound(tmp_path, lines):
    sweep = Sweep(tmp_path, "12t")
    with sweep.progress.watching():
        sweep.start("1")
        sweep.end("1", seconds=600.0)
        sweep.start("2")
    assert lines()[-1] == "job 2 of 3: head.k=2; more than 10 min left"
    assert sweep.progress.position(("head=knn", "head.k=2")).seconds_left is None


def test_rows_of_an_earlier_attempt_are_done_or_have_not_begun(tmp_path, lines):
    first = Sweep(tmp_path, "123")
    for value, state in (("1", "done"), ("2", "failed")):
        first.end(value, state)
    first.start("3")  # and was killed
    lines()
    again = Sweep(tmp_path, "123")
    again.progress.since = now().isoformat()
    with again.progress.watching():
        assert [row.state for row in again.progress.rows] == ["done", "not begun", "not begun"]
        again.end("1", "skipped", seconds=0.1)
        again.start("2")
    assert lines() == [
        "job 1 of 3 skipped: 0.1 s",
        "job 2 of 3: head.k=2; time left unknown until a job ends",
    ]


def test_a_row_with_a_forged_time_changes_only_the_time_left(tmp_path):
    sweep = Sweep(tmp_path, "12")
    sweep.end("1")
    write_row(sweep.folder, Row(sweep.choices("2"), "running", started="zzz"))
    sweep.progress.refresh()
    assert sweep.progress.seconds_left() == (100.0, True)


def test_the_notes_on_a_dataset_are_printed_by_its_first_job(tmp_path):
    sweep = Sweep(tmp_path, "12")
    positions = [sweep.progress.position(sweep.choices(value)) for value in "12"]
    assert [position.is_repeat for position in positions] == [False, True]
    assert positions[1].text == "job 2 of 2: head.k=2"


def test_an_expensive_page_is_written_rarely_and_a_full_disk_ends_no_sweep(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, "12345")
    monkeypatch.setattr("fgvc.launch.sweep_progress.SHARE", 1e-9)
    calls = []
    write = sweep_page.write_page
    monkeypatch.setattr(sweep_page, "write_page", lambda *a, **b: calls.append(write(*a, **b)))
    with sweep.progress.watching():
        for value in "12345":
            sweep.start(value)
        assert len(calls) == 1

        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(sweep_page, "write_page", full)
        sweep.progress.cost = 0.0
        sweep.end("1")
