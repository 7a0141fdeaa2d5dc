"""Drop path and dropout -> masks that depend on the image and the layer only, not on the batch.

A mask is a pure function of (key of the image, index of the layer). The trainer derives the key
from (seed, step, place in the global batch). Thus micro-batches, ranks, recomputed blocks and a
second forward pass of the same images all have the same masks. No global generator is used.
B batch, E elements per image.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fgvc.model.backbone.base import Backbone
from fgvc.types import UserError

# the two residual branches of a block, by their names in timm, open_clip and transformers
BRANCHES = (("drop_path1", "drop_path2"), ("ls_1", "ls_2"), ("self_attn", "mlp"))
# constants of SplitMix64 as signed 64-bit integers
_STEP, _FIRST, _SECOND = (
    value - (1 << 64) for value in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_BITS = 53  # of a draw


class RandomLayers:
    """The indices of a model's random layers, and the keys of the images of its next forward pass.

    key_B: int64, on the device of the model; set before each forward in training.
    """

    def __init__(self) -> None:
        self.key_B: Tensor | None = None
        self._count = 0

    def set_keys(self, key_B: Tensor) -> None:
        self.key_B = key_B

    def next_index(self) -> int:
        """A new index, so that no two layers share their draws."""
        self._count += 1
        return self._count

    def mask(self, tensor: Tensor, index: int, rate: float, per_image: bool) -> Tensor:
        """0 with probability `rate`, otherwise 1 / (1 - rate), in float32 or more.

        Args:
            tensor: its first dimension is B.
            per_image: one draw per image (drop path); otherwise one per element (dropout).

        Raises:
            UserError: the first dimension of `tensor` does not count images.
        """
        assert self.key_B is not None, "set_keys() must precede a forward in training"
        if len(tensor) != len(self.key_B):
            raise UserError(
                f"backbone.checkpoints: a dropout layer of the architecture sees {len(tensor)} rows"
                f" for {len(self.key_B)} images, so it cannot draw per image. Set its rate to 0."
            )
        shape = [len(tensor), *([1] * (tensor.ndim - 1) if per_image else tensor.shape[1:])]
        draw_BE = draws(self.key_B, index, math.prod(shape[1:]))
        keep_BE = draw_BE >= round(rate * 2**_BITS)
        dtype = torch.promote_types(tensor.dtype, torch.float32)  # 1 / .9 in bfloat16 is 1.109
        return (keep_BE.to(dtype) / (1 - rate)).view(shape)


class ImageDrop(nn.Module):
    """Drop path or dropout whose mask comes from `layers`; the identity in evaluation.

    p: the rate, under the name that nn.Dropout gives it.
    """

    def __init__(self, layers: RandomLayers, rate: float, per_image: bool) -> None:
        super().__init__()
        self.layers, self.p, self.per_image = layers, rate, per_image
        self.index = layers.next_index()

    def forward(self, tensor: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return tensor
        mask = self.layers.mask(tensor, self.index, self.p, self.per_image)
        return (tensor * mask).to(tensor.dtype)


@torch.library.custom_op("fgvc::draws", mutates_args=())
def draws(key_B: Tensor, index: int, elements: int) -> Tensor:
    """drawn_BE: int64, uniform in 0 .. 2^53 - 1, independent between keys, layers and elements.

    A custom operator, because torch.compile must not trace it: it treats the counters as memory
    offsets and rejects their overflow, which is intended here.
    Source: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), one generator per image; integers
    alone, so that every device and precision draws the same.

    Args:
        key_B: int64, the seeds of the generators.
        index: of the layer; below 2^31. elements: below 2^32.
    """
    counter_E = torch.arange(1, elements + 1, device=key_B.device) + (index << 32)
    state_BE = key_B[:, None] + counter_E * _STEP
    state_BE = (state_BE ^ _shift_right(state_BE, 30)) * _FIRST
    state_BE = (state_BE ^ _shift_right(state_BE, 27)) * _SECOND
    return _shift_right(state_BE ^ _shift_right(state_BE, 31), 64 - _BITS)


@draws.register_fake
def _(key_B: Tensor, index: int, elements: int) -> Tensor:
    return key_B.new_empty(key_B.shape[0], elements)


def add_drop_path(backbone: Backbone, rate: float, layers: RandomLayers) -> None:
    """Skip residual branches at random in training, with probability `rate` in the last block.

    Source: stochastic depth (Huang et al., 2016); the rate rises linearly over the blocks.
    """
    blocks = backbone.blocks
    for index, block in enumerate(blocks if rate > 0 else ()):
        block_rate = rate * index / max(len(blocks) - 1, 1)
        names = next(pair for pair in BRANCHES if all(hasattr(block, name) for name in pair))
        for name in names:
            hook = _DropPathHook(ImageDrop(layers, block_rate, per_image=True))
            getattr(block, name).register_forward_hook(hook)


def replace_dropout(model: nn.Module, layers: RandomLayers) -> None:
    """Replace every active nn.Dropout and DropPath of the model by an ImageDrop.

    Dropout inside fused attention is no layer and thus is not replaced; neither is any other random
    layer. The trainer refuses a model in which such a layer is active.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            path_rate = getattr(child, "drop_prob", None)  # timm, torchvision and transformers
            if type(child) is nn.Dropout and child.p > 0:
                setattr(parent, name, ImageDrop(layers, child.p, per_image=False))
            elif type(child).__name__.endswith("DropPath") and path_rate:
                setattr(parent, name, ImageDrop(layers, path_rate, per_image=True))


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """A logical shift to the right; torch's own copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


class _DropPathHook:
    """A hook that drops the output of a branch per image and scales the remaining outputs."""

    def __init__(self, drop: ImageDrop) -> None:
        self.drop = drop

    def __call__(
        self, module: nn.Module, inputs: object, output: Tensor | tuple[Tensor, ...]
    ) -> Tensor | tuple[Tensor, ...]:
        if not module.training:
            return output
        if isinstance(output, tuple):
            return (self.drop(output[0]), *output[1:])
        return self.drop(output)
