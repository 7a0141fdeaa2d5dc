"""task=audit: a run folder -> a checklist on the terminal and as JSON, and a pull-request block.

It prints what it proves and what it does not prove. It exits with 1 if a check fails. "not checked"
is no failure: such a check needs the record's own code or environment.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline import rederive
from fgvc.pipeline.job import Job
from fgvc.record import console, privacy
from fgvc.record.find_run import find_run
from fgvc.record.verify import CKPT, DamageError, OtherVersionError
from fgvc.report.audit import (
    FAIL,
    UNCHECKED,
    Record,
    Result,
    command,
    limits,
    outcome,
    render_block,
    run_audit,
)
from fgvc.report.run_rows import read_run, run_path
from fgvc.store import atomic
from fgvc.store.output_path import JSON, output_file
from fgvc.types import UserError
from fgvc.untrusted.escape import visible


def run(job: Job) -> int:
    """Check every promise of a run folder; returns the exit code.

    Raises:
        UserError: run= is no folder of a complete run, or task.output= is nothing to write to.
    """
    assert job.conf.run is not None
    folder = find_run(Path(job.conf.run), "run")
    if not (folder / "artifacts.json").exists() and not (folder / "status.json").exists():
        raise UserError(f"run={folder}: no complete run; name RUN/CONFIG/CHECKPOINT below outputs/")
    target = _target(job, run_path(folder.resolve()))
    try:
        read_run(folder)
    except OtherVersionError as why:
        raise UserError(f"run={folder}: {why}") from why
    except DamageError:
        pass  # the checks name what is damaged
    record, results = run_audit(folder, rederive.current_code())
    results = [replace(one, evidence=privacy.without_user_paths(one.evidence)) for one in results]
    block = privacy.without_user_paths(render_block(record, results))
    failed = [one for one in results if one.state == FAIL]
    rows = [[one.id, one.state, one.evidence] for one in results]
    title = f"audit of {visible(record.place)}"
    console.table(title, ["check", "", "evidence"], rows, numbers=False)
    for line in block.split("\n"):
        console.say(line)
    _write(target, record, results, block)
    unchecked = [one for one in results if one.state == UNCHECKED]
    console.say(limits.AGAIN)
    console.say(visible(f"  {command.eval_command(str(record.path / CKPT))}"))
    console.say(
        f"{outcome(results)}: {len(failed)} of {len(results)} checks failed, {len(unchecked)} "
        f"could not be made; as JSON: {target}"
    )
    return FAILED if failed else DONE


def _write(target: Path, record: Record, results: list[Result], block: str) -> None:
    told = {
        "run": record.place,
        "outcome": outcome(results),
        "proves": limits.PROVES,
        "not_proven": list(limits.NOT_PROVEN),
        "measure_again": command.eval_command(f"OUTPUTS/{record.place}/{CKPT}"),
        "pull_request": block,
        "checks": [asdict(one) for one in results],
    }
    atomic.write_json(target, told)


def _target(job: Job, place: str) -> Path:
    name = f"{place.replace('/', '_')}.json"
    if job.conf.task.output is not None:
        return output_file(job.conf.task.output, name, JSON)
    return Path(job.conf.runtime.output_root).expanduser() / "audit" / name
