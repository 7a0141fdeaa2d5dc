"""conf/*.yaml and overrides -> DictConfig -> typed Config -> plain data -> config_hash.

The hash identifies the question: it covers everything that can change a number, and no path or
setting of speed (fgvc.config.config_hash).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc.config import checkpoint_rows, finetuned_weights, inert, schema
from fgvc.config.config_hash import canonical as canonical
from fgvc.config.config_hash import config_hash as config_hash
from fgvc.config.config_hash import hashed
from fgvc.config.constraints import check_part_attention, check_resolution, check_text, fill_derived
from fgvc.config.errors import ConfigError, nearest
from fgvc.config.list_values import as_list
from fgvc.config.option_files import CONFIG_NAME, conf_dir
from fgvc.config.override_grammar import parse_override
from fgvc.config.schema import architecture
from fgvc.config.schema_keys import chosen_variants, keys_of_config, leaves
from fgvc.config.weight_digests import check_sidecars, fill_tokenizer, fill_weights
from fgvc.untrusted.escape import shorten

CONVERSIONS = {  # messages of OmegaConf -> what the key holds
    r"Value '(.*)' of type '\w+' could not be converted to Integer": "an integer",
    r"Value '(.*)' of type '\w+' could not be converted to Float": "a number",
    r"Value '(.*)' is not a valid bool \(type \w+\)": "true or false",
    r"Cannot convert '\w+' to string: '(.*)'": "a text",
}
LARGEST = 2**63 - 1  # of an integer: int64


@functools.cache
def _shape(variants: tuple[tuple[str, type], ...]) -> DictConfig:
    """An empty config with the dataclasses of the chosen options; merging copies it."""
    shape = OmegaConf.structured(schema.Config)
    for node, cls in variants:
        shape[node] = OmegaConf.structured(cls)
    return shape


@functools.cache
def register_schema() -> None:
    """Register the dataclasses with Hydra, under the name in the defaults of the primary config."""
    ConfigStore.instance().store(name="schema", node=schema.Config)


def composed(overrides: Sequence[str] = (), whole: bool = False) -> DictConfig:
    """The config that Hydra composes from these overrides. No run is started.

    Hydra merges the chosen options, and sets values afterwards. Merging takes 60 ms, so configs
    that differ only in values share one merge.

    Args:
        whole: with Hydra's own node.

    Raises:
        HydraException, OmegaConfBaseException: as Hydra.
        ConfigError: a key inside a node that is null.
    """
    overrides = [checkpoint_rows.as_row_override(as_list(item)) for item in overrides]
    values = [item for item in map(parse_override, overrides) if not whole and _is_value(item)]
    lines = {item.input_line for item in values}
    cfg = copy.deepcopy(_merged(tuple(item for item in overrides if item not in lines), whole))
    for item in values:  # `++` adds a key; without it the key must exist
        _refuse_null_parent(cfg, item)
        OmegaConf.update(cfg, item.key_or_group, item.value(), force_add=item.is_force_add())
    return cfg


def _refuse_null_parent(cfg: DictConfig, override: Override) -> None:
    """Refuse a key inside a node that is null, such as the generator of photographs."""
    path, node = override.key_or_group.split("."), cfg
    for count, name in enumerate(path[:-1], start=1):
        if not isinstance(node, DictConfig) or name not in node:
            return  # an unknown key, which OmegaConf reports
        node = node[name]
        if node is None:
            raise ConfigError(
                f"{override.input_line}: {'.'.join(path[:count])} is null; choose an option of "
                f"{path[0]}= that sets it"
            )


@functools.lru_cache(maxsize=256)
def _merged(overrides: tuple[str, ...], whole: bool) -> DictConfig:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(CONFIG_NAME, list(overrides), return_hydra_config=whole)


def _is_value(override: Override) -> bool:
    """Whether an override sets a key, instead of choosing an option or configuring Hydra."""
    key = override.key_or_group
    if key.startswith("hydra") or override.package is not None:
        return False
    if override.is_delete() or override.is_add():  # `+`, not `++`
        return False
    return "." in key or not (conf_dir() / key).is_dir()


def typed(cfg: DictConfig) -> schema.Config:
    """The config as dataclasses, with every value checked and the weights found and digested.

    Raises:
        ConfigError: an unknown key, a value outside its bounds or choices, an invalid combination.
            One line each.
    """
    return check_config(parse_config(cfg))


def parse_config(cfg: DictConfig) -> schema.Config:
    """The config as dataclasses, with every key and type checked. Combinations are not checked.

    Raises:
        ConfigError: an unknown key, a value of another type, a hashed key that refers to a path.
    """
    legal = {item.key for item in keys_of_config(cfg)}
    for key, _ in leaves(OmegaConf.to_container(cfg, resolve=False)):
        if key not in legal and not key.startswith(schema.TABLES):
            raise ConfigError(f"unknown config key {key}{nearest(key, legal)}")
    try:
        shape = _shape(tuple(chosen_variants(cfg).items()))
        conf = OmegaConf.to_object(OmegaConf.merge(shape, cfg))
        assert isinstance(conf, schema.Config)
        is_recorded = OmegaConf.get_type(cfg) is not schema.Config  # read from a file
        checkpoint_rows.fill_table(conf.backbone, is_recorded)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error
    _refuse_references_to_places(cfg)
    return conf


def check_config(conf: schema.Config) -> schema.Config:
    """Check the values of a config, alone and together, and find its weights; returns the config.

    Raises:
        ConfigError: a value outside its bounds or choices, an invalid combination.
    """
    check_bounds(conf)
    if not is_operation(conf):
        architecture.check_chosen(conf.backbone)
        fill_derived(conf)
        inert.fix(conf)
        check_resolution(conf)
        check_text(conf)
        check_part_attention(conf)
        fill_weights(conf.backbone, conf.runtime.weights_root)
        if conf.backbone.weights is not None:
            path, text = Path(conf.backbone.weights), schema.reads_text(conf)
            finetuned_weights.check_backbone(conf.backbone, path, text)
        check_sidecars(conf.backbone, conf.preprocess)
        if schema.reads_text(conf):
            fill_tokenizer(conf.backbone)
    return conf


def is_operation(conf: schema.Config) -> bool:
    """Whether the task is no experiment: no config hash, run folder, weights or device."""
    return not schema.TASKS[conf.task.name].experiment


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The hashed part of a config as plain data: with identities, without paths.

    Raises:
        ValueError: an unknown key, an illegal value, or a hashed key that refers to a path.
    """
    return hashed(typed(cfg))


