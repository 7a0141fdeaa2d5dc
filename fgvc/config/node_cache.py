"""Overrides of many jobs -> their configs, with each node composed once.

The jobs of a sweep differ in a few axes. A node of an axis depends on the settings of the axis, on
the overlays and on runtime paths, but not on another axis. Two jobs that agree in these share the
node, and a whole grid takes a few tens of compositions.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fgvc.config.compose import check_config, composed, parse_config
from fgvc.config.option_files import option_file
from fgvc.config.override_grammar import key_of, value_of
from fgvc.config.schema import Config
from fgvc.config.schema_keys import leaves

AXES = ("dataset", "backbone", "resolution", "part_attention")  # axes with their own node
REST = "rest"
ALLOWED = ("${.", "${runtime.", "${oc.")  # interpolations within the node, and of runtime paths


class NodeCache:
    """The nodes composed so far, by everything that they depend on."""

    def __init__(self) -> None:
        self._nodes: dict[tuple[object, ...], Any] = {}

    def conf(self, overrides: Sequence[str]) -> Config:
        """The same as `typed(composed(overrides))`.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: as these two functions.
        """
        keys = _cache_keys(overrides)
        if any(key not in self._nodes for key in keys.values()):
            cfg = composed(overrides)
            conf = parse_config(cfg)
            if not _is_separable(cfg, overrides):
                return check_config(conf)
            for name, key in keys.items():
                self._nodes[key] = conf if name == REST else getattr(conf, name)
        conf = copy.copy(self._nodes[keys[REST]])
        for item in dataclasses.fields(conf):  # copied, because `check_config` changes their fields
            node = self._nodes[keys[item.name]] if item.name in AXES else getattr(conf, item.name)
            setattr(conf, item.name, copy.copy(node))
        return check_config(conf)


def _cache_keys(overrides: Sequence[str]) -> dict[str, tuple[object, ...]]:
    """For each node, and for the rest of the config, everything that it depends on."""
    own: dict[str, list[str]] = {name: [] for name in (*AXES, REST)}
    overlays, places = [], []
    for item in overrides:
        key = key_of(item)
        node = key.partition(".")[0]
        own[node if node in AXES else REST].append(item)
        if "." not in key and node not in AXES:
            overlays.append(item)  # and seeds, which need not be distinguished from options
        elif node == "runtime":
            places.append(item)
    return {
        name: (name, *items) if name == REST else (name, *items, "/", *overlays, "/", *places)
        for name, items in own.items()
    }


def _is_separable(cfg: DictConfig, overrides: Sequence[str]) -> bool:
    """Whether no option fills the node of another axis, and no node refers to another node."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    texts = [value for _, value in leaves(plain) if isinstance(value, str)]
    if any(text.count("${") != sum(map(text.count, ALLOWED)) for text in texts):
        return False
    choices = [item for item in overrides if key_of(item) in AXES]
    files = [option_file(key_of(item), value_of(item), overrides) for item in choices]
    return all(file is not None and _fills_own_node(file) for file in files)


@functools.cache
def _fills_own_node(file: Path) -> bool:
    text = file.read_text(encoding="utf-8")
    return "@package" not in text and "override " not in text
