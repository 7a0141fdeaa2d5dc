"""Jobs of a sweep -> their SLURM states, from squeue alone: small clusters keep no accounting.

squeue shows a requeued job as PENDING. It lists a finished job for some minutes, then no longer.
The result of a job may reach a shared disk a little after its end.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable

FINISHED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"}
FINISHED |= {"OUT_OF_MEMORY", "TIMEOUT"}
GRACE = 20.0  # seconds between the end of a job and its result on a shared disk


class Queue:
    """The jobs of one sweep as squeue lists them."""

    def __init__(self) -> None:
        self.finished_since: dict[str, float] = {}

    def finished(self, ids: Iterable[str], grace: float = GRACE) -> set[str]:
        """The ids of the jobs that ended at least `grace` seconds ago."""
        command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:  # the controller does not answer
            return set()
        pairs = (line.partition("|") for line in done.stdout.splitlines())
        states = {job_id: state for job_id, _, state in pairs}
        clock = time.monotonic()
        finished = set()
        for job_id in ids:
            if job_id not in states or states[job_id] in FINISHED:
                if clock - self.finished_since.setdefault(job_id, clock) >= grace:
                    finished.add(job_id)
            else:
                self.finished_since.pop(job_id, None)
        return finished


def cancel(ids: Iterable[str]) -> None:
    """Cancel the jobs; running jobs receive a signal, save and end."""
    subprocess.run(["scancel", *ids], check=False, timeout=60)
