"""Errors of a wrong command, and the nearest legal word for a typo."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """The command is wrong: exit code 2, nothing written."""


class InvalidCombinationError(ConfigError):
    """An invalid combination of legal choices: refused, but left out by a named sweep."""


def nearest(word: str, legal: Iterable[str], cutoff: float = 0.5) -> str:
    """`; did you mean X?` with the closest legal word; empty if none is close.

    Args:
        cutoff: smallest similarity, from 0 to 1.
    """
    words = list(legal)
    close = difflib.get_close_matches(word, words, n=1, cutoff=cutoff)
    if not close:  # a dotted key with a similar last part
        name = word.rsplit(".", 1)[-1]
        by_name = {other.rsplit(".", 1)[-1]: other for other in words}
        close = [by_name[match] for match in difflib.get_close_matches(name, by_name, 1, 0.75)]
    return f"; did you mean {close[0]}?" if close else ""
