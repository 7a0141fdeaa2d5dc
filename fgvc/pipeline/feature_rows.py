"""Features of a dataset -> the rows of its training or validation images, without a copy.

Features of 579,184 images fill 1.8 GB. Train, validation and both together are rows of one matrix.
R rows of the matrix, N selected images, D feature width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn.functional import normalize

from fgvc.types import BadImage, Features


@dataclass(frozen=True)
class FeatureRows:
    """Some rows of a feature matrix.

    x_RD: float32, all features. index_N: the selected rows of x_RD, ascending. row_N: their
    manifest rows, ascending. bad: the selected images that could not be read.
    """

    x_RD: np.ndarray
    index_N: np.ndarray
    row_N: np.ndarray
    bad: tuple[BadImage, ...]

    @property
    def x_ND(self) -> np.ndarray:
        """A copy of the selected rows, which the caller may keep and change."""
        return self.x_RD[self.index_N]

    def copy(self) -> Features:
        """The selected rows in a matrix of their own."""
        return Features(self.x_ND, self.row_N, self.bad)


def select(features: Features, row_N: np.ndarray) -> FeatureRows:
    """The features of these manifest rows, and which of their images could not be read."""
    index_N = np.flatnonzero(np.isin(features.row_N, row_N))
    rows = set(row_N.tolist())
    bad = tuple(image for image in features.bad if image.row in rows)
    return FeatureRows(features.x_ND, index_N, features.row_N[index_N], bad)


def join(first: FeatureRows, second: FeatureRows) -> FeatureRows:
    """Both selections of one matrix; they have no row in common."""
    assert first.x_RD is second.x_RD
    index_N = np.sort(np.concatenate([first.index_N, second.index_N]))
    row_N = np.sort(np.concatenate([first.row_N, second.row_N]))
    return FeatureRows(first.x_RD, index_N, row_N, first.bad + second.bad)


def unit_length(*selections: FeatureRows) -> list[FeatureRows]:
    """Selections of one matrix, of the same rows divided by their lengths: one copy for all."""
    x_RD = normalize(torch.from_numpy(selections[0].x_RD), dim=1).numpy()
    return [replace(selection, x_RD=x_RD) for selection in selections]
