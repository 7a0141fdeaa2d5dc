"""Rows of backbone.checkpoints from the command line or an overlay -> complete, checked rows.

A new row is written as `backbone.checkpoints.NAME={…}`, key by key, or under `checkpoints:` in the
file of an experiment. Hydra adds an entry to a typed table only if the whole table is the key.
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
PREFIX = {"timm": 1, "open_clip": 1, "transformers": 0}  # tokens before the patches, as usual
USUAL: Mapping[str, Any] = {
    "repo": "",
    "revision": "main",
    "registers": False,
    "license": "not recorded",
}


def as_table_override(argument: str) -> str:
    """An override of one row as an override of the table, to which Hydra can add a row.

    Any other argument, and a sweep over values of a row, stays as it is.

    Raises:
        ConfigError: a row has no such field.
    """
    key, sign, _ = argument.lstrip("+").partition("=")
    if not sign or (key != TABLE and not key.startswith(f"{TABLE}.")):
        return argument
    try:
        override = parse_override(argument.lstrip("+"))
    except HydraException:  # a later check names what is wrong with it
        return argument
    if override.is_sweep_override() or override.is_delete():
        return argument
    value: Any = override.value()
    for name in reversed(key.removeprefix(TABLE).lstrip(".").split(".") if key != TABLE else []):
        value = {name: value}
    _check(value, argument)
    return _written(value)


def merge_tables(arguments: Sequence[str]) -> list[str]:
    """The arguments with all overrides of the table in one: of a key given twice, a sweep of Hydra
    keeps the last value. A later field wins over an earlier one."""
    first = f"++{TABLE}="
    tables: list[Any] = [
        parse_override(item).value() for item in arguments if item.startswith(first)
    ]
    if not tables:
        return list(arguments)
    table = OmegaConf.to_container(OmegaConf.merge(*tables))
    place = next(i for i, item in enumerate(arguments) if item.startswith(first))
    rest = [item for item in arguments[place:] if not item.startswith(first)]
    return [*arguments[:place], _written(table), *rest]


def _written(table: Any) -> str:
    return f"++{TABLE}={Override._get_value_element_as_str(_quoted(table))}"


def fill_rows(backbone: DictConfig) -> None:
    """Fill what is usual into rows that a user added, in place.

    Raises:
        ConfigError: a row lacks fields that have no usual value.
    """
    for name, row in (backbone.get("checkpoints") or {}).items():
        missing = [field for field in FIELDS if OmegaConf.is_missing(row, field)]
        if not missing:
            continue
        usual = {**USUAL, "size": name, "prefix": PREFIX.get(backbone.library, 1)}
        if lacking := [field for field in missing if field not in usual]:
            others = [other for other in backbone.checkpoints if other != name]
            raise ConfigError(
                f"{TABLE}.{name}: a new row, which lacks {', '.join(lacking)}"
                f"{nearest(str(name), others)}. Give model (the library's name), patch and native "
                "(the side it was trained at) in pixels, and width (of its tokens)"
            )
        for field in missing:
            row[field] = usual[field]


def _check(table: Any, argument: str) -> None:
    """Refuse what is no row, and fields that a row does not have."""
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


def _quoted(value: Any) -> Any:
    """Strings in quotes, in which Hydra's grammar reads nothing of its own."""
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.double)
    if isinstance(value, list):
        return [_quoted(item) for item in value]
    if isinstance(value, dict):
        return {key: _quoted(item) for key, item in value.items()}
    return value
