"""Step -> learning rate: a pure function, so that a resumed run needs no scheduler's state."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup: int, final: float) -> float:
    """Linear warm-up, then half a cosine.

        step < warmup:  peak (step + 1) / (warmup + 1)
        after that:     peak (final + (1 - final) (1 + cos(pi t)) / 2)
                        where t = (step - warmup) / (total - warmup)

    The peak is met at step = warmup and `final` of it at step = total, one past the last step, so
    that no step is spent at a rate of 0.

    Args:
        step: from 0; total: optimiser steps of the whole run.
        warmup: in steps; where it is no less than `total`, the run ends on its way up.
        final: share of the peak.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    cosine = math.cos(math.pi * (step - warmup) / (total - warmup))
    return peak * (final + (1 - final) * (1 + cosine) / 2)
