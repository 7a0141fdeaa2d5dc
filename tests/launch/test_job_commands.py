"""The command of one job of a sweep: typed alone, it composes to the config of this job."""

from __future__ import annotations

import itertools

import pytest
from omegaconf import OmegaConf

from fgvc import run
from fgvc.config.config_hash import config_hash
from fgvc.config.overrides import of_run
from fgvc.launch import search
from fgvc.launch.run_job import JobResult
from fgvc.launch.sweep import Sweep, command_of_job, search_path
from fgvc.record import command_file
from fgvc.untrusted import shell
from tests.narrow import not_none

POND = "# @package _global_\nseed: 3\n"
OWN_SWEEP = """# @package _global_
defaults:
  - override /head: knn
final_fit: train
dataset:
  name: "true"
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      head.k: 3,4
"""
SWEEPS = {
    "quoted option": ("-m", "part_attention='off',random"),
    "axes": ("-m", "head=knn,cosine", "seed=0,1"),
    "choice": ("-m", "head=choice(linear,knn)", "seed=range(0,3)"),
    "quoted": ("-m", "head=knn", "head.k=3,4", "dataset.name='a b, \"c\"',d"),
    "interpolated": ("-m", "head.k=3,4", "head=knn", "dataset.split_seed=${seed}"),
    "experiment": ("-m", "experiment=baseline_knn,baseline_linear", "final_fit=train"),
    "launcher": ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "seed=0,1"),
    "baselines": ("sweep=baselines", "backbone=clip"),
    "finetune": ("sweep=finetune", "task.epochs=2"),
    "grid": ("sweep=grid", "backbone=vit_tiny", "resolution=r224,r336", "part_attention=off"),
    "own": ("-m", "--config-dir", "OWN", "experiment=pond", "seed=4,5"),
    "own sweep": ("sweep=pond", "--config-dir", "OWN"),
}


@pytest.mark.parametrize("arguments", SWEEPS.values(), ids=SWEEPS)
def test_the_own_command_of_each_job_has_the_hash_of_the_job(arguments, tmp_path):
    own = tmp_path / "my own"
    for group, text in (("experiment", POND), ("sweep", OWN_SWEEP)):
        (own / group).mkdir(parents=True)
        (own / group / "pond.yaml").write_text(text)
    pretrained = "backbone.pretrained=false"
    command = run._parse([*(item.replace("OWN", str(own)) for item in arguments), pretrained])
    path = search_path(not_none(command).overrides)
    jobs = not_none(command).jobs
    assert len(jobs) > 1
    for job in itertools.islice(jobs, 0, None, max(1, len(jobs) // 3)):
        overrides = [*path, *of_run(job.overrides, "r")]
        line, sweep = command_file.split(command_of_job(overrides, "r", "the sweep"))
        assert sweep == "the sweep"
        words = shell.split(line)[len(shell.PROGRAM) :]
        assert words[-1] == "runtime.run_id=r"
        alone = not_none(run._parse(words))
        assert not alone.multirun
        assert [config_hash(other.plain) for other in alone.jobs] == [config_hash(job.plain)]
        assert (alone.run_id, alone.jobs[0].conf.runtime.run_id) == ("r", "r")


def test_a_trial_of_a_search_gets_its_own_values_and_folders_of_options(tmp_path, monkeypatch):
    """Without the search path, the trial could not be composed here."""
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "pond.yaml").write_text(POND)
    folders = ["--config-dir", str(tmp_path), "experiment=pond", "backbone.pretrained=false"]
    trials = ["hydra.sweeper.n_trials=2", f"runtime.multirun_root={tmp_path}"]
    command = not_none(run._parse(["sweep=tune", *folders, *trials]))
    texts = {}

    def run_recorded(cfg, overrides, text, digest):
        texts[digest] = text
        return JobResult(0, "done")

    monkeypatch.setattr(search, "run_recorded", run_recorded)
    monkeypatch.setattr(search, "objective", lambda *_: 0.5)
    monkeypatch.setattr(search, "finish", lambda *_: 0)
    conf = command.jobs[0].conf
    assert search.run(not_none(command.search), conf, "r", command.overrides, "the search") == 0
    assert len(texts) == 2
    for digest, text in texts.items():
        line, sweep = command_file.split(text)
        assert sweep == "the search"
        alone = not_none(run._parse(shell.split(line)[len(shell.PROGRAM) :]))
        assert [config_hash(job.plain) for job in alone.jobs] == [digest]
        assert alone.search is None
        assert alone.jobs[0].conf.runtime.stop_before_test


def test_in_the_worker_of_a_launcher_one_job_prints_the_notes_on_its_dataset(tmp_path, monkeypatch):
    are_repeats = {}

    def record(cfg, overrides, command, run_hash, position) -> JobResult:
        are_repeats[overrides[0]] = position.is_repeat
        return JobResult(0, "done")

    monkeypatch.setattr("fgvc.launch.sweep.run_recorded", record)
    sweep = Sweep("x", "fgvc", tmp_path, noting=frozenset({("seed=0",)}))
    for item in ("seed=0", "seed=1"):
        sweep.run_job(OmegaConf.create({"task": {"name": "eval"}}), [item, "runtime.run_id=x"])
    assert are_repeats == {"seed=0": False, "seed=1": True}
