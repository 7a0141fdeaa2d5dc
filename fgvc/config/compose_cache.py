"""Overrides -> the config that Hydra composes, with files parsed and options merged once.

Hydra repeats both for each config, which takes half a second for a family with many checkpoints.
Hydra sets values after merging the options, so the values of each job are set in a copy of the
merged config.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository, IConfigRepository
from hydra._internal.hydra import Hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from fgvc.config.errors import ConfigError
from fgvc.untrusted.escape import shorten

MOST_VALUES = 10_000  # of a range


def compose(folder: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    """The same as `hydra.compose` with these overrides and a folder of options.

    Raises:
        HydraException, OmegaConfBaseException: as Hydra.
    """
    values = [item for item in map(parse_override, overrides) if _is_value(folder, item)]
    lines = {item.input_line for item in values}
    options = tuple(item for item in overrides if item not in lines)
    cfg = copy.deepcopy(_merged(folder, name, options))
    ConfigLoaderImpl._apply_overrides_to_config(values, cfg)
    return cfg


def compose_whole(folder: Path, name: str, overrides: Sequence[str]) -> DictConfig:
    """The same with Hydra's own node, composed by Hydra without the cache."""
    return _hydra(folder).compose_config(name, list(overrides), RunMode.RUN, from_shell=False)


@functools.lru_cache(maxsize=4096)
def parse_override(override: str) -> Override:
    """A parsed override, cached.

    Raises:
        HydraException: not an override.
        ConfigError: nested too deep, or an endless range.
    """
    try:
        parsed = OverridesParser.create().parse_override(override)
    except RecursionError:
        raise ConfigError(
            f"{shorten(override)}: brackets nested too deep; write the value flat"
        ) from None
    except (ValueError, OverflowError) as error:  # int() of 5,000 digits, range() of step 0
        reason = str(error).partition(" for integer string")[0]  # cut off advice for programmers
        raise ConfigError(f"{override[:80]}: {reason}") from None
    value = parsed.value()
    if isinstance(value, RangeSweep):
        _check_range(override, value)
    return parsed


def _check_range(override: str, values: RangeSweep) -> None:
    """Refuse an endless range, and a range with more values than any sweep can run."""
    start, stop, step = values.start, values.stop, values.step
    if (
        start is None
        or stop is None
        or not all(map(math.isfinite, (start, stop, step)))
        or not step
    ):
        raise ConfigError(f"{override}: a range has a start, a stop and a step that is not 0")
    if abs(stop - start) / abs(step) > MOST_VALUES:
        raise ConfigError(f"{override}: more than {MOST_VALUES} values; choose a larger step")


def _is_value(folder: Path, override: Override) -> bool:
    """Whether an override sets a key, instead of choosing an option or configuring Hydra."""
    key = override.key_or_group
    if key.startswith("hydra") or override.package is not None or override.is_delete():
        return False
    return "." in key or not (folder / key).is_dir()


@functools.lru_cache(maxsize=64)
def _merged(folder: Path, name: str, options: tuple[str, ...]) -> DictConfig:
    hydra = _hydra(folder)
    cfg = hydra.compose_config(name, list(options), RunMode.RUN, from_shell=False)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg


class CachedRepository(IConfigRepository):
    """Hydra's repository of files and schemas; each file is parsed once and copied on use."""

    def __init__(self, delegate: IConfigRepository, cache: dict[str, ConfigResult | None]) -> None:
        self.delegate, self.cache = delegate, cache

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedRepository:
        """Hydra copies its repository for each config; the copies share the cache."""
        return CachedRepository(copy.deepcopy(self.delegate, memo), self.cache)

    def load_config(self, config_path: str) -> ConfigResult | None:
        if config_path not in self.cache:
            self.cache[config_path] = self.delegate.load_config(config_path)
        return copy.deepcopy(self.cache[config_path])

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        self.cache = {}
        self.delegate.initialize_sources(config_search_path)

    def get_schema_source(self) -> ConfigSource:
        return self.delegate.get_schema_source()

    def group_exists(self, config_path: str) -> bool:
        return self.delegate.group_exists(config_path)

    def config_exists(self, config_path: str) -> bool:
        return self.delegate.config_exists(config_path)

    def get_group_options(
        self, group_name: str, results_filter: ObjectType | None = ObjectType.CONFIG
    ) -> list[str]:
        return self.delegate.get_group_options(group_name, results_filter)

    def get_sources(self) -> list[ConfigSource]:
        return self.delegate.get_sources()


@functools.cache
def _hydra(folder: Path) -> Hydra:
    """Hydra over one folder of options. Hydra's global state is left empty."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    loader = hydra.config_loader
    assert isinstance(loader, ConfigLoaderImpl)
    assert isinstance(loader.repository, ConfigRepository)
    loader.repository = CachedRepository(loader.repository, {})  # type: ignore[assignment]
    return hydra
