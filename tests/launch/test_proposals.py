"""The trials of a search: within the space, reproducible, and near the best so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fgvc.config.override_grammar import parse_override
from fgvc.config.search_space import Search
from fgvc.launch.proposals import distribution, run_trials

SPACE = {
    "task.learning_rate": "tag(log,interval(1e-4,1e-1))",
    "task.warmup_steps": "int(interval(1,9))",
    "task.mixup": "0,0.2,0.8",
}
TPE = {"seed": 0, "n_startup_trials": 5, "n_ei_candidates": 24, "multivariate": False}
SEARCH = Search(SPACE, "top1", "tpe", TPE, trials=12, parallel=1, digest="")
RANDOM = replace(SEARCH, sampler="random", settings={"seed": 0})


def trials(search: Search, fails: frozenset[int] = frozenset()) -> list[dict[str, Any]]:
    """The values of each trial. The objective is best at a learning rate of 1e-2."""
    proposed: list[dict[str, Any]] = []

    def run_trial(number: int, values: Mapping[str, Any]) -> float:
        assert number == len(proposed)
        proposed.append(dict(values))
        if number in fails:
            return -math.inf
        return -abs(math.log10(values["task.learning_rate"]) + 2)

    run_trials(search, run_trial)
    return proposed


@pytest.mark.parametrize("search", [SEARCH, replace(SEARCH, parallel=5), RANDOM], ids=repr)
def test_the_same_search_proposes_the_same_trials(search):
    """A longer search has the first trials of the shorter one, because it continues it."""
    first = trials(search)
    assert len(first) == 12
    assert trials(search) == first
    assert trials(replace(search, trials=17))[:12] == first
    for values in first:
        assert list(values) == list(SPACE)
        assert 1e-4 <= values["task.learning_rate"] <= 1e-1
        assert values["task.warmup_steps"] in range(1, 10)
        assert values["task.mixup"] in (0, 0.2, 0.8)
    assert len({values["task.learning_rate"] for values in first}) == 12
    assert trials(replace(search, settings={**search.settings, "seed": 1})) != first


def test_tpe_uses_the_results_and_random_does_not():
    assert trials(RANDOM) == trials(RANDOM, fails=frozenset(range(12)))
    failed = trials(SEARCH, fails=frozenset(range(5)))
    assert failed[:5] == trials(SEARCH)[:5]  # at random, before the first proposal
    assert failed[5:] != trials(SEARCH)[5:]

    def mean_distance(values: list[dict[str, Any]]) -> float:
        errors = [abs(math.log10(item["task.learning_rate"]) + 2) for item in values[20:]]
        return sum(errors) / len(errors)

    many = [trials(replace(search, trials=60)) for search in (SEARCH, RANDOM)]
    assert mean_distance(many[0]) < 0.6 * mean_distance(many[1])


def test_parallel_trials_are_proposed_without_each_others_results():
    """The results of a batch count from the next batch on."""
    search = replace(SEARCH, parallel=6)
    failed = trials(search, fails=frozenset(range(6)))
    assert failed[:6] == trials(search)[:6] != trials(SEARCH)[:6]
    assert failed[6:] != trials(search)[6:]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("interval(0,0.3)", FloatDistribution(0.0, 0.3)),
        ("tag(log,interval(1e-4,1e-2))", FloatDistribution(1e-4, 1e-2, log=True)),
        ("int(interval(1,9))", IntDistribution(1, 9)),
        ("tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
        ("range(1,9,2)", IntDistribution(1, 9, step=2)),
        ("range(0.1,0.9,0.2)", FloatDistribution(0.1, 0.9, step=0.2)),
        ("0,0.2,0.8", CategoricalDistribution((0, 0.2, 0.8))),
        ("choice(adamw,sgd)", CategoricalDistribution(("adamw", "sgd"))),
        ("shuffle(range(1,9))", CategoricalDistribution(tuple(range(1, 9)))),
        ("shuffle(3,1,2)", CategoricalDistribution((3, 1, 2))),
    ],
)
def test_the_values_of_a_key(values, expected):
    assert distribution(parse_override(f"a={values}")) == expected
