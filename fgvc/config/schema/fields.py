"""Helpers to declare the fields of a config node, with their metadata.

place     a path; not hashed (the file behind it is hashed by digest or name)
card      provenance for people; not hashed, because it changes no number
declared  a declaration about the data, which the run verifies; not hashed, because the digest of
          the manifest identifies the data
choices   the legal values
bounds    the lowest and the highest value, both inclusive
verifies  a check of the results; not hashed, because it changes none of them
legacy    the value that means "as before this field existed"; not hashed at this value
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


def place(default: Any = MISSING) -> Any:
    """A path; not hashed."""
    return field(default=default, metadata={"place": True})


def card(default: Any = MISSING) -> Any:
    """Information for people; not hashed."""
    return field(default=default, metadata={"card": True})


def declared(default: Any = MISSING) -> Any:
    """A declaration that the run checks against the data; not hashed."""
    return field(default=default, metadata={"declared": True})


def verification(low: float) -> Any:
    """The size of a check of the results, at least `low`; not hashed. null: no check."""
    return field(default=None, metadata={"verifies": True, "bounds": (low, None)})


def one_of(*choices: str) -> Any:
    """A field with a closed list of values."""
    return field(default=MISSING, metadata={"choices": choices})


def bounded(low: float, high: float | None = None) -> Any:
    """A number with bounds, both inclusive."""
    return field(default=MISSING, metadata={"bounds": (low, high)})


def later(
    legacy: Any, bounds: tuple[float, float] | None = None, choices: tuple[str, ...] | None = None
) -> Any:
    """A field added later: older configs mean `legacy`, which is not hashed."""
    limits = {"bounds": bounds, "choices": choices}
    given = {name: limit for name, limit in limits.items() if limit is not None}
    return field(default=legacy, metadata={"legacy": legacy, **given})


@dataclass
class NoOptions:
    """The node of an option that has no key but its name."""

    name: str = MISSING
