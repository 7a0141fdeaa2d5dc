"""Google's .npz of a vision transformer -> tensors, and their names in timm.

Source: names and layouts of the Flax ViT as timm reads them (augreg, big_vision).
D token width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc import untrusted
from fgvc.model.backbone.rename import rename
from fgvc.model.backbone.weights.errors import unreadable_error
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

ROOTS = ("", "opt/target/", "params/", "params/img/")  # possible prefixes of all names
KERNEL = "embedding/kernel"
BLOCK = "Transformer/encoderblock"
STACKED = f"{BLOCK}/"  # big_vision may stack the tensors of all blocks
_HEADS = rf"{BLOCK}_(\d+)/MultiHeadDotProductAttention_[01]"  # counted in a block, or per type
_MODULES = (
    (rf"{_HEADS}/out", r"blocks.\1.attn.proj"),
    (rf"{BLOCK}_(\d+)/LayerNorm_0", r"blocks.\1.norm1"),
    (rf"{BLOCK}_(\d+)/LayerNorm_[12]", r"blocks.\1.norm2"),
    (rf"{BLOCK}_(\d+)/MlpBlock_[03]/Dense_0", r"blocks.\1.mlp.fc1"),
    (rf"{BLOCK}_(\d+)/MlpBlock_[03]/Dense_1", r"blocks.\1.mlp.fc2"),
    ("Transformer/encoder_norm", "norm"),
    ("embedding", "patch_embed.proj"),
    ("head", "head"),
)
RULES = (
    ("cls", "cls_token"),
    ("(?:Transformer/posembed_input/)?pos_embedding", "pos_embed"),
    (rf"{_HEADS}/([qkv])(?:uery|ey|alue)/kernel", r"blocks.\1.attn.qkv.weight#\2"),
    (rf"{_HEADS}/([qkv])(?:uery|ey|alue)/bias", r"blocks.\1.attn.qkv.bias#\2"),
    *((f"{old}/(?:kernel|scale)", f"{new}.weight") for old, new in _MODULES),
    *((f"{old}/bias", f"{new}.bias") for old, new in _MODULES),
)


def read(path: Path) -> dict[str, Tensor]:
    """The arrays of the file under their own names; NumPy's two raw bytes become bfloat16.

    Raises:
        UserError: damaged, or an array of objects, which only unpickling could read.
    """
    import numpy as np
    import torch

    tensors: dict[str, Tensor] = {}
    try:
        with np.load(untrusted.require_regular(path), allow_pickle=False) as arrays:
            for name in arrays.files:
                array = np.array(arrays[name])
                if array.dtype == np.dtype("V2"):
                    tensors[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
                elif array.dtype.kind in "fiub":
                    # torch only has the byte order of the machine
                    native = array.astype(array.dtype.newbyteorder("="), copy=False)
                    tensors[name] = torch.from_numpy(native)
    except Exception as error:  # each layer of the format reports damage with its own errors
        if "allow_pickle" in str(error):
            raise UserError(
                f"weights {path} hold an array of Python objects: refused, and nothing in the "
                "file was run; save arrays of numbers"
            ) from error
        raise unreadable_error(path, error) from error
    return tensors


def is_google(state: Mapping[str, object]) -> bool:
    """Whether the names are those of a Flax ViT."""
    return any(f"{root}{KERNEL}" in state for root in ROOTS)


def timm_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a Flax ViT, with its classifier, under timm's names and in torch's layouts.

    Names that are not of a plain ViT stay as they are, so that loading refuses them.
    """
    root = next(root for root in ROOTS if f"{root}{KERNEL}" in state)
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix(root)
        if name.startswith(STACKED):
            rest = name.removeprefix(STACKED)
            blocks = {f"{BLOCK}_{index}/{rest}": block for index, block in enumerate(value)}
            tensors |= {key: _torch_layout(key, block) for key, block in blocks.items()}
        elif not name.startswith("pre_logits/"):
            tensors[name] = _torch_layout(name, value)
    return rename(tensors, RULES)


def _torch_layout(name: str, value: Tensor) -> Tensor:
    """The float32 values in torch's order of axes."""
    value = value.float()
    if re.search(r"/(query|key|value)/", name):  # D x heads x head width; a bias without D
        return value.flatten(1).T if name.endswith("kernel") else value.flatten()
    if not name.endswith("kernel"):
        return value
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)
    return value.flatten(0, -2).T if value.ndim > 1 else value
