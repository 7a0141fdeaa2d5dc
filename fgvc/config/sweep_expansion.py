"""The cross of a sweep -> its jobs: overrides dropped where their key is unknown, and an order.

A combination holds the overrides of one job.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from fgvc.config.option_files import option_file

Combination = tuple[str, ...]
SIZE = "backbone.size"
FEATURE_KEYS = (
    "backbone",
    "resolution",
    "part_attention",
    "precision",
    "matmul_precision",
    "preprocess",
)
SPLITS = ("split_seed", "val_fraction")  # the choice of validation images changes no feature


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


def key_of(override: str) -> str:
    """The key of an override, without Hydra's `+` and `~`."""
    return override.lstrip("+~").partition("=")[0]


def varying_keys(jobs: Sequence[Sequence[str]]) -> set[str]:
    """Keys whose overrides differ between the jobs of a sweep."""
    shared = set.intersection(*map(set, jobs))
    return {key_of(item) for job in jobs for item in job if item not in shared}


def keep_stated_size(combination: Combination) -> Combination:
    """The combination without a swept size if the backbone option names its size (vit_tiny)."""
    names = [item.partition("=")[2] for item in combination if key_of(item) == "backbone"]
    files = [option_file("backbone", name, combination) for name in names]
    if not any(file is not None and _is_shorthand(file) for file in files):
        return combination
    return tuple(item for item in combination if key_of(item) != SIZE)


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


def group_by_features(plains: Sequence[dict[str, Any]]) -> list[int]:
    """A stable order of configs in which those that share features are adjacent.

    Args:
        plains: the hashed part of each config.
    """
    first: dict[str, int] = {}
    ranks = [first.setdefault(feature_config(plain), len(first)) for plain in plains]
    return sorted(range(len(plains)), key=ranks.__getitem__)


def feature_config(plain: dict[str, Any]) -> str:
    """A key that is equal for jobs that read the same features."""
    images = {key: value for key, value in plain["dataset"].items() if key not in SPLITS}
    uses_seed = plain["part_attention"]["name"] == "random" or not plain["backbone"]["pretrained"]
    keys = (*FEATURE_KEYS, "seed") if uses_seed else FEATURE_KEYS
    return json.dumps([images, *(plain[key] for key in keys)], sort_keys=True)
