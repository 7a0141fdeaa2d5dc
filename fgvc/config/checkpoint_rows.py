"""The published rows of a family, and a user's own rows -> the table of checkpoints of a backbone.

Published rows are in fgvc/model/backbone/checkpoints, beside the modules of the families. The
config that Hydra composes does not contain them; in a folder of conf/ they would be options.
A user's row, or a change to a published row, is written as `backbone.checkpoints.NAME={…}`, key by
key, or under `checkpoints:` in an overlay or an option file.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc.config.errors import ConfigError, nearest
from fgvc.config.override_grammar import key_of, parse_override
from fgvc.config.schema import Backbone, Checkpoint, chosen_checkpoint
from fgvc.config.schema.library import LIBRARIES
from fgvc.untrusted.shell import escaped

TABLE = "backbone.checkpoints"
PUBLISHED = Path(__file__).parents[1] / "model" / "backbone" / "checkpoints"
FIELDS = tuple(item.name for item in fields(Checkpoint))
DEFAULTS: Mapping[str, Any] = {
    "repo": "",
    "revision": "main",
    "registers": False,
    "license": "not recorded",
}
REQUIRED = ("model", "patch", "width", "native")  # fields of a new row without a default


def as_row_override(argument: str) -> str:
    """An override of a row with `++`, because Hydra adds a key only then; others are unchanged.

    Raises:
        ConfigError: the whole table has a value that is no table.
    """
    bare = argument.lstrip("+")
    if "=" not in bare or not f"{key_of(bare)}.".startswith(f"{TABLE}."):
        return argument
    try:
        override = parse_override(bare)
    except HydraException:  # reported by a later check
        return argument
    if key_of(bare) == TABLE and not override.is_sweep_override():
        _check(override.value())
    return f"++{bare}"


@functools.cache
def published_rows(family: str) -> Mapping[str, Mapping[str, Any]]:
    """The rows of a family as plain data; empty for a family of one's own."""
    if family not in _families():
        return {}
    rows = OmegaConf.to_container(OmegaConf.load(PUBLISHED / f"{family}.yaml"))
    assert isinstance(rows, dict)
    return {str(name): row for name, row in rows.items()}


def _families() -> list[str]:
    return sorted(file.stem for file in PUBLISHED.glob("*.yaml"))


@functools.cache
def published_repos() -> frozenset[str]:
    rows = [row for family in _families() for row in published_rows(family).values()]
    return frozenset(row["repo"] for row in rows if row["repo"])


def fill_table(backbone: Backbone, is_recorded: bool) -> None:
    """Replace the user's rows, as Hydra composes them, by the whole table of the family.

    Args:
        is_recorded: whether the config was read from a file that fgvc wrote. It has every row that
            it needs, and the published rows may have changed since.

    Raises:
        ConfigError: a row has an unknown field or a value of another type, or lacks a field that
            has no default.
    """
    own = backbone.checkpoints
    published = {} if is_recorded else published_rows(backbone.name)
    table = {name: Checkpoint(**copy.deepcopy(dict(row))) for name, row in published.items()}
    _check(own)
    for name, row in own.items():
        base: Any = table.get(name)
        if base is None:
            others = [*table, *own]
            base = Checkpoint if is_recorded else _row_defaults(name, row, backbone.library, others)
        try:
            merged = OmegaConf.merge(OmegaConf.structured(base), escaped(row))
            built: Any = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            key = f"{TABLE}.{name}.{error.full_key}" if error.full_key else f"{TABLE}.{name}"
            raise ConfigError(f"{key}: {str(error.msg or error).splitlines()[0]}") from error
        table[name] = built
    backbone.checkpoints = table


def chosen_rows(backbone: Backbone) -> dict[str, Any]:
    """The chosen row of the table, as plain data by its name; no row of a task without backbone."""
    with suppress(ConfigError):
        chosen = chosen_checkpoint(backbone)
        return {name: asdict(row) for name, row in backbone.checkpoints.items() if row is chosen}
    return {}


def _row_defaults(
    name: str, row: Mapping[str, Any], library: str, others: Sequence[str]
) -> Checkpoint:
    """A new row with its default fields; ConfigError: it lacks a field that has no default."""
    prefix = LIBRARIES[library].prefix if library in LIBRARIES else 0  # refused by check_bounds
    defaults = {**DEFAULTS, "size": name, "prefix": prefix}
    if missing := [field for field in REQUIRED if field not in row]:
        close = nearest(name, [other for other in others if other != name])
        raise ConfigError(
            f"{TABLE}.{name}: a new row, which lacks {', '.join(missing)}{close}. Give model (the "
            "library's name), patch and native (the side it was trained at) in pixels, and width "
            "(of its tokens)"
        )
    return Checkpoint(**defaults)


def _check(table: Any) -> None:
    """Refuse values that are no rows, and unknown fields."""
    form = f"a row is a mapping, as in {TABLE}.NAME={{model: …, patch: 16, …}}"
    if not isinstance(table, dict):
        raise ConfigError(f"{TABLE}={table}: {form}")
    for name, row in table.items():
        if not isinstance(row, dict):
            raise ConfigError(f"{TABLE}.{name}={row}: {form}")
        for field in row:
            if field not in FIELDS:
                raise ConfigError(
                    f"unknown config key {TABLE}.{name}.{field}{nearest(str(field), FIELDS)} "
                    f"(a row has {', '.join(FIELDS)})"
                )
