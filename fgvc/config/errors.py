"""A wrong choice -> one line with the nearest legal one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ConfigError(ValueError):
    """The command asked for what does not exist or cannot be: exit code 2, nothing written."""


class ImpossibleError(ConfigError):
    """Legal choices that do not fit together: alone it is refused, a named sweep leaves it out."""


def nearest(word: str, legal: Iterable[str]) -> str:
    """`; did you mean X?` for the closest legal word, or an empty string when none is close."""
    words = list(legal)
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    if not close:  # a dotted key whose last part is right, or nearly
        tail = word.rsplit(".", 1)[-1]
        by_tail = {other.rsplit(".", 1)[-1]: other for other in words}
        close = [by_tail[match] for match in difflib.get_close_matches(tail, by_tail, 1, 0.75)]
    return f"; did you mean {close[0]}?" if close else ""
