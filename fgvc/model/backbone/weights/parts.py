"""The content of a weights file -> its parts: every group of tensors that may be a model's state.

A part is a mapping of names to tensors somewhere in the file (`model`, `state_dict_ema`,
`model_ema.module`), or those of its tensors whose names share a prefix (`module.`, `backbone.`).
If several parts fit a model, the EMA has the best rank, as in timm, then a teacher, then the order
in which timm looks for a state.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.config.weight_files.tensor_names import INSIDE
from fgvc.model.backbone.weights.read_file import unreadable_error
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

State = dict[str, "Tensor"]
MAX_VALUES = 500_000  # in all mappings of a file together; a large model has thousands
MAX_DEPTH = 4  # of mappings inside mappings, and of dots in a prefix
WRAPPER_NAMES = ("module", "_orig_mod")  # added by DataParallel and torch.compile
WRAPPERS = re.compile(rf"(?:(?:{'|'.join(WRAPPER_NAMES)})\.)*")
LAST_WORDS = {"student", "momentum", "target", "k"}  # authors and timm take the counterpart
EMA_RANK, TEACHER_RANK, OTHER_RANK, LAST_RANK = 0, 1, 5, 9
RANKS = {"": 2, "state_dict": 2, "model": 3}  # by the first name of a path
TRAINING_KEYS = re.compile(r"(lr_|amp_)?(opt|optim|optimizer|scheduler|scaler)s?(_.*)?")


def split_words(name: str) -> set[str]:
    """The words of a name in lower case: {"state", "dict", "ema"} of `state_dict_EMA`."""
    return set(re.split(r"[^a-z0-9]+", name.lower()))


@dataclass(frozen=True)
class Part:
    """Named values inside a file.

    wrapper: the keys that lead to the values. prefix: removed from their names. rest: names beside
    them in the same mapping that lack the prefix.
    """

    wrapper: tuple[str, ...]
    prefix: str
    values: Mapping[str, Any]
    rest: Sequence[str] = ()

    @property
    def path(self) -> str:
        """Where the values are in the file; empty if they are the whole file."""
        return ".".join([*self.wrapper, *self.prefix.split(".")]).strip(".")

    @property
    def label(self) -> str:
        """The path as messages show it."""
        return f"`{self.path}`" if self.path else "the names without prefix"

    @property
    def rank(self) -> int:
        """Among parts that fit equally well, the lowest rank is read."""
        words = split_words(self.path)
        if "ema" in words:
            return EMA_RANK
        if "teacher" in words:
            return TEACHER_RANK
        if words & LAST_WORDS:
            return LAST_RANK
        names = [name for name in self.path.split(".") if name not in WRAPPER_NAMES]
        return RANKS.get(names[0] if names else "", OTHER_RANK)

    @property
    def tensors(self) -> State:
        """The tensors among the values, by their names without the prefix and wrappers."""
        from torch import Tensor

        return {
            INSIDE.sub("", key[len(self.prefix) :]): value.detach()
            for key, value in self.values.items()
            if isinstance(value, Tensor)
        }

    @property
    def infix(self) -> str:
        """The wrapper that `tensors` removes from the middle of names; empty if there is none."""
        matches = (INSIDE.search(key[len(self.prefix) :]) for key in self.values)
        return next((match[0] for match in matches if match), "")

    def check(self, path: Path) -> None:
        """Raises UserError if a value is no tensor."""
        from torch import Tensor

        for key, value in self.values.items():
            if key and not isinstance(value, Tensor):
                kind = type(value).__name__
                raise UserError(
                    f"weights {path} hold a {kind} at {key!r}, where a tensor should be"
                )


def find_mappings(content: Any, path: Path) -> list[Part]:
    """Every mapping of names to tensors in the content of a file.

    Raises:
        UserError: there is none, or the mappings hold more than MAX_VALUES values.
    """
    try:
        mappings = list(_walk(content, (), iter(range(MAX_VALUES))))
    except ValueError as error:
        raise unreadable_error(path, error) from error
    if not mappings:
        kind = type(content).__name__
        if isinstance(content, Mapping) and content:
            kind += f" of {', '.join(map(str, list(content)[:3]))}"
        raise UserError(f"weights {path} hold a {kind}, not named tensors")
    return mappings


def add_prefixed(mappings: Sequence[Part], wanted: Collection[str]) -> list[Part]:
    """The mappings and their parts that share a prefix, in the order of their ranks.

    A part has at least half as many values as `wanted`.
    """
    least = max(1, len(wanted) // 2)
    parts = [part for mapping in mappings for part in (mapping, *_prefixed_parts(mapping, least))]
    return sorted(parts, key=lambda part: part.rank)


def largest_part(mappings: Sequence[Part], path: Path) -> State:
    """The tensors of the mapping that is read without a model: by rank, among the largest."""
    most = max(len(part.tensors) for part in mappings)
    large = [part for part in mappings if 2 * len(part.tensors) >= most]
    part = min(large, key=lambda part: (len(part.tensors) < len(part.values), part.rank))
    part.check(path)
    # `module.`, `_orig_mod.` or both, if all names begin with it
    common = os.path.commonprefix(list(part.values))  # noqa: RUF071 - of names, not of paths
    wrappers = WRAPPERS.match(common)
    prefix = wrappers[0] if wrappers else ""
    return Part((), prefix, part.values).tensors


def _walk(content: Any, wrapper: tuple[str, ...], budget: Iterator[int]) -> Iterator[Part]:
    """Every mapping of names with a tensor among its values, except the state of an optimiser.

    Args:
        budget: counts the values that may still be visited. A pickle of a few bytes can hold the
            same mapping a thousand times in each of a thousand mappings.
    """
    from torch import Tensor

    if not isinstance(content, Mapping) or len(wrapper) > MAX_DEPTH:
        return
    if sum(1 for _ in zip(content, budget, strict=False)) < len(content):
        raise ValueError(f"more than {MAX_VALUES} values in mappings inside mappings")
    if any(isinstance(value, Tensor) for value in content.values()) and all(
        isinstance(key, str) for key in content
    ):
        yield Part(wrapper, "", content)
    for key, value in content.items():
        if isinstance(value, Mapping) and not TRAINING_KEYS.fullmatch(str(key).lower()):
            yield from _walk(value, (*wrapper, str(key)), budget)


def _prefixed_parts(mapping: Part, least: int) -> Iterator[Part]:
    """Parts of at least `least` values whose names share a prefix that ends in a dot."""
    counts: Counter[str] = Counter()
    for key in mapping.values:
        names = key.split(".")[:-1][:MAX_DEPTH]
        counts.update(".".join(names[: end + 1]) + "." for end in range(len(names)))
    for prefix, count in counts.items():
        if count >= least:
            values = {key: value for key, value in mapping.values.items() if key.startswith(prefix)}
            rest = [key for key in mapping.values if key not in values]
            yield Part(mapping.wrapper, prefix, values, rest)
