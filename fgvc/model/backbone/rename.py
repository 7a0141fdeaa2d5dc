"""Named tensors under the names of one library -> the names of another, by a table of patterns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# a pattern of a whole name -> the new name, which may refer to groups of the pattern. If the new
# name ends in #q, #k or #v, the tensor is a part of a matrix of queries, keys and values.
Rules = Sequence[tuple[str, str]]


def rename(state: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """The tensors under new names, with queries, keys and values stacked in this order.

    A tensor without a rule, or whose new name is taken, keeps its name, so that strict loading
    refuses it by this name. If one of three parts is missing, the others are not stacked.
    """
    import torch

    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        matches = ((re.fullmatch(pattern, key), new_name) for pattern, new_name in rules)
        new_key = next((match.expand(new_name) for match, new_name in matches if match), key)
        renamed[key if new_key in renamed else new_key] = value
    for base in {key[:-2] for key in renamed if key[-2:] in ("#q", "#k", "#v")}:
        parts = {letter: renamed.pop(f"{base}#{letter}", None) for letter in "qkv"}
        present = {letter: value for letter, value in parts.items() if value is not None}
        if len(present) == 3:
            renamed[base] = torch.cat(list(present.values()))
        else:
            renamed |= {f"{base}.{letter}": value for letter, value in present.items()}
    return renamed
