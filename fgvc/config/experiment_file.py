"""`experiment=PATH.yaml` -> the overrides it stands for, as if they had been typed; and back.

The file is one that would also do as an option in conf/experiment: `# @package _global_`, a list of
defaults that override axes, and values. What is typed beside it wins.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.checkpoint_rows import TABLE, merge_tables
from fgvc.config.compose_cache import parse_override
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import AXES, normalized
from fgvc.untrusted.shell import escaped

EXPERIMENT = "experiment="
OVERRIDE = "override /"


def expand_experiment(arguments: Sequence[str]) -> list[str]:
    """The arguments with the overrides of a file in the place of `experiment=PATH.yaml`.

    Raises:
        ConfigError: there is no such file, or it is no overlay.
    """
    typed = {argument.partition("=")[0] for argument in arguments if "=" in argument}
    found: list[str] = []
    table: list[str] = []  # first: what is typed is merged into these rows, and wins
    for argument in arguments:
        path = _file(argument)
        if path is None:
            found.append(argument)
            continue
        own = _read_overrides(Path(path).expanduser())
        own = [item for item in own if item.partition("=")[0] not in typed - {"experiment"}]
        table += [item for item in own if item.startswith(TABLE)]
        found += [item for item in own if not item.startswith(TABLE)]
    return merge_tables([normalized(argument) for argument in (*table, *found)])


def _file(argument: str) -> str | None:
    """The file that an argument `experiment=PATH.yaml` names; None for any other argument."""
    if not argument.startswith(EXPERIMENT):
        return None
    value = argument.removeprefix(EXPERIMENT)
    if value.startswith(('"', "'")):
        with contextlib.suppress(HydraException):
            read = parse_override(argument)
            value = value if read.is_sweep_override() else str(OmegaConf.create([read.value()])[0])
    elif "," in value:
        return None
    return value if value.endswith((".yaml", ".yml")) else None


def axes_and_values(
    cfg: DictConfig, overrides: Sequence[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """Overrides as what an overlay holds: the option of each axis, and values; nothing of Hydra."""
    axes, values = {}, {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        key = override.key_or_group
        if key in AXES:
            axes[key] = str(override.value())
        elif not key.startswith("hydra"):
            value = OmegaConf.select(cfg, key)
            values[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return axes, values


def experiment_text(
    axes: Mapping[str, str], values: Mapping[str, Any], comments: Sequence[str]
) -> str:
    """The text of such a file.

    Args:
        axes: the option of each axis; of `experiment` too, if it began with one.
        values: dotted key -> plain value.
        says: comment lines.
    """
    base = [axes["experiment"]] if "experiment" in axes else []
    overrides = [{f"{OVERRIDE}{axis}": axes[axis]} for axis in AXES if axis in axes]
    overrides = [one for one in overrides if f"{OVERRIDE}experiment" not in one]
    nested = OmegaConf.create({})
    for key, value in values.items():
        OmegaConf.update(nested, key, escaped(value))
    head = "".join(f"# {line}\n" for line in ("@package _global_", *comments))
    defaults = OmegaConf.to_yaml(OmegaConf.create({"defaults": [*base, "_self_", *overrides]}))
    return f"{head}{defaults}\n{OmegaConf.to_yaml(nested)}"


def _read_overrides(path: Path) -> list[str]:
    try:
        file = OmegaConf.load(io.StringIO(untrusted.read_yaml(path)))
    except FileNotFoundError as error:
        raise ConfigError(f"{EXPERIMENT}{path}: no such file") from error
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{EXPERIMENT}{path}: {' '.join(str(error).split())}") from error
    plain = OmegaConf.to_container(file, resolve=False)
    if not isinstance(plain, dict) or not isinstance(plain.get("defaults", []), list):
        raise ConfigError(f"{EXPERIMENT}{path}: not an overlay (a list of defaults, then values)")
    axes = [_parse_default(entry, path) for entry in plain.pop("defaults", []) if entry != "_self_"]
    if "hydra" in plain:
        raise ConfigError(
            f"{EXPERIMENT}{path}: hydra.* is given on the command line, not by an overlay"
        )
    return [*axes, *_value_overrides(plain, "", path)]


def _parse_default(entry: object, path: Path) -> str:
    if isinstance(entry, str):
        return f"{EXPERIMENT}{entry}"
    if isinstance(entry, dict) and len(entry) == 1:
        ((key, option),) = entry.items()
        if str(key).startswith(OVERRIDE):
            return f"{str(key).removeprefix(OVERRIDE)}={option}"
    raise ConfigError(
        f"{EXPERIMENT}{path}: {entry} in its defaults: an experiment, or 'override /AXIS: OPTION'"
    )


def _value_overrides(plain: Mapping[Any, Any], prefix: str, path: Path) -> Iterator[str]:
    for name, value in plain.items():
        if isinstance(value, str) and untrusted.calls_resolver(value):
            raise ConfigError(
                f"{EXPERIMENT}{path}: {prefix}{name}={value}: a file reads nothing of this machine; "
                f"give {prefix}{name}= on the command line"
            )
        if isinstance(value, dict) and value:
            yield from _value_overrides(value, f"{prefix}{name}.", path)
        else:
            yield f"{prefix}{name}={Override._get_value_element_as_str(_quoted(value))}"


def _quoted(value: Any) -> Any:
    """Strings in quotes, as on the command line they may hold what Hydra reads as its own."""
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.double)
    if isinstance(value, list):
        return [_quoted(one) for one in value]
    return value
