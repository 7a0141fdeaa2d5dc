"""One side of the check, in its own process -> one JSON line per step on standard output.

python -m fgvc.record.stack_check.child SIDE FOLDER, started by `examine`. A database that hangs, a
library that crashes the process, and environment variables affect only this process.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from fgvc.record.stack_check import FAILED, NOT_TRIED, PASSED, SIDES, MismatchError, Outcome
from fgvc.types import UserError


def main(side: str, folder: Path) -> None:
    """Try every step of a side, even after a failure."""
    # the output of libraries and their servers goes to the log, not between the reports
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    module = importlib.import_module(f"fgvc.record.stack_check.{side}")
    passed = set()
    for step, needs in SIDES[side].items():
        if needs is None or needs in passed:
            outcome = _try_step(step, getattr(module, step), folder)
        else:
            outcome = Outcome(step, NOT_TRIED, 0.0, f"needs {needs}")
        if outcome.result == PASSED:
            passed.add(step)
        print(json.dumps(asdict(outcome)), file=reports, flush=True)


def _try_step(step: str, work: Callable[[Path], str], folder: Path) -> Outcome:
    """The outcome of one step; an exception becomes a failure, its traceback goes to the log."""
    start = time.monotonic()
    try:
        result, text = PASSED, work(folder)
    except Exception as error:
        traceback.print_exc()
        expected = isinstance(error, UserError | MismatchError)
        result, text = FAILED, f"{error}" if expected else f"{type(error).__name__}: {error}"
    return Outcome(step, result, time.monotonic() - start, " ".join(text.split()))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
