"""What the launcher passes to a task, and the result of a job that is complete already."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from fgvc.config.schema import Config


@dataclass(frozen=True)
class Job:
    """The composed config, its typed form, the overrides and the exact command."""

    cfg: DictConfig
    conf: Config
    overrides: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class Skipped:
    """The folder of a complete run with the same run_id, config and data."""

    folder: Path
