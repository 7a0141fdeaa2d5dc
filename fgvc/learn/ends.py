"""A value chosen from several -> whether it is the first or the last, where a better one may lie
beyond."""

from __future__ import annotations

from collections.abc import Iterable


def end_of(chosen: float, tried: Iterable[float]) -> str | None:
    """The end of the tried values at which the chosen one lies.

    Returns:
        "first": the smallest of at least two distinct values; "last": the largest; None otherwise.
    """
    values = sorted(set(tried))
    if len(values) < 2 or chosen not in (values[0], values[-1]):
        return None
    return "first" if chosen == values[0] else "last"
