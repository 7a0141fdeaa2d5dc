"""The dataclasses of fgvc.config.schema -> dotted keys with their metadata and types."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fgvc.config import schema
from fgvc.config.errors import ConfigError
from fgvc.config.schema.launcher import LAUNCHERS

_type_hints = functools.cache(typing.get_type_hints)


@dataclasses.dataclass(frozen=True)
class SchemaKey:
    """A field of the schema.

    key: dotted. node: the dataclass of a node; None for a leaf and for a table of rows that have
    their own keys (backbone.checkpoints). holds_list: whether the type is a list, or a union
    with a list.
    """

    key: str
    metadata: Mapping[str, Any]
    node: type | None
    holds_list: bool


def walk_schema(
    cls: type, prefix: str = "", variants: Mapping[str, type] | None = None
) -> Iterator[SchemaKey]:
    """The fields of a dataclass, each followed by the fields of its node.

    Args:
        variants: the dataclass of each node that follows from the chosen option.
    """
    for item in dataclasses.fields(cls):
        key, hint = f"{prefix}{item.name}", _type_hints(cls)[item.name]
        is_table = typing.get_origin(hint) is dict
        types = () if is_table else (hint, *typing.get_args(hint))  # of a union: its members
        nodes = [
            part for part in types if isinstance(part, type) and dataclasses.is_dataclass(part)
        ]
        node = (variants or {}).get(key) or next(iter(nodes), None)
        holds_list = any(typing.get_origin(part) is list for part in types)
        yield SchemaKey(key, item.metadata, node, holds_list)
        if node is not None:
            yield from walk_schema(node, f"{key}.")


@functools.cache
def all_keys() -> tuple[SchemaKey, ...]:
    roots: list[tuple[str, type]] = [("", schema.Config)]
    for node, classes in schema.variants().items():
        roots += [(f"{node}.", cls) for cls in classes.values()]
    return tuple(key for prefix, cls in roots for key in walk_schema(cls, prefix))


def chosen_variants(cfg: DictConfig) -> dict[str, type]:
    """The dataclass of each node whose shape follows from its `name`.

    Raises:
        ConfigError: an unknown name.
    """
    variants = {}
    for node, classes in schema.variants().items():
        name = OmegaConf.select(cfg, f"{node}.name")
        if name not in classes:
            raise ConfigError(f"{node}={name}: not one of {', '.join(classes)}")
        variants[node] = classes[name]
    return variants


def keys_of_config(cfg: DictConfig) -> list[SchemaKey]:
    """The keys that the chosen options have."""
    return list(walk_schema(schema.Config, variants=chosen_variants(cfg)))


def owners(key: str) -> list[str]:
    """The options of a node that have a key: task.epochs is of task=train, head.k of head=knn."""
    node = key.partition(".")[0]
    return [
        name
        for name, cls in schema.variants().get(node, {}).items()
        if any(item.key == key for item in walk_schema(cls, f"{node}."))
    ]


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of plain data with their dotted keys; list items have the key of the list."""
    if isinstance(node, dict) and node:
        for name, child in node.items():
            yield from leaves(child, f"{key}.{name}" if key else str(name))
    elif isinstance(node, list) and node:
        for child in node:
            yield from leaves(child, key)
    else:
        yield key, node


@functools.cache
def declared_keys() -> frozenset[str]:
    """Keys that declare something about the data, which the run verifies."""
    keys = walk_schema(schema.Config)
    return frozenset(item.key for item in keys if item.metadata.get("declared"))


@functools.cache
def place_keys() -> frozenset[str]:
    """Keys of paths, outside `runtime` and `task`."""
    return frozenset(item.key for item in walk_schema(schema.Config) if item.metadata.get("place"))


@functools.cache
def path_keys() -> frozenset[str]:
    """Keys of paths, in every option."""
    paths = {item.key for item in all_keys() if item.metadata.get("place")}
    return frozenset(paths | {item.key for item in all_keys() if item.key.endswith("_root")})


@functools.cache
def list_keys() -> frozenset[str]:
    """Keys that hold a list, in every option and launcher."""
    launchers = (walk_schema(cls, "hydra.launcher.") for cls in LAUNCHERS.values())
    keys = itertools.chain(all_keys(), *launchers)
    return frozenset(item.key for item in keys if item.holds_list)
