"""Sizes of a probe -> the work, memory and disk space that fitting its head takes, as estimates.

Work is counted in FLOP of float32 products; a multiply-add is 2 FLOP, and FLOP in float64 count
twice. N training rows, D feature width, C classes.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fgvc import metrics

# A unit of logistic regression is one X W and one X^T G. On real features of 20 species, the path
# of 45 values of C to a gap of 1e-8 and both final solves to 1e-10 took 689 units.
UNITS_PER_C = 689 / 45
SEARCHED_SHARE = 0.3  # of the path's units that task.c_search=bracket takes
FLOAT64 = 2  # cost of a float64 product over that of a float32 product
KNN_OVERHEAD = 1.3  # of finding the neighbours, over the product of the features
STEP_OVERHEAD = 1.5  # of a gradient step over its products: loss, optimiser, small batches
SOLVER_MATRICES, SOLVER_LIMIT = 33, 3 * 2**30  # float64 matrices of N x C at most; bytes at most
PROCESS = 600 * 2**20  # bytes of torch and the other imports
ROW_BYTES = 1000  # of the record per test image, without its logits
FEATURE_COPIES = 1.1  # all rows, and those of validation
SIDE, PRODUCTS = 1024, 3  # of the product that measures the matrix rate: about 50 ms in all


@dataclass(frozen=True)
class ProbeSizes:
    """train, val, test: numbers of images. refits: whether the final fit joins train and val."""

    train: int
    val: int
    test: int
    width: int
    classes: int
    refits: bool = True

    @property
    def fitted(self) -> int:
        """Rows of the final fit."""
        return self.train + self.val * self.refits


@dataclass(frozen=True)
class FitCost:
    """flops: of the fit and of predicting. memory: peak bytes of the process. basis: of `flops`."""

    flops: float
    memory: float
    basis: str


def logistic_cost(sizes: ProbeSizes, values: int, searches: bool) -> FitCost:
    """Logistic regression for `values` of C, the chosen C once more, and the final fit.

    searches: whether the values are searched, not all solved.
    """
    unit = 4.0 * sizes.width * sizes.classes
    solved = max(1.0, SEARCHED_SHARE * values) if searches else values
    rows = (solved + 1) * sizes.train + (sizes.fitted if sizes.refits else 0)
    matrices = 8 * SOLVER_MATRICES * sizes.fitted * sizes.classes
    return FitCost(
        FLOAT64 * UNITS_PER_C * unit * rows + _predict_flops(sizes),
        _memory(sizes, min(matrices, SOLVER_LIMIT)),
        f"logistic regression as {UNITS_PER_C:.0f} times X W and X^T G per value of C, in float64",
    )


def gradient_cost(sizes: ProbeSizes, weights: int, pairs: int, epochs: int) -> FitCost:
    """A head of `weights` numbers, trained with every pair, and once more for the final fit."""
    rows = pairs * epochs * sizes.train + (epochs * sizes.fitted if sizes.refits else 0)
    evaluated = pairs * epochs * sizes.val
    flops = (6 * STEP_OVERHEAD * rows + 2 * evaluated) * weights
    logits = 12 * sizes.val * sizes.classes  # of validation, in float32 and float64
    basis = f"gradient heads as {epochs} epochs per pair of a learning rate and a weight decay"
    return FitCost(flops + _predict_flops(sizes), _memory(sizes, 20 * weights + logits), basis)


def knn_cost(sizes: ProbeSizes) -> FitCost:
    """The similarities of validation to train, and of test to all fitted images."""
    pairs = sizes.val * sizes.train + sizes.test * sizes.fitted
    flops = 2.0 * KNN_OVERHEAD * pairs * sizes.width
    bank = 4 * sizes.width * sizes.fitted
    return FitCost(flops, _memory(sizes, bank), "kNN as the product of its features")


def matrix_rate() -> float:
    """FLOP per second of a float32 product on this machine, now."""
    left, right = np.ones((2, SIDE, SIDE), np.float32)
    seconds = []
    for _ in range(PRODUCTS):
        start = time.perf_counter()
        _ = left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * SIDE**3 / min(seconds)


def record_bytes(rows: int, classes: int) -> int:
    """Bytes of the predictions of a run folder, for TensorBoard and FiftyOne as well."""
    return ROW_BYTES * rows + 8 * _kept_logits(rows, classes)


def _kept_logits(rows: int, classes: int) -> int:
    """Number of logits that a run keeps in memory and in its record."""
    return rows * classes if metrics.keeps_logits(rows, classes) else 0


def _predict_flops(sizes: ProbeSizes) -> float:
    return 2.0 * (sizes.val + sizes.test) * sizes.width * sizes.classes


def _memory(sizes: ProbeSizes, fit: float) -> float:
    """The features, and the larger of the fit's and the predictions' memory."""
    images = sizes.train + sizes.val + sizes.test
    logits = 2 * 4 * _kept_logits(sizes.val + sizes.test, sizes.classes)
    return PROCESS + FEATURE_COPIES * 4 * images * sizes.width + max(fit, logits)
