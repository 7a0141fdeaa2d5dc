"""Text of a record that other people made -> one line that a terminal prints and does not obey.

A record may hold line breaks, terminal escape sequences and letters that turn the reading
direction. They are shown as escapes, never sent.
"""

from __future__ import annotations

from fgvc.escape import visible

MOST = 300  # characters of a line


def one_line(value: object, most: int = MOST) -> str:
    """The text of a value on one line, cut at `most` characters, without control characters."""
    text = " ".join(str(value)[: 4 * most].split())
    line = visible(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
