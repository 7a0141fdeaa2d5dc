"""A single value instead of a list of one: the same config and hash as the list."""

from __future__ import annotations

import json

import pytest

from fgvc.config.compose import composed, config_hash, resolved
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.list_values import as_list
from fgvc.config.overrides import jobs_of
from fgvc.config.schema_keys import list_keys
from fgvc.run import main

CLIP = ("task=zero_shot", "backbone=clip", "backbone.size=mini", "backbone.pretrained=false")
ONE = 'dataset.prompts=["a photo of a {}."]'


def hash_of(*overrides: str) -> str:
    return config_hash(resolved(composed([*CLIP, *overrides])))


@pytest.mark.parametrize(
    "typed",
    [
        "dataset.prompts=a photo of a {}.",  # what a shell leaves of dataset.prompts="…"
        'dataset.prompts="a photo of a {}."',
        "dataset.prompts='a photo of a {}.'",
        "+dataset.prompts=a photo of a {}.",
    ],
)
def test_a_text_is_a_list_of_one_with_the_same_hash(typed):
    (job,) = jobs_of([*CLIP, typed], multirun=False)
    assert job.conf.dataset.prompts == ["a photo of a {}."]
    assert config_hash(job.plain) == hash_of(ONE)
    if not typed.startswith("+"):
        assert hash_of(typed) == hash_of(ONE)


@pytest.mark.parametrize(
    "text",
    ["a photo of a {}, a type of bird.", "the {}'s photo: 1", 'a "good" {}', "{}", "a\\{}", "{}\\"],
)
def test_any_text_survives_as_it_was_typed(text):
    (job,) = jobs_of([*CLIP, f"dataset.prompts={text}"], multirun=False)
    assert job.conf.dataset.prompts == [text]


@pytest.mark.parametrize("typed", [ONE, 'dataset.prompts=["a {}","b {}"]', "dataset.prompts=[]"])
def test_a_list_is_unchanged(typed):
    assert as_list(typed) == typed


@pytest.mark.parametrize(
    ("typed", "expected"),
    [("head.fit.learning_rates=1e-3", [1e-3]), ("head.fit.weight_decays=0", [0.0])],
)
def test_a_number_is_a_list_of_one_too(typed, expected):
    (job,) = jobs_of(["head=mlp", typed], multirun=False)
    assert getattr(job.conf.head.fit, typed.partition("=")[0].rpartition(".")[2]) == expected


def test_every_list_key_of_the_schema_is_recognized():
    keys = ("dataset.prompts", "head.fit.learning_rates", "head.fit.weight_decays")
    assert {*keys, "task.overrides", "hydra.launcher.setup"} <= list_keys()
    assert not {"seed", "backbone.checkpoints"} & list_keys()
    assert as_list("hydra.launcher.setup=null") == "hydra.launcher.setup=null"
    assert as_list("task.overrides=task.epochs=10") == 'task.overrides=["task.epochs=10"]'


def test_a_sweep_over_texts_is_a_sweep_over_lists():
    jobs = jobs_of([*CLIP, 'dataset.prompts="a {}","b {}"'], multirun=True)
    assert [job.conf.dataset.prompts for job in jobs] == [["a {}"], ["b {}"]]


def test_an_experiment_file_may_hold_a_text(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text('# @package _global_\ndataset:\n  prompts: "a photo of a {}."\n')
    (job,) = jobs_of([*CLIP, *expand_experiment([f"experiment={file}"])], multirun=False)
    assert config_hash(job.plain) == hash_of(ONE)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("head.fit.learning_rates=1e-3,1e-2", "as a list: 'head.fit.learning_rates=[0.001,0.01]'"),
        ("dataset.prompts=[a {}.,b {}.]", """'dataset.prompts=["a {}.","b {}."]'"""),
    ],
)
def test_a_value_that_is_no_list_is_refused_with_an_example(
    typed, message, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    head = ["head=mlp"] if typed.startswith("head") else list(CLIP)
    assert main([*head, typed]) == 2
    assert message in capfd.readouterr().err
    jobs_of([*head, message.partition("'")[2].rstrip("'")], multirun=False)


def test_the_run_receives_the_list(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    command = [*CLIP, "dataset.prompts=a photo of a {}.", "runtime.dry_run=true"]
    assert main(command) == 0
    assert 'dataset.prompts=["a photo of a {}."]' in capfd.readouterr().out
    assert json.dumps(list(tmp_path.iterdir())) == "[]"
