"""Command-line arguments -> the jobs they mean, with every key and option checked; nothing written.

Hydra itself accepts `+optim.lrr=1`, exits with 1 instead of 2 on a wrong command, and does not
suggest the nearest key. So the arguments are checked here first, with Hydra's own parser.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc.config import checkpoint_rows
from fgvc.config.compose import composed, is_operation, one_line
from fgvc.config.config_hash import config_hash, hashed
from fgvc.config.constraints import check_inputs, position_resizes
from fgvc.config.duplicate_jobs import check_duplicates
from fgvc.config.errors import ConfigError, InvalidCombinationError, nearest
from fgvc.config.launcher import check_launcher
from fgvc.config.list_values import UNLISTED, as_list, check_sweep, or_a_list
from fgvc.config.node_cache import NodeCache
from fgvc.config.option_files import AXES, OVERLAYS, options
from fgvc.config.option_files import KEY as SEARCH_PATH
from fgvc.config.override_grammar import key_of, value_of
from fgvc.config.parse_errors import parse_argument, parse_error
from fgvc.config.schema import TABLES, Config, chosen_checkpoint
from fgvc.config.schema_keys import declared_keys, keys_of_config, place_keys
from fgvc.config.sweep_expansion import (
    Combination,
    Exclusion,
    cross,
    drop_unknown_keys,
    duplicate_reason,
    feature_config,
    keep_stated_sizes,
)
from fgvc.config.synonyms import NAMES, CommandContext, for_option, unknown_key

HYDRA = (SEARCH_PATH, "hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")
QUOTED = re.compile(r"""(["'])([\w-]+)\1""")
RUN_ID_KEY = "runtime.run_id="
MAX_PIXELS = "dataset.max_pixels"
SAME_KEYS = ("dataset", "backbone", "resolution")  # all options have the same keys


@dataclass(frozen=True)
class JobConfig:
    """One run of a command: its overrides and the config that they compose to.

    plain: the hashed part; empty for an operation.
    """

    overrides: tuple[str, ...]
    conf: Config
    plain: dict[str, Any]

    def compose(self) -> DictConfig:
        return composed(self.overrides)

    @property
    def is_experiment(self) -> bool:
        """Whether the config alone defines the run; task=eval takes it from a checkpoint."""
        return not is_operation(self.conf) and self.conf.task.name != "eval"


def of_run(overrides: Sequence[str], run_id: str) -> list[str]:
    """The choices of a job, with the run_id of its command."""
    return [*choices(overrides), f'{RUN_ID_KEY}"{run_id}"']


def choices(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides of one job, without its run_id and without Hydra's own keys."""
    excluded = (RUN_ID_KEY, "hydra", "+hydra")
    return tuple(item for item in overrides if not item.startswith(excluded))


def jobs_of(arguments: Sequence[str], multirun: bool) -> list[JobConfig]:
    """The jobs of a command, composed and checked.

    Raises:
        ConfigError: the first error, in one line, with the nearest legal name.
    """
    return expand_jobs(arguments, multirun, named=False)[0]


def expand_jobs(
    arguments: Sequence[str], multirun: bool, named: bool, will_run: bool = True
) -> tuple[list[JobConfig], list[Exclusion]]:
    """The jobs of a command, and the combinations that a named sweep leaves out.

    Args:
        will_run: whether the jobs will run; a config that is only printed may lack inputs.
        named: whether the arguments come from a named sweep. A named sweep leaves out invalid
            combinations; any other command must be valid as a whole.

    Raises:
        ConfigError: the first error, in one line, with the nearest legal name.
    """
    arguments = [normalized(argument) for argument in arguments]
    overrides = [parse_argument(argument) for argument in arguments]
    for override in overrides:
        check_option(override, arguments)
    for override in sorted(overrides, key=lambda override: override.key_or_group not in AXES):
        if override.is_sweep_override() and not multirun:
            if override.key_or_group not in AXES:
                _check_key(override, parse_command(overrides))
            raise ConfigError(
                f"{override.input_line}: several values need -m {or_a_list(override)}"
            )
    if multirun and not named:
        check_sweep(overrides)
    check_launcher(overrides, multirun)
    combinations = cross(overrides) if multirun else [tuple(arguments)]
    nodes, exclusions = NodeCache(), []
    if named:
        jobs, exclusions = _named_sweep_jobs(combinations, nodes)
    else:
        is_alone = len(combinations) == 1
        jobs = [_make_job(item, nodes, is_alone, will_run) for item in combinations]
    if not jobs:
        raise ConfigError(f"no job of this sweep is valid: {exclusions[0].reason}")
    jobs, duplicates = _drop_duplicates(jobs)
    experiments = [job for job in jobs if job.is_experiment]
    _refuse_shared_files(experiments)
    if len(experiments) == len(jobs):  # jobs that share features run one after another
        ranks: dict[str, int] = {}
        jobs.sort(key=lambda job: ranks.setdefault(feature_config(job.plain), len(ranks)))
    return jobs, [*exclusions, *duplicates]


def _named_sweep_jobs(
    combinations: Sequence[Combination], nodes: NodeCache
) -> tuple[list[JobConfig], list[Exclusion]]:
    """The jobs of a named sweep: each override where its key exists, each config once."""
    jobs: dict[str, JobConfig] = {}  # by config hash
    first: dict[Combination, Combination] = {}  # by the overrides whose keys exist
    impossible: dict[Combination, str] = {}
    combinations, exclusions = keep_stated_sizes(combinations)
    reduced = drop_unknown_keys(combinations, _has_key)
    for combination, overrides in zip(combinations, reduced, strict=True):
        if first.setdefault(overrides, combination) is not combination:
            duplicate = duplicate_reason(combination, first[overrides])
            exclusions.append(Exclusion(combination, impossible.get(overrides, duplicate)))
            continue
        try:
            job = _make_job(overrides, nodes)
        except InvalidCombinationError as error:
            impossible[overrides] = str(error)
            exclusions.append(Exclusion(combination, str(error)))
            continue
        key = config_hash(job.plain) if job.is_experiment else repr(overrides)
        other = jobs.setdefault(key, job)
        if other is not job:
            reason = duplicate_reason(overrides, other.overrides)
            exclusions.append(Exclusion(combination, reason))
    return [*jobs.values()], exclusions


def _has_key(combination: Combination, key: str) -> bool:
    """Whether the options of a combination have a key; a recipe is part of training."""
    if key != "recipe" and (key in AXES or key.startswith((*HYDRA, *TABLES))):
        return True
    groups = [item for item in combination if key_of(item) != "recipe"]
    legal, task = _legal_keys(groups)
    return task == "train" if key == "recipe" else key in legal


def _drop_duplicates(jobs: Sequence[JobConfig]) -> tuple[list[JobConfig], list[Exclusion]]:
    """Keep one job per config hash; duplicates may differ only in keys that change no number.

    Raises:
        ConfigError: two jobs of one hash differ in other keys, so both would write into the same
            folder.
    """
    first: dict[str, JobConfig] = {}
    unique, exclusions = [], []
    for job in jobs:
        other = first.setdefault(config_hash(job.plain), job) if job.is_experiment else job
        if other is job:
            unique.append(job)
        else:
            check_duplicates(other, job)
            reason = duplicate_reason(job.overrides, other.overrides)
            exclusions.append(Exclusion(job.overrides, reason))
    return unique, exclusions


def _refuse_shared_files(jobs: Sequence[JobConfig]) -> None:
    """Refuse one weights file for several models, and one dataset root for several datasets."""
    shared: tuple[tuple[str, str, Callable[[Config], str]], ...] = (
        ("backbone.weights", "weights_root", lambda conf: chosen_checkpoint(conf.backbone).model),
        ("dataset.root", "data_root", lambda conf: conf.dataset.name),
    )
    for key, root, name_of in shared:
        users: dict[str, set[str]] = {}
        for job in jobs:
            for override in job.overrides:
                if key_of(override) == key:
                    users.setdefault(override, set()).add(name_of(job.conf))
        for override, names in users.items():
            if len(names) > 1:
                raise ConfigError(
                    f"{override} is given for {' and '.join(sorted(names))}: leave it out, and put "
                    f"each under runtime.{root}"
                )


def check_option(override: Override, arguments: Sequence[str]) -> None:
    """Refuse an option that its axis does not have.

    Raises:
        ConfigError: names the nearest option, and all of them.
    """
    group = override.key_or_group
    if group not in AXES:
        return
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: every axis has a value; write {group}=…")
    if override.value_type in UNLISTED:
        raise ConfigError(f"{override.input_line}: list the options, as in {group}=a,b")
    legal = options(group, arguments)
    if override.is_sweep_override():
        values = list(override.sweep_iterator())
        names = [value.text if isinstance(value, QuotedString) else str(value) for value in values]
    elif isinstance(override.value(), list | dict):
        raise parse_error(str(override.input_line))
    else:
        names = [str(override.value())]
    for name in names:
        if name == "None" and group in OVERLAYS:
            raise ConfigError(f"{group}=null: is the default; leave {group}= out")
        if name not in legal:
            if (advice := for_option(group, name)) is not None:
                raise ConfigError(f"{group}={name}: no such option; {advice}")
            close = nearest(name, legal)
            raise ConfigError(f"{group}={name}: no such option{close} ({', '.join(legal)})")


def _make_job(
    arguments: tuple[str, ...], nodes: NodeCache, is_alone: bool = False, will_run: bool = True
) -> JobConfig:
    overrides = [parse_argument(argument) for argument in arguments]
    command = parse_command(overrides, is_alone)
    for override in overrides:
        _check_key(override, command)
    if command.task in ("eval", "predict"):
        _refuse_checkpoint_keys(command.task, overrides)
    try:
        conf = nodes.conf(arguments)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_root_cause(error)) from error
    check_inputs(conf, will_run)
    if is_operation(conf):
        return JobConfig(arguments, conf, {})
    supported = position_resizes(conf)
    for override in overrides:
        key = override.key_or_group
        if key == "backbone.position_resize" and override.value() not in supported:
            raise InvalidCombinationError(
                f"{key}={override.value()}: {chosen_checkpoint(conf.backbone).model} supports "
                f"{', '.join(supported)}. Leave {key} out."
            )
    return JobConfig(arguments, conf, hashed(conf))


def parse_command(overrides: Sequence[Override], is_alone: bool = False) -> CommandContext:
    """The legal keys of a command, its task, and the values that it sets.

    Args:
        is_alone: whether no other job shares the composition of the keys.
    """
    legal, task = _legal_keys([item.input_line or "" for item in overrides], is_alone)
    values = {item.key_or_group: value_of(str(item.input_line)) or "VALUE" for item in overrides}
    return CommandContext(legal, task, values)


def _legal_keys(overrides: Sequence[str], is_alone: bool = False) -> tuple[frozenset[str], str]:
    """The keys of the options in these overrides, and the task that they choose.

    Composing takes a tenth of a second. The jobs of a sweep share the compositions for their keys,
    and a job that is alone shares this composition with its config.
    """
    choices = [item for item in overrides if key_of(item) in (SEARCH_PATH, *AXES)]
    varying = {item for item in choices if key_of(item) not in SAME_KEYS}
    return _cached_legal_keys(tuple(choices if is_alone else sorted(varying)))


@functools.lru_cache(maxsize=256)
def _cached_legal_keys(options: tuple[str, ...]) -> tuple[frozenset[str], str]:
    try:
        cfg = composed(options)
        return frozenset(item.key for item in keys_of_config(cfg)), str(cfg.task.name)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_root_cause(error)) from error


