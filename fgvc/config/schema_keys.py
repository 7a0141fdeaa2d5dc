"""The dataclasses of fgvc.config.schema -> dotted keys with their metadata and types."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fgvc.config import schema
from fgvc.config.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class SchemaKey:
    """A field of the schema.

    key: dotted. hint: its type. node: the dataclass of a node; None for a leaf and for a table of
    rows that have keys of their own (backbone.checkpoints).
    """

    key: str
    metadata: Mapping[str, Any]
    hint: Any
    node: type | None

    @property
    def holds_list(self) -> bool:
        """Whether the type is a list, or a union with a list; a dict of lists is not."""
        types = (self.hint, *typing.get_args(self.hint))
        is_dict = typing.get_origin(self.hint) is dict
        return not is_dict and any(typing.get_origin(part) is list for part in types)


def walk_schema(
    cls: type, prefix: str = "", variants: Mapping[str, type] | None = None
) -> Iterator[SchemaKey]:
    """The fields of a dataclass, each followed by the fields of its node.

    Args:
        variants: the dataclass of each node that follows from the chosen option.
    """
    for item in dataclasses.fields(cls):
        key, hint = f"{prefix}{item.name}", _hints(cls)[item.name]
        node = (variants or {}).get(key) or _node_class(hint)
        yield SchemaKey(key, item.metadata, hint, node)
        if node is not None:
            yield from walk_schema(node, f"{key}.")


@functools.cache
def all_keys() -> tuple[SchemaKey, ...]:
    """The keys of every option."""
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


def legal_keys(cfg: DictConfig) -> list[str]:
    """The dotted keys that the chosen options have."""
    return [item.key for item in keys_of_config(cfg)]


def owners(key: str) -> list[str]:
    """The options of a node that have a key: task.epochs is of task=train, head.k of head=knn."""
    node = key.partition(".")[0]
    return [
        name
        for name, cls in schema.variants().get(node, {}).items()
        if any(item.key == key for item in walk_schema(cls, f"{node}."))
    ]


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
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _node_class(hint: Any) -> type | None:
    """The dataclass of a type, seen through Optional."""
    if typing.get_origin(hint) is dict:
        return None
    for part in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            return part
    return None
