"""A path that a command gives for a run -> the folder of the one complete record it means."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fgvc.record import console
from fgvc.record.folder import IN_PROGRESS
from fgvc.types import UserError

DEPTH = 3  # outputs/RUN/CONFIG/CHECKPOINT
MOST = 4  # records named in a message
SEALED = "status.json"  # with an artifacts.json beside it, which an export has, too


def record_folder(path: Path, key: str, marks: tuple[str, ...] = (SEALED,)) -> Path:
    """The run folder itself, or the only complete one below `path`, which is then printed.

    A file of a run folder means its folder. Where nothing complete lies below, the path comes back
    as it is, for the caller to say what it lacks.

    Args:
        key: of the command, for messages: checkpoint, run or against.
        marks: the files that show a record, by which folders below are sought in this order.

    Raises:
        UserError: several complete records lie below, or only one that is in progress.
    """
    path = path.expanduser()
    if path.is_file() and (path.parent / SEALED).is_file():
        return path.parent
    if any((path / name).is_file() for name in (*marks, "artifacts.json")):
        return path
    found = next((folders for mark in marks if (folders := list(_below(path, mark)))), [])
    if len(found) > 1:
        named = ", ".join(str(folder.relative_to(path)) for folder in found[:MOST])
        more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
        raise UserError(
            f"{key}={path}: {len(found)} complete runs lie below it; name one: {named}{more}"
        )
    if found:
        console.say(f"note: {key}={path}: {found[0]}, the only complete run there")
        return found[0]
    _refuse_unfinished(path, key)
    return path


def _below(path: Path, name: str) -> Iterator[Path]:
    """Folders below a path that hold a file of this name, but for runs in progress."""
    for depth in range(1, DEPTH + 1):
        for file in sorted(path.glob("*/" * depth + name)):
            sealed = name != SEALED or file.with_name("artifacts.json").is_file()
            if sealed and IN_PROGRESS not in file.parts:
                yield file.parent


def _refuse_unfinished(path: Path, key: str) -> None:
    for depth in range(DEPTH):
        for folder in path.glob("*/" * depth + IN_PROGRESS):
            raise UserError(
                f"{key}={path}: no complete run lies below it, {folder.relative_to(path)} is not "
                f"finished: its command with runtime.run_id={folder.resolve().parents[1].name} "
                "goes on"
            )
