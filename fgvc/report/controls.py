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
ATTENTION_FREE = ("random", "centre")  # they look at no attention, and are held against off alone

Pair = tuple[Line, str, Line]  # a line, what its control is called, and the control


def match_controls(lines: Sequence[Line]) -> list[Pair]:
    """Every line of a group with each of its controls that is there.

    Args:
        lines: in any order. Of several controls that fit, one of the same code is preferred, then
            the newest: the choice does not depend on test.
    """
    return [pair for line in lines for pair in _controls_of(line, lines)]


def _controls_of(line: Line, lines: Sequence[Line]) -> Iterator[Pair]:
    run = line.first
    for name in CONTROLS if run.part_attention != "off" else ():
        candidates = [
            candidate
            for candidate in lines
            if _is_control(candidate.first, run, name) and _same_weights(candidate, line)
        ]
        same_answer = [
            candidate for candidate in candidates if candidate.first.answer == run.answer
        ]
        if candidates:
            key = attrgetter("first.started", "first.folder")
            yield line, name, max(same_answer or candidates, key=key)


def _same_weights(control: Line, line: Line) -> bool:
    """Whether the backbones are equal, given that the digests of their weights are."""
    if line.first.weights_kind != "random":
        return True
    return {run.seed for run in control.runs} == {run.seed for run in line.runs}


def _is_control(other: Run, run: Run, name: str) -> bool:
    """Whether `other` is this control of `mine`."""
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
