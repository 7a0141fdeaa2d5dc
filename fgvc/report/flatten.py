"""Nested mappings -> dotted keys, and the keys in which two mappings differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Plain = Mapping[str, Any]


def flatten(plain: Plain, prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists and empty mappings are values."""
    flat: dict[str, Any] = {}
    for key, value in plain.items():
        is_branch = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if is_branch else {f"{prefix}{key}": value}
    return flat


def conflicting_keys(plain: Plain, other: Plain, skipped: tuple[str, ...] = ()) -> list[str]:
    """Dotted keys that both mappings have with different values; `skipped`: prefixes of keys."""
    flat, other_flat = flatten(plain), flatten(other)
    return [
        key
        for key, value in flat.items()
        if not key.startswith(skipped) and other_flat.get(key, value) != value
    ]


def differences(plain: Plain, other: Plain) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> both values, for keys that differ; None is the value of a missing key."""
    flat, other_flat = flatten(plain), flatten(other)
    keys = sorted(flat.keys() | other_flat.keys())
    pairs = {key: (flat.get(key), other_flat.get(key)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
