"""The space of a search and the values of its trials so far -> the next trials, by Optuna.

The proposals depend only on the sampler with its seed, and on the values in their order. So the
same search proposes the same trials again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from hydra.core.override_parser.types import Override, Transformer
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from fgvc.config.override_grammar import parse_override
from fgvc.config.search_space import Search

SAMPLERS = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}


def run_trials(search: Search, run_trial: Callable[[int, Mapping[str, Any]], float]) -> None:
    """Propose and run the trials, in batches of `search.parallel`.

    Args:
        run_trial: runs a trial, given its number and the value of each searched key; returns the
            value of the objective.
    """
    optuna.logging.set_verbosity(logging.WARNING)  # the trials are printed by fgvc
    sampler = SAMPLERS[search.sampler](**search.settings)
    study = optuna.create_study(sampler=sampler, direction=search.direction)
    space = {
        key: distribution(parse_override(f"{key}={values}")) for key, values in search.space.items()
    }
    for start in range(0, search.trials, search.parallel):
        numbers = range(start, min(start + search.parallel, search.trials))
        batch = [(number, study.ask(space)) for number in numbers]
        values = [run_trial(number, trial.params) for number, trial in batch]
        for (_, trial), value in zip(batch, values, strict=True):
            study.tell(trial, value)


def distribution(override: Override) -> BaseDistribution:
    """The values of a searched key. Both ends of an interval and of a range can be proposed."""
    value: Any = override.value()
    if override.is_interval_sweep():
        kind = IntDistribution if isinstance(value.start, int) else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if override.is_range_sweep() and not value.shuffle:
        numbers = (value.start, value.stop, value.step)
        whole = all(isinstance(number, int) for number in numbers)
        return (IntDistribution if whole else FloatDistribution)(*numbers[:2], step=value.step)
    in_order = value.range() if override.is_range_sweep() else value.list  # not shuffled
    choices: Any = [Transformer.encode(choice) for choice in in_order]
    return CategoricalDistribution(choices)
