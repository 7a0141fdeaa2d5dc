"""Keys that change no number under the other choices of a config -> their fixed form in the hash.

Two configs that ask the same question must share a hash. Each rule holds keys and the condition
under which their values change no number. Such keys are left out of the hashed part, or get a fixed
value there, and for some rules in the config too. `seed` has no rule: a table aggregates seeds into
one row, and a sweep over seeds may mix heads that draw random numbers with heads that do not.
Rules by subject: inputs.py, tasks.py.
"""

from __future__ import annotations

import copy
from typing import Any

from fgvc.config.inert import inputs, tasks
from fgvc.config.schema import Config

RULES = (*inputs.RULES, *tasks.RULES)


def fix(conf: Config) -> None:
    """Set inert keys to their fixed value in the config, for rules with `in_config`."""
    for rule in RULES:
        if rule.in_config and rule.inert(conf):
            for key in rule.keys:
                _set(conf, key.split("."), rule.value)


def _set(node: Any, names: list[str], value: object) -> None:
    """Set a key; nested nodes are copied first, because other configs may share them."""
    name, *rest = names
    if not hasattr(node, name):
        return
    if rest:
        child = copy.copy(getattr(node, name))
        _set(child, rest, value)
        value = child
    setattr(node, name, value)


def reasons(conf: Config) -> dict[str, str]:
    """Keys that change no number in a config -> the reason."""
    return {key: rule.reason for rule in RULES if rule.inert(conf) for key in rule.keys}


def fixes_within(conf: Config, key: str) -> bool:
    """Whether a rule fixes a key, or a key of the node of this name."""
    fixed = [name for rule in RULES if rule.in_config and rule.inert(conf) for name in rule.keys]
    return any(f"{name}.".startswith(f"{key}.") for name in fixed)


def apply(conf: Config, plain: dict[str, Any]) -> dict[str, Any]:
    """Drop or fix the inert keys of a config in its hashed part, in place; returns the part."""
    for rule in RULES:
        if not rule.inert(conf):
            continue
        for key in rule.keys:
            *nodes, name = key.split(".")
            parent = plain
            for node in nodes:
                parent = parent.get(node) or {}
            if name in parent and rule.drops:
                del parent[name]
            elif name in parent:
                parent[name] = rule.value
    return plain
