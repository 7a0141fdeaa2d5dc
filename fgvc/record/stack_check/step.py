"""A step of the check -> its outcome: what the process that tries it tells the one that asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, NOT_TRIED = "passed", "failed", "not tried"
# What each process of the check tries, in this order; the last step of all is the parent's own.
SIDES = {
    "tensorboard_steps": ("tensorboard",),
    "fiftyone_steps": ("database", "dataset", "evaluation", "export", "app"),
}
SHUTDOWN = "shutdown"


@dataclass(frozen=True)
class Step:
    """work: a folder of its own -> what was found, in one line; it raises where something is wrong.

    needs: the step that must have passed for this one to make sense.
    """

    name: str
    work: Callable[[Path], str]
    needs: str | None = None


@dataclass(frozen=True)
class Outcome:
    """How a step ended. says: one line; of a failure the cause and the way out."""

    step: str
    result: str
    seconds: float
    says: str

    def plain(self) -> dict[str, object]:
        """As it stands in a record, under the step's name."""
        return {"result": self.result, "seconds": round(self.seconds, 1), "says": self.says}


class MismatchError(Exception):
    """Something came back other than it was sent."""


def check_equal(what: str, found: object, wanted: object) -> None:
    """Hold one value against another; an assertion would vanish under python -O.

    Raises:
        Differs: they are not equal.
    """
    if found != wanted:
        raise MismatchError(f"{what}: {found} instead of {wanted}")
