"""task=audit: a run folder -> a checklist on the terminal and as JSON, and a pull-request block.

It prints what it proves and what it does not prove, and exits with 1 if a check fails. A check "not
checked" is no failure: it needs the code or environment of the record.
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
from fgvc.report.audit import run_audit
from fgvc.report.audit.check import FAIL, UNCHECKED, outcome
from fgvc.report.audit.pull_request_block import (
    AGAIN,
    NOT_PROVEN,
    PROVES,
    eval_command,
    render_block,
)
from fgvc.report.run_rows import read_run, run_path
from fgvc.store import atomic
from fgvc.types import UserError
from fgvc.untrusted.escape import visible


def run(job: Job) -> int:
    """Check every promise of a run folder; returns the exit code.

    Raises:
        UserError: run= is no folder of a complete run, or task.output= cannot be written.
    """
    assert job.conf.run is not None
    folder = find_run(Path(job.conf.run), "run")
    if not (folder / "artifacts.json").exists() and not (folder / "status.json").exists():
        raise UserError(f"run={folder}: no complete run; give RUN/CONFIG/CHECKPOINT below outputs/")
    name = run_path(folder.resolve()).replace("/", "_")
    target = job.json_file("audit", f"{name}.json")
    try:
        read_run(folder)
    except OtherVersionError as error:
        raise UserError(f"run={folder}: {error}") from error
    except DamageError:
        pass  # the checks report the damage
    record, results = run_audit(folder, rederive.current_code())
    results = [
        replace(result, evidence=privacy.without_user_paths(result.evidence)) for result in results
    ]
    block = privacy.without_user_paths(render_block(record, results))
    failed = [result for result in results if result.state == FAIL]
    rows = [[result.id, result.state, result.evidence] for result in results]
    title = f"audit of {visible(record.place)}"
    console.table(title, ["check", "", "evidence"], rows, numbers=False)
    for line in block.split("\n"):
        console.say(line)
    report = {
        "run": record.place,
        "outcome": outcome(results),
        "proves": PROVES,
        "not_proven": list(NOT_PROVEN),
        "measure_again": eval_command(f"OUTPUTS/{record.place}/{CKPT}"),
        "pull_request": block,
        "checks": [asdict(result) for result in results],
    }
    atomic.write_json(target, report)
    unchecked = [result for result in results if result.state == UNCHECKED]
    console.say(AGAIN)
    console.say(visible(f"  {eval_command(str(record.path / CKPT))}"))
    console.say(
        f"{outcome(results)}: {len(failed)} of {len(results)} checks failed, {len(unchecked)} "
        f"could not be made; as JSON: {target}"
    )
    return FAILED if failed else DONE
