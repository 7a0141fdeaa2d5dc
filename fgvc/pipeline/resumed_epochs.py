"""The epochs of a resume state -> epochs of the training that continues it.

Only a forced resume can change the steps per epoch, by another batch size or other fitted images.
"""

from __future__ import annotations

from dataclasses import replace

from fgvc.config.schema import Config
from fgvc.learn.train.best_epoch import BestEpoch
from fgvc.types import UserError


def check_not_past_end(conf: Config, done: int, steps: int) -> None:
    """Refuse a state from beyond the last step of this training.

    Args:
        done: optimiser steps behind the state. steps: per epoch of this training.

    Raises:
        UserError: names both numbers and the smallest task.epochs that suffices.
    """
    end = conf.task.epochs * steps
    if done <= end:
        return
    raise UserError(
        f"task.epochs={conf.task.epochs}: the resume state lies at step {done}, past the end of "
        f"this training (steps per epoch: {steps}; in all: {end}). Set "
        f"task.epochs={-(-done // steps)} or more, or resume an earlier state"
    )


def convert_epochs(
    best: BestEpoch, judged: int, done: int, before: int, now: int
) -> tuple[int, BestEpoch]:
    """Number of judged epochs, and the best epoch, in epochs of `now` instead of `before` steps.

    The weights at step `done` are judged again only if an epoch ends there now and did not before.
    The best epoch is rounded down, so that it never equals the next epoch to be judged.

    Args:
        best: as the state has it. judged: epochs judged so far. done: optimiser steps so far.
    """
    if before == now:
        return judged, best
    ends_unjudged = done % now == 0 and done != judged * before
    epoch, last = (count and count * before // now for count in (best.epoch, best.last))
    return done // now - ends_unjudged, replace(best, epoch=epoch, last=last)
