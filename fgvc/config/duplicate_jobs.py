"""Two jobs of a sweep with the same config hash -> an error with the reasons, by key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fgvc.config.errors import ConfigError
from fgvc.config.inert import fixes_within
from fgvc.config.inert import reasons as inert_keys
from fgvc.config.override_grammar import key_of
from fgvc.config.sweep_expansion import duplicate_reason

if TYPE_CHECKING:
    from fgvc.config.overrides import JobConfig

UNHASHED_REASONS = {  # metadata of a field that is not hashed -> the reason
    "place": "a place, not hashed",
    "declared": "a declaration, not hashed",
    "card": "a description, not hashed",
    "verifies": "a check of the results, not hashed",
}
RUNTIME_REASON = "how it runs, not hashed"
SAME_MEANING = "both values mean the same"


def check_duplicates(first: JobConfig, duplicate: JobConfig) -> None:
    """Check that two jobs of one hash differ only in keys that change no number (see inert/).

    Raises:
        ConfigError: they differ in other keys, or in none: both would write into one folder.
    """
    inert = inert_keys(first.conf) | inert_keys(duplicate.conf)
    reasons = dict(_differences(first.conf, duplicate.conf, inert))
    if reasons and all(reason in inert.values() for reason in reasons.values()):
        return
    differing = set(first.overrides) ^ set(duplicate.overrides)
    if not differing:
        raise ConfigError(f"{' '.join(duplicate.overrides)}: given twice. Leave one of them out")
    keys = sorted({key_of(item) for item in differing})
    if not reasons and all(fixes_within(duplicate.conf, key) for key in keys):
        return  # rules give both configs the same values
    for key in keys:
        if not any(f"{other}.".startswith(f"{key}.") for other in reasons):
            reasons[key] = SAME_MEANING
    by_key = "; ".join(f"{key}: {reason}" for key, reason in reasons.items())
    raise ConfigError(
        f"{duplicate_reason(duplicate.overrides, first.overrides)} ({by_key}). {_way_out(reasons)}"
    )


def _way_out(reasons: dict[str, str]) -> str:
    own_run = "run each with its own runtime.run_id"
    places = [key for key, reason in reasons.items() if reason == UNHASHED_REASONS["place"]]
    if any(key.startswith("dataset.") for key in places):
        return f"Give each a name (dataset.name=…), or {own_run}"
    if {*reasons.values()} & {*UNHASHED_REASONS.values(), RUNTIME_REASON}:
        return f"Leave one of them out, or {own_run}"
    return "Leave one of them out"


def _differences(
    left: Any, right: Any, inert: dict[str, str], prefix: str = "", node_reason: str | None = None
) -> Iterator[tuple[str, str]]:
    """Each key that differs, with the reason why the hash is the same.

    Args:
        inert: keys and nodes that change no number -> the reason.
        node_reason: of the node that contains the keys.
    """
    for item in dataclasses.fields(left):
        key, values = f"{prefix}{item.name}", (getattr(left, item.name), getattr(right, item.name))
        if values[0] == values[1]:
            continue
        unhashed = [text for mark, text in UNHASHED_REASONS.items() if mark in item.metadata]
        unhashed += [RUNTIME_REASON] if key == "runtime" else []
        reason = node_reason or next(iter(unhashed), inert.get(key))
        if dataclasses.is_dataclass(values[0]) and type(values[0]) is type(values[1]):
            yield from _differences(*values, inert, f"{key}.", reason)
        else:
            yield key, reason or SAME_MEANING
