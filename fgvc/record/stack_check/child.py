"""One side of the check, in a process of its own -> one JSON line a step on standard output.

python -m fgvc.record.stack_check.child SIDE FOLDER, as `examine` starts it: a database that hangs,
a library that takes the process down or an environment variable stays in here.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from fgvc.record.stack_check.step import (
    FAILED,
    NOT_TRIED,
    PASSED,
    SIDES,
    MismatchError,
    Outcome,
    Step,
)
from fgvc.types import UserError


def main(side: str, folder: Path) -> None:
    """Try every step of a side, whatever becomes of the others."""
    # what libraries and their servers print goes to the log, never between the reports
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    steps: Sequence[Step] = importlib.import_module(f"fgvc.record.stack_check.{side}").STEPS
    assert tuple(step.name for step in steps) == SIDES[side]
    passed: set[str] = set()
    for step in steps:
        outcome = try_step(step, folder, passed)
        if outcome.result == PASSED:
            passed.add(step.name)
        print(json.dumps(asdict(outcome)), file=reports, flush=True)


def try_step(step: Step, folder: Path, passed: set[str]) -> Outcome:
    """The outcome of one step; an exception is an outcome too, its traceback goes to the log."""
    if step.needs is not None and step.needs not in passed:
        return Outcome(step.name, NOT_TRIED, 0.0, f"needs {step.needs}")
    start = time.monotonic()
    try:
        result, says = PASSED, step.work(folder)
    except Exception as error:
        traceback.print_exc()
        result, says = FAILED, _cause(error)
    return Outcome(step.name, result, time.monotonic() - start, " ".join(says.split()))


def _cause(error: Exception) -> str:
    known = isinstance(error, UserError | MismatchError)
    return str(error) if known else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
