"""Tensors of a file that a model does not have -> the way out, for the message that refuses them.

None is dropped silently: the person removes them, with a command that the message gives.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from fgvc.config.weight_files.folder import MERGE
from fgvc.untrusted.shell import command

MAX_PREFIXES = 12  # starts of names in a command
ADAPTER_NAME = re.compile(
    r"\b(lora_[AB]|lora_magnitude_vector|ia3_l|hada_w\d_[ab]|lokr_w\d)\b"
)  # of PEFT
# what changes the features of a backbone that has it
ESSENTIAL = re.compile(
    r"(reg|register|storage|cls|dist|prompt)\w*_tokens?|norm_pre|ln_pre|pre_norm"
)


def adapter_hint(names: Iterable[str]) -> str:
    """What to add to a message about weights with matrices of PEFT; empty for others."""
    if not any(ADAPTER_NAME.search(name) for name in names):
        return ""
    return f"; it holds the matrices of a PEFT adapter: {MERGE}"


def removal_hint(
    extra: Sequence[str], wanted: Collection[str], names: Collection[str], path: Path
) -> str:
    """What to add to a message about a file that holds every tensor of a model, and more.

    Args:
        extra: names of the further tensors, as the model would call them.
        wanted: names of the model's tensors.
        names: as `weights.read` gives them; empty where it reads another part of the file.
    """
    if lora := adapter_hint(extra):
        return lora
    modules = {name.partition(".")[0] for name in wanted}
    if any(name.partition(".")[0] in modules or ESSENTIAL.search(name) for name in extra):
        return (
            "; the file is of another architecture: choose its row (backbone.checkpoint, "
            "backbone.size, backbone.registers), or give the row its architecture"
        )
    beyond = [name for name in names if any(f".{name}".endswith(f".{key}") for key in extra)]
    starts = _common_prefixes(beyond, [name for name in names if name not in beyond])
    if len(beyond) != len(extra) or starts is None or len(starts) > MAX_PREFIXES:
        return (
            "; if its features do not need them, as a decoder or the head of another task, save "
            "its state dict without them"
        )
    code = (
        "import torch; from fgvc.model.backbone import weights; "
        f"held = weights.read({str(path)!a}); "
        f"drop = ({', '.join(map(ascii, starts))},); "
        "held = {k: v for k, v in held.items() if not k.startswith(drop)}; "
        'torch.save(held, "NEW.pth")'
    )
    return (
        "; if its features do not need them, as a decoder or the head of another task, run "
        f"`{command(['python', '-c', code])}` and name NEW.pth"
    )


def _common_prefixes(names: Sequence[str], others: Sequence[str]) -> list[str] | None:
    """What these names begin with and none of the others does: whole modules where possible."""
    starts: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        heads = [*(f"{'.'.join(words[:end])}." for end in range(1, len(words))), name]
        free = [head for head in heads if not any(other.startswith(head) for other in others)]
        if not free:
            return None
        starts[free[0]] = None
    return list(starts)
