"""Command-line arguments -> the jobs they mean, every key and option checked, nothing written.

Hydra itself accepts `+optim.lrr=1`, ends with 1 where a wrong command should end with 2, and names
no neighbour of a typo; so the arguments are read here first, with Hydra's own parser.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc.config import checkpoint_rows
from fgvc.config.compose import (
    composed,
    config_hash,
    declared_keys,
    hashed,
    is_operation,
    legal_keys,
    one_line,
    options,
    place_keys,
)
from fgvc.config.compose_cache import parsed
from fgvc.config.constraints import check_inputs, position_resizes
from fgvc.config.duplicate_jobs import check_twins
from fgvc.config.errors import ConfigError, ImpossibleError, nearest
from fgvc.config.launcher import check_launcher
from fgvc.config.list_values import UNLISTED, as_list, check_sweep, or_a_list
from fgvc.config.node_cache import Nodes
from fgvc.config.parse_errors import unreadable
from fgvc.config.schema import TABLES, Config, chosen_checkpoint
from fgvc.config.sweep_exclusions import Exclusion, keep_stated_sizes
from fgvc.config.sweep_expansion import (
    Combination,
    drop_unknown_keys,
    duplicate_reason,
    group_by_features,
    key_of,
)
from fgvc.config.synonyms import NAMES, Asked, for_option, unknown_key

HYDRA = ("hydra/launcher", "hydra.launcher.", "hydra/sweeper", "hydra.sweeper.")
QUOTED = re.compile(r"""(["'])([\w-]+)\1""")
RUN_ID_KEY = "runtime.run_id="
MAX_PIXELS = "dataset.max_pixels"
OVERLAYS = ("experiment", "sweep", "recipe")  # optional, and laid over the axes
SAME_KEYS = ("dataset", "backbone", "resolution")  # their options differ in values alone
AXES = ("task", "dataset", "backbone", "head", "resolution", "part_attention", *OVERLAYS)


@dataclass(frozen=True)
class Job:
    """One run that the command asks for: its overrides, and what they compose to.

    plain: the hashed part; empty for an operation.
    """

    overrides: tuple[str, ...]
    conf: Config
    plain: dict[str, Any]

    def compose(self) -> DictConfig:
        """The config as Hydra composes it."""
        return composed([normalized(item) for item in self.overrides])

    @property
    def experiment(self) -> bool:
        """Whether its config alone says what is asked: task=eval asks a checkpoint."""
        return not is_operation(self.conf) and self.conf.task.name != "eval"


def choices(overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides of one job that are choices: not its run_id, and nothing of Hydra's."""
    mine = (RUN_ID_KEY, "hydra", "+hydra")
    return tuple(item for item in overrides if not item.startswith(mine))


def jobs_of(arguments: Sequence[str], multirun: bool) -> list[Job]:
    """Every job of the command, composed and checked.

    Raises:
        ConfigError: the first thing that is wrong, in one line, with the nearest legal name.
    """
    return expand_jobs(arguments, multirun, named=False)[0]


def expand_jobs(
    arguments: Sequence[str], multirun: bool, named: bool
) -> tuple[list[Job], list[Exclusion]]:
    """The jobs of the command, and what a named sweep leaves out as it cannot be.

    Args:
        named: whether the arguments come from a named sweep: of a cross of many choices a few may
            not fit together, while a command of one's own means every job it asks for.

    Raises:
        ConfigError: the first thing that is wrong, in one line, with the nearest legal name.
    """
    arguments = [as_list(argument) for argument in arguments]
    given = [_parse(argument) for argument in arguments]
    for override in given:
        _check_option(override)
    for override in sorted(given, key=lambda one: one.key_or_group not in AXES):
        if override.is_sweep_override() and not multirun:
            if override.key_or_group not in AXES:
                _check_key(override, parse_command(given))
            raise ConfigError(
                f"{override.input_line}: several values need -m {or_a_list(override)}"
            )
    if multirun and not named:
        check_sweep(given)
    check_launcher(given, multirun)
    split = [tuple(arguments)]
    if multirun:
        split = [tuple(one) for one in BasicSweeper.split_arguments(given, None)[0]]
    nodes = Nodes()
    jobs, left_out = _named(split, nodes) if named else ([_job(one, nodes) for one in split], [])
    if not jobs:
        raise ConfigError(f"no job of this sweep can be: {left_out[0].why}")
    jobs, twins = _without_twins(jobs)
    left_out += twins
    asked = [job for job in jobs if job.experiment]
    _refuse_one_file_for_many(asked)
    if len(asked) == len(jobs):
        jobs = [jobs[place] for place in group_by_features([job.plain for job in jobs])]
    return jobs, left_out


def _named(split: Sequence[Combination], nodes: Nodes) -> tuple[list[Job], list[Exclusion]]:
    """The jobs of a named sweep: each setting where it is known, each config once."""
    jobs: dict[str, Job] = {}  # by config hash
    first: dict[Combination, Combination] = {}  # of those that are equal where they are known
    impossible: dict[Combination, str] = {}
    split, left_out = keep_stated_sizes(split)
    for whole, overrides in zip(split, drop_unknown_keys(split, _knows), strict=True):
        if first.setdefault(overrides, whole) is not whole:
            why = impossible.get(overrides, duplicate_reason(whole, first[overrides]))
            left_out.append(Exclusion(whole, why))
            continue
        try:
            job = _job(overrides, nodes)
        except ImpossibleError as error:
            impossible[overrides] = str(error)
            left_out.append(Exclusion(whole, str(error)))
            continue
        kept = jobs.setdefault(config_hash(job.plain) if job.experiment else repr(overrides), job)
        if kept is not job:
            left_out.append(Exclusion(whole, duplicate_reason(overrides, kept.overrides)))
    return [*jobs.values()], left_out


def _knows(combination: Combination, key: str) -> bool:
    """Whether the options that a combination chooses have a key; a recipe is part of training."""
    if key != "recipe" and (key in AXES or key.startswith((*HYDRA, *TABLES))):
        return True
    groups = [one for one in combination if key_of(one) in AXES and key_of(one) != "recipe"]
    legal, task = _legal(tuple(groups))
    return task == "train" if key == "recipe" else key in legal


def _without_twins(jobs: Sequence[Job]) -> tuple[list[Job], list[Exclusion]]:
    """Keep one job per question: jobs that differ only in keys that change no number are left out.

    Raises:
        ConfigError: two jobs differ in other keys of no hash, so both would write into the same
            folder.
    """
    seen: dict[str, Job] = {}
    kept, left_out = [], []
    for job in jobs:
        twin = seen.setdefault(config_hash(job.plain), job) if job.experiment else job
        if twin is job:
            kept.append(job)
        else:
            check_twins(twin, job)
            left_out.append(
                Exclusion(job.overrides, duplicate_reason(job.overrides, twin.overrides))
            )
    return kept, left_out


def _refuse_one_file_for_many(jobs: Sequence[Job]) -> None:
    """One file of weights is that of one model, one folder of pictures that of one dataset."""
    for key, root, chosen in (
        (
            "backbone.weights",
            "weights_root",
            lambda job: job.plain["backbone"]["checkpoint"]["model"],
        ),
        ("dataset.root", "data_root", lambda job: job.conf.dataset.name),
    ):
        users: dict[str, set[str]] = {}
        for job in jobs:
            for place in (item for item in job.overrides if key_of(item) == key):
                users.setdefault(place, set()).add(chosen(job))
        for place, names in users.items():
            if len(names) > 1:
                raise ConfigError(
                    f"{place} is given for {' and '.join(sorted(names))}: leave it out, and put "
                    f"each under runtime.{root}"
                )


def common(arguments: Sequence[str], jobs: Sequence[Job]) -> list[str]:
    """The arguments that every job takes, and those of which each takes one value."""
    taken = [{key_of(item) for item in job.overrides} for job in jobs]
    return [item for item in arguments if all(key_of(item) in keys for keys in taken)]


def _parse(argument: str) -> Override:
    try:
        return parsed(argument)
    except HydraException as error:
        raise unreadable(argument, AXES) from error


def _check_option(override: Override) -> None:
    group = override.key_or_group
    if group not in AXES:
        return
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: every axis has a value; write {group}=…")
    if override.value_type in UNLISTED:
        raise ConfigError(f"{override.input_line}: list the options, as in {group}=a,b")
    legal = options(group)
    if not override.is_sweep_override() and isinstance(override.value(), list | dict):
        raise unreadable(str(override.input_line), AXES)
    for name in _values(override):
        if name == "None" and group in OVERLAYS:
            raise ConfigError(f"{group}=null: is the default; leave {group}= out")
        if name not in legal:
            if (advice := for_option(group, name)) is not None:
                raise ConfigError(f"{group}={name}: no such option; {advice}")
            close = nearest(name, legal)
            raise ConfigError(f"{group}={name}: no such option{close} ({', '.join(legal)})")


def _values(override: Override) -> Iterable[str]:
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_iterator()]
    return [str(override.value())]


def _job(overrides: tuple[str, ...], nodes: Nodes) -> Job:
    given = [_parse(argument) for argument in overrides]
    asked = parse_command(given)
    for override in given:
        _check_key(override, asked)
    if asked.task in ("eval", "predict"):
        _refuse_answers_of_the_checkpoint(asked.task, given)
    try:
        conf = nodes.conf([normalized(o.input_line or "") for o in given])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_root_cause(error)) from error
    check_inputs(conf)
    if not is_operation(conf):
        _refuse_foreign_resize(conf, given)
    return Job(overrides, conf, {} if is_operation(conf) else hashed(conf))


