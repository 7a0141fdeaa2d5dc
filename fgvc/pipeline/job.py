"""What the launcher passes to a task, and the result of a job that is complete already."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from fgvc.config.schema import Config
from fgvc.store.output_path import JSON, output_file


@dataclass(frozen=True)
class Job:
    """The checked config, the overrides, the exact command, and when its process started.

    started: seconds of the monotonic clock, which all processes of a machine share.
    """

    conf: Config
    overrides: tuple[str, ...]
    command: str
    started: float = field(default_factory=time.monotonic)

    def json_file(self, folder: str, name: str) -> Path:
        """The JSON file that an operation writes: task.output, or in `folder` of the outputs."""
        if self.conf.task.output is not None:
            return output_file(self.conf.task.output, name, JSON)
        return Path(self.conf.runtime.output_root).expanduser() / folder / name


@dataclass(frozen=True)
class Skipped:
    """The folder of a complete run with the same run_id, config and data."""

    folder: Path
