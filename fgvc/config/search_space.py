"""`sweep=tune` -> what is searched, by which rule, and whether every end of it can be run.

Hydra's optuna sweeper finds out that a value is illegal when a trial meets it, hours later. So the
space is read here first, and its corners are composed as if they had been typed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.compose import composed, config_hash
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import Job, jobs_of
from fgvc.config.schema import Config

NAME = "tune"
TRIALS = "trials"  # folder of the rows, in that of the run_id
SEARCHED = ("task.", "head.", "part_attention.")  # keys of a recipe, and of what it trains
NOT_SEARCHED = ("task.name", "task.select", "task.debug")  # they say what a trial is worth
SWEEPER_KEYS = ("hydra.sweeper.n_trials", "hydra.sweeper.n_jobs", "hydra.sweeper.sampler.")
SWEEPER_KEYS += ("hydra.sweeper.params", "hydra/sweeper/sampler")
LEGAL_OPTIONS = {
    "task": ("train",),
    "hydra/sweeper/sampler": ("tpe", "random"),
}  # the options it takes
SAMPLERS = {"optuna.samplers.TPESampler": "tpe", "optuna.samplers.RandomSampler": "random"}
FRACTION = 0.37  # a place in an interval that is no whole number, whatever its ends


class SearchStopped(BaseException):
    """A trial was asked to stop, and with it the search: no sweeper takes it for a failure."""


@dataclass(frozen=True)
class Search:
    """What is searched and how.

    space: key -> how its values are written. select: what a trial is worth, top1 or loss. digest:
    names the search; trials that share it are one history, however many are asked for.
    """

    space: dict[str, str]
    select: str
    sampler: str
    trials: int
    digest: str

    @property
    def direction(self) -> str:
        return "maximize" if self.select == "top1" else "minimize"


def parse_search(arguments: Sequence[str]) -> tuple[Search, list[Job]] | None:
    """The search that the arguments ask for, with its corners as jobs; None where they ask none.

    Raises:
        ConfigError: what cannot be searched, or an end of it that cannot be run, in one line.
    """
    if not _is_search(arguments):
        return None
    searched, fixed = _split_space([_parse(one) for one in arguments])
    jobs = [_corner(fixed, searched, place) for place in range(max(map(len, searched.values())))]
    _check_task(jobs[0].conf)
    sweeper = _sweeper_config(arguments)
    space = {_key(one): one.partition("=")[2] for one in arguments if _key(one) in searched}
    history = [space, sweeper["sampler"], sweeper["n_jobs"], config_hash(jobs[0].plain)]
    return Search(
        space,
        jobs[0].conf.task.select,
        SAMPLERS[sweeper["sampler"]["_target_"]],
        sweeper["n_trials"],
        config_hash({"history": history}),
    ), jobs


def check_same_search(search: Search, conf: Config, run_id: str) -> None:
    """Two searches under one run_id would mix their trials.

    Raises:
        ConfigError: another one began there.
    """
    folder = Path(conf.runtime.multirun_root).expanduser() / run_id / TRIALS
    for row in sorted(folder.glob("*.json"))[:1]:
        if untrusted.read_json(row)["search"] != search.digest:
            raise ConfigError(
                f"runtime.run_id={run_id}: another search has its trials in {folder}; give its own "
                "command, or a new run_id"
            )


def _is_search(arguments: Sequence[str]) -> bool:
    named = f"sweep={NAME}" in arguments
    for argument in arguments:
        key, _, value = argument.lstrip("+~").partition("=")
        if key == "hydra/sweeper" and (named or value != "basic"):
            raise ConfigError(f"{argument}: a search is sweep={NAME}, which brings its sweeper")
        if named and key.startswith("hydra.sweeper") and not key.startswith(SWEEPER_KEYS):
            raise ConfigError(
                f"{argument}: of its sweeper a search takes hydra.sweeper.n_trials, "
                "hydra.sweeper.n_jobs and hydra.sweeper.sampler.*"
            )
        if named and key in LEGAL_OPTIONS and value not in LEGAL_OPTIONS[key]:
            raise ConfigError(f"{argument}: sweep={NAME} takes {' or '.join(LEGAL_OPTIONS[key])}")
    return named


def _split_space(parsed: Sequence[Override]) -> tuple[dict[str, list[str]], list[str]]:
    """Key -> the values whose trial tells whether all can be run; and what is not searched."""
    searched: dict[str, list[str]] = {}
    fixed = []
    for override in parsed:
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
            continue
        key = override.key_or_group
        if not key.startswith(SEARCHED) or key in NOT_SEARCHED:
            raise ConfigError(
                f"{override.input_line}: sweep={NAME} searches "
                f"{', '.join(f'{one}*' for one in SEARCHED)} (not {', '.join(NOT_SEARCHED)}); "
                f"start one search for each {key}"
            )
        searched[key] = _ends(override)
    if not searched:
        raise ConfigError(
            f"sweep={NAME} has nothing to search: give a key a space, as in "
            "'task.learning_rate=tag(log,interval(1e-4,1e-2))'"
        )
    return searched, fixed


def _ends(override: Override) -> list[str]:
    """All choices, or both ends; of real numbers one between them too."""
    value = override.value()
    if isinstance(value, Glob):
        raise ConfigError(f"{override.input_line}: give an interval, a range, or the choices")
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None
        assert high is not None
        _check_ends(override, low, high, "log" in value.tags)
        between = [] if isinstance(low, int) else [low + FRACTION * (high - low)]
        return [repr(one) for one in (low, high, *between)]
    if isinstance(value, RangeSweep):
        assert value.start is not None
        assert value.stop is not None
        _check_ends(override, value.start, value.stop, False)
        # the sweeper may propose the end too, unlike Python's range
        return [repr(value.start), repr(value.stop)]
    return [str(one) for one in override.sweep_iterator(transformer=Transformer.encode)]


def _check_ends(override: Override, low: float, high: float, log: bool) -> None:
    if not low < high:
        raise ConfigError(f"{override.input_line}: {low} is not below {high}")
    if log and low <= 0:
        raise ConfigError(f"{override.input_line}: on a log scale it must begin above 0")


def _corner(fixed: Sequence[str], searched: dict[str, list[str]], index: int) -> Job:
    values = [f"{key}={ends[index % len(ends)]}" for key, ends in searched.items()]
    try:
        (job,) = jobs_of([*fixed, *values], multirun=False)
    except ConfigError as error:
        whole = "'float' could not be converted to Integer" in str(error)
        hint = "; whole numbers are int(interval(…))" if whole else ""
        raise ConfigError(f"sweep={NAME}: {error}{hint}") from error
    return job


def _check_task(conf: Config) -> None:
    if conf.task.name != "train" or conf.task.debug is not None:
        debug = getattr(conf.task, "debug", None)
        raise ConfigError(
            f"sweep={NAME} with task={conf.task.name}{f' task.debug={debug}' if debug else ''}: "
            "it searches the recipe of task=train"
        )
    if conf.final_fit != "train":
        raise ConfigError(
            f"final_fit={conf.final_fit}: sweep={NAME} chooses on validation, which takes "
            "final_fit=train"
        )
    if not conf.runtime.stop_before_test:
        raise ConfigError(
            f"runtime.stop_before_test=false: a trial of sweep={NAME} never reads test; "
            "run the winner's best.yaml for that"
        )


def _sweeper_config(arguments: Sequence[str]) -> dict[str, Any]:
    """The node hydra.sweeper as plain data, checked."""
    try:
        node = composed(_without_spaces(arguments), whole=True).hydra.sweeper
    except (HydraException, OmegaConfBaseException) as error:  # told apart by jobs_of already
        raise ConfigError(f"sweep={NAME}: {' '.join(str(error).split())}") from error
    sweeper: Any = OmegaConf.to_container(node)
    for name in ("n_trials", "n_jobs"):
        if sweeper[name] < 1:
            raise ConfigError(f"hydra.sweeper.{name}={sweeper[name]}: must be at least 1")
    if (target := sweeper["sampler"]["_target_"]) not in SAMPLERS:
        raise ConfigError(f"hydra.sweeper.sampler._target_={target}: {', '.join(SAMPLERS)}")
    if sweeper["sampler"]["seed"] is None:
        raise ConfigError(
            "hydra.sweeper.sampler.seed=null: a search without a seed cannot be repeated; give one"
        )
    return sweeper


def _without_spaces(arguments: Sequence[str]) -> list[str]:
    return [one for one in arguments if not _parse(one).is_sweep_override()]


def _parse(argument: str) -> Override:
    try:
        return OverridesParser.create().parse_override(argument)
    except HydraException as error:
        jobs_of([argument], multirun=False)  # says what is wrong with it, and how to write it
        raise ConfigError(f"{argument}: cannot be read") from error


def _key(argument: str) -> str:
    return argument.lstrip("+").partition("=")[0]
