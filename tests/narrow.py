"""Narrow a type that is optional in general to the value that a test knows to be there."""

from typing import Any, TypeVar

T = TypeVar("T")
ZERO: Any = 0  # zero_division of scikit-learn, whose type pyright infers from the default


def not_none(value: T | None) -> T:
    assert value is not None
    return value
