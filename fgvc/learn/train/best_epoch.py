"""Validation numbers, epoch by epoch -> the epoch that is kept, and whether to go on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch so far by `select`; of equals the one of lower loss, then the earlier.

    last: the epoch judged last. A loss that is no number counts as infinite.
    """

    select: str  # top1 | loss
    patience: int | None  # epochs without a better one; None: without end
    epoch: int | None = None
    top1: float = -math.inf
    loss: float = math.inf
    last: int | None = None

    def after(self, epoch: int, top1: float, loss: float) -> BestEpoch:
        """The state once `epoch` has been validated; it is kept if `.is_new` then."""
        found = replace(self, epoch=epoch, top1=top1, loss=loss, last=epoch)
        if math.isnan(loss):
            found = replace(found, loss=math.inf)
        better = self.epoch is None or found._rank > self._rank
        return found if better else replace(self, last=epoch)

    @property
    def is_new(self) -> bool:
        """Whether the epoch judged last is the best."""
        return self.epoch is not None and self.epoch == self.last

    @property
    def exhausted(self) -> bool:
        """Whether `patience` epochs have gone by without a better one."""
        if self.patience is None or self.epoch is None or self.last is None:
            return False
        return self.last - self.epoch >= self.patience

    @property
    def _rank(self) -> tuple[float, ...]:
        return (self.top1, -self.loss) if self.select == "top1" else (-self.loss,)
