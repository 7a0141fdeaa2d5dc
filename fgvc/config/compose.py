"""conf/*.yaml and overrides -> DictConfig -> typed Config -> plain data -> config_hash.

The hash names the question: everything that can change a number is in it, and nothing that says
only where something lies or how fast it runs (fgvc.config.schema shows how a field says which).
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import math
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc.config import checkpoint_rows, finetuned_weights, inert, schema
from fgvc.config.arguments import shorten
from fgvc.config.compose_cache import compose, compose_whole
from fgvc.config.constraints import check_parts, check_side, check_text, settle
from fgvc.config.errors import ConfigError, nearest
from fgvc.config.list_values import as_list
from fgvc.config.schema import architecture
from fgvc.config.schema.launcher import LAUNCHERS
from fgvc.config.weight_digests import fill_beside, fill_tokenizer, fill_weights

CONFIG_NAME = "config"
LARGEST = 2**63 - 1  # of a whole number: int64
UNHASHED = frozenset({"place", "card", "declared"})  # metadata of fields that enter no hash


def conf_dir() -> Path:
    """The folder of option files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "conf", package / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigError(f"no conf/{CONFIG_NAME}.yaml beside or inside {package}: reinstall fgvc")


def options(group: str) -> list[str]:
    """The option files of a group, sorted."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@functools.cache
def published_repos() -> frozenset[str]:
    """The repositories of the hub that rows of conf/backbone name."""
    repos: set[str] = set()
    for name in options("backbone"):
        family = OmegaConf.load(conf_dir() / "backbone" / f"{name}.yaml")
        rows = OmegaConf.select(family, "checkpoints") or {}
        repos |= {row["repo"] for row in rows.values() if row.get("repo")}
    return frozenset(repos)


@functools.cache
def register_schema() -> None:
    """Make the dataclasses known to Hydra under the name the primary config starts from.

    The launchers' plugins bring options of their own under the names that conf/hydra/launcher has;
    Hydra would lay theirs beneath ours, with a warning that this will end.
    """
    Plugins.instance()  # reads the plugins, which store theirs
    store = ConfigStore.instance()
    store.store(name="schema", node=schema.Config)
    for name in LAUNCHERS:
        store.repo["hydra"]["launcher"].pop(f"{name}.yaml", None)


def composed(overrides: Sequence[str] = (), whole: bool = False) -> DictConfig:
    """The config that these overrides mean, as Hydra composes it (no run is started).

    Args:
        whole: with Hydra's own node.
    """
    register_schema()
    overrides = [as_list(item) for item in overrides]
    if whole:
        return compose_whole(conf_dir(), CONFIG_NAME, overrides)
    return compose(conf_dir(), CONFIG_NAME, overrides)


def typed(cfg: DictConfig) -> schema.Config:
    """The same config as dataclasses, every value checked, weights found and digested.

    Raises:
        ConfigError: an unknown key, a value outside its bounds or choices, a combination that
            cannot be. One line each.
    """
    return check_config(parse_config(cfg))


def parse_config(cfg: DictConfig) -> schema.Config:
    """The config as dataclasses, every key and type checked, before its parts are held together.

    Raises:
        ConfigError: an unknown key, a value of another type, a hashed key that points at a place.
    """
    _refuse_unknown(cfg)
    checkpoint_rows.complete(cfg.backbone)
    try:
        merged = _with_variants(cfg)
        if OmegaConf.get_type(cfg) is not schema.Config:  # read back from a file, say
            merged = OmegaConf.merge(_shape(schema.Config), merged)
        conf = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(one_line(error)) from error
    assert isinstance(conf, schema.Config)
    _refuse_pointers_at_places(cfg)
    return conf


def check_config(conf: schema.Config) -> schema.Config:
    """The same config with its values checked, alone and together, and its weights found.

    Raises:
        ConfigError: a value outside its bounds or choices, a combination that cannot be.
    """
    check_bounds(conf)
    if not is_operation(conf):
        architecture.check_chosen(conf.backbone)
        settle(conf)
        inert.fix(conf)
        check_side(conf)
        check_text(conf)
        check_parts(conf)
        fill_weights(conf.backbone, conf.runtime.weights_root)
        if conf.backbone.weights is not None:
            path, text = Path(conf.backbone.weights), schema.reads_text(conf)
            finetuned_weights.describe(conf.backbone, path, text)
        fill_beside(conf.backbone, conf.preprocess)
        if schema.reads_text(conf):
            fill_tokenizer(conf.backbone)
    return conf


def is_operation(conf: schema.Config) -> bool:
    """Whether its task is no experiment: no config hash, no run folder, no weights, no device."""
    return conf.task.name in schema.OPERATIONS


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """The hashed part of a config as plain data: identities in, places out.

    Raises:
        ValueError: an unknown key, an illegal value, or a hashed key that points at a place.
    """
    return hashed(typed(cfg))


def hashed(conf: schema.Config) -> dict[str, Any]:
    """The hashed part of a config that is typed already, as plain data."""
    return inert.apply(conf, hashed_with_inert(conf))


def hashed_with_inert(conf: schema.Config) -> dict[str, Any]:
    """The hashed part of a config, including the keys that change no number (see inert/)."""
    plain = _hashed(conf)
    plain["backbone"] = _hashed_backbone(conf.backbone, plain["backbone"])
    return plain


def canonical(plain: dict[str, Any]) -> bytes:
    """The bytes that are hashed: canonical JSON (sorted keys, no blanks, no NaN)."""
    return json.dumps(
        plain, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def config_hash(plain: dict[str, Any]) -> str:
    """SHA256 of the canonical JSON of exactly this argument; 64 hex digits."""
    return hashlib.sha256(canonical(plain)).hexdigest()


def legal_keys(cfg: DictConfig) -> list[str]:
    """Every dotted key that the chosen options have."""
    return [key for key, _ in _fields(schema.Config, _variants_of(cfg))]


def owners(key: str) -> list[str]:
    """The options of a node that have a key: task.epochs is of task=train, head.k of head=knn."""
    node = key.partition(".")[0]
    variants = schema.VARIANTS.get(node, {}).items()
    return [
        name for name, cls in variants if any(key == k for k, _ in _fields(cls, {}, f"{node}."))
    ]


# --- which dataclass describes which node ---


def _variants_of(cfg: DictConfig) -> dict[str, type]:
    chosen = {}
    for node, classes in schema.VARIANTS.items():
        name = OmegaConf.select(cfg, f"{node}.name")
        if name not in classes:
            raise ConfigError(f"{node}={name}: not one of {', '.join(classes)}")
        chosen[node] = classes[name]
    return chosen


def _with_variants(cfg: DictConfig) -> DictConfig:
    """A copy whose open nodes (task, head, part_attention) are typed by their name."""
    plain = copy.deepcopy(cfg)
    for node, cls in _variants_of(cfg).items():
        try:
            plain[node] = OmegaConf.merge(_shape(cls), plain[node])
        except OmegaConfBaseException as error:  # knows the key below its node only
            raise ConfigError(f"{node}.{one_line(error)}") from error
    return plain


@functools.cache
def _shape(cls: type) -> DictConfig:
    """The empty config of a dataclass, for merges, which copy it."""
    return OmegaConf.structured(cls)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _node_class(cls: type, name: str) -> type | None:
    """The dataclass of a field, seen through Optional; None for a leaf."""
    hint = _hints(cls)[name]
    for part in (hint, *typing.get_args(hint)):
        if dataclasses.is_dataclass(part) and isinstance(part, type):
            return part
    return None


def _is_table(cls: type, name: str) -> bool:
    """Whether a field is a dict of rows with keys of their own (backbone.checkpoints)."""
    return typing.get_origin(_hints(cls)[name]) is dict


def _fields(
    cls: type, variants: dict[str, type], prefix: str = ""
) -> Iterator[tuple[str, dataclasses.Field]]:
    for item in dataclasses.fields(cls):
        key = f"{prefix}{item.name}"
        node = variants.get(key) or _node_class(cls, item.name)
        yield key, item
        if node is not None and not _is_table(cls, item.name):
            yield from _fields(node, {}, f"{key}.")


# --- checks ---


def _refuse_unknown(cfg: DictConfig) -> None:
    legal = set(legal_keys(cfg))
    plain = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(plain, dict)
    for key in _keys(plain, ""):
        if key in legal or key.startswith(schema.TABLES):
            continue
        raise ConfigError(f"unknown config key {key}{nearest(key, legal)}")


def _keys(plain: dict[Any, Any], prefix: str) -> Iterator[str]:
    """Every dotted key of a config as it is written: an interpolation is a leaf."""
    for name, child in plain.items():
        key = f"{prefix}{name}"
        if isinstance(child, dict) and child:
            yield from _keys(child, f"{key}.")
        else:
            yield key


def check_bounds(node: Any, prefix: str = "") -> None:
    """Hold every value of a dataclass, and of those in it, against its choices and bounds.

    Raises:
        ConfigError: names the key, the value and what is legal.
    """
    for key, value, item in _values(node, prefix):
        choices = item.metadata.get("choices")
        if choices and value not in choices:
            shown = ", ".join("null" if choice is None else choice for choice in choices)
            raise ConfigError(f"{key}={value}: not one of {shown}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{key}={value}: must be a finite number")
        if any(isinstance(number, int) and abs(number) > LARGEST for number in _numbers(value)):
            raise ConfigError(f"{key}={shorten(str(value))}: must be at most {LARGEST}")
        low, high = item.metadata.get("bounds", (None, None))
        if value is None or low is None:
            continue
        if not (low <= value and (high is None or value <= high)):
            upper = "" if high is None else f" and at most {high}"
            raise ConfigError(f"{key}={value}: must be at least {low}{upper}")


def _numbers(value: Any) -> Iterator[Any]:
    """The value, and those in it where it is a list or a table of rows."""
    yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _numbers(item)


def _values(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    for item in dataclasses.fields(node):
        value, key = getattr(node, item.name), f"{prefix}{item.name}"
        yield key, value, item
        if dataclasses.is_dataclass(value):
            yield from _values(value, f"{key}.")


def _refuse_pointers_at_places(cfg: DictConfig) -> None:
    """Drop every place, then resolve: a hashed key that points at one fails loudly."""
    written = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(written, dict)
    for key, item in _fields(schema.Config, _variants_of(cfg)):
        if item.metadata.get("place") or key == "runtime":
            *nodes, name = key.split(".")
            holder = functools.reduce(lambda node, part: node.get(part) or {}, nodes, written)
            holder.pop(name, None)
    if not any(map(_is_open, _leaves(written))):
        return
    try:
        plain = OmegaConf.create(written)
        OmegaConf.to_container(plain, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"a hashed key points at a place: {one_line(error)}") from error


def _leaves(node: Any) -> Iterator[Any]:
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from _leaves(child)
        else:
            yield child


def _is_open(value: Any) -> bool:
    """Whether a value is still to be found: it points elsewhere, or is missing."""
    return isinstance(value, str) and ("${" in value or value == "???")


def one_line(error: OmegaConfBaseException) -> str:
    """What OmegaConf found wrong, with the key it is about."""
    message = str(error.msg or error).splitlines()[0]
    return f"{error.full_key}: {message}" if error.full_key else message


# --- what is hashed ---


def _hashed(node: Any) -> dict[str, Any]:
    plain = {}
    for item in dataclasses.fields(node):
        value = getattr(node, item.name)
        if item.name == "runtime" or UNHASHED & item.metadata.keys():
            continue
        if "legacy" in item.metadata and value == item.metadata["legacy"]:
            continue
        value = value + 0.0 if isinstance(value, float) else value  # -0.0 means 0.0
        plain[item.name] = _hashed(value) if dataclasses.is_dataclass(value) else value
    return plain


def _hashed_backbone(backbone: schema.Backbone, plain: dict[str, Any]) -> dict[str, Any]:
    """Only the chosen row, so that adding a checkpoint to a family renames nothing.

    A local file is named by its digest and a hub one by its revision, never both.
    """
    row = _hashed(schema.chosen_checkpoint(backbone))
    for name in ("checkpoints", "checkpoint", "size", "patch", "registers", "revision"):
        plain.pop(name, None)
    row["revision"] = backbone.revision or row["revision"]
    if backbone.weights is not None or not backbone.pretrained:
        del row["revision"], row["repo"]
    return {**plain, "checkpoint": row}


def declared_keys() -> frozenset[str]:
    """Dotted keys of what the user declares about the data, in any option; the run verifies it."""
    fields = _fields(schema.Config, {})
    return frozenset(key for key, item in fields if item.metadata.get("declared"))


def place_keys() -> frozenset[str]:
    """Dotted keys of every path outside `runtime`, of any option."""
    return frozenset(key for key, item in _fields(schema.Config, {}) if item.metadata.get("place"))
