"""task.crop, flip, auto_augment, erasing: a decoded image -> the square a step trains on.

uint8 CHW of any size -> uint8 3 x R x R, by torchvision's own transforms. What they draw follows
from (seed, epoch, image key, occurrence of the image in the epoch) alone, so the index's order,
workers, ranks, micro-batches and resumption change no pixel.
C 3 channels, H height, W width, R side of the square.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transform

from fgvc.config import schema
from fgvc.data import normalize
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.data.random_streams import stream

Step = Callable[[Tensor], Tensor]
BINS = 31  # magnitudes that task.magnitude counts


@dataclass(frozen=True)
class Augment:
    """Callable training transform: `steps` in turn, the first of which make the square.

    preprocess: the evaluation transform of the same config; also says which images are too thin.
    """

    preprocess: Preprocess
    seed: int
    steps: tuple[Step, ...]

    def __call__(self, image_CHW: Tensor, epoch: int, key: int, occurrence: int) -> Tensor:
        """Crop and augment.

        Args:
            image_CHW: uint8, any height and width.
            epoch, key, occurrence: with the seed, they determine all draws. torch's CPU generator
                keeps the low 32 bits of a stream. Among 100,000 images, about one pair shares
                these bits, and thus the position of its crop.

        Returns:
            uint8 3 x R x R, contiguous. No random generator is left in another state.

        Raises:
            UserError: so thin an image that the evaluation transform would refuse it.
        """
        self.preprocess._size(*image_CHW.shape[-2:])  # refuses
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed, which would reseed the accelerators of this process too
            torch.default_generator.manual_seed(stream(self.seed, epoch, key, occurrence))
            for step in self.steps:
                image_CHW = step(image_CHW)
        return image_CHW.contiguous()


def training_transform(conf: schema.Config) -> Augment:
    """The training transform of a config with task=train, all of it on uint8.

    crop=resized: a part of crop_scale to all of the area, sides from 3:4 to 4:3, bicubic; random:
    the policy's own resize, then any square of it; centre: the evaluation transform. Then flip, one
    of the automatic policies and erasing. What comes from outside the image, and what is erased,
    has the mean colour of the normalization: about 0 to the backbone. trivialaugment moves by up to
    32 pixels whatever the side, randaugment in proportion to it.
    """
    preprocess = evaluation_transform(conf)
    mean = normalize.normalization(preprocess.normalization).mean
    colour = [round(255 * value) for value in mean]
    steps = [
        *_crop(conf.task, preprocess),
        v2.RandomHorizontalFlip(conf.task.flip),
        *_policy(conf.task, colour),
        # a colour is allowed, whatever the annotation says
        v2.RandomErasing(conf.task.erasing, value=colour),  # pyright: ignore[reportArgumentType]
    ]
    return Augment(preprocess, conf.seed, tuple(steps))


def _crop(task: schema.TrainTask, preprocess: Preprocess) -> list[Step]:
    side = preprocess.side
    if task.crop == "resized":
        scale = (task.crop_scale, 1.0)
        return [v2.RandomResizedCrop(side, scale, interpolation=v2.InterpolationMode.BICUBIC)]
    if task.crop == "random":
        return [functools.partial(_resize, preprocess), v2.RandomCrop(side)]
    return [preprocess]


def _policy(task: schema.TrainTask, colour: list[int]) -> list[Step]:
    look = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": colour}
    if task.auto_augment == "randaugment":
        return [v2.RandAugment(task.operations, task.magnitude, BINS, **look)]
    if task.auto_augment == "trivialaugment":
        return [v2.TrivialAugmentWide(BINS, **look)]
    return []


def _resize(preprocess: Preprocess, image_CHW: Tensor) -> Tensor:
    geometry = preprocess.geometry
    return transform.resize(
        image_CHW,
        preprocess._size(*image_CHW.shape[-2:]),
        interpolation=v2.InterpolationMode(geometry.interpolation),
        antialias=geometry.antialias,
    )
