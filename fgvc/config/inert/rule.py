"""The rule class, and the kinds of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fgvc.config.schema import Config

Condition = Callable[[Config], bool]


@dataclass(frozen=True)
class Rule:
    """A condition under which keys change no number.

    keys: dotted. inert: the condition. reason: one line. drops: whether inert keys are left out of
    the hash; otherwise `value` replaces their values. in_config: whether `value` replaces them in
    the config too, so that config.yaml and the run agree with the hash. `inert` must then hold for
    `value` itself.
    """

    keys: tuple[str, ...]
    inert: Condition
    reason: str
    drops: bool = True
    value: object = None
    in_config: bool = False


def dropped(keys: str, inert: Condition, reason: str) -> Rule:
    """A rule that leaves its keys, separated by spaces, out of the hash."""
    return Rule(tuple(keys.split()), inert, reason)


def replaced(value: object, keys: str, inert: Condition, reason: str) -> Rule:
    """A rule that gives its keys one value in the hash."""
    return replace(dropped(keys, inert, reason), drops=False, value=value)


def fixed(value: object, keys: str, inert: Condition, reason: str) -> Rule:
    """A rule that gives its keys one value, in the config and thus in the hash."""
    return replace(replaced(value, keys, inert, reason), in_config=True)


def of_task(name: str, *rules: Rule) -> tuple[Rule, ...]:

    def restricted(rule: Rule) -> Rule:
        return replace(rule, inert=lambda conf: conf.task.name == name and rule.inert(conf))

    return tuple(map(restricted, rules))
