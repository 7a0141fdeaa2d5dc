"""A sweep, maybe a named one -> its jobs in an order, and the combinations that it leaves out.

A named sweep is a file of plain Hydra (`hydra.mode: MULTIRUN` and `hydra.sweeper.params`). A
combination holds the overrides of one job. Some combinations of a cross are invalid, some mean
the same job, and some keys are unknown in a part of them.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from fgvc.config.errors import ConfigError, nearest
from fgvc.config.option_files import option_file, options
from fgvc.config.override_grammar import key_of, value_of

Combination = tuple[str, ...]
PARAMS = "hydra.sweeper.params"
SIZE = "backbone.size"
SPLITS = ("split_seed", "val_fraction")  # the choice of validation images changes no feature


@dataclass(frozen=True)
class Exclusion:
    """A combination left out of a named sweep, with the reason in one line."""

    overrides: tuple[str, ...]
    reason: str


def expand_sweep(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments followed by the overrides of `sweep=NAME`, and whether there is one.

    Hydra itself refuses a key that is both in the file of a sweep and in the command. The axes of
    the sweep keep the order of its file, also where they are typed.

    Raises:
        ConfigError: an unknown sweep, two sweeps, or a file without a sweep.
    """
    names = [value_of(argument) for argument in arguments if key_of(argument) == "sweep"]
    if not names:
        return list(arguments), False
    if len(names) > 1 or "," in names[0]:
        raise ConfigError(f"sweep={','.join(names)}: one named sweep at a time")
    path, legal = option_file("sweep", names[0], arguments), options("sweep", arguments)
    if path is None:
        close = nearest(names[0], legal)
        raise ConfigError(f"sweep={names[0]}: no such option{close} ({', '.join(legal)})")
    file = OmegaConf.load(path)
    params: dict[str, Any] = OmegaConf.select(file, PARAMS)
    if OmegaConf.select(file, "hydra.mode") != "MULTIRUN" or not params:
        raise ConfigError(f"sweep={names[0]}: {path}: needs hydra.mode: MULTIRUN and {PARAMS}")
    typed = {key_of(argument): argument for argument in arguments if key_of(argument) in params}
    swept = [typed.get(key, f"{key}={value}") for key, value in params.items()]
    others = [argument for argument in arguments if key_of(argument) not in params]
    return [*others, *swept, f"{PARAMS}=null"], True


def cross(overrides: Sequence[Override]) -> list[Combination]:
    """Every combination of the values of a sweep; the last key varies fastest.

    If a key is given twice, its last override counts.

    Args:
        overrides: each with one value, or with a finite list of values.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if override.is_sweep_override():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            values[key] = [f"{key}={override.get_value_element_as_str()}"]
    return list(itertools.product(*values.values()))


def varying_keys(jobs: Sequence[Sequence[str]]) -> set[str]:
    """Keys whose overrides differ between the jobs of a sweep."""
    shared = set.intersection(*map(set, jobs))
    return {key_of(item) for job in jobs for item in job if item not in shared}


def keep_stated_sizes(
    combinations: Sequence[Combination],
) -> tuple[list[Combination], list[Exclusion]]:
    """Keep one combination per size where the backbone option names its size.

    Returns:
        The kept combinations, and one left-out combination per such backbone.
    """
    first: dict[Combination, Combination] = {}
    exclusions: dict[str, Exclusion] = {}
    for combination in combinations:
        kept = combination
        for name in (value_of(item) for item in combination if key_of(item) == "backbone"):
            file = option_file("backbone", name, combination)
            if file is not None and _is_shorthand(file):  # vit_tiny
                kept = tuple(item for item in combination if key_of(item) != SIZE)
        if first.setdefault(kept, combination) is not combination:
            backbone = next(item for item in combination if key_of(item) == "backbone")
            reason = f"{backbone} names its size: {SIZE} is not swept there"
            exclusions.setdefault(backbone, Exclusion(combination, reason))
    return list(first), [*exclusions.values()]


@functools.cache
def _is_shorthand(file: Path) -> bool:
    text = f"\n{file.read_text(encoding='utf-8')}"
    return "\ndefaults:" in text and "\nsize:" in text


def drop_unknown_keys(
    combinations: Sequence[Combination], is_known: Callable[[Combination, str], bool]
) -> list[Combination]:
    """The combinations without overrides whose key only other combinations know.

    A key that no combination knows is kept, to be refused as a typo.

    Args:
        is_known: whether the options of a combination have a key.
    """
    keys = {key_of(item) for combination in combinations for item in combination}
    is_known_by_key = {
        key: [is_known(combination, key) for combination in combinations] for key in keys
    }
    typos = {key for key in keys if not any(is_known_by_key[key])}
    return [
        tuple(o for o in combination if is_known_by_key[key_of(o)][index] or key_of(o) in typos)
        for index, combination in enumerate(combinations)
    ]


def duplicate_reason(duplicate: Combination, first: Combination) -> str:
    """Why a combination is left out that composes to the config of another combination."""

    def only_in(left: Combination, right: Combination) -> str:
        items = (item for item in left if item not in right and not item.startswith("hydra"))
        return " ".join(items)

    if not (overrides := only_in(duplicate, first)):
        return "given twice"
    return f"{overrides}: the same config as {only_in(first, duplicate) or 'without it'}"


def feature_config(plain: dict[str, Any]) -> str:
    """A key that is equal for jobs that read the same features."""
    images = {key: value for key, value in plain["dataset"].items() if key not in SPLITS}
    uses_seed = plain["part_attention"]["name"] == "random" or not plain["backbone"]["pretrained"]
    keys = ["backbone", "resolution", "part_attention", "precision", "matmul_precision"]
    keys += ["preprocess", "seed"] if uses_seed else ["preprocess"]
    return json.dumps([images, *(plain[key] for key in keys)], sort_keys=True)


def summarize(exclusions: Sequence[Exclusion]) -> list[str]:
    """One line per reason, with the number of its combinations and the first of them."""
    varying = varying_keys([exclusion.overrides for exclusion in exclusions]) if exclusions else ()
    by_reason: dict[str, list[tuple[str, ...]]] = {}
    for exclusion in exclusions:
        by_reason.setdefault(exclusion.reason, []).append(exclusion.overrides)
    lines = []
    for reason, combinations in by_reason.items():
        first = " ".join(item for item in combinations[0] if key_of(item) in varying)
        count = len(combinations)
        lines.append(
            reason if count == 1 else f"{count} combinations: {reason} (the first: {first})"
        )
    return lines
