"""What a field's metadata says of it: helpers to declare the fields of a config node.

place   where something lies; never hashed (what stands behind it enters by digest or name)
card    provenance for people; never hashed, as it can change no number
declared  what the user declares about the data and the run verifies; never hashed, because the
        digest of the manifest identifies the data
choices the legal values
bounds  the lowest and the highest, both inclusive
legacy  the value that means "as before this field existed": left out of the hash at that value
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from omegaconf import MISSING


def place(default: Any = MISSING) -> Any:
    """A field that says where something lies: kept out of the hash."""
    return field(default=default, metadata={"place": True})


def card(default: Any = MISSING) -> Any:
    """A field for people: kept out of the hash."""
    return field(default=default, metadata={"card": True})


def declared(default: Any = MISSING) -> Any:
    """A declaration that the run checks against the data; not hashed."""
    return field(default=default, metadata={"declared": True})


def one_of(*choices: str) -> Any:
    """A field with a closed list of values."""
    return field(default=MISSING, metadata={"choices": choices})


def bounded(low: float, high: float | None = None) -> Any:
    """A number with bounds, both inclusive."""
    return field(default=MISSING, metadata={"bounds": (low, high)})


def later(legacy: Any, bounds: tuple[float, float] | None = None) -> Any:
    """A field that older configs lack: `legacy` is what they mean, and is left out of the hash."""
    limits = {} if bounds is None else {"bounds": bounds}
    return field(default=legacy, metadata={"legacy": legacy, **limits})
