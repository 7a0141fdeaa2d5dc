"""Two jobs of a sweep with one config hash -> the reason by key, and whether they are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from fgvc.config.errors import ConfigError
from fgvc.config.inert import fixes_within
from fgvc.config.inert import reasons as inert_keys
from fgvc.config.schema import Config
from fgvc.config.sweep_expansion import duplicate_reason, key_of

KINDS = {  # metadata of a field that enters no hash -> why
    "place": "a place, not hashed",
    "declared": "a declaration, not hashed",
    "card": "a description, not hashed",
}
RUNTIME = "how it runs, not hashed"
SAME = "both values mean the same"


class Job(Protocol):
    """Overrides and the config they compose to; as in overrides.py, which imports this module."""

    @property
    def overrides(self) -> tuple[str, ...]: ...
    @property
    def conf(self) -> Config: ...


def check_twins(kept: Job, twin: Job) -> None:
    """Check that two jobs of one hash differ only in keys that change no number (see inert/).

    Raises:
        ConfigError: they differ in other keys, or in none: both would write into one folder.
    """
    inert = inert_keys(kept.conf) | inert_keys(twin.conf)
    unhashed = dict(_differences(kept.conf, twin.conf, "", None))
    ruled = {key: why for key, why in unhashed.items() if why is None and _rule(key, inert)}
    if ruled and len(ruled) == len(unhashed):
        return
    reasons = {key: why or _rule(key, inert) or SAME for key, why in unhashed.items()}
    given = set(kept.overrides) ^ set(twin.overrides)
    if not given:
        raise ConfigError(f"{' '.join(twin.overrides)}: given twice. Leave one of them out")
    keys = sorted({key_of(item) for item in given})
    if not unhashed and all(fixes_within(twin.conf, key) for key in keys):
        return  # both configs have the values that rules give
    for key in keys:
        if not any(f"{other}.".startswith(f"{key}.") for other in reasons):
            reasons[key] = SAME
    by_key = "; ".join(f"{key}: {why}" for key, why in reasons.items())
    raise ConfigError(
        f"{duplicate_reason(twin.overrides, kept.overrides)} ({by_key}). {_way(reasons)}"
    )


def _way(reasons: dict[str, str]) -> str:
    apart = "run each with its own runtime.run_id"
    if any(key.startswith("dataset.") and why == KINDS["place"] for key, why in reasons.items()):
        return f"Give each a name (dataset.name=…), or {apart}"
    if any(why in (*KINDS.values(), RUNTIME) for why in reasons.values()):
        return f"Leave one of them out, or {apart}"
    return "Leave one of them out"


def _rule(key: str, inert: dict[str, str]) -> str | None:
    """Why a key, or a node that it is in, changes no number."""
    return next((why for node, why in inert.items() if f"{key}.".startswith(f"{node}.")), None)


def _differences(
    one: Any, other: Any, prefix: str, why: str | None
) -> Iterator[tuple[str, str | None]]:
    """Each key that differs, with the reason why it enters no hash; None: it enters."""
    for item in dataclasses.fields(one):
        key, values = f"{prefix}{item.name}", (getattr(one, item.name), getattr(other, item.name))
        if values[0] == values[1]:
            continue
        reason = why or (RUNTIME if key == "runtime" else None)
        reason = reason or next((KINDS[kind] for kind in KINDS if kind in item.metadata), None)
        if dataclasses.is_dataclass(values[0]) and type(values[0]) is type(values[1]):
            yield from _differences(*values, f"{key}.", reason)
        else:
            yield key, reason
