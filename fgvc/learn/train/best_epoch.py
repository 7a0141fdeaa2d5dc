"""Validation numbers per epoch -> the best epoch, and whether to stop early."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch so far by `select`; ties go to the lower loss, then to the earlier epoch.

    last: the last validated epoch. A loss of NaN counts as infinite.
    """

    select: str  # top1 | loss
    patience: int | None  # epochs without improvement; None: no early stopping
    epoch: int | None = None
    top1: float = -math.inf
    loss: float = math.inf
    last: int | None = None

    def after(self, epoch: int, top1: float, loss: float) -> BestEpoch:
        """The state after the validation of `epoch`, whose `is_new` is true if `epoch` is best."""
        candidate = replace(self, epoch=epoch, top1=top1, loss=loss, last=epoch)
        if math.isnan(loss):
            candidate = replace(candidate, loss=math.inf)
        better = self.epoch is None or candidate._rank > self._rank
        return candidate if better else replace(self, last=epoch)

    @property
    def is_new(self) -> bool:
        """Whether the last validated epoch is the best."""
        return self.epoch is not None and self.epoch == self.last

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` epochs brought no improvement."""
        if self.patience is None or self.epoch is None or self.last is None:
            return False
        return self.last - self.epoch >= self.patience

    @property
    def _rank(self) -> tuple[float, ...]:
        return (self.top1, -self.loss) if self.select == "top1" else (-self.loss,)
