"""The rule class, and conditions that several rules share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fgvc.config.schema import Config


@dataclass(frozen=True)
class Rule:
    """A condition under which keys change no number.

    keys: dotted. inert: the condition. reason: one line. drops: whether inert keys are left out of
    the hash; otherwise `value` replaces their values. in_config: whether `value` replaces them in
    the config too, so that config.yaml and the run agree with the hash. `inert` must then hold for
    `value` itself.
    """

    keys: tuple[str, ...]
    inert: Callable[[Config], bool]
    reason: str
    drops: bool = True
    value: object = None
    in_config: bool = False


def fixed(value: object, *keys: str, where: Callable[[Config], bool], reason: str) -> Rule:
    """A rule that gives its keys one value, in the config and thus in the hash."""
    return Rule(keys, where, reason, drops=False, value=value, in_config=True)


def probes(conf: Config) -> bool:
    return conf.task.name == "probe"


def trains(conf: Config) -> bool:
    return conf.task.name == "train"


def zero_shot(conf: Config) -> bool:
    """Whether only test images are read."""
    return conf.task.name == "zero_shot"


def overfits(conf: Config) -> bool:
    return trains(conf) and conf.task.debug == "overfit"


def part(conf: Config, name: str) -> Any:
    """A setting of part attention; None for part_attention=off."""
    return getattr(conf.part_attention, name, None)
