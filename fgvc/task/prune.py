"""task=prune: runs and tables past their recorded retention -> listed, or removed if task.delete.

An operation. It reads retention from the records, never from the dates of files.
"""

from __future__ import annotations

from pathlib import Path

from fgvc.config.schema.task import PruneTask
from fgvc.pipeline.job import Job
from fgvc.record import console, retention
from fgvc.record.find_run import find_run
from fgvc.record.run_dir import now
from fgvc.record.verify import DamageError, read_retention
from fgvc.report.prune import OutputRoot
from fgvc.store.file_lock import lock
from fgvc.types import UserError
from fgvc.untrusted import MIB
from fgvc.untrusted.escape import one_line, visible


def run(job: Job) -> None:
    """List what expired and why the rest stays; with task.delete=true, remove what expired.

    Raises:
        UserError: no such root, or an unreadable table in it.
        LockHeld: another prune is running.
        OSError: an item cannot be removed.
    """
    if job.conf.run is not None:
        return _pin(find_run(Path(job.conf.run), "run"), job.conf.task)
    runtime = job.conf.runtime
    root = OutputRoot(Path(runtime.output_root).expanduser(), now(), runtime.retention_days)
    items = root.survey()
    for item in items:
        if not item.decision.remove:
            console.say(f"keep    {visible(item.name)}: {one_line(item.decision.reason)}")
    expired, total = [item for item in items if item.decision.remove], 0
    for item in expired:
        total += (size := item.size())
        why = one_line(item.decision.reason)
        console.say(f"expired {visible(item.name)} ({size / MIB:.1f} MiB): {why}")
    if job.conf.task.delete:
        removed = root.remove(expired)
        console.say(
            f"removed {len(removed)} of {len(expired)}; it is {root.now:%Y-%m-%d %H:%M} UTC"
        )
        return None
    return console.say(
        f"{len(expired)} expired ({total / MIB:.1f} MiB), {len(items) - len(expired)} kept; it is "
        f"{root.now:%Y-%m-%d %H:%M} UTC. Nothing was removed: task.delete=true removes them"
    )


def _pin(folder: Path, task: PruneTask) -> None:
    """Add a pin to the run's retention, or remove it, while no prune is running."""
    file = folder / retention.FILE
    try:
        read_retention(folder)  # refuses what is no run, before a lock file is made
        with lock(folder.resolve().parent / ".lock"):
            reasons = read_retention(folder).pinned_by
            if task.unpin is not None and task.unpin not in reasons:
                raise UserError(f"task.unpin={task.unpin}: {folder} is pinned by {reasons or None}")
            if task.pin is not None:
                retention.pin(file, task.pin)
            if task.unpin is not None:
                retention.unpin(file, task.unpin)
            pins = ", ".join(retention.read(file).pinned_by)
    except (retention.RetentionError, DamageError) as error:
        raise UserError(f"run={folder}: {error}; only a complete run can be pinned") from error
    console.say(f"{folder}: {f'pinned by {one_line(pins)}' if pins else 'not pinned'}")
