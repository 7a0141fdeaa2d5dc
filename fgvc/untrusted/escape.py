"""Names and messages of other people -> text that is inert where it is shown.

A class name, a path or a message may hold a formula of a spreadsheet, Markdown, HTML or codes that
a terminal obeys. `cell` is for CSV and TSV, `markdown`, `code` and `fenced` are for Markdown, and
`visible` is for terminals. Pages escape by Jinja; JSON and Parquet hold every text as it is.

CSV: a text that begins with = + - @, a tab, a carriage return, a line feed or an apostrophe, with
or without blanks before it, gets an apostrophe in front; so do the same characters behind a
semicolon, a tab or a line break, where another program may begin a cell. `uncell` is the way back:
a reader drops the first apostrophe of a text. Numbers are written as they are. Standard library
only, so that every room may use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fgvc.untrusted.shell import UNSEEN

LONGEST_LINE = 300  # characters that `one_line` keeps
_STARTS = "=+@\uff1d\uff0b\uff0d\uff20-"  # of a formula; also in the full width of East Asia
_FORMULA = re.compile(rf"\s*[{_STARTS}]|[\t\r\n']")
_INNER = re.compile(rf"(?<=[;\t\r\n])( *)('*)(?=[{_STARTS}])")
_INNER_BACK = re.compile(rf"(?<=[;\t\r\n])( *)'('*)(?=[{_STARTS}])")
_QUOTED = re.compile(r'[,;"\t\r\n]|\A\s|\s\Z')
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}  # not all read \\<
_SPECIAL = re.compile(
    r"[\\`*\[\]<>|~&$@#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    r"|:(?=\S)|\.(?=[A-Za-z])|\A[-+=]"  # addresses that become links, rules and lists
)
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def cell(value: Any) -> Any:
    """A text as a cell that no spreadsheet takes for a formula; any other value as it is."""
    if not isinstance(value, str):
        return value
    text = _INNER.sub(r"\1'\2", value)
    return f"'{text}" if _FORMULA.match(text) else text


def uncell(text: str) -> str:
    """The inverse of `cell`."""
    return _INNER_BACK.sub(r"\1\2", text.removeprefix("'"))


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, each text as a `cell`; None is an empty cell."""
    return "".join(f"{','.join(map(_csv, row))}\n" for row in rows)


def tsv_cell(value: Any) -> str:
    """A value as a cell of TSV, which has no quotes: tabs and line breaks are backslash escapes."""
    text = str(cell(value)).replace("\\", "\\\\")
    return "".join(_NAMES.get(char, char) for char in text)


def visible(text: str, keep: str = "") -> str:
    r"""A text whose control characters, line breaks and marks that reverse text are spelt out.

    Args:
        keep: characters that stay, as "\n" in a text of several lines.
    """
    return UNSEEN.sub(lambda match: match[0] if match[0] in keep else _spelt(match[0]), text)


def markdown(value: object) -> str:
    """A text as Markdown that renders as this very text, on one line, also within a table."""
    shown = visible(str(value)).strip()
    return _SPECIAL.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), shown)


def code(value: object, in_table: bool = False) -> str:
    """A text as a code span of Markdown; an empty text as a dash.

    Args:
        in_table: whether it stands in a table, where a pipe would end the cell.
    """
    text = visible(str(value))
    if not text.strip():
        return "–"
    fence = "`" * (_longest(text) + 1)
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    text = text.replace("|", "\\|") if in_table else text
    return f"{fence}{pad}{text}{pad}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Lines as a code block of Markdown; no line can end the block."""
    fence = "`" * max(3, _longest(text) + 1)
    shown = visible(text, keep="\n\t").rstrip()
    return f"{fence}{language}\n{shown}\n{fence}"


def _longest(text: str) -> int:
    """The longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def _spelt(char: str) -> str:
    number = ord(char)
    return _NAMES.get(char) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def _csv(value: Any) -> str:
    text = "" if value is None else str(cell(value))
    quotes = isinstance(value, str) and _QUOTED.search(text)
    return '"' + text.replace('"', '""') + '"' if quotes else text


def one_line(value: object, most: int = LONGEST_LINE) -> str:
    """The text of a value on one line, cut at `most` characters, without control characters.

    A record of other people may hold line breaks, terminal escape sequences and letters that turn
    the reading direction: they are printed as escapes.
    """
    text = " ".join(str(value)[: 4 * most].split())
    line = visible(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"
