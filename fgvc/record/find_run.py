"""A path in a command -> the run folder of the one complete record at or below it."""

from __future__ import annotations

from pathlib import Path

from fgvc.config.weight_files.run_folder import SEALED, locate_run
from fgvc.record import console
from fgvc.types import UserError


def find_run(path: Path, key: str, marks: tuple[str, ...] = (SEALED,)) -> Path:
    """The run folder itself, or the only complete run folder below `path`, which is then printed.

    Returns `path` if there is no record below it; the caller reports what is missing.

    Args:
        key, marks: as in `locate_run`.

    Raises:
        UserError: several complete records are below, or only an unfinished one.
    """
    path = path.expanduser()
    try:
        folder = locate_run(path, key, marks)
    except ValueError as error:
        raise UserError(str(error)) from error
    if folder is None:
        return path
    if path.is_dir() and folder != path:
        console.say(f"note: {key}={path}: {folder}, the only complete run there")
    return folder
