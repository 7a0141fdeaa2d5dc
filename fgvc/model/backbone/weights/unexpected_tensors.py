"""Tensors of a file that a model does not have -> what to do, for the message that refuses them.

No tensor is dropped silently. The message gives a command that removes the unexpected tensors.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from fgvc.config.weight_files.folder import MERGE
from fgvc.untrusted.shell import command

MAX_PREFIXES = 12  # in a command
ADAPTER_NAME = re.compile(
    r"\b(lora_[AB]|lora_magnitude_vector|ia3_l|hada_w\d_[ab]|lokr_w\d)\b"
)  # of PEFT
# tensors that change the features of a backbone
ESSENTIAL = re.compile(
    r"(reg|register|storage|cls|dist|prompt)\w*_tokens?|norm_pre|ln_pre|pre_norm"
)


def adapter_hint(names: Iterable[str]) -> str:
    """What to add to a message about weights with matrices of PEFT; empty for other weights."""
    if not any(ADAPTER_NAME.search(name) for name in names):
        return ""
    return f"; it holds the matrices of a PEFT adapter: {MERGE}"


def removal_hint(
    extra: Sequence[str], wanted: Collection[str], names: Collection[str], path: Path
) -> str:
    """What to add to a message about a file that holds all tensors of a model, and more.

    Args:
        extra: names of the unexpected tensors, after conversion to the model's names.
        wanted: names of the model's tensors.
        names: as `weights.read` returns them; empty if it reads another part of the file.
    """
    if lora := adapter_hint(extra):
        return lora
    modules = {name.partition(".")[0] for name in wanted}
    if any(name.partition(".")[0] in modules or ESSENTIAL.search(name) for name in extra):
        return (
            "; the file is of another architecture: choose its row (backbone.checkpoint, "
            "backbone.size, backbone.registers), or give the row its architecture"
        )
    surplus = [name for name in names if any(f".{name}".endswith(f".{key}") for key in extra)]
    prefixes = _common_prefixes(surplus, [name for name in names if name not in surplus])
    if len(surplus) != len(extra) or prefixes is None or len(prefixes) > MAX_PREFIXES:
        return (
            "; if its features do not need them, as a decoder or the head of another task, save "
            "its state dict without them"
        )
    code = (
        "import torch; from fgvc.model.backbone import weights; "
        f"held = weights.read({str(path)!a}); "
        f"drop = ({', '.join(map(ascii, prefixes))},); "
        "held = {k: v for k, v in held.items() if not k.startswith(drop)}; "
        'torch.save(held, "NEW.pth")'
    )
    return (
        "; if its features do not need them, as a decoder or the head of another task, run "
        f"`{command(['python', '-c', code])}` and name NEW.pth"
    )


def _common_prefixes(names: Sequence[str], others: Sequence[str]) -> list[str] | None:
    """Prefixes of these names that no other name has: whole modules where possible."""
    prefixes: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        candidates = [*(f"{'.'.join(words[:end])}." for end in range(1, len(words))), name]
        unique = [
            head for head in candidates if not any(other.startswith(head) for other in others)
        ]
        if not unique:
            return None
        prefixes[unique[0]] = None
    return list(prefixes)
