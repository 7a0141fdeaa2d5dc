"""The rows of a logistic problem: features in an array or a memory-mapped file -> blocks of rows.

A small problem is one block: it is rotated into its principal axes once and stays in memory. A
large problem is read in blocks on every pass, centred but not rotated; the weights are rotated
instead.
N rows, B rows of a block, D features, R principal axes (D of them if there are several blocks),
C classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc.types import UserError

ONE_BLOCK_BYTES = 192 << 20  # up to this size of a float64 matrix of all rows, one block
BLOCK_BYTES = 64 << 20  # size of a float64 matrix of the rows of one block, of several
_RANK_TOLERANCE = 1e-13  # shorter principal axes, relative to the longest, are rounding errors


@dataclass
class Rows:
    """Centred rows, in blocks.

    x_ND: features of any float type. row_N: the rows of x_ND that take part, in order; None: all.
    block_rows: number of rows in a block of float64; one of float32 has twice as many.
    x_NR: all rows in principal axes, if they are one block; otherwise None. device: where the
    blocks are used.
    """

    x_ND: np.ndarray
    row_N: np.ndarray | None
    block_rows: int
    mean_D: Tensor
    axis_DR: Tensor
    x_NR: Tensor | None = None
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.x_ND if self.row_N is None else self.row_N)

    @property
    def one_block(self) -> bool:
        return self.x_NR is not None

    def blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        """The blocks in order, with their rows: principal axes if one block, else centred x."""
        if self.x_NR is not None:
            yield slice(0, len(self)), self.x_NR
            return
        for rows in _slices(len(self), self.block_rows * 8 // dtype.itemsize):
            yield rows, self._centred(rows).to(dtype)

    def sample(self) -> tuple[np.ndarray, Tensor]:
        """Evenly spread rows, as many as one block has: their positions, and their centred x."""
        at_B = np.linspace(0, len(self) - 1, min(self.block_rows, len(self))).astype(np.int64)
        return at_B, self._centred(at_B)

    def weights_for(self, weight_CR: Tensor) -> Tensor:
        """Weights in principal axes as weights for the rows of a block."""
        return weight_CR if self.one_block else weight_CR @ self.axis_DR.T

    def weights_from(self, weight_CD: Tensor) -> Tensor:
        """Sums over the rows of blocks in principal axes."""
        return weight_CD if self.one_block else weight_CD @ self.axis_DR

    def move(self, device: str) -> None:
        """Use the blocks on this device."""
        self.device, self.mean_D = device, self.mean_D.to(device)
        self.axis_DR = self.axis_DR.to(device)

    def _centred(self, rows: slice | np.ndarray) -> Tensor:
        x_BD = read_rows(self.x_ND, self.row_N, rows).to(self.device)
        return x_BD.double() - self.mean_D


def read_rows(x_ND: np.ndarray, row_N: np.ndarray | None, rows: slice | np.ndarray) -> Tensor:
    """A copy of these rows as a tensor."""
    return torch.from_numpy(np.array(x_ND[rows if row_N is None else row_N[rows]]))


def build_rows(x_ND: np.ndarray, row_N: np.ndarray | None, classes: int) -> Rows:
    """Centre the rows and find their principal axes; rotate them if they are one block.

    Several blocks keep all D axes, of the covariance, so that no decision on the rank is needed.

    classes: number of classes that have rows.
    """
    count, width = len(x_ND if row_N is None else row_N), x_ND.shape[1]
    row_bytes = 8 * max(classes, width)
    block_rows = max(BLOCK_BYTES // row_bytes, 1)
    if count * row_bytes <= ONE_BLOCK_BYTES:
        x = read_rows(x_ND, row_N, slice(0, count)).double()
        mean_D = x.mean(0)
        left_NR, length_R, axis_RD = torch.linalg.svd(x - mean_D, full_matrices=False)
        rank = int((length_R > _RANK_TOLERANCE * length_R[0]).sum())
        x_NR = (left_NR[:, :rank] * length_R[:rank]).contiguous()
        return Rows(x_ND, row_N, block_rows, mean_D, axis_RD[:rank].T.contiguous(), x_NR)
    mean_D = torch.zeros(width, dtype=torch.float64)
    for rows in _slices(count, block_rows):
        mean_D += read_rows(x_ND, row_N, rows).double().sum(0)
    result = Rows(x_ND, row_N, block_rows, mean_D / count, torch.empty(0))
    scatter_DD = torch.zeros(width, width, dtype=torch.float64)
    for _, x_BD in result.blocks(torch.float64):
        scatter_DD += x_BD.T @ x_BD
    result.axis_DR = torch.linalg.eigh(scatter_DD)[1]
    return result


def check_rows(
    x_ND: np.ndarray, label_N: np.ndarray, classes: int, row_N: np.ndarray | None = None
) -> None:
    """Refuse rows that no head can be fitted on.

    row_N: the rows of x_ND that take part; None: all.

    Raises:
        UserError: no rows, features that are not finite, labels out of range.
    """
    count = len(x_ND if row_N is None else row_N)
    assert x_ND.ndim == 2
    assert label_N.shape == (count,)
    if count == 0:
        raise UserError("0 training rows: fitting a head needs at least 1; enlarge the split")
    check_finite(x_ND, row_N, "rows")
    low, high = int(label_N.min()), int(label_N.max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise UserError(f"label {wrong} is outside 0..{classes - 1}: correct the label map")


def check_finite(x_ND: np.ndarray, row_N: np.ndarray | None, what: str) -> None:
    """Refuse features that are not finite.

    row_N: as for `check_rows`. what: the rows, in plural.

    Raises:
        UserError: with the number of such rows and the first.
    """
    count = len(x_ND if row_N is None else row_N)
    bad, first = 0, 0
    for rows in _slices(count, max(BLOCK_BYTES // (8 * max(x_ND.shape[1], 1)), 1)):
        x_BD = x_ND[rows if row_N is None else row_N[rows]]
        bad_B = ~np.isfinite(x_BD).all(axis=1)
        if bad_B.any() and bad == 0:
            first = rows.start + int(bad_B.argmax())
        bad += int(bad_B.sum())
    if bad:
        raise UserError(
            f"features of {bad} of {count} {what} are not finite (first: row {first}): "
            "extract them again in fp32, or remove those images"
        )


def _slices(count: int, step: int) -> Iterator[slice]:
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