def _root_cause(error: BaseException) -> str:
    """The message of the innermost exception, because Hydra's wrappers are less specific."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OmegaConfBaseException):
        return one_line(error)
    return " ".join(str(error).split()) or type(error).__name__


def _check_key(override: Override, command: CommandContext) -> None:
    key = override.key_or_group
    if key in AXES or key.startswith(HYDRA):
        return
    if key in NAMES or (key not in command.legal and not key.startswith(TABLES)):
        raise ConfigError(unknown_key(key, command.values[key], command))
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: a key cannot be deleted, only set")
    if not override.is_sweep_override() and override.value() == "":
        raise ConfigError(f"{key}=: empty; give a value, or leave {key} out")


def normalized(argument: str) -> str:
    """An argument in the form that is checked and given to Hydra.

    `+key=` and `++key=` become `key=`, because no key can be added to a closed schema. `~/` at the
    beginning of a value becomes the home folder: shells do not expand it inside a word. A text
    where a list is expected becomes a list (list_values.py), and a row of checkpoints gets `++`.
    """
    bare = argument.lstrip("+")
    if bare.startswith("hydra"):
        return as_list(argument)
    if bare.startswith(checkpoint_rows.TABLE):
        return checkpoint_rows.as_row_override(bare)
    key, sign, value = bare.partition("=")
    if key in AXES and (name := QUOTED.fullmatch(value)) is not None:
        return f"{key}={name[2]}"
    if sign and value.startswith("~/"):
        bare = f"{key}={Path(value).expanduser()}"
    return as_list(bare)


def _refuse_checkpoint_keys(task: str, overrides: Sequence[Override]) -> None:
    allowed = place_keys() | declared_keys()
    if task != "eval":  # the record of task=eval has the config hash of the checkpoint
        allowed |= {MAX_PIXELS}
    for override in overrides:
        key = override.key_or_group
        if key in allowed or key.split(".")[0] in ("task", "runtime", "hydra"):
            continue
        raise ConfigError(
            f"{override.input_line}: task={task} takes its config from the checkpoint; "
            f"only runtime.* and {', '.join(sorted(allowed))} may be given"
        )


def declared_values(arguments: Sequence[str]) -> dict[str, str]:
    """The paths and declarations in a command: {dotted key: value}."""
    keys = place_keys() | declared_keys()
    overrides = [parse_argument(argument) for argument in arguments]
    values = {item.key_or_group: item.value() for item in overrides if item.key_or_group in keys}
    return {key: str(OmegaConf.create([value])[0]) for key, value in values.items()}
