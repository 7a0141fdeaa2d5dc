"""task=audit: a run folder -> a checklist on the terminal and as JSON, and a pull-request block.

Ends with 1 if anything fails.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from fgvc.record import console, privacy
from fgvc.record.locate import record_folder
from fgvc.report.audit import FAIL, audited, markdown
from fgvc.report.runs import place, read
from fgvc.report.sealed import DamageError, OtherVersionError
from fgvc.store import atomic
from fgvc.store.output import JSON, output_file
from fgvc.task import DONE, FAILED, Job
from fgvc.types import UserError


def run(job: Job) -> int:
    """Hold a run folder against everything it promises; returns the exit code.

    Raises:
        UserError: run= is no folder of a complete run, or task.output= is nothing to write to.
    """
    assert job.conf.run is not None
    folder = record_folder(Path(job.conf.run), "run")
    if not (folder / "artifacts.json").exists() and not (folder / "status.json").exists():
        raise UserError(f"run={folder}: no complete run; name RUN/CONFIG/CHECKPOINT below outputs/")
    target = _target(job, place(folder.resolve()))
    try:
        read(folder)
    except OtherVersionError as why:
        raise UserError(f"run={folder}: {why}") from why
    except DamageError:
        pass  # the checks name what is damaged
    record, results = audited(folder)
    results = [replace(one, evidence=privacy.without_places(one.evidence)) for one in results]
    block = privacy.without_places(markdown(record, results))
    failed = [one for one in results if one.state == FAIL]
    rows = [[one.id, one.state, one.evidence] for one in results]
    console.table(f"audit of {record.place}", ["check", "", "evidence"], rows, numbers=False)
    for line in block.split("\n"):
        console.say(line)
    told = {"run": record.place, "passed": not failed, "pull_request": block}
    atomic.write_json(target, {**told, "checks": [asdict(one) for one in results]})
    console.say(f"{len(failed)} of {len(results)} checks failed; as JSON: {target}")
    return FAILED if failed else DONE


def _target(job: Job, place: str) -> Path:
    name = f"{place.replace('/', '_')}.json"
    if job.conf.task.output is not None:
        return output_file(job.conf.task.output, name, JSON)
    return Path(job.conf.runtime.output_root).expanduser() / "audit" / name
