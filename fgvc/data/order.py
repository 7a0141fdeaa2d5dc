"""Rows to train on -> the order of an epoch -> what one rank reads at one step.

Everything follows from (seed, epoch, step, rank): nothing is remembered between epochs, so a run
that is resumed, or cut over other ranks, reads the same global batches.
N images of an epoch, M the images of one class, Q draws from it, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Draws:
    """Images in the order they are read.

    row_N: rows of the manifest. occurrence_N: how often that row came before in the epoch; with the
    row it names the augmentation. place_N: where the image stands in its global batch.
    """

    row_N: np.ndarray
    occurrence_N: np.ndarray
    place_N: np.ndarray

    def __len__(self) -> int:
        return len(self.row_N)

    @staticmethod
    def joined(parts: Sequence[Draws]) -> Draws:
        """Several parts, at least one, read one after the other."""
        return Draws(
            np.concatenate([part.row_N for part in parts]),
            np.concatenate([part.occurrence_N for part in parts]),
            np.concatenate([part.place_N for part in parts]),
        )


@dataclass(frozen=True)
class Epoch:
    """One epoch in its global order, cut into global batches."""

    row_N: np.ndarray
    occurrence_N: np.ndarray
    batch_size: int

    def part(self, step: int, rank: int, world: int) -> Draws:
        """What `rank` of `world` reads at a step: a contiguous part of the global batch.

        Places 2j and 2j + 1, a pair that may be mixed, always go to the same rank: parts are even
        but for the last one of an odd batch, differ by at most two, and are empty where there are
        fewer pairs than ranks.
        """
        start = step * self.batch_size
        batch = slice(start, min(start + self.batch_size, len(self.row_N)))
        row_B, occurrence_B = self.row_N[batch], self.occurrence_N[batch]
        pairs = (len(row_B) + 1) // 2
        own = slice(2 * (pairs * rank // world), 2 * (pairs * (rank + 1) // world))
        return Draws(row_B[own], occurrence_B[own], np.arange(len(row_B))[own])


@dataclass(frozen=True)
class Order:
    """The order of every epoch of a run.

    row_N: rows to train on, each once. label_N: the class of each of them. sampling: "uniform",
    every row once an epoch; or "class_balanced", as many draws, dealt evenly to the classes that
    occur. batch_size: global, over all ranks.
    """

    row_N: np.ndarray
    label_N: np.ndarray
    seed: int
    sampling: str
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Global batches an epoch: an incomplete last one is left out, unless it is the only one.

        Which images that leaves out differs from epoch to epoch.
        """
        return max(1, len(self.row_N) // self.batch_size)

    def epoch(self, epoch: int) -> Epoch:
        """The order of an epoch, numbered from 0."""
        # as a spawn key, since [seed, epoch] would be the same entropy as [seed, epoch, 0, 0]
        entropy = np.random.SeedSequence(self.seed, spawn_key=(epoch,))
        rng = np.random.Generator(np.random.PCG64(entropy))
        if self.sampling == "uniform":
            row_N, occurrence_N = self.row_N, np.zeros(len(self.row_N), dtype=np.int64)
        else:
            row_N, occurrence_N = _balanced(self.row_N, self.label_N, rng)
        shuffled_N = rng.permutation(len(row_N))
        return Epoch(row_N[shuffled_N], occurrence_N[shuffled_N], self.batch_size)


def _balanced(
    row_N: np.ndarray, label_N: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """N draws and their occurrences, class by class: N // C from each, one more from some."""
    _, count_C = np.unique(label_N, return_counts=True)
    by_class_N = row_N[np.argsort(label_N, kind="stable")]
    draws_C = np.full(len(count_C), len(row_N) // len(count_C))
    draws_C[rng.permutation(len(count_C))[: len(row_N) % len(count_C)]] += 1
    members = np.split(by_class_N, np.cumsum(count_C)[:-1])
    drawn = [_dealt(row_M, draws, rng) for row_M, draws in zip(members, draws_C, strict=True)]
    rows, occurrences = zip(*drawn, strict=True)
    return np.concatenate(rows), np.concatenate(occurrences)


def _dealt(
    row_M: np.ndarray, draws: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Q draws from one class: all its rows in shuffled order, then all again in another."""
    rounds = -(-draws // len(row_M))
    shuffled = rng.permuted(np.tile(row_M, (rounds, 1)), axis=1)
    return shuffled.ravel()[:draws], np.arange(draws) // len(row_M)
