"""The epochs of a resume state, counted in the steps per epoch of the training that continues it.

Only a forced resume can have other steps per epoch: of another batch size or other fitted images.
"""

from __future__ import annotations

from dataclasses import replace

from fgvc.config.schema import Config
from fgvc.learn.train.selection import Best
from fgvc.types import UserError


def refuse_past_end(conf: Config, done: int, steps: int) -> None:
    """Refuse a state that more steps lie behind than this training has.

    Args:
        done: optimiser steps behind the state. steps: per epoch of this training.

    Raises:
        UserError: names both and the epochs that would do.
    """
    end = conf.task.epochs * steps
    if done <= end:
        return
    raise UserError(
        f"task.epochs={conf.task.epochs}: the resume state lies at step {done}, past the end of "
        f"this training (steps per epoch: {steps}; in all: {end}). Set "
        f"task.epochs={-(-done // steps)} or more, or resume an earlier state"
    )


def converted(best: Best, judged: int, done: int, before: int, now: int) -> tuple[int, Best]:
    """Epochs judged, and the best of them, in epochs of `now` steps instead of `before`.

    The weights at step `done` are judged again only where an epoch ends there now and did not
    before. A best epoch is rounded down: the next one judged is never taken for it.

    Args:
        best: as the state has it. judged: epochs judged by then. done: optimiser steps by then.
    """
    if before == now:
        return judged, best
    ends_unjudged = done % now == 0 and done != judged * before
    epoch, last = (count and count * before // now for count in (best.epoch, best.last))
    return done // now - ends_unjudged, replace(best, epoch=epoch, last=last)
