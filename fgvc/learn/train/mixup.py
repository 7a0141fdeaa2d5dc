"""Images and labels -> images and soft targets: mixup and cutmix in pairs of a global batch.

Places 2j and 2j + 1 form a pair. Both images are mixed with one draw, a function of (seed, step,
j), so the result does not depend on the split into micro-batches, as long as pairs stay together.
B images of a micro-batch, C channels of pixels or classes of a target, H, W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fgvc.config import schema
from fgvc.learn.train.step import MIXING, derive_seed


class Mixer:
    """Mixup and cutmix with the options of the task; if both are active, each has chance 1/2."""

    def __init__(self, task: schema.TrainTask, classes: int, seed: int) -> None:
        from torchvision.transforms import v2  # it loads torch's compiler

        kinds = ((v2.MixUp, task.mixup), (v2.CutMix, task.cutmix))
        self.transforms = [kind(alpha=alpha) for kind, alpha in kinds if alpha > 0]
        self.probability, self.classes, self.seed = task.mix_probability, classes, seed

    def __call__(
        self, pixels_BCHW: Tensor, label_B: Tensor, place_B: np.ndarray, step: int
    ) -> tuple[Tensor, Tensor]:
        """pixels_BCHW (a copy, if mixing is active) and target_BC, whose rows sum to 1.

        An image whose partner is missing in `place_B` (an unreadable image) is not mixed.

        place_B: places in the global batch, ascending.
        """
        target_BC = functional.one_hot(label_B, self.classes).to(torch.float32)
        if not self.transforms:
            return pixels_BCHW, target_BC
        pixels_BCHW = pixels_BCHW.clone()
        assert (np.diff(place_B) > 0).all(), "places must ascend"
        is_pair = (place_B[:-1] % 2 == 0) & (np.diff(place_B) == 1)
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the CPU's generator
            for first in np.flatnonzero(is_pair).tolist():
                seed = derive_seed(self.seed, MIXING, step, int(place_B[first]) // 2)
                torch.default_generator.manual_seed(seed)  # torch.manual_seed also seeds devices
                chance, coin = torch.rand(2).tolist()
                if chance < self.probability:
                    transform = self.transforms[int(coin * len(self.transforms))]
                    pair = slice(first, first + 2)
                    mixed = transform(pixels_BCHW[pair], target_BC[pair])
                    pixels_BCHW[pair], target_BC[pair] = mixed
        return pixels_BCHW, target_BC
