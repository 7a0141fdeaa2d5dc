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
    best: BestEpoch, validated: int, done: int, old_steps: int, new_steps: int
) -> tuple[int, BestEpoch]:
    """Convert epochs of `old_steps` steps to epochs of `new_steps` steps.

    The weights at step `done` are validated again only if a new epoch ends there and no old epoch
    did. The best epoch is rounded down, so that it never equals the next epoch to validate.

    Args:
        best: of the state. validated: epochs validated so far. done: optimiser steps so far.

    Returns:
        The number of validated epochs, and the best epoch.
    """
    if old_steps == new_steps:
        return validated, best
    ends_unvalidated = done % new_steps == 0 and done != validated * old_steps
    epoch, last = (count and count * old_steps // new_steps for count in (best.epoch, best.last))
    return done // new_steps - ends_unvalidated, replace(best, epoch=epoch, last=last)
