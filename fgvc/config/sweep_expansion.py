"""The cross of a sweep -> its jobs: settings where they are known, one job a config, neighbours.

A combination is the overrides of one job, as Hydra's own sweeper splits a command.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

from fgvc.config.compose import conf_dir

Combination = tuple[str, ...]
SIZE = "backbone.size"
SHARED = ("backbone", "resolution", "part_attention", "precision", "matmul_precision", "preprocess")
SPLITS = ("split_seed", "val_fraction")  # which images validate changes no feature


def key_of(override: str) -> str:
    """The key of an override, without Hydra's `+` and `~`."""
    return override.lstrip("+~").partition("=")[0]


def varying_keys(jobs: Sequence[Sequence[str]]) -> set[str]:
    """Keys that the jobs of a sweep do not all choose alike."""
    all_of = set.intersection(*map(set, jobs))
    return {key_of(item) for job in jobs for item in job if item not in all_of}


def keep_stated_size(combination: Combination) -> Combination:
    """A backbone that names its size (vit_tiny) is taken at that size, whatever sizes are swept."""
    names = [item.partition("=")[2] for item in combination if key_of(item) == "backbone"]
    if not any(map(_is_shorthand, names)):
        return combination
    return tuple(item for item in combination if key_of(item) != SIZE)


@functools.cache
def _is_shorthand(backbone: str) -> bool:
    file = conf_dir() / "backbone" / f"{backbone}.yaml"
    return file.is_file() and "\ndefaults:" in f"\n{file.read_text(encoding='utf-8')}"


def drop_unknown_keys(
    split: Sequence[Combination], knows: Callable[[Combination, str], bool]
) -> list[Combination]:
    """The combinations with each setting kept where its key is known, if it is known anywhere.

    One that no combination knows stays in all of them, to be refused as any other typo.

    Args:
        knows: whether the options that a combination chooses have a key.
    """
    keys = {key_of(item) for combination in split for item in combination}
    known = {key: [knows(combination, key) for combination in split] for key in keys}
    somewhere = {key for key in keys if any(known[key])}
    return [
        tuple(o for o in one if known[key_of(o)][place] or key_of(o) not in somewhere)
        for place, one in enumerate(split)
    ]


def duplicate_reason(one: Combination, other: Combination) -> str:
    """Why a combination is left out that composes to the config of another one."""
    mine, theirs = (
        " ".join(item for item in this if item not in that and not item.startswith("hydra"))
        for this, that in ((one, other), (other, one))
    )
    if not mine:
        return "given twice"
    return f"{mine}: the same config as {theirs or 'without it'}"


def group_by_features(plains: Sequence[dict[str, Any]]) -> list[int]:
    """An order in which those that share features stand together, and otherwise stay as they are.

    Args:
        plains: the hashed part of each config.
    """
    first: dict[str, int] = {}
    ranks = [first.setdefault(feature_config(plain), len(first)) for plain in plains]
    return sorted(range(len(plains)), key=ranks.__getitem__)


def feature_config(plain: dict[str, Any]) -> str:
    """What jobs have in common that read the same features."""
    images = {key: value for key, value in plain["dataset"].items() if key not in SPLITS}
    drawn = plain["part_attention"]["name"] == "random" or not plain["backbone"]["pretrained"]
    looks = [plain[key] for key in (*SHARED, *(("seed",) if drawn else ()))]
    return json.dumps([images, *looks], sort_keys=True)


@contextmanager
def launch_exactly(jobs: Sequence[Sequence[str]]) -> Iterator[None]:
    """Hydra's own sweeper starts these jobs, instead of the cross that its arguments mean.

    Hydra knows no sweep that is not a whole cross. What it would check again is checked already.
    """

    sweeper = _basic_sweeper()

    def split(overrides: object, batch: int | None) -> list[list[list[str]]]:
        return list(sweeper.split_overrides_to_chunks([list(job) for job in jobs], batch))

    def checked(self: object, batch: object) -> None:
        """Each was composed before the first one starts."""

    own = {"split_arguments": staticmethod(split), "validate_batch_is_legal": checked}
    before = {name: vars(sweeper).get(name) for name in own}
    for name, mine in own.items():
        setattr(sweeper, name, mine)
    try:
        yield
    finally:
        for name, theirs in before.items():
            if theirs is None:
                delattr(sweeper, name)  # it is inherited
            else:
                setattr(sweeper, name, theirs)


def _basic_sweeper() -> type[BasicSweeper]:
    """The class that Hydra instantiates: it loads its plugins beside what is imported here."""
    for plugin in Plugins.instance().discover(Sweeper):
        if plugin.__name__ == BasicSweeper.__name__:
            return plugin  # type: ignore[return-value]
    raise AssertionError("Hydra has no basic sweeper")
