"""Images and labels -> images and soft targets: mixup and cutmix in pairs of a global batch.

Places 2j and 2j + 1 make a pair, mixed both ways with one draw that follows from (seed, step, j)
alone; so it does not matter how the batch is cut, as long as no cut goes through a pair.
B images of a micro-batch, C channels or classes (as the name before it says), H, W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from fgvc.config import schema
from fgvc.learn.train.seeds import MIXING, derive_seed


class Mixer:
    """What task.{mixup, cutmix, mix_probability} ask for; a fair coin decides if both do."""

    def __init__(self, task: schema.TrainTask, classes: int, seed: int) -> None:
        kinds = ((v2.MixUp, task.mixup), (v2.CutMix, task.cutmix))
        self.ways = [kind(alpha=alpha) for kind, alpha in kinds if alpha > 0]
        self.probability, self.classes, self.seed = task.mix_probability, classes, seed

    def __call__(
        self, pixels_BCHW: Tensor, label_B: Tensor, place_B: np.ndarray, step: int
    ) -> tuple[Tensor, Tensor]:
        """pixels_BCHW (a copy, where there is anything to mix) and target_BC, whose rows sum to 1.

        An image whose partner is not in `place_B` (it could not be read) stays as it is.

        Args:
            place_B: places in the global batch, ascending.
        """
        target_BC = functional.one_hot(label_B, self.classes).to(torch.float32)
        if not self.ways:
            return pixels_BCHW, target_BC
        pixels_BCHW = pixels_BCHW.clone()
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's generator
            for first in _pairs(place_B):
                pair = slice(first, first + 2)
                way = self._drawn(step, int(place_B[first]) // 2)
                if way is not None:
                    mixed = way(pixels_BCHW[pair], target_BC[pair])
                    pixels_BCHW[pair], target_BC[pair] = mixed
        return pixels_BCHW, target_BC

    def _drawn(self, step: int, pair: int) -> v2.MixUp | v2.CutMix | None:
        """The way this pair is mixed, if it is, with the generator set for its draws."""
        own = torch.Generator().manual_seed(derive_seed(self.seed, MIXING, step, pair))
        torch.set_rng_state(own.get_state())  # unlike torch.manual_seed it leaves the devices alone
        chance, coin = torch.rand(2).tolist()
        return self.ways[int(coin * len(self.ways))] if chance < self.probability else None


def _pairs(place_B: np.ndarray) -> list[int]:
    """Where in the micro-batch both images of a pair stand, the first of the two."""
    assert (np.diff(place_B) > 0).all(), "places must ascend"
    whole = (place_B[:-1] % 2 == 0) & (np.diff(place_B) == 1)
    return np.flatnonzero(whole).tolist()
