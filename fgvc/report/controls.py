"""Lines with part attention -> the controls that each must beat to show that attention helps.

off                no part attention
random, centre     the same number of random or central patches
pretrained_block   the pretrained last block, for a line whose last block is initialised randomly
Everything else in the configs of a line and its control is the same, and so are their weights.
Random weights depend on the seed, so both lines must then have the same seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import attrgetter

from fgvc.report.aggregate_seeds import Line
from fgvc.report.run_rows import Run

CONTROLS = ("off", "random", "centre", "pretrained_block")
ATTENTION_FREE = ("random", "centre")  # use no attention; their only control is off

Pair = tuple[Line, str, Line]  # a line, the name of its control, and the control


def match_controls(lines: Sequence[Line]) -> list[Pair]:
    """Pair every line of a group with each of its controls that exists.

    If several lines qualify as a control, those of the same code, data and weights are preferred,
    then the newest. The choice does not depend on the test numbers or on the order of the lines.
    """
    pairs = []
    for line, name in itertools.product(lines, CONTROLS):
        run, seeds = line.first, {run.seed for run in line.runs}
        candidates = [
            other
            for other in lines
            if run.part_attention != "off"
            and _is_control(other.first, run, name)
            # random weights of equal digests are equal for equal seeds only
            and (run.weights_kind != "random" or {run.seed for run in other.runs} == seeds)
        ]
        same_answer = [other for other in candidates if other.first.answer == run.answer]
        if candidates:
            key = attrgetter("first.started", "first.folder")
            pairs.append((line, name, max(same_answer or candidates, key=key)))
    return pairs


def _is_control(other: Run, run: Run, name: str) -> bool:
    """Whether `other` is the control `name` of `run`."""
    if other.rest != run.rest:
        return False
    if name == "off":
        return other.part_attention == "off"
    if (other.part_rest, other.part_tokens) != (run.part_rest, run.part_tokens):
        return False
    if name == "pretrained_block":
        same = other.part_attention == run.part_attention
        return same and (other.last_block, run.last_block) == ("pretrained", "random")
    same = other.last_block == run.last_block
    return same and other.part_attention == name and run.part_attention not in ATTENTION_FREE
