"""Rules for the keys of task=probe and of head.*."""

from __future__ import annotations

from fgvc.config.inert.rule import Rule, fixed, probes
from fgvc.config.schema import Config
from fgvc.config.schema.head import heads

ROUNDING = 1e-9  # relative; the values of C are computed from logarithms


def _chooses_no_c(conf: Config) -> bool:
    return probes(conf) and heads()[conf.head.name].fit != "logistic"


def _highest_c(conf: Config) -> float:
    return conf.task.c_low if conf.task.c_count == 1 else conf.task.c_high


RULES = (
    Rule(("head.fit",), lambda conf: not probes(conf), "task=train has its own recipe"),
    fixed(
        0.07,
        "head.temperature",
        where=lambda conf: conf.head.name == "knn" and conf.head.k == 1,
        reason="a single neighbour has the whole vote",
    ),
    Rule(
        (
            "task.c_low",
            "task.c_high",
            "task.c_count",
            "task.gap",
            "task.final_gap",
            "task.gap_until",
            "task.max_iterations",
        ),
        _chooses_no_c,
        "only a logistic regression has a C",
    ),
    Rule(
        ("task.c_high",),
        lambda conf: probes(conf) and conf.task.c_count == 1,
        "a path of one value is c_low",
    ),
    Rule(
        ("task.gap_until", "task.max_iterations"),
        lambda conf: probes(conf) and _highest_c(conf) < conf.task.gap_until,
        "the gap ends the solve at every C",
    ),
    fixed(
        0.0,
        "task.gap_until",
        where=lambda conf: probes(conf) and conf.task.gap_until < conf.task.c_low * (1 - ROUNDING),
        reason="max_iterations may end the solve at every C",
    ),
)
