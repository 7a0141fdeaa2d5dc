"""What SLURM says of the jobs of a sweep, by squeue alone: small clusters keep no accounting.

A job that is queued again shows up as PENDING. One that is over is shown as such for some minutes,
then not at all; its result may reach a shared disk a little later.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping

OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
OVER |= {"OUT_OF_MEMORY", "TIMEOUT"}
LAG = 20.0  # seconds that a job may be over before its result is there


class Queue:
    """The jobs of one sweep as squeue sees them."""

    def __init__(self) -> None:
        self.over_since: dict[str, float] = {}

    def over(self, ids: Iterable[str], lag: float = LAG) -> dict[str, str]:
        """The jobs that have been over for `lag` seconds: {id: state}."""
        states = _states()
        if states is None:  # the controller does not answer: nothing is known
            return {}
        clock = time.monotonic()
        found = {}
        for one in ids:
            state = states.get(one, "forgotten")
            if state in OVER or state == "forgotten":
                if clock - self.over_since.setdefault(one, clock) >= lag:
                    found[one] = state
            else:
                self.over_since.pop(one, None)
        return found


def cancel(ids: Iterable[str]) -> None:
    """Take the jobs off the queue; those that run are told, save and end."""
    subprocess.run(["scancel", *ids], check=False, timeout=60)


def _states() -> Mapping[str, str] | None:
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        return None
    pairs = (line.partition("|") for line in done.stdout.splitlines())
    return {one: state for one, _, state in pairs}
