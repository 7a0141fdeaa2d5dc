"""task=check: TensorBoard and FiftyOne, run for real -> a line per step, a record, an exit code.

An operation. Modern backbones run only on a stack with a passed record (fgvc.record.stack_check).
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from fgvc.exit_codes import DONE, FAILED
from fgvc.pipeline.job import Job
from fgvc.record import console, env_stamp, stack_check
from fgvc.record.stack_check import PASSED, published
from fgvc.record.stack_check.examine import examine

WIDTH, INDENT = 80, 34


def run(job: Job) -> int:
    """Run every step of the stack check, and record the outcomes.

    Returns:
        The exit code: FAILED when a step did not pass.

    Raises:
        UserError: task.record=true outside a checkout.
        OSError: the record cannot be written.
    """
    cache_root = Path(job.conf.runtime.cache_root)
    log = stack_check.record_path(cache_root).with_suffix(".log")
    if job.conf.task.record:
        published.locate(env_stamp.CODE)  # fails now, not after a minute
    console.say("check: TensorBoard and FiftyOne, about a minute")
    outcomes = []
    for outcome in examine(log):
        head = f"  {outcome.step:<12} {outcome.result:<9} {outcome.seconds:5.1f} s  "
        assert len(head) == INDENT
        for line in textwrap.wrap(
            outcome.message,
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            console.say(line)
        outcomes.append(outcome)
    record = stack_check.make_record(outcomes)
    file = stack_check.save(cache_root, record)
    if not record["passed"]:
        failed = ", ".join(outcome.step for outcome in outcomes if outcome.result != PASSED)
        console.say(f"check: FAILED: {failed}")
        console.say(f"log: {log}")
        return FAILED
    console.say("check: PASSED")
    console.say(f"record: {file}")
    if job.conf.task.record:
        published.publish(record, env_stamp.CODE)
        console.say("recorded in specs/stack.json and README.md")
    return DONE
