"""Class names of a dataset -> the names that people read, on every page, plot and terminal.

Files that programs read (CSV, JSON, Parquet, the checkpoint) keep the dataset's own names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fgvc.html.formats import plain

# "009.Brewer_Blackbird" (CUB-200-2011), "n02085620-Chihuahua" (Stanford Dogs, WordNet)
PREFIXES = (re.compile(r"\d{1,6}\.(?=\D)"), re.compile(r"n\d{8}-(?=.)"))


def display_names(names: Sequence[str]) -> list[str]:
    """Printable names, with spaces for underscores and without a number that all names begin with.

    Names that would become equal or empty keep what distinguishes them: then all names of the
    dataset stay as they are, except for bytes that are not UTF-8.
    """
    shown = [_words(name) for name in _without_prefix(names)]
    return shown if all(shown) and len(set(shown)) == len(set(names)) else [*map(plain, names)]


def _without_prefix(names: Sequence[str]) -> list[str]:
    for prefix in PREFIXES:
        matches = [prefix.match(name) for name in names]
        short = [name[match.end() :] for name, match in zip(names, matches, strict=True) if match]
        if len(short) == len(names) and len(set(map(_words, short))) == len(set(names)):
            return short
    return list(names)


def _words(name: str) -> str:
    return plain(name).replace("_", " ").strip()
