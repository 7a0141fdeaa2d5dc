"""The images of a finetune -> the batches that one rank reads at each step.

A step is read in units. A unit is a micro-batch, or two where micro-batches have an odd size, so
that a pair of images that may be mixed is never separated.
B batch, N images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fgvc.config.schema import Config
from fgvc.data import loader
from fgvc.data.augment import training_transform
from fgvc.data.preprocess import evaluation_transform
from fgvc.data.random_streams import order_by_stream
from fgvc.data.sampler import Draws, Order
from fgvc.types import Batch, Dataset


class TrainingData:
    """The training images of a config, in the order of the steps. pin: as in `loader.batches`."""

    def __init__(
        self, conf: Config, dataset: Dataset, rank: int, ranks: int, pin: bool = False
    ) -> None:
        self.pin = pin
        self.conf, self.manifest, self.split = conf, dataset.manifest, dataset.split
        self.rank, self.ranks = rank, ranks
        self.evaluation = evaluation_transform(conf)
        self.augment = training_transform(conf)
        self.workers = loader.worker_count(conf.runtime.num_workers)
        split, task, seed = dataset.split, conf.task, conf.seed
        row_N = split.train_N
        if not self.validates:
            row_N = np.sort(np.concatenate([split.train_N, split.val_N]))
        label_N, key_N = self.manifest.label_N, self.manifest.key_N
        if self.overfits:
            shuffled_N = order_by_stream(key_N[row_N], seed, 0, b"overfit")
            row_N = row_N[shuffled_N[: task.batch_size]]
        self.order = Order(
            row_N, label_N[row_N], key_N[row_N], seed, task.sampling, task.batch_size
        )

    @property
    def overfits(self) -> bool:
        """task.debug=overfit: train on the first global batch only, without augmentation."""
        return self.conf.task.debug == "overfit"

    @property
    def validates(self) -> bool:
        return self.conf.final_fit == "train" or self.overfits

    @property
    def validation_N(self) -> np.ndarray:
        """Rows that choose the epoch: validation, or the one batch of task.debug=overfit."""
        if not self.validates:
            return np.empty(0, np.int64)
        return np.sort(self.order.row_N) if self.overfits else self.split.val_N

    def parts(self, epoch: int, start: int) -> list[Draws]:
        """The images of this rank at each step of an epoch, from step `start` on."""
        order = self.order.epoch(0 if self.overfits else epoch)
        steps = range(start, self.order.steps_per_epoch)
        return [order.part(step, self.rank, self.ranks) for step in steps]

    def sizes(self, part: Draws) -> list[int]:
        """Number of images of each unit of a step."""
        size = self.conf.runtime.micro_batch or len(part)
        size *= 1 + size % 2  # two micro-batches of odd size
        return [min(size, len(part) - start) for start in range(0, len(part), size or 1)]

    def read(self, parts: Sequence[Draws], epoch: int) -> Iterator[Batch]:
        """Batches of all parts, one per unit.

        Raises:
            UserError: as `loader.training_batches`.
        """
        sizes = [size for part in parts for size in self.sizes(part)]
        draws = Draws.joined(parts)
        if not self.overfits:
            yield from loader.training_batches(
                self.manifest, draws, self.augment, epoch, sizes, self.workers, self.pin
            )
            return
        size = max(sizes, default=1)
        batches = self._batches(draws.row_N, size)
        for start, batch in zip(range(0, len(draws), size), batches, strict=True):
            yield loader.with_places(batch, draws, slice(start, start + size))

    def read_undrawn(self, steps: int) -> Iterator[Batch]:
        """Batches of this rank's share of the images that none of the first `steps` steps drew.

        Raises:
            UserError: as `loader.batches`.
        """
        undrawn_N = self.order.undrawn(min(steps, 1) if self.overfits else steps)
        row_N = np.array_split(undrawn_N, self.ranks)[self.rank]
        size = self.conf.runtime.eval_batch_size
        yield from self._batches(row_N, size)

    def _batches(self, row_N: np.ndarray, size: int) -> Iterator[Batch]:
        """Batches without augmentation."""
        return loader.batches(
            self.manifest, row_N, self.evaluation, size, self.workers, pin=self.pin
        )
