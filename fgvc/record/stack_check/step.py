"""A step of the check and its outcome, which the child process reports to its parent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PASSED, FAILED, NOT_TRIED = "passed", "failed", "not tried"
# The steps of each child process, in this order; the parent itself runs the last step, SHUTDOWN.
SIDES = {
    "tensorboard_steps": ("tensorboard",),
    "fiftyone_steps": ("database", "dataset", "evaluation", "export", "app"),
}
SHUTDOWN = "shutdown"


@dataclass(frozen=True)
class Step:
    """work: an empty folder -> the finding in one line; raises if the step fails.

    needs: the step that must pass before this step is tried.
    """

    name: str
    work: Callable[[Path], str]
    needs: str | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step. says: one line; after a failure the cause and the way out."""

    step: str
    result: str
    seconds: float
    says: str

    def plain(self) -> dict[str, object]:
        """The value under the step's name in a record."""
        return {"result": self.result, "seconds": round(self.seconds, 1), "says": self.says}


class MismatchError(Exception):
    """A value differs from the expected value."""


def check_equal(name: str, actual: object, expected: object) -> None:
    """Compare two values; an assertion would vanish under python -O.

    Raises:
        MismatchError: they are not equal.
    """
    if actual != expected:
        raise MismatchError(f"{name}: {actual} instead of {expected}")
