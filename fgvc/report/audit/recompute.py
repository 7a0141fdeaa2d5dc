"""The code that runs an audit -> what it derives anew, to compare with a record.

Only the task layer composes commands and writes pages, so it passes both functions in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc.record.env_stamp import GitState


class CannotComposeError(ValueError):
    """Why a command or a config cannot be composed on this machine; one line."""


@dataclass(frozen=True)
class Composed:
    """One job of a command. shown: its whole config as config.yaml shows it, as plain data."""

    config_hash: str
    shown: dict[str, Any]


@dataclass(frozen=True)
class Recompute:
    """code: commit and patch that run now. places: keys of config.yaml that a machine decides.

    composed: the arguments of a command and its run_id -> its jobs. page: run folder and
    config.yaml as plain data -> report.html, with the photographs that the folder's own page
    shows. Both raise NotHereError.
    """

    code: GitState
    places: frozenset[str]
    composed: Callable[[Sequence[str], str], list[Composed]]
    page: Callable[[Path, dict[str, Any]], str]
