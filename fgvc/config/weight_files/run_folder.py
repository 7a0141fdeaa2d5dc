"""A path that a person gives for a run -> the folder of the one complete record at or below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.untrusted.shell import setting

DEPTH = 3  # outputs/RUN/CONFIG/CHECKPOINT
MOST_NAMED = 4  # records named in a message
CHECKPOINT = "ckpt.bin"
SEALED = "status.json"  # with an INDEX beside it, which an export has, too
INDEX = "artifacts.json"
IN_PROGRESS = "in-progress"


def locate_run(path: Path, key: str, marks: Sequence[str] = (SEALED,)) -> Path | None:
    """The run folder itself, or the only complete one below `path`; None where there is none.

    A file of a run folder means its folder.

    Args:
        key: of the command, for messages, as run or backbone.weights.
        marks: the files that show a record, by which folders below are sought in this order.

    Raises:
        ConfigError: several complete records lie below, or only an unfinished one.
    """
    if path.is_file() and (path.parent / SEALED).is_file():
        return path.parent
    if any((path / name).is_file() for name in (*marks, INDEX)):
        return path
    folders = next((some for mark in marks if (some := list(_run_folders(path, mark)))), [])
    if len(folders) > 1:
        named = ", ".join(str(folder.relative_to(path)) for folder in folders[:MOST_NAMED])
        more = f" and {len(folders) - MOST_NAMED} more" if len(folders) > MOST_NAMED else ""
        raise ConfigError(
            f"{key}={path}: {len(folders)} complete runs lie below it; name one: {named}{more}"
        )
    if not folders:
        _refuse_unfinished(path, key)
    return folders[0] if folders else None


def checkpoint_in(folder: Path) -> Path | None:
    """The checkpoint of a run folder or an export, or of the only one below; None without one.

    Raises:
        ConfigError: as `record_at`.
    """
    record = locate_run(folder, "backbone.weights", (SEALED, CHECKPOINT))
    file = None if record is None else record / CHECKPOINT
    return file if file is not None and file.is_file() else None


def _run_folders(path: Path, name: str) -> Iterator[Path]:
    """Folders below a path that hold a file of this name, but for runs in progress."""
    for depth in range(1, DEPTH + 1):
        for file in sorted(path.glob("*/" * depth + name)):
            sealed = name != SEALED or file.with_name(INDEX).is_file()
            if sealed and IN_PROGRESS not in file.parts:
                yield file.parent


def _refuse_unfinished(path: Path, key: str) -> None:
    for depth in range(DEPTH):
        for folder in path.glob("*/" * depth + IN_PROGRESS):
            run_id = folder.resolve().parents[1].name
            raise ConfigError(
                f"{key}={path}: no complete run lies below it, {folder.relative_to(path)} is not "
                f"finished: its command with {setting('runtime.run_id', run_id)} goes on"
            )
