"""What a task receives, and the answer of a task whose run is complete already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from fgvc.config.schema import Config


@dataclass(frozen=True)
class Job:
    """One job as it was asked for: composed config, its typed form, overrides, exact command."""

    cfg: DictConfig
    conf: Config
    overrides: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Skipped:
    """The complete run, made earlier under this run_id, that answers the job."""

    folder: Path
