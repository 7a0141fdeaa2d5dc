"""Jobs of a sweep with one config hash: left out if only inert keys differ, otherwise refused."""

from __future__ import annotations

import pytest

from fgvc.config.duplicate_jobs import check_duplicates
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import expand_jobs

TRAIN = ("task=train", "backbone=vit")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No weights/ or data/ of this checkout may leak into a hash."""
    monkeypatch.chdir(tmp_path)


def test_a_sweep_asks_each_question_once():
    jobs, left_out = expand_jobs(["head=linear,knn", "task.c_count=9,45"], True, False)
    assert [job.conf.head.name for job in jobs] == ["linear", "linear", "knn"]
    (line,) = left_out
    assert line.reason == "task.c_count=45: the same config as task.c_count=9"


def test_a_sweep_leaves_out_a_value_that_a_rule_replaces():
    jobs, left_out = expand_jobs([*TRAIN, "task.epochs=6", "task.patience=3,9,8"], True, False)
    assert [job.conf.task.patience for job in jobs] == [3, None]
    (line,) = left_out
    assert line.reason == "task.patience=8: the same config as task.patience=9"


def test_a_sweep_leaves_out_an_option_that_rules_make_the_same():
    choices = ["part_attention=transfg,transfg_random_block,random", "backbone.pretrained=false"]
    jobs, left_out = expand_jobs([*TRAIN, *choices], True, False)
    assert [job.conf.part_attention.name for job in jobs] == ["transfg", "random"]
    (line,) = left_out
    assert "the same config as part_attention=transfg" in line.reason


def test_a_named_sweep_too():
    arguments = ["backbone=clip", "experiment=baseline_zero_shot,baseline_knn", "final_fit=train"]
    jobs, left_out = expand_jobs([*arguments, "dataset.split_seed=0,1"], True, True)
    assert [job.conf.task.name for job in jobs] == ["zero_shot", "probe", "probe"]
    assert [line.reason.partition(":")[0] for line in left_out] == ["dataset.split_seed=1"]


ONE_CONFIG = (  # arguments of a sweep, the reason by key, the way out
    (("dataset=folder", "dataset.root=a,b"), "dataset.root: a place, not hashed", "dataset.name="),
    (
        (*TRAIN, "runtime.micro_batch=4,8"),
        "runtime.micro_batch: how it runs, not hashed",
        "own runtime.run_id",
    ),
    (
        ("dataset=cub", "dataset.partial=true,false"),
        "dataset.partial: a declaration, not hashed",
        "own runtime.run_id",
    ),
    (
        ("head=knn", "dataset.val_fraction=0", "final_fit=train,trainval"),
        "final_fit: both values mean the same",
        "Leave one of them out",
    ),
    (
        ("backbone=vit", "resolution=t256,r256"),
        "resolution: both values mean the same",
        "Leave one of them out",
    ),
    (("head=knn", "seed=1,1"), "head=knn seed=1: given twice", "Leave one of them out"),
)


@pytest.mark.parametrize(("arguments", "reason", "way"), ONE_CONFIG)
def test_a_sweep_names_the_reason_why_two_jobs_are_one_config(arguments, reason, way):
    with pytest.raises(ConfigError) as caught:
        expand_jobs(arguments, True, False)
    message = str(caught.value)
    assert reason in message
    assert way in message
    assert ("place" in message) is ("a place" in reason)


def test_each_key_that_differs_has_its_reason():
    places = ("dataset=folder", "dataset.root=a,b", "runtime.threads=1,2")
    with pytest.raises(ConfigError) as caught:  # the first job and the last
        check_duplicates(
            *(expand_jobs(_taken(places, place), False, False)[0][0] for place in (0, 1))
        )
    assert str(caught.value) == (
        "dataset.root=b runtime.threads=2: the same config as dataset.root=a runtime.threads=1 "
        "(dataset.root: a place, not hashed; runtime.threads: how it runs, not hashed). "
        "Give each a name (dataset.name=…), or run each with its own runtime.run_id"
    )


def test_another_place_is_not_left_out_beside_a_key_that_changes_nothing():
    arguments = ("dataset=folder", "head=knn", "dataset.root=a,b", "task.c_count=9,45")
    with pytest.raises(ConfigError) as caught:
        check_duplicates(
            *(expand_jobs(_taken(arguments, place), False, False)[0][0] for place in (0, 1))
        )
    assert "task.c_count: only a logistic regression has a C" in str(caught.value)


def _taken(arguments: tuple[str, ...], place: int) -> list[str]:
    """One value of each argument that has two."""
    pairs = [argument.partition("=") for argument in arguments]
    return [f"{key}={value.split(',')[min(place, value.count(','))]}" for key, _, value in pairs]
