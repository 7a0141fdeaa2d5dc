"""A weights file -> those of its named tensors that a model is filled with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc.model.backbone.weights.hints import misfit_hint, selection_notes, surplus_hint
from fgvc.model.backbone.weights.parts import (
    EMA_RANK,
    LAST_RANK,
    TEACHER_RANK,
    Part,
    State,
    add_prefixed,
    find_mappings,
    largest_part,
)
from fgvc.model.backbone.weights.read_file import read_content
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

Convert = Callable[[State], State]
Tower = tuple[Mapping[str, "Tensor"], Convert]  # a model's own state; a part -> such a state
TRAINING_STATE_RANKS = {EMA_RANK, TEACHER_RANK, LAST_RANK}  # several states of one training


@dataclass(frozen=True)
class SelectedState:
    """The part of a file that a model is filled with.

    state: its tensors as the file names them, without the prefix. tensors: after conversion.
    notes: which part was read, if not the whole file. hint: for a message if they do not fit.
    """

    state: State
    tensors: State
    notes: tuple[str, ...]
    hint: str


def read(path: str | Path) -> State:
    """The named tensors of a file, selected without a model: by rank, among the largest parts.

    Raises:
        UserError: not a weights file, cut short, or it holds more than tensors; one line.
    """
    path = Path(path)
    return largest_part(find_mappings(read_content(path), path), path)


def select(
    path: Path, wanted: Mapping[str, Tensor], convert: Convert, other_tower: Tower | None = None
) -> SelectedState:
    """The part of a file that has all tensors of a model; otherwise the part that has the most.

    Args:
        wanted: the model's own state; only names and shapes are read.
        convert: a part's tensors -> the model's names and shapes.
        other_tower: the image tower, if `wanted` is a text tower that is compared with it.

    Raises:
        UserError: not a weights file, several parts fit equally well and differ, or the other
            tower would be read from another training state.
    """
    content = read_content(path)
    mappings = find_mappings(content, path)
    parts, tower = add_prefixed(mappings, wanted), (wanted, convert)
    part, tensors, count, others = _best_part(parts, tower)
    if not count:
        part = next(part for part in parts if not part.prefix)
        tensors = _try_convert(part.tensors, convert)
    part.check(path)
    if count < len(wanted):
        hint = misfit_hint(part, tensors, wanted, count, path)
        return SelectedState(part.tensors, tensors, (), hint)
    if equal := [other for other in others if other.rank == part.rank]:
        names = " and ".join(f"`{each.path}`" for each in (part, *equal))
        raise UserError(
            f"weights {path} hold several models that fit, {names}: save the intended model "
            "in a separate file, preferably .safetensors"
        )
    if other_tower is not None:
        _check_towers(mappings, part, tower, other_tower, path)
    notes = selection_notes(content, part, others, path)
    hint = surplus_hint(part, tensors, wanted, mappings, path)
    return SelectedState(part.tensors, tensors, notes, hint)


def _best_part(parts: Sequence[Part], tower: Tower) -> tuple[Part, State, int, list[Part]]:
    """The first of the parts with the most tensors that fit.

    Returns:
        the part; its converted tensors; the number of them that fit; further parts whose tensors
        all fit, with other values.
    """
    wanted, convert = tower
    best, state, most, others = parts[0], {}, -1, []
    for part in parts:
        converted = _try_convert(part.tensors, convert)
        count = _count_fitting(converted, wanted)
        if count == most == len(wanted) and not _hold_same_values(converted, state, wanted):
            others.append(part)
        if count > most:
            best, state, most = part, converted, count
    return best, state, most, others


def _check_towers(
    mappings: Sequence[Part], text_part: Part, text: Tower, image: Tower, path: Path
) -> None:
    """Refuse towers of two training states, such as an EMA that holds only the image tower.

    Towers that were saved apart, each under its own name, are not two states.
    """

    def fits(part: Part, tower: Tower) -> bool:
        wanted, convert = tower
        return _count_fitting(_try_convert(part.tensors, convert), wanted) == len(wanted)

    image_part, _, count, _ = _best_part(add_prefixed(mappings, image[0]), image)
    if count < len(image[0]) or image_part.path == text_part.path:
        return
    is_shared = fits(text_part, image) or fits(image_part, text)
    if is_shared or {text_part.rank, image_part.rank} & TRAINING_STATE_RANKS:
        raise UserError(
            f"weights {path}: the image tower fits {image_part.label} and the text tower "
            f"{text_part.label}, which are two states of a training: save both towers of one state "
            "as a separate file, preferably .safetensors"
        )


def _try_convert(state: State, convert: Convert) -> State:
    try:
        return convert(dict(state))
    except UserError:
        raise
    except Exception:  # a layout that a library's own conversion was not written for
        return state


def _count_fitting(state: State, wanted: Mapping[str, Tensor]) -> int:
    return sum(key in state and state[key].shape == wanted[key].shape for key in wanted)


def _hold_same_values(state: State, other: State, wanted: Collection[str]) -> bool:
    import torch

    try:
        return all(torch.equal(state[key], other[key]) for key in wanted)
    except RuntimeError:  # tensors of two types, or sparse ones
        return False
