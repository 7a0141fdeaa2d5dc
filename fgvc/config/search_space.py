"""`sweep=tune` -> the search space and the sampler, with the ends of the space checked.

An illegal value would otherwise be reported when a trial uses it, hours later. So the space is
parsed here first, and its corners are composed like typed commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fgvc import untrusted
from fgvc.config.compose import check_bounds, composed, config_hash, one_line
from fgvc.config.errors import ConfigError, nearest
from fgvc.config.override_grammar import key_of, value_of
from fgvc.config.overrides import JobConfig, jobs_of
from fgvc.config.parse_errors import parse_argument
from fgvc.config.schema import Config
from fgvc.config.schema.sweeper import SAMPLERS, Sweeper
from fgvc.config.sweep_expansion import PARAMS

NAME = "tune"
TRIALS = "trials"  # folder of the rows, in the folder of the run_id
SEARCHED = ("task.", "head.", "part_attention.")  # keys that may be searched
NOT_SEARCHED = ("task.name", "task.select", "task.debug")  # they define the objective
SAMPLER = "hydra.sweeper.sampler"
SAMPLER_OPTION = "hydra/sweeper/sampler"
SWEEPER_KEYS = ("hydra.sweeper.n_trials", "hydra.sweeper.n_jobs", "hydra.sweeper.sampler.")
SWEEPER_KEYS += (SAMPLER_OPTION,)
NO_PARAMS = f"{PARAMS}=null"  # in place of the space in the file, which expand_sweep has expanded
LEGAL_OPTIONS = {"task": ("train",), SAMPLER_OPTION: ("tpe", "random")}
LAUNCHER = "hydra/launcher"
FRACTION = 0.37  # of an interval: a point that is an integer for no integer ends


@dataclass(frozen=True)
class Search:
    """A search.

    Attributes:
        space: key -> its values, as written.
        select: the objective, top1 or loss.
        sampler: tpe or random.
        settings: arguments of the sampler.
        parallel: trials that are proposed without each other's results.
        digest: of all that decides which trials are proposed, with the version of Optuna; the
            number of trials is not part of it.
    """

    space: dict[str, str]
    select: str
    sampler: str
    settings: dict[str, Any]
    trials: int
    parallel: int
    digest: str

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        return "maximize" if self.select == "top1" else "minimize"


def parse_search(arguments: Sequence[str]) -> tuple[Search, list[JobConfig]] | None:
    """The search of a command, with the corners of its space as jobs; None without sweep=tune.

    Raises:
        ConfigError: a key that cannot be searched, or an illegal end of its space, in one line.
    """
    if not _is_search(arguments):
        return None
    option = _check_sampler_keys(arguments)
    searched, fixed = _split_space([parse_argument(argument) for argument in arguments])
    jobs = []
    for index in range(max(map(len, searched.values()))):  # the corners of the space
        values = [f"{key}={ends[index % len(ends)]}" for key, ends in searched.items()]
        try:
            jobs += jobs_of([*fixed, *values], multirun=False)
        except ConfigError as error:
            whole = "must be an integer" in str(error)
            hint = "; whole numbers are int(interval(…))" if whole else ""
            raise ConfigError(f"sweep={NAME}: {error}{hint}") from error
    _check_task(jobs[0].conf)
    sweeper, sampler = _sweeper_config(fixed, option)
    space = {key_of(item): value_of(item) for item in arguments if key_of(item) in searched}
    history = [space, sampler, sweeper.n_jobs, config_hash(jobs[0].plain)]
    digest = config_hash({"history": history, "optuna": metadata.version("optuna")})
    select, name = jobs[0].conf.task.select, sampler.pop("name")
    search = Search(space, select, name, sampler, sweeper.n_trials, sweeper.n_jobs, digest)
    return search, jobs


def check_same_search(search: Search, conf: Config, run_id: str) -> None:
    """Refuse a run_id of another search: the two would mix their trials.

    Raises:
        ConfigError: the folder of this run_id holds trials of another search.
    """
    folder = Path(conf.runtime.multirun_root).expanduser() / run_id / TRIALS
    for row in sorted(folder.glob("*.json"))[:1]:
        if untrusted.read_json(row)["search"] != search.digest:
            raise ConfigError(
                f"runtime.run_id={run_id}: another search, or the same with another version of "
                f"Optuna (here {metadata.version('optuna')}), has its trials in {folder}; repeat "
                "its command with its version, or give a new run_id"
            )


def _is_search(arguments: Sequence[str]) -> bool:
    named = f"sweep={NAME}" in arguments
    for argument in arguments:
        key, value = key_of(argument), value_of(argument)
        if key == "hydra/sweeper" and (named or value != "basic"):
            raise ConfigError(f"{argument}: a search is sweep={NAME}, which sets its sweeper")
        if not named and key.startswith(SWEEPER_KEYS):
            raise ConfigError(f"{argument}: a setting of a search; add sweep={NAME}")
        is_other = key.startswith("hydra.sweeper") and not key.startswith(SWEEPER_KEYS)
        if named and is_other and argument != NO_PARAMS:
            raise ConfigError(
                f"{argument}: a search takes hydra.sweeper.n_trials, hydra.sweeper.n_jobs and "
                "hydra.sweeper.sampler.*; a key is searched by its space, as in "
                "'task.learning_rate=tag(log,interval(1e-4,1e-2))'"
            )
        if named and (key.startswith("hydra.launcher") or (key == LAUNCHER and value != "serial")):
            raise ConfigError(f"{argument}: the trials of a search run one by one; leave it out")
        if named and key in LEGAL_OPTIONS and value not in LEGAL_OPTIONS[key]:
            raise ConfigError(f"{argument}: sweep={NAME} takes {' or '.join(LEGAL_OPTIONS[key])}")
    return named


def _split_space(parsed: Sequence[Override]) -> tuple[dict[str, list[str]], list[str]]:
    """Searched keys -> values that decide whether the space is legal; and the other arguments."""
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
                f"{', '.join(f'{name}*' for name in SEARCHED)} (not {', '.join(NOT_SEARCHED)}); "
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
    """All choices, or both ends; for real numbers also a value between them."""
    value = override.value()
    tags = getattr(value, "tags", set())
    if unknown := sorted(map(str, tags - {"log"})):
        raise ConfigError(f"{override.input_line}: tag {unknown[0]} is unknown; only log is a tag")
    if tags and not isinstance(value, IntervalSweep):
        raise ConfigError(f"{override.input_line}: a log scale takes tag(log,interval(LOW,HIGH))")
    if isinstance(value, Glob):
        raise ConfigError(f"{override.input_line}: give an interval, a range, or the choices")
    if not isinstance(value, IntervalSweep | RangeSweep):
        return [str(value) for value in override.sweep_iterator(transformer=Transformer.encode)]
    is_interval = isinstance(value, IntervalSweep)
    low, high = value.start, value.end if is_interval else value.stop  # both may be proposed
    assert low is not None
    assert high is not None
    if not low < high:
        raise ConfigError(f"{override.input_line}: {low} is not below {high}")
    if is_interval and value.tags and low <= 0:
        raise ConfigError(f"{override.input_line}: on a log scale it must begin above 0")
    between = [low + FRACTION * (high - low)] if is_interval and isinstance(low, float) else []
    return [repr(number) for number in (low, high, *between)]


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


def _sweeper_config(fixed: Sequence[str], option: str) -> tuple[Sweeper, dict[str, Any]]:
    """The node hydra.sweeper, checked: without its sampler, and its sampler, which is `option`."""
    try:
        node: Any = OmegaConf.to_container(composed(fixed, whole=True).hydra.sweeper)
    except (HydraException, OmegaConfBaseException) as error:  # jobs_of has reported all others
        raise ConfigError(f"sweep={NAME}: {' '.join(str(error).split())}") from error
    values, sampler = {key: node.get(key) for key in ("n_trials", "n_jobs")}, node["sampler"]
    if (name := sampler.get("name")) not in SAMPLERS:
        raise ConfigError(f"{SAMPLER}.name={name}: not one of {', '.join(SAMPLERS)}")
    if name != option:
        raise ConfigError(f"{SAMPLER}.name={name}: choose it by {SAMPLER_OPTION}={name}")
    if sampler.get("seed") is None:
        raise ConfigError(
            f"{SAMPLER}.seed=null: a search without a seed cannot be repeated; give one"
        )
    sampler = vars(_checked(SAMPLERS[name], sampler, SAMPLER))
    return _checked(Sweeper, values, "hydra.sweeper"), sampler


def _check_sampler_keys(arguments: Sequence[str]) -> str:
    """The chosen sampler; ConfigError for a key that it does not have."""
    chosen = [value_of(item) for item in arguments if key_of(item) == SAMPLER_OPTION]
    option = chosen[-1] if chosen else "tpe"
    legal = [item.name for item in fields(SAMPLERS[option])]
    for argument in arguments:
        key = key_of(argument)
        name = key.removeprefix(f"{SAMPLER}.")
        if name not in (key, *legal):
            raise ConfigError(
                f"{argument}: sampler {option} has no {name}{nearest(name, legal)} "
                f"({', '.join(legal)})"
            )
    return option


def _checked(cls: type, values: dict[str, Any], node: str) -> Any:
    try:
        checked = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values))
    except OmegaConfBaseException as error:
        item = next((item for item in fields(cls) if item.name == error.full_key), None)
        if item is None:
            raise ConfigError(f"{node}.{one_line(error)}") from error
        value = "null" if values[item.name] is None else values[item.name]
        kind = "true or false" if item.type == "bool" else "a whole number"
        low, high = item.metadata.get("bounds", (None, None))
        bounds = f" of at least {low}" if low is not None else ""
        bounds += f" and at most {high}" if high is not None else ""
        raise ConfigError(f"{node}.{item.name}={value}: must be {kind}{bounds}") from error
    check_bounds(checked, f"{node}.")
    return checked
