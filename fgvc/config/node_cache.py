"""Overrides of many jobs -> their configs, each node of which is composed once.

The jobs of a sweep differ in a few axes. What an axis' option means depends on its own settings,
on the overlays and on where things lie, and on no other axis: so a node that one job has is that of
the next one, and a whole grid takes a few tens of compositions.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fgvc.config.compose import check_config, composed, conf_dir, parse_config
from fgvc.config.schema import Config

APART = ("dataset", "backbone", "resolution", "part_attention")  # axes that are no overlays
REST = "rest"
ALLOWED = ("${.", "${runtime.", "${oc.")  # what a node may point at: itself, a place


class Nodes:
    """The nodes that were composed so far, by all that they depend on."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Any] = {}

    def conf(self, overrides: Sequence[str]) -> Config:
        """What `typed(composed(overrides))` is.

        Raises:
            ConfigError, HydraException, OmegaConfBaseException: as these two raise them.
        """
        keys = _keys(overrides)
        if any(key not in self._known for key in keys.values()):
            cfg = composed(overrides)
            conf = parse_config(cfg)
            if not _separable(cfg, overrides):
                return check_config(conf)
            for name, key in keys.items():
                self._known[key] = conf if name == REST else getattr(conf, name)
        rest = self._known[keys[REST]]
        return check_config(_copied(rest, {name: self._known[keys[name]] for name in APART}))


def _keys(overrides: Sequence[str]) -> dict[str, tuple[object, ...]]:
    """For each node, and for the rest of the config, all that it depends on."""
    own: dict[str, list[str]] = {name: [] for name in (*APART, REST)}
    overlays, places = [], []
    for item in overrides:
        key = item.lstrip("+~").partition("=")[0]
        node = key.partition(".")[0]
        own[node if node in APART else REST].append(item)
        if "." not in key and node not in APART:
            overlays.append(item)  # and seeds: cheaper than to tell them from options
        elif node == "runtime":
            places.append(item)
    return {
        name: (name, *items) if name == REST else (name, *items, "/", *overlays, "/", *places)
        for name, items in own.items()
    }


def _copied(rest: Config, nodes: dict[str, Any]) -> Config:
    """A config of its own: the checks that follow settle some fields of its nodes."""
    conf = copy.copy(rest)
    for item in dataclasses.fields(conf):
        node = nodes.get(item.name, getattr(rest, item.name))
        setattr(conf, item.name, copy.copy(node))
    return conf


def _separable(cfg: DictConfig, overrides: Sequence[str]) -> bool:
    """Whether each axis stands for itself: no option lays itself over others, no node points."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    pointers = [text for text in _texts(plain) if "${" in text]
    if any(text.count("${") != sum(map(text.count, ALLOWED)) for text in pointers):
        return False
    chosen = [item.lstrip("+").partition("=") for item in overrides]
    return all(_alone(group, option) for group, _, option in chosen if group in APART)


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for child in node.values() if isinstance(node, dict) else node:
            yield from _texts(child)


@functools.cache
def _alone(group: str, option: str) -> bool:
    """Whether an option file fills its own node only."""
    text = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8")
    return "@package" not in text and "override " not in text
