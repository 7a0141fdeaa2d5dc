"""Narrow a type that is optional in general to the value that a test knows to be there."""

from typing import TypeVar

T = TypeVar("T")


def not_none(value: T | None) -> T:
    assert value is not None
    return value
