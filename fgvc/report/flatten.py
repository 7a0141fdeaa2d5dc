"""Nested mappings -> dotted keys, and the keys in which two of them differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flatten(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists and empty mappings are values."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        inner = isinstance(value, Mapping) and value
        found |= flatten(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> both values, where they differ; None stands for a key that one side lacks."""
    mine, theirs = flatten(one), flatten(other)
    keys = sorted(mine.keys() | theirs.keys())
    return {
        key: (mine.get(key), theirs.get(key)) for key in keys if mine.get(key) != theirs.get(key)
    }
