"""The outcomes of task=check -> a record per environment, which experiments require.

An experiment requires the record before its heavy imports, so this module imports neither torch,
numpy nor FiftyOne. The check itself is in `examine`, whose child processes report the outcome of
each step; README's table is in `published`.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fgvc.record import env_stamp
from fgvc.store import json_cache

COMMAND = "python -m fgvc.run task=check"
MODERN = ("clip", "siglip2", "dinov2", "dinov3")  # families that need a passed check
PASSED, FAILED, NOT_TRIED = "passed", "failed", "not tried"
# module, run in its own child process -> its steps in order, each with the step that must pass
# before it is tried. A step is a function of the module: an empty folder -> what it found, in one
# line; it raises if the step fails. The parent itself runs the last step, SHUTDOWN.
SIDES: Mapping[str, Mapping[str, str | None]] = {
    "tensorboard_steps": {"tensorboard": None},
    "fiftyone_steps": {
        "database": None,
        "dataset": "database",
        "evaluation": "dataset",
        "export": "dataset",
        "app": "dataset",
    },
}
SHUTDOWN = "shutdown"


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step. message: one line; after a failure the cause and the way out."""

    step: str
    result: str
    seconds: float
    message: str

    def plain(self) -> dict[str, object]:
        """The value under the step's name in a record."""
        return {"result": self.result, "seconds": round(self.seconds, 1), "says": self.message}


class MismatchError(Exception):
    """A value differs from the expected value."""


def check_equal(name: str, actual: object, expected: object) -> None:
    """Compare two values; an assertion would vanish under python -O.

    Raises:
        MismatchError: they are not equal.
    """
    if actual != expected:
        raise MismatchError(f"{name}: {actual} instead of {expected}")


def passed_check(cache_root: Path) -> dict[str, Any] | None:
    """The record of a passed check of this environment.

    Args:
        cache_root: runtime.cache_root; "~" is expanded.

    Returns:
        None if the record is missing or damaged, or if the check failed.
    """
    record = _read(record_path(cache_root))
    return record if record is not None and record["passed"] else None


def require(cache_root: Path, override: str) -> dict[str, Any]:
    """The record of the passed check that an override such as backbone=clip requires.

    Raises:
        UserError: no check passed; names the command, and the key that skips the check.
    """
    file, notes = record_path(cache_root), []
    record = _read(file, notes.append)
    if record is not None and record["passed"]:
        return record
    from fgvc.types import UserError  # here: it imports numpy

    damaged = f" (its record {file} is damaged)" if notes else ""
    state = f"has not been checked in this environment{damaged}"
    if record is not None:
        failed = [name for name, step in record["steps"].items() if step["result"] != PASSED]
        state = f"failed its last check ({', '.join(failed)})"
    raise UserError(
        f"{override}: the recording stack {state}. Run {COMMAND} (about a minute), "
        "or skip the check with runtime.stack_check=false"
    )


def record_path(cache_root: Path) -> Path:
    """The file of this environment's record."""
    env_hash = env_stamp.environment_hash()["env_hash"]
    return Path(cache_root).expanduser() / "stack" / f"{env_hash}.json"


def make_record(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The outcomes, the environment and the time as plain data, without host and user name."""
    assert outcomes
    return {
        "checked": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "passed": all(outcome.result == PASSED for outcome in outcomes),
        "platform": f"{platform.system()} {platform.machine()}",
        "libc": " ".join(platform.libc_ver()).strip() or None,
        "python_version": platform.python_version(),
        **{key: env_stamp.version(name) for key, name in env_stamp.PACKAGES.items()},
        **env_stamp.environment_hash(),
        "steps": {outcome.step: outcome.plain() for outcome in outcomes},
    }


def save(cache_root: Path, record: dict[str, Any]) -> Path:
    """Write the record; a failed check is written too, and replaces an earlier pass.

    Raises:
        OSError: the disk refuses; one line with the path.
    """
    file = record_path(cache_root)
    json_cache.write(file, record)
    return file


def _read(file: Path, notify: json_cache.Notify = lambda note: None) -> dict[str, Any] | None:
    """A saved record; None if there is none, or if it is damaged, which a note reports."""
    record = json_cache.read(file, notify)
    valid = (
        isinstance(record, dict)
        and record.get("env_hash") == file.stem
        and isinstance(record.get("passed"), bool)
        and isinstance(record.get("steps"), dict)
        and all(isinstance(step, dict) and "result" in step for step in record["steps"].values())
    )
    if record is not None and not valid:
        notify(f"{file}: no record of this environment")
    return record if valid else None
