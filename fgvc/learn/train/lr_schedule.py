"""Step -> learning rate: a pure function, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math


def learning_rate(step: int, total: int, peak: float, warmup: int, final: float) -> float:
    """Linear warm-up, then half a cosine.

        step < warmup:  peak (step + 1) / (warmup + 1)
        after that:     peak (final + (1 - final) (1 + cos(pi t)) / 2)
                        where t = (step - warmup) / (total - warmup)

    The rate is the peak at step = warmup and final * peak at step = total, after the last step, so
    that no step has a rate of 0.

    Args:
        step: from 0; total: optimiser steps of the whole run.
        warmup: in steps; if it is at least `total`, the run ends during warm-up.
        final: fraction of the peak.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    cosine = math.cos(math.pi * (step - warmup) / (total - warmup))
    return peak * (final + (1 - final) * (1 + cosine) / 2)
