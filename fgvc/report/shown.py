"""Text of a record that other people made -> one line that a terminal prints and does not obey.

A record may hold line breaks, terminal escape sequences and letters that turn the reading
direction. They are shown as escapes, never sent.
"""

from __future__ import annotations

MOST = 300  # characters of a line


def one_line(value: object, most: int = MOST) -> str:
    """The text of a value on one line, cut at `most` characters, without control characters."""
    text = " ".join(str(value)[: 4 * most].split())
    line = inert(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def inert(text: str) -> str:
    """The text with every character that is not printable as its escape."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
