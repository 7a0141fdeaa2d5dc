"""A JSON file of any size -> the members of its outermost object, arrays element by element.

An index of 675,000 images read whole takes more than a gigabyte; read so, a few megabytes.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fgvc import untrusted
from fgvc.types import UserError

CHUNK = 1 << 20  # characters read at a time
MAX_VALUE = 1 << 25  # characters of one value; what does not end by then is damaged
_BLANKS = re.compile(r"[ \t\n\r]*")
_ENDS = tuple(" \t\n\r,]}:")
_DECODER = json.JSONDecoder(
    object_pairs_hook=untrusted.unique_keys, parse_constant=untrusted.refuse_constant
)


def members(file: Path) -> Iterator[tuple[str, Any]]:
    """(key, element) for each element of an array, (key, value) of any other member, in order.

    Raises:
        UserError: missing, not UTF-8, or no JSON object.
    """
    try:
        with io.TextIOWrapper(untrusted.open_regular(file), encoding="utf-8-sig") as stream:
            yield from _members(_Cursor(stream))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; is dataset.root= right?") from None
    except RecursionError:
        raise UserError(f"{file}: no JSON object of a dataset, nested too deep") from None
    except ValueError as error:
        raise UserError(f"{file}: no JSON object, or a damaged one ({error})") from None


def _members(text: _Cursor) -> Iterator[tuple[str, Any]]:
    seen: set[str] = set()
    for key in text.members():
        if not isinstance(key, str):
            raise ValueError(f"the key {str(key)[:40]!r} is no text")
        if key in seen:
            raise ValueError(f"the key {key[:40]!r} twice")
        seen.add(key)
        text.take(":")
        if text.peek() == "[":
            for element in text.elements():
                yield key, element
        else:
            yield key, text.value()


class _Cursor:
    """A place in a text of which only the part around it is in memory."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.text, self.at = stream, "", 0
        self.fresh = True  # whether more was read since several values were last tried at once

    def members(self) -> Iterator[str]:
        """The keys of the object that begins here; each value is for the caller to pass over."""
        self.take("{")
        if self.peek() == "}":
            return
        while True:
            yield self.value()
            if self.take(",", "}") == "}":
                return

    def elements(self) -> Iterator[Any]:
        """The elements of the array that begins here."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield from self._several()
            if self.take(",", "]") == "]":
                return

    def value(self) -> Any:
        """The next value, whole; ValueError where none is."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.at)
            except json.JSONDecodeError:
                if self._more():
                    continue
                raise
            if self.text[end : end + 1] not in _ENDS and self._more():
                continue  # a number that goes on
            self.at = end
            return value

    def _several(self) -> list[Any]:
        """As many objects as are in memory, decoded at one go; else the next value alone."""
        if self.fresh:
            self.fresh = False
            end = self.text.rfind("}", self.at) + 1
            try:
                several = _DECODER.decode(f"[{self.text[self.at : end]}]")
            except json.JSONDecodeError:
                several = []  # the last brace closes something else than an element
            if several:
                self.at = end
                return several
        return [self.value()]

    def take(self, *expected: str) -> str:
        """Pass over one of these characters; ValueError where another one stands."""
        found = self.peek()
        if found not in expected:
            wanted = " or ".join(expected)
            raise ValueError(f"expected {wanted}, found {found or 'the end of the file'}")
        self.at += 1
        return found

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            blanks = _BLANKS.match(self.text, self.at)
            assert blanks is not None
            self.at = blanks.end()
            if self.at < len(self.text):
                return self.text[self.at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        if len(self.text) - self.at > MAX_VALUE:
            return False
        piece = self.stream.read(CHUNK)
        self.text, self.at, self.fresh = self.text[self.at :] + piece, 0, True
        return bool(piece)
