"""The steps of the check, and their outcomes, which a child process reports to its parent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PASSED, FAILED, NOT_TRIED = "passed", "failed", "not tried"
# module, run in its own child process -> its steps in order, each with the step that must pass
# before it is tried. A step is a function of the module: an empty folder -> what it found, in one
# line; it raises if the step fails. The parent itself runs the last step, SHUTDOWN.
SIDES: Mapping[str, Mapping[str, str | None]] = {
    "tensorboard_steps": {"tensorboard": None},
    "fiftyone_steps": {
        "database": None,
        "dataset": "database",
        "evaluation": "dataset",
        "export": "dataset",
        "app": "dataset",
    },
}
SHUTDOWN = "shutdown"


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
