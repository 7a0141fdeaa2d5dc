"""The selected part of a weights file -> notes for the record, and hints for error messages.

No tensor is dropped silently: the message about tensors that a model does not have gives a command
that removes them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.config.weight_files.folder import MERGE
from fgvc.config.weight_files.shards import SHARD
from fgvc.model.backbone.weights import npz
from fgvc.model.backbone.weights.parts import EMA_RANK, Part, State, largest_part, split_words
from fgvc.untrusted.shell import command

if TYPE_CHECKING:
    from torch import Tensor

MAX_PREFIXES = 12  # in a command
ADAPTER_NAME = re.compile(  # of PEFT
    r"\b(lora_[AB]|lora_magnitude_vector|ia3_l|hada_w\d_[ab]|lokr_w\d)\b"
)
# tensors that change the features of a backbone
ESSENTIAL = re.compile(
    r"(reg|register|storage|cls|dist|prompt)\w*_tokens?|norm_pre|ln_pre|pre_norm"
)


def selection_notes(
    content: Any, best: Part, others: Sequence[Part], path: Path
) -> tuple[str, ...]:
    """Notes on which part was read, unless it is the whole file, and on an EMA that was not."""
    notes = []
    if best.path or best.infix or others:
        note = f"weights {path.name}: read from {best.label}"
        if best.infix:
            note += f", without `{best.infix}` inside names"
        if best.rank == EMA_RANK:
            note += ", the EMA, as timm does"
        unread = [f"{part.label} fits too" for part in others]
        if best.rest:
            names = ", ".join(best.rest[:2]) + (", ..." if len(best.rest) > 2 else "")
            unread.append(f"{len(best.rest)} tensors lack this prefix ({names})")
        notes.append(f"{note}; ignored: {', '.join(unread)}" if unread else note)
    if best.rank != EMA_RANK and isinstance(content, Mapping):
        # an EMA without names, or of some layers only
        notes += [
            f"weights {path.name}: the EMA in `{key}` does not fit the model and is ignored"
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
    if hint := _adapter_hint(part.values):
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
    """The hint for a part that holds all tensors of the model and further ones."""
    surplus = [key for key in state if key not in wanted]
    if not surplus:
        return ""
    largest = largest_part(mappings, path)
    addresses = {_address(value) for value in largest.values()}
    is_same = all(_address(value) in addresses for value in part.tensors.values())
    return removal_hint(surplus, wanted, largest if is_same else (), path)


def removal_hint(
    extra: Sequence[str], wanted: Collection[str], names: Collection[str], path: Path
) -> str:
    """The hint for a file that holds all tensors of a model and further ones.

    Args:
        extra: names of the unexpected tensors, after conversion to the model's names.
        wanted: names of the model's tensors.
        names: as `weights.read` returns them; empty if it reads another part of the file.
    """
    if hint := _adapter_hint(extra):
        return hint
    modules = {name.partition(".")[0] for name in wanted}
    if any(name.partition(".")[0] in modules or ESSENTIAL.search(name) for name in extra):
        return (
            "; the file is of another architecture: choose its row (backbone.checkpoint, "
            "backbone.size, backbone.registers), or give the row its architecture"
        )
    way_out = "save its state dict without them"
    surplus = [name for name in names if any(f".{name}".endswith(f".{key}") for key in extra)]
    prefixes = _common_prefixes(surplus, [name for name in names if name not in surplus])
    if len(surplus) == len(extra) and prefixes and len(prefixes) <= MAX_PREFIXES:
        code = (
            "import torch; from fgvc.model.backbone import weights; "
            f"held = weights.read({str(path)!a}); "
            f"drop = ({', '.join(map(ascii, prefixes))},); "
            "held = {k: v for k, v in held.items() if not k.startswith(drop)}; "
            'torch.save(held, "NEW.pth")'
        )
        way_out = f"run `{command(['python', '-c', code])}` and name NEW.pth"
    why = "if its features do not need them, as a decoder or the head of another task"
    return f"; {why}, {way_out}"


def _adapter_hint(names: Iterable[str]) -> str:
    """What to add to a message about weights with matrices of PEFT; empty for other weights."""
    if not any(ADAPTER_NAME.search(name) for name in names):
        return ""
    return f"; it holds the matrices of a PEFT adapter: {MERGE}"


def _common_prefixes(names: Sequence[str], others: Sequence[str]) -> list[str]:
    """Prefixes of these names that no other name has: whole modules where possible.

    Empty if one of the names is the beginning of another name.
    """
    prefixes: dict[str, None] = {}
    for name in names:
        ends = [match.end() for match in re.finditer(r"\.|$", name)]
        unique = (name[:end] for end in ends if not any(o.startswith(name[:end]) for o in others))
        if (prefix := next(unique, None)) is None:
            return []
        prefixes[prefix] = None
    return list(prefixes)


def _holds_tensors(value: Any) -> bool:
    from torch import Tensor

    waiting, visited = [value], set()  # the same object may occur a thousand times
    for item in waiting:
        if isinstance(item, Tensor):
            return True
        if isinstance(item, Mapping | list | tuple) and id(item) not in visited:
            visited.add(id(item))
            waiting += item.values() if isinstance(item, Mapping) else item
    return False


def _address(value: Tensor) -> int:
    """The address of a tensor's values; of a sparse tensor, the identity of the object."""
    try:
        return value.data_ptr()
    except RuntimeError:
        return id(value)
