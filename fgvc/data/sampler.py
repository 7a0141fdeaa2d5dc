"""Rows to train on -> the order of an epoch -> the rows that one rank reads at one step.

All draws follow from (seed, epoch, step, rank) and the keys of the images; no state is kept between
epochs. Thus a resumed run, a run on another number of ranks, and a run whose index lists the same
images in another order read the same global batches.
N images to train on, M draws of an epoch, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc.data.random_streams import order_by_stream


@dataclass(frozen=True)
class Draws:
    """Images in reading order.

    row_N: rows of the manifest. occurrence_N: earlier occurrences of the row in the epoch; with the
    row, it determines the augmentation. place_N: position of the image in its global batch.
    """

    row_N: np.ndarray
    occurrence_N: np.ndarray
    place_N: np.ndarray

    def __len__(self) -> int:
        return len(self.row_N)

    @staticmethod
    def joined(parts: Sequence[Draws]) -> Draws:
        """Concatenate draws; at least one part."""
        columns = [(part.row_N, part.occurrence_N, part.place_N) for part in parts]
        return Draws(*map(np.concatenate, zip(*columns, strict=True)))


@dataclass(frozen=True)
class EpochOrder:
    """One epoch in its global order, divided into global batches."""

    row_N: np.ndarray
    occurrence_N: np.ndarray
    batch_size: int

    def part(self, step: int, rank: int, world: int) -> Draws:
        """The draws of `rank` of `world` at a step: a contiguous part of the global batch.

        Places 2j and 2j + 1, a pair that may be mixed, always go to the same rank. Thus parts are
        even except for the last part of an odd batch, their sizes differ by at most two, and some
        are empty if there are fewer pairs than ranks.
        """
        start = step * self.batch_size
        batch = slice(start, min(start + self.batch_size, len(self.row_N)))
        row_B, occurrence_B = self.row_N[batch], self.occurrence_N[batch]
        pairs = (len(row_B) + 1) // 2
        span = slice(2 * (pairs * rank // world), 2 * (pairs * (rank + 1) // world))
        return Draws(row_B[span], occurrence_B[span], np.arange(len(row_B))[span])


@dataclass(frozen=True)
class Order:
    """The order of every epoch of a run.

    row_N: rows to train on, each once. label_N, key_N: class and key of each row.
    sampling: "uniform", every row once per epoch; or "class_balanced", the same number of draws,
    distributed evenly over the classes that occur. batch_size: global, over all ranks.
    """

    row_N: np.ndarray
    label_N: np.ndarray
    key_N: np.ndarray
    seed: int
    sampling: str
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Global batches per epoch; an incomplete last batch is dropped unless it is the only one.

        The dropped images differ between epochs.
        """
        return max(1, len(self.row_N) // self.batch_size)

    def epoch(self, epoch: int) -> EpochOrder:
        """The order of an epoch; epochs are numbered from 0."""
        if self.sampling == "uniform":
            times_N = np.ones(len(self.row_N), np.int64)
        else:
            times_N = _balanced_counts(self.label_N, self.key_N, self.seed, epoch)
        position_M = np.repeat(np.arange(len(times_N)), times_N)
        occurrence_M = np.arange(len(position_M)) - np.repeat(np.cumsum(times_N) - times_N, times_N)
        key_M = self.key_N[position_M]
        shuffled_M = order_by_stream(key_M, self.seed, epoch, b"epoch", occurrence_M)
        row_M = self.row_N[position_M]
        return EpochOrder(row_M[shuffled_M], occurrence_M[shuffled_M], self.batch_size)

    def undrawn(self, steps: int) -> np.ndarray:
        """Rows, ascending, that do not occur in the first `steps` global batches of the run."""
        row_N = np.sort(self.row_N)
        for epoch, start in enumerate(range(0, steps, self.steps_per_epoch)):
            if not len(row_N):
                break
            drawn = min(self.steps_per_epoch, steps - start) * self.batch_size
            row_N = np.setdiff1d(row_N, self.epoch(epoch).row_N[:drawn])
        return row_N


def _balanced_counts(label_N: np.ndarray, key_N: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Number of draws of each row: N // C per class, and one more for N % C classes.

    Within a class, the numbers of two rows differ by at most one.
    """
    label_C, class_N, count_C = np.unique(label_N, return_inverse=True, return_counts=True)
    draws_C = np.full(len(count_C), len(label_N) // len(count_C))
    extra = len(label_N) % len(count_C)
    draws_C[order_by_stream(label_C, seed, epoch, b"classes")[:extra]] += 1
    shuffled_N = order_by_stream(key_N, seed, epoch, b"deal")
    by_class_N = shuffled_N[np.argsort(class_N[shuffled_N], kind="stable")]
    rank_N = np.empty(len(label_N), np.int64)  # of each row within its class
    rank_N[by_class_N] = np.arange(len(label_N)) - np.repeat(np.cumsum(count_C) - count_C, count_C)
    rounds_C, rest_C = np.divmod(draws_C, count_C)
    return rounds_C[class_N] + (rank_N < rest_C[class_N])
