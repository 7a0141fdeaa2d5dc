"""The interface by which an audit derives config and page again, to compare them with a record.

The pipeline composes commands and renders pages, so it passes both functions in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.record.env_stamp import GitState


class CannotComposeError(ValueError):
    """A command or config that cannot be composed on this machine; the message is one line."""


@dataclass(frozen=True)
class Composed:
    """One job of a command. shown: its whole config in the form of config.yaml, as plain data."""

    config_hash: str
    shown: dict[str, Any]


@dataclass(frozen=True)
class Recompute:
    """The running code and its functions.

    code: commit and patch of the running code. places: keys of config.yaml that differ by machine.
    composed: the arguments of a command and its run_id -> its jobs. page: run folder and
    config.yaml as plain data -> report.html, with the photographs of the folder's own page. Both
    raise CannotComposeError.
    """

    code: GitState
    places: frozenset[str]
    composed: Callable[[Sequence[str], str], list[Composed]]
    page: Callable[[Path, dict[str, Any]], str]
