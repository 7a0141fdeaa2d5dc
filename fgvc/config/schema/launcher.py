"""The shape of conf/hydra/launcher: the keys that a command may set, one dataclass per launcher.

Keys that begin with an underscore, and the folder of submitit, cannot be set.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded


@dataclass
class Serial:
    """hydra/launcher=serial."""


@dataclass
class Joblib:
    n_jobs: int | None = bounded(1)


@dataclass
class SubmititLocal:
    name: str = MISSING
    n_jobs: int = bounded(1)
    timeout_min: int = bounded(1)
    signal_delay_s: int = bounded(1)
    max_num_timeout: int = bounded(0)
    gpus_per_node: int | None = bounded(0)


@dataclass
class SubmititSlurm:
    name: str = MISSING
    partition: str | None = MISSING
    qos: str | None = MISSING
    account: str | None = MISSING
    constraint: str | None = MISSING
    exclude: str | None = MISSING
    gres: str | None = MISSING
    comment: str | None = MISSING
    gpus_per_node: int | None = bounded(0)
    cpus_per_task: int | None = bounded(1)
    mem_gb: int | None = bounded(1)
    timeout_min: int = bounded(1)
    signal_delay_s: int = bounded(1)
    max_num_timeout: int = bounded(0)
    array_parallelism: int = bounded(1)
    setup: list[str] | None = MISSING
    additional_parameters: dict[str, Any] = MISSING


LAUNCHERS: dict[str, type] = {
    "serial": Serial,
    "joblib": Joblib,
    "submitit_local": SubmititLocal,
    "submitit_slurm": SubmititSlurm,
}
