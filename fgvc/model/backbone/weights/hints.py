"""The selected part of a weights file -> notes for the record, and hints for error messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.config.weight_files.shards import SHARD
from fgvc.model.backbone.weights import npz, unexpected_tensors
from fgvc.model.backbone.weights.parts import (
    EMA_RANK,
    MAX_DEPTH,
    Part,
    State,
    largest_part,
    split_words,
)

if TYPE_CHECKING:
    from torch import Tensor


def selection_notes(
    content: Any, best: Part, others: Sequence[Part], path: Path
) -> tuple[str, ...]:
    """Notes on which part was read, unless it is the whole file, and on an EMA that was not."""
    notes = []
    if best.path or best.infix or others:
        notes.append(_part_note(best, others, path))
    if best.rank != EMA_RANK and isinstance(content, Mapping):
        # an EMA without names, or of some layers only
        notes += [
            f"weights {path.name}: the EMA in `{key}` does not fit the model and is left aside"
            for key, value in content.items()
            if "ema" in split_words(str(key)) and _holds_tensors(value)
        ]
    return tuple(notes)


def misfit_hint(
    part: Part, state: State, wanted: Mapping[str, Tensor], fitting: int, path: Path
) -> str:
    """What to add to the message about a part that lacks tensors of the model.

    Args:
        state: the converted tensors of the part. fitting: number of them that fit the model.
    """
    if SHARD.search(path.name):
        return "; the file is one shard of several: name the folder or the index of the shards"
    if hint := unexpected_tensors.adapter_hint(part.values):
        return hint
    if npz.is_google(part.values):
        return "; of Google's .npz files those of a plain ViT are read, by backbone=vit"
    if not fitting:
        heads = {key.partition(".")[0] for key in part.values if "." in key}
        if len(heads) == 1 and len(part.values) > 1:
            return f"; all names in the file begin with `{heads.pop()}.`"
        return f"; the file's first name is `{next(iter(part.values))}`"
    if not part.path:
        return ""
    missing = [key for key in wanted if key not in state]
    names = f"; missing: {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}" if missing else ""
    return f"; {fitting} of {len(wanted)} tensors fit when read from `{part.path}`{names}"


def surplus_hint(
    part: Part, state: State, wanted: Mapping[str, Tensor], mappings: Sequence[Part], path: Path
) -> str:
    """What to add to the message about a part that holds all tensors of the model, and more."""
    surplus = [key for key in state if key not in wanted]
    if not surplus:
        return ""
    largest = largest_part(mappings, path)
    addresses = {_address(value) for value in largest.values()}
    same = all(_address(value) in addresses for value in part.tensors.values())
    return unexpected_tensors.removal_hint(surplus, wanted, largest if same else (), path)


def _part_note(best: Part, others: Sequence[Part], path: Path) -> str:
    note = f"weights {path.name}: read from {best.label}"
    if best.infix:
        note += f", without `{best.infix}` inside names"
    if best.rank == EMA_RANK:
        note += ", the EMA, as timm does"
    unread = [f"`{part.path or 'the names without prefix'}` fits too" for part in others]
    if best.rest:
        names = ", ".join(best.rest[:2]) + (", ..." if len(best.rest) > 2 else "")
        unread.append(f"{len(best.rest)} tensors lack this prefix ({names})")
    return f"{note}; left aside: {', '.join(unread)}" if unread else note


def _holds_tensors(
    value: Any, depth: int = MAX_DEPTH, visited: set[tuple[int, int]] | None = None
) -> bool:
    from torch import Tensor

    visited = set() if visited is None else visited
    if (id(value), depth) in visited:  # the same object a thousand times in a thousand lists
        return False
    visited.add((id(value), depth))
    if isinstance(value, Tensor) or not depth or not isinstance(value, Mapping | list | tuple):
        return isinstance(value, Tensor)
    items = value.values() if isinstance(value, Mapping) else value
    return any(_holds_tensors(item, depth - 1, visited) for item in items)


def _address(value: Tensor) -> int:
    """The address of a tensor's values; of a sparse tensor, the identity of the object."""
    try:
        return value.data_ptr()
    except RuntimeError:
        return id(value)
