"""Rows of backbone.checkpoints from the command line or an overlay -> complete, checked rows.

A new row is written as `backbone.checkpoints.NAME={…}`, key by key, or under `checkpoints:` in an
overlay. Hydra can add an entry to a typed table only by an override of the whole table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from fgvc.config.compose_cache import parse_override
from fgvc.config.errors import ConfigError, nearest
from fgvc.config.schema import Checkpoint

TABLE = "backbone.checkpoints"
FIELDS = tuple(item.name for item in fields(Checkpoint))
PREFIX = {"timm": 1, "open_clip": 1, "transformers": 0}  # default: tokens before the patches
DEFAULTS: Mapping[str, Any] = {
    "repo": "",
    "revision": "main",
    "registers": False,
    "license": "not recorded",
}


def as_table_override(argument: str) -> str:
    """An override of one row as an override of the table, to which Hydra can add a row.

    Any other argument, and a sweep over values of a row, is unchanged.

    Raises:
        ConfigError: a row has no such field.
    """
    key, sign, _ = argument.lstrip("+").partition("=")
    if not sign or (key != TABLE and not key.startswith(f"{TABLE}.")):
        return argument
    try:
        override = parse_override(argument.lstrip("+"))
    except HydraException:  # reported by a later check
        return argument
    if override.is_sweep_override() or override.is_delete():
        return argument
    value: Any = override.value()
    for name in reversed(key.removeprefix(TABLE).lstrip(".").split(".") if key != TABLE else []):
        value = {name: value}
    _check(value, argument)
    return _table_override(value)


def merge_tables(arguments: Sequence[str]) -> list[str]:
    """The arguments with all overrides of the table merged: a Hydra sweep would keep only the last.

    A later field replaces an earlier one.
    """
    prefix = f"++{TABLE}="
    tables: list[Any] = [
        parse_override(item).value() for item in arguments if item.startswith(prefix)
    ]
    if not tables:
        return list(arguments)
    table = OmegaConf.to_container(OmegaConf.merge(*tables))
    index = next(i for i, item in enumerate(arguments) if item.startswith(prefix))
    rest = [item for item in arguments[index:] if not item.startswith(prefix)]
    return [*arguments[:index], _table_override(table), *rest]


def _table_override(table: Any) -> str:
    return f"++{TABLE}={Override._get_value_element_as_str(quote_strings(table))}"


def fill_rows(backbone: DictConfig) -> None:
    """Fill the default fields of rows that a user added, in place.

    Raises:
        ConfigError: a row lacks fields that have no default.
    """
    for name, row in (backbone.get("checkpoints") or {}).items():
        missing = [field for field in FIELDS if OmegaConf.is_missing(row, field)]
        if not missing:
            continue
        defaults = {**DEFAULTS, "size": name, "prefix": PREFIX.get(backbone.library, 1)}
        if required := [field for field in missing if field not in defaults]:
            others = [other for other in backbone.checkpoints if other != name]
            raise ConfigError(
                f"{TABLE}.{name}: a new row, which lacks {', '.join(required)}"
                f"{nearest(str(name), others)}. Give model (the library's name), patch and native "
                "(the side it was trained at) in pixels, and width (of its tokens)"
            )
        for field in missing:
            row[field] = defaults[field]


def _check(table: Any, argument: str) -> None:
    """Refuse values that are no rows, and unknown fields."""
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise ConfigError(
            f"{argument}: a row is a mapping, as in {TABLE}.NAME={{model: …, patch: 16, …}}"
        )
    for name, row in table.items():
        for field in row:
            if field not in FIELDS:
                raise ConfigError(
                    f"unknown config key {TABLE}.{name}.{field}{nearest(str(field), FIELDS)} "
                    f"(a row has {', '.join(FIELDS)})"
                )


def quote_strings(value: Any) -> Any:
    """A value with its strings quoted, so that Hydra's grammar reads them literally."""
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.double)
    if isinstance(value, list):
        return [quote_strings(item) for item in value]
    if isinstance(value, dict):
        return {key: quote_strings(item) for key, item in value.items()}
    return value