def check_bounds(node: Any, prefix: str = "") -> None:
    """Check the values of a dataclass and of its nodes against their choices and bounds.

    Raises:
        ConfigError: names the key, the value and the legal values.
    """
    for key, value in leaves(dataclasses.asdict(node)):
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ConfigError(f"{prefix}{key}={shorten(str(value))}: must be at most {LARGEST}")
    for key, value, item in _values(node, prefix):
        choices = item.metadata.get("choices")
        if choices and value not in choices:
            legal = ", ".join("null" if choice is None else choice for choice in choices)
            raise ConfigError(f"{key}={value}: not one of {legal}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value}: must be a finite number")
        low, high = item.metadata.get("bounds", (None, None))
        if value is None or low is None:
            continue
        if not (low <= value and (high is None or value <= high)):
            upper = "" if high is None else f" and at most {high}"
            raise ConfigError(f"{key}={value}: must be at least {low}{upper}")


def _values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    for item in dataclasses.fields(node):
        value, key = getattr(node, item.name), f"{prefix}{item.name}"
        yield key, value, item
        if dataclasses.is_dataclass(value):
            yield from _values(value, f"{key}.")


def _refuse_references_to_places(cfg: DictConfig) -> None:
    """Remove every path, then resolve: a hashed key that refers to a path fails to resolve."""
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    for item in keys_of_config(cfg):
        if item.metadata.get("place") or item.key == "runtime":
            *nodes, name = item.key.split(".")
            parent = functools.reduce(lambda node, part: node.get(part) or {}, nodes, plain)
            parent.pop(name, None)
    texts = [value for _, value in leaves(plain) if isinstance(value, str)]
    if not any("${" in text or text == "???" for text in texts):
        return
    try:
        OmegaConf.to_container(OmegaConf.create(plain), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"a hashed key points at a place: {one_line(error)}") from error


def one_line(error: OmegaConfBaseException) -> str:
    """The message of OmegaConf, with the key it is about."""
    message = str(error.msg or error).splitlines()[0]
    for pattern, expected in CONVERSIONS.items():
        if error.full_key and (match := re.fullmatch(pattern, message)) is not None:
            return f"{error.full_key}={match[1]}: must be {expected}"
    return f"{error.full_key}: {message}" if error.full_key else message
