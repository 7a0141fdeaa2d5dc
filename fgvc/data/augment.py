"""task.crop, flip, auto_augment, erasing: a decoded image -> the square that a step trains on.

uint8 CHW of any size -> uint8 3 x R x R, by torchvision's own transforms. All random draws follow
from (seed, epoch, image key, occurrence of the image in the epoch). Thus the order of the index,
workers, ranks, micro-batches and resuming change no pixel.
C 3 channels, H height, W width, R side of the square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fgvc.config import schema
from fgvc.data import normalize
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.data.random_streams import stream

Step = Callable[[Tensor], Tensor]
BINS = 31  # number of magnitudes, the unit of task.magnitude


@dataclass(frozen=True)
class Augment:
    """Callable training transform: applies `steps` in turn.

    preprocess: the evaluation transform of the same config, which refuses images that are too thin.
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
            uint8 3 x R x R, contiguous. The state of every random generator is restored.

        Raises:
            UserError: the image is so thin that the evaluation transform would refuse it.
        """
        self.preprocess.resized_size(*image_CHW.shape[-2:])  # raises if the image is too thin
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would reseed the accelerators of this process too
            torch.default_generator.manual_seed(stream(self.seed, epoch, key, occurrence))
            for step in self.steps:
                image_CHW = step(image_CHW)
        return image_CHW.contiguous()


def training_transform(conf: schema.Config) -> Augment:
    """The training transform of a config with task=train, all of it on uint8.

    crop=resized: crop_scale to 1 of the area, aspect ratio 3:4 to 4:3, bicubic; random: resize as
    in evaluation, then a random square; centre: the evaluation transform. Then flip, one of the
    automatic policies and erasing. Pixels from outside the image and erased pixels have the mean
    colour of the normalization, which is about 0 in the input of the backbone. trivialaugment
    translates by up to 32 pixels for any side, randaugment in proportion to the side.
    """
    # it loads torch's compiler: ranks that only extract features do without
    from torchvision.transforms import v2

    task, preprocess = conf.task, evaluation_transform(conf)
    mean = normalize.normalization(preprocess.normalization).mean
    colour = [round(255 * value) for value in mean]
    steps: list[Step] = [preprocess]
    if task.crop == "resized":
        cubic = v2.InterpolationMode.BICUBIC
        scale = (task.crop_scale, 1.0)
        steps = [v2.RandomResizedCrop(preprocess.side, scale, interpolation=cubic)]
    elif task.crop == "random":
        steps = [preprocess.resize, v2.RandomCrop(preprocess.side)]
    steps.append(v2.RandomHorizontalFlip(task.flip))
    options = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": colour}
    if task.auto_augment == "randaugment":
        steps.append(v2.RandAugment(task.operations, task.magnitude, BINS, **options))
    elif task.auto_augment == "trivialaugment":
        steps.append(v2.TrivialAugmentWide(BINS, **options))
    # the annotation of `value` misses lists, which torchvision accepts
    steps.append(v2.RandomErasing(task.erasing, value=colour))  # pyright: ignore[reportArgumentType]
    return Augment(preprocess, conf.seed, tuple(steps))
