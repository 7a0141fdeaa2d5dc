"""A backbone and a head that are trained together: normalised pixels -> logits.

B batch, C 3 channels, H and W pixels, D feature width, K classes.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fgvc.config.schema import TrainTask
from fgvc.model.backbone.base import Backbone
from fgvc.model.drop_path import RandomLayers, add_drop_path, replace_dropout
from fgvc.model.part_attention import TokenSelector
from fgvc.types import UserError


class Classifier(nn.Module):
    """The model of task=train; its head computes in float32 for any precision of the backbone."""

    def __init__(
        self, backbone: Backbone, head: nn.Module, selector: TokenSelector | None = None
    ) -> None:
        """selector: of the part attention that is attached to the backbone."""
        super().__init__()
        self.backbone, self.head, self.selector = backbone, head, selector
        self.returns_features = False
        self.random_layers = RandomLayers()
        self._frozen = True

    def forward(self, pixels_BCHW: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """pixels_BCHW: float32, normalised for the backbone -> float32 logits_BK.

        In training with `returns_features`: (logits_BK, feature_BD).
        """
        logits_BK, feature_BD = self.with_features(pixels_BCHW)
        return (logits_BK, feature_BD) if self.training and self.returns_features else logits_BK

    def with_features(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(logits_BK, feature_BD): the output and the input of the head, float32.

        A model in float64 gives float64.
        """
        feature_BD = self.backbone.feature(pixels_BCHW)
        feature_BD = feature_BD.to(torch.promote_types(feature_BD.dtype, torch.float32))
        with torch.autocast(pixels_BCHW.device.type, enabled=False):
            return self.head(feature_BD), feature_BD

    def train(self, mode: bool = True) -> Classifier:
        """Set the mode; a frozen backbone stays in evaluation mode, without drop path."""
        super().train(mode)
        if self._frozen:
            self.backbone.eval()
        return self

    def thaw(self, task: TrainTask) -> None:
        """Unfreeze the parameters that the recipe trains.

        Raises:
            UserError: task.frozen_stages exceeds the stages of the backbone.
        """
        self.head.requires_grad_(True)
        self._frozen = task.tune == "head"
        if self._frozen:
            return
        most = len(self.backbone.blocks) + 1
        if task.frozen_stages > most:
            raise UserError(
                f"task.frozen_stages={task.frozen_stages}: {self.backbone.name} has {most}, its "
                "patches and its blocks; task.tune=head freezes all of it"
            )
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self.depth_of(name) >= task.frozen_stages)

    def randomize(self, drop_path_rate: float) -> None:
        """Add drop path, and let every random layer draw per image: see drop_path.py."""
        replace_dropout(self, self.random_layers)  # first, because it drops hooks of the modules
        add_drop_path(self.backbone, drop_path_rate, self.random_layers)

    def depth_of(self, name: str) -> int:
        """The depth of a parameter: 0 patches and positions, 1 + i block i, then the rest."""
        return self._depths.get(name, self.depth)

    @property
    def depth(self) -> int:
        return len(self.backbone.blocks) + 1

    @functools.cached_property
    def _depths(self) -> dict[str, int]:
        """Depth by name of the parameters below the head.

        Parameters that a library registers before the blocks are below the blocks, and those
        registered after the blocks are above. The only exception is a projection.
        """
        block_of = {
            id(parameter): 1 + index
            for index, block in enumerate(self.backbone.blocks)
            for parameter in block.parameters()
        }
        depths, past_first_block = {}, False
        for name, parameter in self.backbone.named_parameters(prefix="backbone"):
            past_first_block = past_first_block or id(parameter) in block_of
            if id(parameter) in block_of:
                depths[name] = block_of[id(parameter)]
            elif not past_first_block and not name.endswith(".trunk.proj"):
                depths[name] = 0
        return depths


def checkpoint_blocks(backbone: Backbone) -> None:
    """Recompute each block in the backward pass instead of storing its activations."""
    for block in backbone.blocks:
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
