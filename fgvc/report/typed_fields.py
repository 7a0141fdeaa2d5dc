"""A dataclass with values of a record -> an error on the first field of the wrong type.

JSON may hold any value in place of a number or a name. Thus the fields are checked before a table
computes or prints them.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any

from fgvc.untrusted.escape import one_line
from fgvc.untrusted.shell import UNSEEN

MAX_CHARACTERS = 10_000  # characters of a text in a table
PLAIN = frozenset({str, int, float, bool, types.NoneType})


def check_types(instance: Any) -> None:
    """Check each field against its declared type.

    Raises:
        ValueError: a field has another type, or a text is too long or has control characters.
    """
    for name, allowed in _allowed_types(type(instance)).items():
        value = getattr(instance, name)
        if type(value) not in allowed:
            raise ValueError(f"{name} is {one_line(repr(value), 60)}, not {_type_names(allowed)}")
        if isinstance(value, str) and (UNSEEN.search(value) or len(value) > MAX_CHARACTERS):
            raise ValueError(f"{name} has control characters or is too long")


@functools.cache
def _allowed_types(cls: type) -> dict[str, frozenset[type]]:
    """Field -> allowed types, for the fields of plain types."""
    hints = typing.get_type_hints(cls)
    names = (field.name for field in dataclasses.fields(cls))
    types_of = {name: _types(hints[name]) for name in names}
    return {name: allowed for name, allowed in types_of.items() if allowed <= PLAIN}


def _types(hint: Any) -> frozenset[type]:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    allowed = frozenset(options)
    return allowed | {int} if float in allowed else allowed


def _type_names(allowed: frozenset[type]) -> str:
    return " or ".join(
        sorted("null" if kind is types.NoneType else kind.__name__ for kind in allowed)
    )