def parse_command(given: Sequence[Override]) -> Asked:
    """The legal keys of a command, its task, and the values that it sets."""
    legal, task = _legal(tuple(o.input_line or "" for o in given if o.key_or_group in AXES))
    return Asked(legal, task, {o.key_or_group: _typed_value(o) for o in given})


def _typed_value(override: Override) -> str:
    return str(override.input_line).partition("=")[2] or "VALUE"


def _refuse_foreign_resize(conf: Config, given: Sequence[Override]) -> None:
    """Refuse a backbone.position_resize in the command that the model does not support."""
    for override in given:
        key, ways = override.key_or_group, position_resizes(conf)
        if key == "backbone.position_resize" and override.value() not in ways:
            raise ImpossibleError(
                f"{key}={override.value()}: {chosen_checkpoint(conf.backbone).model} supports "
                f"{', '.join(ways)}. Leave {key} out."
            )


def _legal(groups: tuple[str, ...]) -> tuple[frozenset[str], str]:
    """The keys that these options have, and the task that they choose."""
    return _keys_of(tuple(sorted({normalized(o) for o in groups if key_of(o) not in SAME_KEYS})))


@functools.lru_cache(maxsize=256)
def _keys_of(groups: tuple[str, ...]) -> tuple[frozenset[str], str]:
    try:
        cfg = composed(groups)
        return frozenset(legal_keys(cfg)), str(cfg.task.name)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_root_cause(error)) from error


