"""A JSON file of any size -> the members of its outermost object, arrays element by element.

Loading an index of 675,000 images at once takes over a gigabyte; streaming takes a few megabytes.
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
MAX_VALUE = 1 << 25  # characters of a value; a longer value is damage
_CHAR = re.compile(r"[ \t\n\r]*([^ \t\n\r])")
_ENDS = tuple(" \t\n\r,]}:")
_DECODER = json.JSONDecoder(
    object_pairs_hook=untrusted.unique_keys, parse_constant=untrusted.refuse_constant
)


def members(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield (key, element) per element of an array, (key, value) otherwise; UserError: no JSON."""
    try:
        with io.TextIOWrapper(untrusted.open_regular(file), encoding="utf-8-sig") as stream:
            text, seen = _Text(stream), set[str]()
            for _ in text.items("{", "}"):
                key = text.value()
                if not isinstance(key, str):
                    raise ValueError(f"the key {str(key)[:40]!r} is not a string")
                if key in seen:
                    raise ValueError(f"the key {key[:40]!r} twice")
                seen.add(key)
                text.take(":")
                if text.peek() != "[":
                    yield key, text.value()
                    continue
                for _ in text.items("[", "]"):
                    for element in text.next_values():
                        yield key, element
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; is dataset.root= right?") from None
    except RecursionError:
        raise UserError(f"{file}: no JSON object of a dataset, nested too deep") from None
    except ValueError as error:
        raise UserError(f"{file}: no JSON object, or a damaged one ({error})") from None


class _Text:
    """A text that is read in chunks, from a position on."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream, self.text, self.position = stream, "", 0
        self.has_new_text = True  # whether text was read since `next_values` last decoded several

    def items(self, opening: str, closing: str) -> Iterator[None]:
        """Stop before each member of the object, or element of the array, that begins here."""
        self.take(opening)
        if self.peek() == closing:
            self.take(closing)
            return
        yield
        while self.take(",", closing) == ",":
            yield

    def value(self) -> Any:
        """Decode the next value; ValueError if there is none."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.text, self.position)
            except json.JSONDecodeError:
                if self._read_more():
                    continue
                raise
            if self.text[end : end + 1] not in _ENDS and self._read_more():
                continue  # the number may continue
            self.position = end
            return value

    def next_values(self) -> list[Any]:
        """Decode all objects in memory at once, which is faster, or only the next value."""
        if self.has_new_text:
            self.has_new_text = False
            end = self.text.rfind("}", self.position) + 1
            try:
                values = _DECODER.decode(f"[{self.text[self.position : end]}]")
            except json.JSONDecodeError:
                values = []  # the last brace does not close an element
            if values:
                self.position = end
                return values
        return [self.value()]

    def take(self, *expected: str) -> str:
        """Consume one of these characters; ValueError for any other."""
        char = self.peek()
        if char not in expected:
            choices = " or ".join(expected)
            raise ValueError(f"expected {choices}, found {char or 'the end of the file'}")
        self.position += 1
        return char

    def peek(self) -> str:
        """The next non-blank character; empty at the end."""
        while not (char := _CHAR.match(self.text, self.position)):
            if not self._read_more():
                return ""
        self.position = char.end() - 1
        return char[1]

    def _read_more(self) -> bool:
        if len(self.text) - self.position > MAX_VALUE:
            return False
        chunk = self.stream.read(CHUNK)
        self.text, self.position, self.has_new_text = self.text[self.position :] + chunk, 0, True
        return bool(chunk)
