"""A dataclass with values of a record -> an error on the first field of the wrong type.

JSON may hold any value in place of a number or a name. Thus the fields are checked before a table
computes or prints them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
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
        ValueError: a field has another type or is not finite, or a text is too long or has control
            characters.
    """
    for name, allowed in _allowed_types(type(instance)).items():
        value = getattr(instance, name)
        if type(value) not in allowed:
            kinds = ("null" if kind is types.NoneType else kind.__name__ for kind in allowed)
            expected = " or ".join(sorted(kinds))
            raise ValueError(f"{name} is {one_line(repr(value), 60)}, not {expected}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name}={value} is not a number")
        if isinstance(value, str) and (UNSEEN.search(value) or len(value) > MAX_CHARACTERS):
            raise ValueError(f"{name} has control characters or is too long")


@functools.cache
def _allowed_types(cls: type) -> dict[str, frozenset[type]]:
    allowed_of = {}
    hints = typing.get_type_hints(cls)
    for name in (field.name for field in dataclasses.fields(cls)):
        is_union = isinstance(hints[name], types.UnionType)
        allowed = frozenset(typing.get_args(hints[name]) if is_union else (hints[name],))
        if allowed <= PLAIN:
            allowed_of[name] = allowed | {int} if float in allowed else allowed
    return allowed_of
