"""sweep=tune from command to winner: the trials, their values, and test unread."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from fgvc.config.compose import composed
from fgvc.config.search_space import parse_search
from fgvc.config.sweep_expansion import expand_sweep
from fgvc.launch.search import objective
from fgvc.report.baselines import build_table
from fgvc.run import main
from fgvc.types import Preempted
from tests.jobs import BIRDS, MINI, places_in

COMMAND = (
    "sweep=tune",
    *MINI,
    "dataset.subset=tiny",
    *BIRDS,
    "task.batch_size=4",
    "task.epochs=1",
    "task.warmup_steps=2",
    "task.learning_rate=1e-3,1e30",  # the second diverges
    "task.drop_path=interval(0,0.2)",
    "task.layer_decay=0.75",
    "task.weight_decay=0.05",
    "task.mixup=0",
    "hydra.sweeper.sampler.n_startup_trials=2",
    "hydra.sweeper.sampler.seed=1",
    "runtime.num_workers=0",
    "runtime.threads=1",
    "runtime.device=cpu",
)
ENVIRONMENT = {"GIT_DIR": os.devnull, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}  # as in conftest.py


class SearchRun:
    """A search in its own folders: starts it, or another command, and reads its records.

    first: the rows before the second start. code, out: exit code and output of the second start.
    """

    first: list[dict]
    code: int
    out: list[str]

    def __init__(self, home: Path, shared: dict[str, Path]) -> None:
        self.multirun, self.outputs = home / "multirun" / "search", home / "outputs"
        self.places = (
            *places_in(home, shared),
            "runtime.run_id=search",
        )

    def arguments(self, *more: str) -> list[str]:
        items = (*COMMAND, *self.places, *more)
        return list({item.partition("=")[0]: item for item in items}.values())

    def start(self, *arguments: str) -> tuple[int, list[str]]:
        """The exit code, and the lines that it and the processes of its trials printed."""
        log = self.outputs.parent / "out.txt"
        log.unlink(missing_ok=True)
        before = os.dup(1)
        try:
            with log.open("a", buffering=1) as out, contextlib.redirect_stdout(out):
                os.dup2(out.fileno(), 1)
                code = main(arguments)
        finally:
            os.dup2(before, 1)
            os.close(before)
        return code, log.read_text().splitlines()

    def record(self) -> dict:
        return json.loads((self.multirun / "search.json").read_text())

    def rows(self) -> list[dict]:
        return self.record()["trials"]

    def folders(self, run_id: str = "search") -> list[str]:
        return sorted(path.name for path in (self.outputs / run_id).iterdir())

    def sealed(self, run_id: str) -> Path:
        (metrics,) = self.outputs.glob(f"{run_id}/*/*/metrics.json")
        return metrics.parent


@pytest.fixture(scope="module")
def search(tmp_path_factory, shared_places):
    """Three trials, then the same command for four: the search continues with the fourth."""
    search = SearchRun(tmp_path_factory.mktemp("search"), shared_places)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        assert search.start(*search.arguments("hydra.sweeper.n_trials=3"))[0] == 0
        search.first = search.rows()
        search.code, search.out = search.start(*search.arguments("hydra.sweeper.n_trials=4"))
        yield search


def test_every_trial_is_listed_and_the_best_on_validation_wins(search):
    assert search.code == 0
    rows = search.rows()
    assert [row["number"] for row in rows] == [0, 1, 2, 3]
    assert {row["state"] for row in rows} == {"done", "failed"}  # and the search continued
    for row in rows:
        converges = row["values"]["task.learning_rate"] == 1e-3
        assert row["state"] == ("done" if converges else "failed")
        assert 0 <= row["values"]["task.drop_path"] <= 0.2
    done = [row for row in rows if row["state"] == "done"]
    best = max(done, key=lambda row: (row["top1"], -row["loss"]))
    assert search.record()["best"] == best["number"]
    page = (search.multirun / "search.html").read_text(encoding="utf-8")
    assert "4 of 4 trials" in page
    assert "Last written at" not in page  # it has ended
    assert search.out[0].endswith("/multirun/search/search.html")  # named at the start
    assert page.count('<span class="badge good">best</span>') == 1
    assert page.count('<span class="badge warn">failed</span>') == len(rows) - len(done)
    (start,) = [place for place, line in enumerate(search.out) if line.startswith("4 trials on")]
    table = [line for line in search.out[start:] if line.startswith(("│", "┃", "┏"))]
    assert max(map(len, table)) <= 80
    assert [line for line in table if line.startswith(f"│ {best['number'] + 1} best ")]
    failed = next(row for row in rows if row["state"] == "failed")
    prefix = f"trial {failed['number'] + 1} failed"
    (line,) = [line for line in search.out[start:] if prefix in line]
    assert "the loss is" in line


def test_finished_trials_are_proposed_again_but_not_run_again(search):
    assert search.rows()[:3] == search.first  # the third depends on the first two
    done = [row for row in search.first if row["state"] == "done"]
    assert sum(line.startswith("validated already") for line in search.out) == len(done)
    assert len(list((search.outputs / "search").iterdir())) == 4


def test_a_search_reads_no_test_image_and_is_in_no_table(search):
    records = [json.loads(path.read_text()) for path in search.outputs.rglob("validation.json")]
    assert len(records) == sum(row["state"] == "done" for row in search.rows()) >= 2
    for record in records:
        assert record["test_reads"] == 0
        assert record["splits"] == ["val"]
    assert all(row["test_reads"] == 0 for row in search.rows() if row["state"] == "done")
    table = build_table((search.outputs / "search").glob("*/*"))
    assert not table.groups
    assert not table.damaged
    assert not list(search.outputs.rglob("baselines.*"))


def test_the_winner_repeats_its_number_bit_for_bit_and_then_reads_test(search):
    """In a new run, and under the run_id of the search, where no training is repeated."""
    best = search.rows()[search.record()["best"]]
    home = search.outputs / "search" / best["config_hash"][:16]
    states = [path.parts[-4] for path in (search.outputs / "search").rglob("state-*.pt")]
    assert states == [home.name]  # those of the other trials are removed
    trial = json.loads((home / "in-progress" / "validation.json").read_text())
    winner = f"experiment={search.multirun / 'best.yaml'}"
    assert search.start(winner, "runtime.run_id=winner")[0] == 0
    folder = search.sealed("winner")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert folder.parent.name == home.name
    assert metrics["val"] == trial["val"]
    assert metrics["test_reads"] == 1
    assert search.start(winner, "runtime.run_id=search")[0] == 0
    again = json.loads((search.sealed("search") / "metrics.json").read_text())
    assert again["resumed"]["step"] == metrics["selection"]["steps"]
    assert (again["val"], again["test"]) == (metrics["val"], metrics["test"])


def test_another_search_under_its_run_id_is_refused(search, capsys):
    before = (search.multirun / "search.json").read_bytes()
    assert search.start(*search.arguments("task.drop_path=interval(0,0.1)"))[0] == 2
    assert "runtime.run_id=search: another search" in capsys.readouterr().err
    assert (search.multirun / "search.json").read_bytes() == before


@pytest.mark.slow
def test_a_stopped_search_resumes(search, start_finetune):
    cut = ("runtime.run_id=cut", "task.learning_rate=1e-3", "task.epochs=5")
    folder, states = search.multirun.parent / "cut", search.outputs / "cut"
    arguments = [item for item in search.arguments(*cut) if not item.startswith("hydra.sweeper.n_")]
    first = start_finetune(*arguments, "hydra.sweeper.n_trials=99")
    first.until(lambda: len({path.parent for path in states.glob("*/*/resume/state-*")}) > 1)
    first.send(signal.SIGTERM)
    assert first.wait() == 75, first.output
    assert "runtime.run_id=cut" in first.output
    before = json.loads((folder / "search.json").read_text())["trials"]
    assert before[0]["state"] == "done"
    second = start_finetune(*arguments, f"hydra.sweeper.n_trials={len(before)}")
    assert second.wait() == 0, second.output
    after = json.loads((folder / "search.json").read_text())["trials"]
    assert [row["state"] for row in after] == ["done"] * len(before)
    assert [row["values"] for row in after] == [row["values"] for row in before]
    assert second.output.count("validated already") == len(before) - 1
    assert second.output.count("resumed after step") == 1


@pytest.mark.parametrize(("code", "state"), [(75, "stopped"), (1, "failed")])
def test_a_trial_that_a_signal_ends_before_its_run_folder_is_stopped(tmp_path, code, state):
    values = [f"task.{item}" for item in ("learning_rate=1e-3", "layer_decay=0.7", "mixup=0")]
    values += ["task.weight_decay=0.1", "task.drop_path=0.1"]
    places = [f"runtime.{name}_root={tmp_path / name}" for name in ("output", "multirun")]
    model = ["backbone=vit_tiny", "backbone.pretrained=false"]
    fixed = ["sweep=tune", *model, "runtime.run_id=s", *places]
    parsed = parse_search(expand_sweep(fixed)[0])
    assert parsed is not None
    trial = [*values, *fixed]
    with pytest.raises(Preempted) if code == 75 else contextlib.nullcontext():
        objective(parsed[0], composed(trial), trial, 3, code)
    row = json.loads((tmp_path / "multirun" / "s" / "trials" / "00003.json").read_text())
    assert row["state"] == state


def test_a_search_without_a_winner_fails(search):
    diverging = ("runtime.run_id=lost", "task.learning_rate=1e30", "hydra.sweeper.n_trials=1")
    code, out = search.start(*search.arguments(*diverging))
    assert code == 1
    assert any("trial 1 failed" in line for line in out)
    assert not (search.multirun.parent / "lost" / "best.yaml").exists()
