"""Names and messages of other people -> text that is inert where it is displayed.

A class name, a path or a message may hold a spreadsheet formula, Markdown, HTML or terminal escape
codes. `cell` is for CSV and TSV; `markdown`, `code` and `fenced` are for Markdown; `visible`,
`one_line` and `shorten` are for terminals and messages. Pages are escaped by Jinja. JSON and
Parquet hold every text unchanged.

CSV: a text that begins with = + - @, a tab, a carriage return, a line feed or an apostrophe, also
after spaces, is prefixed with an apostrophe. So are the same characters after a semicolon, a tab or
a line break, where another program may begin a cell. `uncell` is the inverse: a reader drops the
first apostrophe of a text. Numbers are unchanged. Standard library only, so that every room may
import this module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fgvc.untrusted.shell import UNSEEN

LONGEST_LINE = 300  # characters of `one_line`
_STARTS = "=+@\uff1d\uff0b\uff0d\uff20-"  # of a formula; also as full-width characters
_FORMULA = re.compile(rf"\s*[{_STARTS}]|[\t\r\n']")
_INNER = re.compile(rf"(?<=[;\t\r\n])( *)('*)(?=[{_STARTS}])")
_INNER_BACK = re.compile(rf"(?<=[;\t\r\n])( *)'('*)(?=[{_STARTS}])")
_QUOTED = re.compile(r'[,;"\t\r\n]|\A\s|\s\Z')
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;"}  # not all read \\<
_SPECIAL = re.compile(
    r"[\\`*\[\]<>|~&$@#]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"
    r"|:(?=\S)|\.(?=[A-Za-z])|\A[-+=]"  # URLs that become links, rules and lists
)
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def cell(value: Any) -> Any:
    """A text as a cell that no spreadsheet reads as a formula; other values are unchanged."""
    if not isinstance(value, str):
        return value
    text = _INNER.sub(r"\1'\2", value)
    return f"'{text}" if _FORMULA.match(text) else text


def uncell(text: str) -> str:
    return _INNER_BACK.sub(r"\1\2", text.removeprefix("'"))


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV, each text as a `cell`; None is an empty cell."""
    return "".join(f"{','.join(map(_csv, row))}\n" for row in rows)


def tsv_cell(value: Any) -> str:
    """A value as a cell of TSV, which has no quotes: tabs and line breaks are backslash escapes."""
    text = str(cell(value)).replace("\\", "\\\\")
    return "".join(_NAMES.get(char, char) for char in text)


def visible(text: str, keep: str = "") -> str:
    r"""A text with control characters, line breaks and direction marks written as escapes.

    Args:
        keep: characters to keep, such as "\n" in a text of several lines.
    """
    return UNSEEN.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def markdown(value: object) -> str:
    """A text as Markdown that renders as exactly this text, on one line, also in a table."""
    text = visible(str(value)).strip()
    return _SPECIAL.sub(lambda match: _ENTITIES.get(match[0], f"\\{match[0]}"), text)


def code(value: object, in_table: bool = False) -> str:
    """A text as a code span of Markdown; an empty text becomes a dash.

    Args:
        in_table: whether the text is in a table, where a pipe would end the cell.
    """
    text = visible(str(value))
    if not text.strip():
        return "–"
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    text = text.replace("|", "\\|") if in_table else text
    return f"{fence}{pad}{text}{pad}{fence}"


def fenced(text: str, language: str = "") -> str:
    """Lines as a code block of Markdown; no line can end the block."""
    fence = "`" * max(3, _longest_run(text) + 1)
    block = visible(text, keep="\n\t").rstrip()
    return f"{fence}{language}\n{block}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _escape(char: str) -> str:
    number = ord(char)
    return _NAMES.get(char) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


def _csv(value: Any) -> str:
    text = "" if value is None else str(cell(value))
    quotes = isinstance(value, str) and _QUOTED.search(text)
    return '"' + text.replace('"', '""') + '"' if quotes else text


def one_line(value: object, most: int = LONGEST_LINE) -> str:
    """The text of a value on one line: spaces collapsed, `visible`, cut at `most` characters."""
    text = " ".join(str(value)[: 4 * most].split())
    line = visible(text)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def shorten(text: str, most: int = 120) -> str:
    """A text on one line, `visible`, with its middle cut: the end of a path identifies it."""
    plain = visible(text)
    return plain if len(plain) <= most else f"{plain[: most - 30]}…{plain[-20:]}"
