"""Command-line arguments -> the jobs they mean, every key and option checked, nothing written.

Hydra itself accepts `+optim.lrr=1`, ends with 1 where a wrong command should end with 2, and names
no neighbour of a typo; so the arguments are read here first, with Hydra's own parser.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fgvc.config.compose import (
    composed,
    conf_dir,
    config_hash,
    is_operation,
    legal_keys,
    one_line,
    place_keys,
    resolved,
    typed,
)
from fgvc.config.errors import ConfigError, ImpossibleError, nearest
from fgvc.config.fit import check_inputs
from fgvc.config.schema import TABLES, Config

HYDRA = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")
RUN_ID_KEY = "runtime.run_id="
OVERLAYS = ("experiment", "sweep", "recipe")  # optional, and laid over the axes
AXES = ("task", "dataset", "backbone", "head", "resolution", "part_attention", *OVERLAYS)


@dataclass(frozen=True)
class Job:
    """One run that the command asks for: its overrides, and what they compose to."""

    overrides: tuple[str, ...]
    cfg: DictConfig
    conf: Config


@dataclass(frozen=True)
class LeftOut:
    """A combination of a named sweep that cannot be: its overrides, and why in one line."""

    overrides: tuple[str, ...]
    why: str


def choices_of(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides of one job that are choices: not its run_id, and nothing of Hydra's."""
    return tuple(item for item in overrides if not item.startswith((RUN_ID_KEY, "hydra")))


def jobs_of(arguments: Sequence[str], multirun: bool) -> list[Job]:
    """Every job of the command, composed and checked.

    Raises:
        ConfigError: the first thing that is wrong, in one line, with the nearest legal name.
    """
    return plan_of(arguments, multirun, named=False)[0]


def plan_of(
    arguments: Sequence[str], multirun: bool, named: bool
) -> tuple[list[Job], list[LeftOut]]:
    """The jobs of the command, and what a named sweep leaves out as it cannot be.

    Args:
        named: whether the arguments come from a named sweep: of a cross of many choices a few may
            not fit together, while a command of one's own means every job it asks for.

    Raises:
        ConfigError: the first thing that is wrong, in one line, with the nearest legal name.
    """
    parsed = [_parse(argument) for argument in arguments]
    for override in parsed:
        _check_option(override)
        if override.is_sweep_override() and not multirun:
            raise ConfigError(f"{override.input_line}: several values need -m (one job each)")
    split = BasicSweeper.split_arguments(parsed, None)[0] if multirun else [list(arguments)]
    jobs, left_out = [], []
    for overrides in split:
        try:
            jobs.append(_job(tuple(overrides)))
        except ImpossibleError as error:
            if not named:
                raise
            left_out.append(LeftOut(tuple(overrides), str(error)))
    if not jobs:
        raise ConfigError(f"no job of this sweep can be: {left_out[0].why}")
    _refuse_twins(jobs)
    return jobs, left_out


def _refuse_twins(jobs: Sequence[Job]) -> None:
    """Two jobs of one sweep that ask the same question would meet in one folder."""
    seen: dict[str, Job] = {}
    for job in jobs if len(jobs) > 1 else ():
        if is_operation(job.conf) or job.conf.task.name == "eval":
            continue
        twin = seen.setdefault(config_hash(resolved(job.cfg)), job)
        if twin is not job:
            raise ConfigError(
                f"{' '.join(twin.overrides)} and {' '.join(job.overrides)} are one config: places "
                "are not hashed; give each a name (dataset.name=…), or run them apart"
            )


def options(group: str) -> list[str]:
    """The option files of a group, sorted."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def _parse(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        key, sign, value = argument.partition("=")
        if not sign:
            raise ConfigError(f"{argument}: expected key=value{nearest(key, AXES)}") from error
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        raise ConfigError(
            f"{argument}: the value needs quotes for special characters: '{key}=\"{escaped}\"'"
        ) from error


def _check_option(override: Override) -> None:
    group = override.key_or_group
    if group not in AXES:
        return
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: every axis has a value; write {group}=…")
    if override.value_type == ValueType.GLOB_CHOICE_SWEEP:
        raise ConfigError(f"{override.input_line}: list the options, as in {group}=a,b")
    legal = options(group)
    for name in _values(override):
        if name not in legal and not (group in OVERLAYS and name == "None"):
            close = nearest(name, legal)
            raise ConfigError(f"{group}={name}: no such option{close} ({', '.join(legal)})")


def _values(override: Override) -> Iterable[str]:
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_iterator()]
    return [str(override.value())]


def _job(overrides: tuple[str, ...]) -> Job:
    parsed = [_parse(argument) for argument in overrides]
    groups = tuple(normalized(o.input_line or "") for o in parsed if o.key_or_group in AXES)
    legal = _legal(groups)
    for override in parsed:
        _check_key(override, legal)
    try:
        cfg = composed([normalized(o.input_line or "") for o in parsed])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_root_cause(error)) from error
    if cfg.task.name in ("eval", "predict"):
        _refuse_answers_of_the_checkpoint(cfg.task.name, parsed)
    conf = typed(cfg)
    check_inputs(conf)
    return Job(overrides, cfg, conf)


@functools.lru_cache(maxsize=64)
def _legal(groups: tuple[str, ...]) -> frozenset[str]:
    try:
        return frozenset(legal_keys(composed(groups)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_root_cause(error)) from error


def _root_cause(error: BaseException) -> str:
    """Hydra wraps what went wrong in exceptions that say less, some of them nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OmegaConfBaseException):
        return one_line(error)
    return " ".join(str(error).split()) or type(error).__name__


def _check_key(override: Override, legal: frozenset[str]) -> None:
    key = override.key_or_group
    if key in AXES or key.startswith(HYDRA):
        return
    if key not in legal and not key.startswith(TABLES):
        raise ConfigError(f"unknown config key {key}{nearest(key, legal)}")
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: a key cannot be deleted, only set")


def normalized(argument: str) -> str:
    """An argument as it is checked and handed on.

    `+key=` and `++key=` of a legal key mean `key=`, as nothing can be added to a closed schema; and
    `key=~/x` means what it means to a shell, which leaves it alone in the middle of a word.
    """
    bare = argument.lstrip("+")
    if bare.startswith("hydra"):
        return argument
    key, sign, value = bare.partition("=")
    return f"{key}={Path(value).expanduser()}" if sign and value.startswith("~/") else bare


def _refuse_answers_of_the_checkpoint(task: str, parsed: Sequence[Override]) -> None:
    allowed = place_keys()
    for override in parsed:
        key = override.key_or_group
        if key in allowed or key.split(".")[0] in ("task", "runtime", "hydra"):
            continue
        raise ConfigError(
            f"{override.input_line}: task={task} takes its config from the checkpoint; "
            f"only runtime.* and {', '.join(sorted(allowed))} may be given"
        )


def given_places(overrides: Sequence[str]) -> dict[str, str]:
    """The places that the command itself names: {dotted key: value}."""
    parsed = [_parse(argument) for argument in overrides]
    return {o.key_or_group: str(o.value()) for o in parsed if o.key_or_group in place_keys()}