def _root_cause(error: BaseException) -> str:
    """Hydra wraps what went wrong in exceptions that say less, some of them nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OmegaConfBaseException):
        return one_line(error)
    return " ".join(str(error).split()) or type(error).__name__


def _check_key(override: Override, asked: Asked) -> None:
    key = override.key_or_group
    if key in AXES or key.startswith(HYDRA):
        return
    if key in NAMES or (key not in asked.legal and not key.startswith(TABLES)):
        raise ConfigError(unknown_key(key, _typed_value(override), asked))
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: a key cannot be deleted, only set")
    if not override.is_sweep_override() and override.value() == "":
        raise ConfigError(f"{key}=: empty; give a value, or leave {key} out")


def normalized(argument: str) -> str:
    """An argument as it is checked and handed on.

    `+key=` and `++key=` of a legal key mean `key=`, as nothing can be added to a closed schema; and
    `key=~/x` means what it means to a shell, which leaves it alone in the middle of a word.
    """
    bare = argument.lstrip("+")
    if bare.startswith("hydra"):
        return argument
    if bare.startswith(checkpoint_rows.TABLE):
        return checkpoint_rows.joined(bare)
    key, sign, value = bare.partition("=")
    if key in AXES and (name := QUOTED.fullmatch(value)) is not None:
        return f"{key}={name[2]}"
    return f"{key}={Path(value).expanduser()}" if sign and value.startswith("~/") else bare


def _refuse_answers_of_the_checkpoint(task: str, parsed: Sequence[Override]) -> None:
    allowed = place_keys() | declared_keys()
    if task != "eval":  # the record of task=eval has the config hash of the checkpoint
        allowed |= {MAX_PIXELS}
    for override in parsed:
        key = override.key_or_group
        if key in allowed or key.split(".")[0] in ("task", "runtime", "hydra"):
            continue
        raise ConfigError(
            f"{override.input_line}: task={task} takes its config from the checkpoint; "
            f"only runtime.* and {', '.join(sorted(allowed))} may be given"
        )


def declared_values(overrides: Sequence[str]) -> dict[str, str]:
    """The places that the command itself names, and what it declares: {dotted key: value}."""
    given, kept = [_parse(argument) for argument in overrides], place_keys() | declared_keys()
    values = {o.key_or_group: o.value() for o in given if o.key_or_group in kept}
    return {key: str(OmegaConf.create([value])[0]) for key, value in values.items()}
