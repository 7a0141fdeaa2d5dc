"""Keys that change no number under the other choices of a config -> their fixed form in the hash.

Two configs that ask the same question must share a hash. Each rule names keys and the condition
under which their value changes no number; then they are left out of the hashed part, or replaced by
a fixed value. The config itself keeps the value. `seed` has no rule: seeds fold into one line of a
table, and a sweep over seeds may mix heads that draw random numbers with heads that do not.
Rules by subject: images.py, backbone.py, probe.py, training.py.
"""

from __future__ import annotations

from typing import Any

from fgvc.config.inert import backbone, images, probe, training
from fgvc.config.schema import Config

RULES = (*images.RULES, *backbone.RULES, *probe.RULES, *training.RULES)


def apply(conf: Config, plain: dict[str, Any]) -> dict[str, Any]:
    """Drop or fix the inert keys of a config in its hashed part, in place; returns that part."""
    for rule in RULES:
        if not rule.inert(conf):
            continue
        for key in rule.keys:
            *nodes, name = key.split(".")
            holder = plain
            for node in nodes:
                holder = holder.get(node) or {}
            if name in holder and rule.drops:
                del holder[name]
            elif name in holder:
                holder[name] = rule.value
    return plain
