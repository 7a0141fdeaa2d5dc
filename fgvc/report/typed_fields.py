"""A dataclass with the values of a record -> an error on the first field of another type.

JSON may hold anything in place of a number or a name. The check comes before a table computes or
prints the values.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any

from fgvc.untrusted.escape import one_line
from fgvc.untrusted.shell import UNSEEN

MOST_TEXT = 10_000  # characters of a text in a table
PLAIN = frozenset({str, int, float, bool, types.NoneType})


def check_types(instance: Any) -> None:
    """Compare each field with its declared type.

    Raises:
        ValueError: a field of another type, or a text with control characters.
    """
    for name, allowed in _allowed(type(instance)).items():
        value = getattr(instance, name)
        if type(value) not in allowed:
            raise ValueError(f"{name} is {one_line(repr(value), 60)}, not {_named(allowed)}")
        if isinstance(value, str) and (UNSEEN.search(value) or len(value) > MOST_TEXT):
            raise ValueError(f"{name} holds control characters or is too long")


@functools.cache
def _allowed(cls: type) -> dict[str, frozenset[type]]:
    """Field -> types, of the fields that hold plain values."""
    hints = typing.get_type_hints(cls)
    names = (field.name for field in dataclasses.fields(cls))
    types_of = {name: _types(hints[name]) for name in names}
    return {name: allowed for name, allowed in types_of.items() if allowed <= PLAIN}


def _types(hint: Any) -> frozenset[type]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    allowed = frozenset(options)
    return allowed | {int} if float in allowed else allowed


def _named(allowed: frozenset[type]) -> str:
    return " or ".join(
        sorted("null" if kind is types.NoneType else kind.__name__ for kind in allowed)
    )
