"""MATLAB files -> plain columns: cells become lists of text, numbers int64 of any original width.

Saved class numbers are uint8 as often as not, and uint8 wraps around silently. N rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from fgvc import untrusted
from fgvc.types import UserError

EXACT = 2**53  # whole numbers up to here are exact in float64


class MatFile:
    """The variables of one file, or the fields of one struct array in it."""

    def __init__(self, file: Path, values: dict[str, np.ndarray]) -> None:
        self.file = file
        self.values = values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def texts(self, name: str) -> list[str]:
        """A cell or field of text."""
        return [str(value).rstrip() for value in self._column(name)]

    def integers(self, name: str) -> np.ndarray:
        """Whole numbers as int64; UserError for any other."""
        column = self._column(name)
        try:
            value_N = np.array(column.tolist(), dtype=np.float64).reshape(len(column))
        except (TypeError, ValueError, OverflowError):
            raise UserError(f"{self.file}: {name} holds something that is no number") from None
        if len(odd := value_N[~(np.abs(value_N) <= EXACT)]):
            raise UserError(f"{self.file}: {name} holds {odd[0]:g}, which is no number of a class")
        if not np.array_equal(value_N, np.round(value_N)):
            raise UserError(f"{self.file}: {name} holds numbers that are not whole")
        return value_N.astype(np.int64)

    def struct(self, name: str) -> MatFile:
        """The fields of a struct array, each a column."""
        rows = self._column(name)
        return MatFile(self.file, {field: rows[field] for field in rows.dtype.names or ()})

    def boxes(self, fields: Sequence[str]) -> np.ndarray | None:
        """N x 4: corners x1, y1, x2, y2 -> float32 x, y, width, height; None without the fields."""
        if not all(field in self for field in fields):
            return None
        x1_N, y1_N, x2_N, y2_N = (self.integers(field).astype(np.float32) for field in fields)
        return np.stack([x1_N, y1_N, x2_N - x1_N, y2_N - y1_N], axis=1)

    def _column(self, name: str) -> np.ndarray:
        if name not in self.values:
            raise UserError(
                f"{self.file}: holds no {name}, only {', '.join(self.values) or 'nothing'}"
            )
        return np.atleast_1d(self.values[name]).ravel()


def load(file: Path) -> MatFile:
    """Read a file of MATLAB 4 to 7.2, the versions in which the datasets are handed out.

    Raises:
        UserError: missing, damaged, or of version 7.3.
    """
    try:
        values = loadmat(untrusted.require_regular(file), squeeze_me=True)
    except FileNotFoundError:
        raise UserError(f"{file}: no such file; is dataset.root= right?") from None
    except NotImplementedError:
        raise UserError(f"{file}: saved again as MATLAB 7.3; get the original file") from None
    except Exception as error:  # a damaged file raises whatever its parser happens to raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file}: no MATLAB file, or a damaged one ({reason})") from None
    return MatFile(file, {name: values[name] for name in values if not name.startswith("__")})
