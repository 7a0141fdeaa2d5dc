"""`experiment=PATH.yaml` (an overlay) -> the equivalent overrides, and back.

The file has the form of an option in conf/experiment: `# @package _global_`, a list of defaults
that override axes, and values. Typed overrides take precedence.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.checkpoint_rows import TABLE
from fgvc.config.errors import ConfigError
from fgvc.config.option_files import AXES, option_file
from fgvc.config.override_grammar import key_of, parse_override, value_of
from fgvc.config.overrides import normalized
from fgvc.untrusted.shell import escaped

RESOLVER = re.compile(r"\$\{[^{}]*:")  # the call of a resolver, such as ${oc.env:HOME}
EXPERIMENT = "experiment="
OVERRIDE = "override /"
_UNQUOTED = re.compile(r'="(?!(?:true|false|null|inf|nan)")([a-z_]+)"$')  # quotes that say nothing


def expand_experiment(arguments: Sequence[str]) -> list[str]:
    """The arguments in normal form, with `experiment=PATH.yaml` replaced by its overrides.

    Raises:
        ConfigError: the file is missing, or no overlay.
    """
    arguments = [normalized(argument) for argument in arguments]
    typed = {key_of(argument) for argument in arguments if "=" in argument}
    expanded: list[str] = []
    rows: list[str] = []  # of the table of checkpoints; first, so that typed rows override them
    for argument in arguments:
        path = _file(argument)
        if path is None:
            expanded.append(argument)
            continue
        read = map(normalized, _read_overrides(Path(path).expanduser()))
        overrides = [item for item in read if key_of(item) not in typed - {"experiment"}]
        rows += [item for item in overrides if key_of(item).startswith(TABLE)]
        expanded += [item for item in overrides if not key_of(item).startswith(TABLE)]
    return [*rows, *expanded]


def name_file(message: str, arguments: Sequence[str]) -> str:
    """A message about a key, with the overlay of the command that sets this key in front."""
    typed = {key_of(normalized(argument)) for argument in arguments if "=" in argument}
    for path in filter(None, map(_file, map(normalized, arguments))):
        for item in map(normalized, _read_overrides(Path(path).expanduser())):
            key = key_of(item)
            if key not in typed and re.match(rf"(unknown config key )?{re.escape(key)}\b", message):
                return f"{EXPERIMENT}{path}: {message}"
    return message


def _file(argument: str) -> str | None:
    """The path in an argument `experiment=PATH.yaml`; None for any other argument."""
    if not argument.startswith(EXPERIMENT):
        return None
    value = argument.removeprefix(EXPERIMENT)
    if value.startswith(('"', "'")):
        with contextlib.suppress(HydraException):
            override = parse_override(argument)
            if not override.is_sweep_override():
                value = str(OmegaConf.create([override.value()])[0])
    elif "," in value:
        return None
    return value if value.endswith((".yaml", ".yml")) else None


def single_run(overrides: Sequence[str]) -> list[str]:
    """The overrides of a job of a sweep as those of a command of its own.

    `sweep=NAME` becomes the values of its file, because typed again it would be a sweep.

    Raises:
        ConfigError: the file of the sweep has values that no override can hold.
    """
    typed = {key_of(item) for item in overrides}
    names = [value_of(item) for item in overrides if key_of(item) == "sweep"]
    of_file: list[str] = []
    for name in names:
        if (path := option_file("sweep", name, overrides)) is not None:
            of_file = [item for item in _read_overrides(path, True) if key_of(item) not in typed]
    plain = (_UNQUOTED.sub(r"=\1", item) for item in of_file)
    return [*plain, *(item for item in overrides if key_of(item) != "sweep")]


def axes_and_values(
    cfg: DictConfig, overrides: Sequence[str]
) -> tuple[dict[str, str], dict[str, Any]]:
    """The contents of an overlay: the option of each axis, and values; without Hydra's keys."""
    axes, values = {}, {}
    for override in map(parse_override, overrides):
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
    """The text of an overlay.

    Args:
        axes: the option of each axis, and of `experiment` if the overlay extends one.
        values: dotted key -> plain value.
        comments: lines at the top.
    """
    base = [axes["experiment"]] if "experiment" in axes else []
    chosen = [axis for axis in AXES if axis in axes and axis != "experiment"]
    overrides = [{f"{OVERRIDE}{axis}": axes[axis]} for axis in chosen]
    nested = OmegaConf.create({})
    for key, value in values.items():
        OmegaConf.update(nested, key, escaped(value))
    head = "".join(f"# {line}\n" for line in ("@package _global_", *comments))
    defaults = OmegaConf.to_yaml(OmegaConf.create({"defaults": [*base, "_self_", *overrides]}))
    return f"{head}{defaults}\n{OmegaConf.to_yaml(nested)}"


def _read_overrides(path: Path, is_sweep: bool = False) -> list[str]:
    """The overrides of an overlay, or of the file of a sweep without its jobs and sweeper."""
    try:
        file = OmegaConf.load(io.StringIO(untrusted.read_yaml(path)))
    except FileNotFoundError as error:
        raise ConfigError(f"{EXPERIMENT}{path}: no such file") from error
    except (OSError, ValueError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{EXPERIMENT}{path}: {' '.join(str(error).split())}") from error
    plain = OmegaConf.to_container(file, resolve=False)
    if not isinstance(plain, dict) or not isinstance(plain.get("defaults", []), list):
        raise ConfigError(f"{EXPERIMENT}{path}: not an overlay (a list of defaults, then values)")
    entries = [entry for entry in plain.pop("defaults", []) if entry != "_self_"]
    if is_sweep:
        plain.pop("hydra", None)
        entries = [entry for entry in entries if f"{OVERRIDE}hydra" not in str(entry)]
    axes = [_parse_default(entry, path) for entry in entries]
    if "hydra" in plain:
        raise ConfigError(
            f"{EXPERIMENT}{path}: give hydra.* on the command line, not in an overlay"
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
        f"{EXPERIMENT}{path}: {entry} in its defaults: must be an experiment or "
        "'override /AXIS: OPTION'"
    )


def _value_overrides(plain: Mapping[Any, Any], prefix: str, path: Path) -> Iterator[str]:
    for name, value in plain.items():
        if isinstance(value, str) and RESOLVER.search(value):
            raise ConfigError(
                f"{EXPERIMENT}{path}: {prefix}{name}={value}: a file may not read the environment; "
                f"give {prefix}{name}= on the command line"
            )
        if isinstance(value, dict) and value:
            yield from _value_overrides(value, f"{prefix}{name}.", path)
        else:
            yield f"{prefix}{name}={Override._get_value_element_as_str(_quote_strings(value))}"


def _quote_strings(value: Any) -> Any:
    """A value with its strings quoted, so that Hydra's grammar reads them literally."""
    if isinstance(value, str):
        return QuotedString(text=value, quote=Quote.double)
    if isinstance(value, list):
        return [_quote_strings(item) for item in value]
    if isinstance(value, dict):
        return {key: _quote_strings(item) for key, item in value.items()}
    return value
