"""What a file holds -> the named tensors in it that are the model's.

A part is a mapping of names to tensors somewhere in the file (`model`, `state_dict_ema`,
`model_ema.module`), or those of its tensors whose names share a prefix (`module.`, `backbone.`).
Of the parts that fit a model, the EMA comes first, as in timm, then a teacher, then timm's order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.config.weight_files.shards import SHARD
from fgvc.config.weight_files.tensor_names import INSIDE
from fgvc.model.backbone.weights import npz, unexpected_tensors
from fgvc.model.backbone.weights.read_file import read_content, unreadable_error
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
Convert = Callable[[State], State]
Tower = tuple[Mapping[str, "Tensor"], Convert]  # its own state, and how a part becomes it
MAX_VALUES = 500_000  # of all mappings of a file together; a large model has thousands
MAX_DEPTH = 4  # of mappings inside mappings, and of dots in a prefix
WRAPPER_NAMES = ("module", "_orig_mod")  # of DataParallel and torch.compile
LAST_WORDS = {
    "student",
    "momentum",
    "target",
    "k",
}  # their counterpart is what authors and timm take
RANKS = {"": 2, "state_dict": 2, "model": 3}  # first word of a path: rank
OTHER_RANK = 5
TRAINING_STATE_RANKS = {0, 1, 9}  # ranks of EMA, teacher and student: states of one training
TRAINING_KEYS = re.compile(r"(lr_|amp_)?(opt|optim|optimizer|scheduler|scaler)s?(_.*)?")


@dataclass(frozen=True)
class Part:
    """Named values inside a file. wrapper: keys that lead to them. prefix: what is taken off their
    names. rest: values beside them whose names lack the prefix."""

    wrapper: tuple[str, ...]
    prefix: str
    values: Mapping[str, Any]
    rest: Sequence[str] = ()

    @property
    def path(self) -> str:
        """Where the values are in the file; empty: they are all of it."""
        return ".".join([*self.wrapper, *self.prefix.split(".")]).strip(".")

    @property
    def rank(self) -> int:
        """Which of two parts that fit is read: the lower."""
        words = set(re.split(r"[^a-z0-9]+", self.path.lower()))
        if "ema" in words:
            return 0
        if "teacher" in words:
            return 1
        if words & LAST_WORDS:
            return 9
        names = [name for name in self.path.split(".") if name not in WRAPPER_NAMES]
        return RANKS.get(names[0] if names else "", OTHER_RANK)

    @property
    def tensors(self) -> State:
        """The tensors among the values, under their short names."""
        from torch import Tensor

        return {
            INSIDE.sub("", key[len(self.prefix) :]): value.detach()
            for key, value in self.values.items()
            if isinstance(value, Tensor)
        }

    @property
    def inside(self) -> str:
        """What is taken out of the middle of names; empty: nothing."""
        found = (INSIDE.search(key[len(self.prefix) :]) for key in self.values)
        return next((match[0] for match in found if match), "")

    def check(self, path: Path) -> None:
        """UserError if one of the values is no tensor."""
        from torch import Tensor

        alien = next((key for key, held in self.values.items() if not isinstance(held, Tensor)), "")
        if alien:
            kind = type(self.values[alien]).__name__
            raise UserError(f"weights {path} hold a {kind} at {alien!r}, where a tensor should be")


@dataclass(frozen=True)
class SelectedState:
    """The part of a file that a model is filled from.

    state: its tensors as the file names them, without the prefix. tensors: after conversion.
    notes: which part was read, if not the whole file. hint: for a message if they do not fit.
    """

    state: State
    tensors: State
    notes: tuple[str, ...]
    hint: str


@dataclass(frozen=True)
class BestPart:
    """The part that fits best. state: its converted tensors. count: how many of them fit.
    others: further parts that fit wholly, with other numbers."""

    part: Part
    state: State
    count: int
    others: Sequence[Part]


def read(path: str | Path) -> State:
    """The named tensors of a file, chosen without a model: by rank, among the largest parts.

    Raises:
        UserError: not a weights file, cut short, or holding more than tensors; one line.
    """
    path = Path(path)
    return _largest_part(_mappings(read_content(path), path), path)


def _largest_part(parts: Sequence[Part], path: Path) -> State:
    most = max(len(part.tensors) for part in parts)
    large = [part for part in parts if 2 * len(part.tensors) >= most]
    part = min(large, key=lambda part: (len(part.tensors) < len(part.values), part.rank))
    part.check(path)
    return Part((), _parallel_prefix(part.values), part.values).tensors


def select(
    path: Path, wanted: Mapping[str, Tensor], convert: Convert, other_tower: Tower | None = None
) -> SelectedState:
    """The part of a file with which all tensors of a model fit; otherwise the one with the most.

    Args:
        wanted: the model's own state; only names and shapes are read.
        convert: a part's tensors -> the model's names and shapes.
        other_tower: the image tower, where `wanted` is a text tower that is compared with it.

    Raises:
        UserError: not a weights file, several parts fit equally well and differ, or the other
            tower would be read from another training state.
    """
    held = read_content(path)
    mappings = _mappings(held, path)
    parts = _parts(mappings, wanted)
    fit = _find_best_part(parts, wanted, convert)
    best, state = fit.part, fit.state
    if not fit.count:
        best = next(part for part in parts if not part.prefix)
        state = _try_convert(best.tensors, convert)
    best.check(path)
    if fit.count < len(wanted):
        return SelectedState(
            best.tensors, state, (), _misfit_hint(best, state, wanted, fit.count, path)
        )
    _check_unambiguous(best, fit.others, path)
    if other_tower is not None:
        _check_towers(mappings, fit.part, (wanted, convert), other_tower, path)
    notes = [*_notes(best, fit.others, path), *_unread_ema_notes(held, best, path)]
    return SelectedState(
        best.tensors, state, tuple(notes), _surplus_hint(best, state, wanted, mappings, path)
    )


def _parts(mappings: Sequence[Part], wanted: Mapping[str, Tensor]) -> list[Part]:
    """Every part of the mappings, the preferred ones first."""
    least = max(1, len(wanted) // 2)
    parts = [part for whole in mappings for part in (whole, *_prefixed_parts(whole, least))]
    return sorted(parts, key=lambda part: part.rank)


def _find_best_part(
    parts: Sequence[Part], wanted: Mapping[str, Tensor], convert: Convert
) -> BestPart:
    """The first of the parts with the most tensors that fit."""
    best, state, most = parts[0], {}, -1
    others: list[Part] = []
    for part in parts:
        converted = _try_convert(part.tensors, convert)
        fits = _count_fitting(converted, wanted)
        if fits == most == len(wanted) and not _hold_same_values(converted, state, wanted):
            others.append(part)
        if fits > most:
            best, state, most = part, converted, fits
    return BestPart(best, state, most, others)


def _check_towers(
    mappings: Sequence[Part], text_part: Part, text: Tower, image: Tower, path: Path
) -> None:
    """Refuse towers of two training states, such as an EMA that holds the image tower only.

    Towers that were saved apart, each under a name of its own, are no two states.
    """
    fit = _find_best_part(_parts(mappings, image[0]), *image)
    if fit.count < len(image[0]) or fit.part.path == text_part.path:
        return
    shared = _fits_tower(text_part, image) or _fits_tower(fit.part, text)
    if shared or {text_part.rank, fit.part.rank} & TRAINING_STATE_RANKS:
        names = [
            f"`{part.path}`" if part.path else "the names without prefix"
            for part in (fit.part, text_part)
        ]
        raise UserError(
            f"weights {path}: the image tower fits {names[0]} and the text tower {names[1]}, which "
            "are two states of a training: save both towers of one state as a file of their own, "
            "best as .safetensors"
        )


def _fits_tower(part: Part, tower: Tower) -> bool:
    wanted, convert = tower
    return _count_fitting(_try_convert(part.tensors, convert), wanted) == len(wanted)


def _mappings(held: Any, path: Path) -> list[Part]:
    try:
        found = list(_walk(held, (), iter(range(MAX_VALUES))))
    except ValueError as error:
        raise unreadable_error(path, error) from error
    if not found:
        kind = type(held).__name__
        if isinstance(held, Mapping) and held:
            kind += f" of {', '.join(map(str, list(held)[:3]))}"
        raise UserError(f"weights {path} hold a {kind}, not named tensors")
    return found


def _walk(held: Any, wrapper: tuple[str, ...], left: Iterator[int]) -> Iterator[Part]:
    """Every mapping of names with a tensor among its values; none of a training state.

    Args:
        left: counts down the values that may still be looked at: a pickle of a few bytes can hold
            the same mapping a thousand times in each of a thousand mappings.
    """
    from torch import Tensor

    if not isinstance(held, Mapping) or len(wrapper) > MAX_DEPTH:
        return
    if sum(1 for _ in zip(held, left, strict=False)) < len(held):
        raise ValueError(f"more than {MAX_VALUES} values in mappings inside mappings")
    if any(isinstance(value, Tensor) for value in held.values()) and all(
        isinstance(key, str) for key in held
    ):
        yield Part(wrapper, "", held)
    for key, value in held.items():
        if isinstance(value, Mapping) and not TRAINING_KEYS.fullmatch(str(key).lower()):
            yield from _walk(value, (*wrapper, str(key)), left)


def _prefixed_parts(whole: Part, least: int) -> Iterator[Part]:
    """Parts of at least `least` values whose names share a prefix that ends in a dot."""
    counts: Counter[str] = Counter()
    for key in whole.values:
        names = key.split(".")[:-1][:MAX_DEPTH]
        counts.update(".".join(names[: end + 1]) + "." for end in range(len(names)))
    for prefix, count in counts.items():
        if count >= least:
            inside = {key: held for key, held in whole.values.items() if key.startswith(prefix)}
            rest = [key for key in whole.values if not key.startswith(prefix)]
            yield Part(whole.wrapper, prefix, inside, rest)


def _parallel_prefix(names: Collection[str]) -> str:
    """`module.`, `_orig_mod.` or both, if all names begin so."""
    prefix = ""
    while heads := {name[len(prefix) :].partition(".")[0] for name in names}:
        if len(heads) > 1 or not heads <= set(WRAPPER_NAMES):
            break
        prefix += f"{heads.pop()}."
    return prefix


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
    """Whether two parts hold the same numbers."""
    import torch

    try:
        return all(torch.equal(state[key], other[key]) for key in wanted)
    except RuntimeError:  # tensors of two types, or sparse ones
        return False


def _check_unambiguous(best: Part, others: Sequence[Part], path: Path) -> None:
    equal = [part for part in others if part.rank == best.rank]
    if equal:
        names = " and ".join(f"`{part.path}`" for part in (best, *equal))
        raise UserError(
            f"weights {path} hold several models that fit, {names}: save the intended model "
            "in a file of its own, preferably .safetensors"
        )


def _notes(best: Part, others: Sequence[Part], path: Path) -> Iterator[str]:
    """One note: the part that is read, unless it is the whole file."""
    if not best.path and not best.inside and not others:
        return
    where = f"`{best.path}`" if best.path else "the names without prefix"
    read = f"weights {path.name}: read from {where}"
    if best.inside:
        read += f", without `{best.inside}` inside names"
    if best.rank == 0:
        read += ", the EMA, as timm does"
    asides = [f"`{part.path or 'the names without prefix'}` fits too" for part in others]
    if best.rest:
        some = ", ".join(best.rest[:2]) + (", ..." if len(best.rest) > 2 else "")
        asides.append(f"{len(best.rest)} tensors lack this prefix ({some})")
    yield "; left aside: ".join([read, *([", ".join(asides)] if asides else [])])


def _unread_ema_notes(held: Any, best: Part, path: Path) -> Iterator[str]:
    """A note on an EMA beside the part that is read: one without names, or of some layers."""
    if best.rank == 0 or not isinstance(held, Mapping):
        return
    for key, value in held.items():
        words = re.split(r"[^a-z0-9]+", str(key).lower())
        if "ema" in words and _holds_tensors(value):
            yield (
                f"weights {path.name}: the EMA in `{key}` does not fit the model and is left aside"
            )


def _holds_tensors(
    value: Any, depth: int = MAX_DEPTH, seen: set[tuple[int, int]] | None = None
) -> bool:
    from torch import Tensor

    seen = set() if seen is None else seen
    if (id(value), depth) in seen:  # held a thousand times in each of a thousand lists
        return False
    seen.add((id(value), depth))
    inside = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Tensor) or not depth or not isinstance(value, Mapping | list | tuple):
        return isinstance(value, Tensor)
    return any(_holds_tensors(item, depth - 1, seen) for item in inside)


def _misfit_hint(
    part: Part, state: State, wanted: Mapping[str, Tensor], fits: int, path: Path
) -> str:
    """What was seen of a part that does not fit."""
    if SHARD.search(path.name):
        return "; the file is one shard of several: name the folder or the index of the shards"
    if adapter := unexpected_tensors.adapter_hint(part.values):
        return adapter
    if npz.is_google(part.values):
        return "; of Google's .npz files those of a plain ViT are read, by backbone=vit"
    if not fits:
        heads = {key.partition(".")[0] for key in part.values if "." in key}
        if len(heads) == 1 and len(part.values) > 1:
            return f"; all names in the file begin with `{heads.pop()}.`"
        return f"; the file's first name is `{next(iter(part.values))}`"
    if not part.path:
        return ""
    missing = [key for key in wanted if key not in state]
    lacks = f"; missing: {', '.join(missing[:3])}{' ...' * (len(missing) > 3)}" if missing else ""
    return f"; {fits} of {len(wanted)} tensors fit when read from `{part.path}`{lacks}"


def _data_address(value: Tensor) -> int:
    """Where the values of a tensor lie; of a sparse one, which tensor it is."""
    try:
        return value.data_ptr()
    except RuntimeError:
        return id(value)


def _surplus_hint(
    part: Part, state: State, wanted: Mapping[str, Tensor], mappings: Sequence[Part], path: Path
) -> str:
    """The way out for a part that holds every tensor of the model, and more."""
    beyond = [key for key in state if key not in wanted]
    if not beyond:
        return ""
    whole = _largest_part(mappings, path)
    stored = {_data_address(value) for value in whole.values()}
    same = all(_data_address(value) in stored for value in part.tensors.values())
    return unexpected_tensors.removal_hint(beyond, wanted, whole if same else (), path)
