"""Lines with part attention -> what each must beat before a gain may be called attention to parts.

off                is it anything at all?
random, centre     or only fewer tokens, or the middle of the picture? (as many, nothing else moved)
pretrained_block   or the last block, where that one was made anew?
All else in two configs that are held against each other is the same, and so are their weights:
random ones come from the seed, so both lines must have the same seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter

from fgvc.report.aggregate_seeds import Line
from fgvc.report.run_rows import Run

CONTROLS = ("off", "random", "centre", "pretrained_block")
BLIND = ("random", "centre")  # they look at no attention, and are held against off alone

Pair = tuple[Line, str, Line]  # a line, what its control is called, and the control


def match_controls(lines: Sequence[Line]) -> list[Pair]:
    """Every line of a group with each of its controls that is there.

    Args:
        lines: in any order. Of several controls that fit, one of the same code is preferred, then
            the newest: the choice does not depend on test.
    """
    return [pair for line in lines for pair in _of(line, lines)]


def _of(line: Line, lines: Sequence[Line]) -> Iterator[Pair]:
    mine = line.first
    for name in CONTROLS if mine.part_attention != "off" else ():
        fits = [
            one for one in lines if _controls(one.first, mine, name) and _same_weights(one, line)
        ]
        same = [one for one in fits if one.first.answer == mine.answer]
        if fits:
            key = attrgetter("first.started", "first.folder")
            yield line, name, max(same or fits, key=key)


def _same_weights(control: Line, line: Line) -> bool:
    """Whether the backbones are equal, given that the digests of their weights are."""
    if line.first.weights_kind != "random":
        return True
    return {run.seed for run in control.runs} == {run.seed for run in line.runs}


def _controls(other: Run, mine: Run, name: str) -> bool:
    """Whether `other` is this control of `mine`."""
    if other.rest != mine.rest:
        return False
    if name == "off":
        return other.part_attention == "off"
    if (other.part_rest, other.part_tokens) != (mine.part_rest, mine.part_tokens):
        return False
    if name == "pretrained_block":
        alike = other.part_attention == mine.part_attention
        return alike and (other.last_block, mine.last_block) == ("pretrained", "random")
    alike = other.last_block == mine.last_block
    return alike and other.part_attention == name and mine.part_attention not in BLIND
