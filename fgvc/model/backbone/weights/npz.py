"""Google's .npz of a vision transformer -> tensors, and their names in timm.

Source: names and layouts of the Flax ViT as timm reads them (augreg, big_vision).
D token width.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc import untrusted
from fgvc.model.backbone.weights.read_file import unreadable_error
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

ROOTS = ("", "opt/target/", "params/", "params/img/")  # what may stand before every name
KERNEL = "embedding/kernel"


def read(path: Path) -> dict[str, Tensor]:
    """The arrays of the file under their own names; bfloat16 where NumPy knows two raw bytes.

    Raises:
        UserError: damaged, or an array of objects, which only unpickling would read.
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
                    # torch knows the machine's own order of bytes alone
                    native = array.astype(array.dtype.newbyteorder("="), copy=False)
                    tensors[name] = torch.from_numpy(native)
    except Exception as error:  # a damaged archive fails in as many ways as there are layers
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
    """The tensors of a Flax ViT under timm's names and in torch's layouts, classifier included.

    Names that belong to no part of a plain ViT stay as they are, so that they are refused later.
    """
    root = next(root for root in ROOTS if f"{root}{KERNEL}" in state)
    rest = {key.removeprefix(root): value.float() for key, value in state.items()}
    rest = {key: value for key, value in rest.items() if not key.startswith("pre_logits/")}
    found = {"patch_embed.proj.weight": _torch_kernel(rest.pop(KERNEL))}
    for name, ours in (
        ("embedding/bias", "patch_embed.proj.bias"),
        ("cls", "cls_token"),
        ("pos_embedding", "pos_embed"),
        ("Transformer/posembed_input/pos_embedding", "pos_embed"),
        ("Transformer/encoder_norm/scale", "norm.weight"),
        ("Transformer/encoder_norm/bias", "norm.bias"),
        ("head/bias", "head.bias"),
    ):
        if name in rest:
            found[ours] = rest.pop(name)
    if "head/kernel" in rest:
        found["head.weight"] = _torch_kernel(rest.pop("head/kernel"))
    return {**found, **_rename_blocks(_pop_blocks(rest)), **rest}


def _pop_blocks(rest: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes the tensors of the blocks out of `rest`; big_vision may stack those of all blocks."""
    stem, stacked = "Transformer/encoderblock", {}
    for name in [name for name in rest if name.startswith(f"{stem}/")]:
        for index, value in enumerate(rest.pop(name)):
            stacked[f"{index}/{name.removeprefix(f'{stem}/')}"] = value
    single = [name for name in rest if name.startswith(f"{stem}_")]
    return stacked | {name.removeprefix(f"{stem}_"): rest.pop(name) for name in single}


def _rename_blocks(held: dict[str, Tensor]) -> dict[str, Tensor]:
    import torch

    big_vision = any("/LayerNorm_1/" in name for name in held)
    attention, mlp, norm2 = (0, 0, 1) if big_vision else (1, 3, 2)
    found: dict[str, Tensor] = {}
    for index in dict.fromkeys(name.partition("/")[0] for name in held):
        ours = f"blocks.{index}"
        multi = f"{index}/MultiHeadDotProductAttention_{attention}"
        for kind, last in (("kernel", "weight"), ("bias", "bias")):
            parts = [held.pop(f"{multi}/{part}/{kind}", None) for part in ("query", "key", "value")]
            flat = [_flatten_heads(part, kind) for part in parts if part is not None]
            if len(flat) == 3:
                found[f"{ours}.attn.qkv.{last}"] = torch.cat(flat)
        for theirs, name in (
            (f"{multi}/out/bias", "attn.proj.bias"),
            (f"{index}/LayerNorm_0/scale", "norm1.weight"),
            (f"{index}/LayerNorm_0/bias", "norm1.bias"),
            (f"{index}/LayerNorm_{norm2}/scale", "norm2.weight"),
            (f"{index}/LayerNorm_{norm2}/bias", "norm2.bias"),
            (f"{index}/MlpBlock_{mlp}/Dense_0/bias", "mlp.fc1.bias"),
            (f"{index}/MlpBlock_{mlp}/Dense_1/bias", "mlp.fc2.bias"),
            (f"{index}/MlpBlock_{mlp}/Dense_0/kernel", "mlp.fc1.weight"),
            (f"{index}/MlpBlock_{mlp}/Dense_1/kernel", "mlp.fc2.weight"),
        ):
            if theirs in held:
                found[f"{ours}.{name}"] = _torch_kernel(held.pop(theirs))
        if (out := held.pop(f"{multi}/out/kernel", None)) is not None:
            found[f"{ours}.attn.proj.weight"] = out.flatten(0, -2).T
    return found | {f"Transformer/encoderblock_{name}": value for name, value in held.items()}


def _flatten_heads(value: Tensor, kind: str) -> Tensor:
    """Heads side by side: D x heads x head width -> rows of all heads, D columns."""
    return value.flatten(1).T if kind == "kernel" else value.flatten()


def _torch_kernel(value: Tensor) -> Tensor:
    """A dense or convolution kernel in torch's order of axes; a bias as it is."""
    if value.ndim == 4:
        if value.shape[:3] == (1, 1, 1):  # a classifier that was saved as a convolution
            return value.flatten()
        return value.permute(3, 2, 0, 1)
    return value.T if value.ndim == 2 else value
