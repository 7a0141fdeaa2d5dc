"""The outcome of task=check -> a record per environment, and the gate that asks for it.

Cheap on purpose: an experiment asks the gate before anything heavy is imported, so neither torch,
numpy nor FiftyOne is. The check itself is in `examine`, README's table in `published`.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fgvc.record import env_stamp
from fgvc.record.stack_check.step import PASSED, Outcome
from fgvc.store import json_cache

COMMAND = "python -m fgvc.run task=check"
MODERN = ("clip", "siglip2", "dinov2", "dinov3")  # families that run on a validated stack only


def passed_check(cache_root: Path) -> dict[str, Any] | None:
    """The record of a passed check of this very environment.

    Args:
        cache_root: runtime.cache_root; "~" is understood.

    Returns:
        None where there is no such record, it is damaged, or the check failed.
    """
    found = _read(record_path(cache_root))
    return found if found is not None and found["passed"] else None


def require(cache_root: Path, who: str) -> dict[str, Any]:
    """The record of the passed check that `who` (an override such as backbone=clip) needs.

    Raises:
        UserError: there is none; names the command, and how to do without.
    """
    file, notes = record_path(cache_root), []
    found = _read(file, notes.append)
    if found is not None and found["passed"]:
        return found
    from fgvc.types import UserError  # here: it brings numpy

    damaged = f" (its record {file} is damaged)" if notes else ""
    state = f"has not been checked in this environment{damaged}"
    if found is not None:
        steps = found["steps"].items()
        failed = [name for name, step in steps if step["result"] != PASSED]
        state = f"failed its last check ({', '.join(failed)})"
    raise UserError(
        f"{who}: the recording stack {state}: run {COMMAND} (about a minute), "
        "or do without it: runtime.stack_check=false"
    )


def record_path(cache_root: Path) -> Path:
    """The file that holds this environment's record."""
    env_hash = env_stamp.environment_hash()["env_hash"]
    return Path(cache_root).expanduser() / "stack" / f"{env_hash}.json"


def make_record(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was checked, where and when, as plain data; it names neither host nor user."""
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
    """Write the record, a failed one too: it must not leave an earlier pass standing.

    Raises:
        OSError: the disk refuses; one line with the path.
    """
    file = record_path(cache_root)
    json_cache.write(file, record)
    return file


def _read(file: Path, on_note: json_cache.OnNote = lambda note: None) -> dict[str, Any] | None:
    """The record as it was saved; None for anything else, with a note if it is damaged."""
    saved = json_cache.read(file, on_note)
    if saved is None:
        return None
    whole = (
        isinstance(saved, dict)
        and saved.get("env_hash") == file.stem
        and isinstance(saved.get("passed"), bool)
        and isinstance(saved.get("steps"), dict)
        and all(isinstance(step, dict) and "result" in step for step in saved["steps"].values())
    )
    if not whole:
        on_note(f"{file}: no record of this environment")
    return saved if whole else None
