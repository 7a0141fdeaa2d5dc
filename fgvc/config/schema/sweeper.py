"""The shape of conf/hydra/sweeper/sampler: the keys of each sampler of sweep=tune.

Each key but `name` is an argument of Optuna's sampler.
"""

from __future__ import annotations

from dataclasses import dataclass

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded


@dataclass
class RandomSampler:
    name: str = MISSING
    seed: int | None = bounded(0, 2**32 - 1)


@dataclass
class TpeSampler(RandomSampler):
    n_startup_trials: int = bounded(0)
    n_ei_candidates: int = bounded(1)
    multivariate: bool = MISSING


@dataclass
class Sweeper:
    """hydra/sweeper=optuna, without its sampler and its space."""

    n_trials: int = bounded(1)
    n_jobs: int = bounded(1)


SAMPLERS: dict[str, type] = {"tpe": TpeSampler, "random": RandomSampler}
