"""A path given as a run -> the only complete run folder at or below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.untrusted.shell import setting

DEPTH = 3  # outputs/RUN/CONFIG/CHECKPOINT
MOST_NAMED = 4  # run folders named in a message
CHECKPOINT = "ckpt.bin"
SEALED = "status.json"  # of a complete run folder; with INDEX, which an export has too
INDEX = "artifacts.json"
IN_PROGRESS = "in-progress"


def locate_run(path: Path, key: str, marks: Sequence[str] = (SEALED,)) -> Path | None:
    """The run folder itself, or the only complete run folder below `path`; None if there is none.

    A file in a run folder means the folder.

    Args:
        key: for messages, such as run or backbone.weights.
        marks: files that identify a run folder; the first with a match is used.

    Raises:
        ConfigError: several complete run folders below, or only an unfinished one.
    """
    if path.is_file() and (path.parent / SEALED).is_file():
        return path.parent
    if any((path / name).is_file() for name in (*marks, INDEX)):
        return path
    matches = (list(run_folders(path, mark)) for mark in marks)
    folders = next(filter(None, matches), [])
    if len(folders) > 1:
        names = ", ".join(str(folder.relative_to(path)) for folder in folders[:MOST_NAMED])
        more = f" and {len(folders) - MOST_NAMED} more" if len(folders) > MOST_NAMED else ""
        raise ConfigError(
            f"{key}={path}: {len(folders)} complete runs are below it; choose one: {names}{more}"
        )
    if folders:
        return folders[0]
    for depth in range(DEPTH):
        for folder in path.glob("*/" * depth + IN_PROGRESS):
            run_id = folder.resolve().parents[1].name
            raise ConfigError(
                f"{key}={path}: no complete run is below it, {folder.relative_to(path)} is not "
                f"finished: resume it with its command and {setting('runtime.run_id', run_id)}"
            )
    return None


def checkpoint_in(folder: Path) -> Path | None:
    """The checkpoint of a run folder or an export, or of the only one below; None without one.

    Raises:
        ConfigError: as `locate_run`.
    """
    run = locate_run(folder, "backbone.weights", (SEALED, CHECKPOINT))
    return run / CHECKPOINT if run is not None and (run / CHECKPOINT).is_file() else None


def run_folders(path: Path, name: str) -> Iterator[Path]:
    """Folders that hold a file of this name, up to DEPTH levels below a path.

    Runs in progress are left out.
    """
    for depth in range(1, DEPTH + 1):
        for file in sorted(path.glob("*/" * depth + name)):
            sealed = name != SEALED or file.with_name(INDEX).is_file()
            if sealed and IN_PROGRESS not in file.parts:
                yield file.parent
