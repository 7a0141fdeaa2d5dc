"""Faults of weights files -> messages of one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.types import UserError

UNSAFE_ADVICE = re.compile(r"weights_only|torch\.load|pickle_module|safe_globals|arbitrary code")


@contextmanager
def as_user_errors() -> Iterator[None]:
    """Raise the errors of `fgvc.config.weight_files` as UserErrors; usable as a decorator.

    A file that was downloaded after the config was checked does not make the command wrong.
    """
    try:
        yield
    except ConfigError as error:
        raise UserError(str(error)) from error


def unreadable_error(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().partition("\n")[0][:200]
    if not reason or UNSAFE_ADVICE.search(str(error)):  # torch advises to run the file's code
        reason = type(error).__name__
    return UserError(
        f"weights {path} cannot be read ({path.stat().st_size} bytes, cut short?): {reason}"
    )
