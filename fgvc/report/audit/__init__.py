"""A run folder -> a checklist: every promise of a record, with the evidence for it.

files: the bytes are those that were written. identity: who made it, with what. contents: what it
holds, and whether its parts agree. numbers: whether they follow. fit: the images of the
fit, and whether the run is plain. notes: what a reader must know. promises: stack, data, licence.
derived: command and page, derived anew by the record's own code. limits: what none of it proves.
To add a check, write a function there and name it in CHECKS.
"""

from __future__ import annotations

from pathlib import Path

from fgvc.report.audit import (
    command,
    contents,
    derived_files,
    files,
    fitted_images,
    identity,
    limits,
    notes,
    numbers,
    promises,
    stated_facts,
    viewers,
)
from fgvc.report.audit.check import FAIL, UNCHECKED, Check, Result, outcome, run_check
from fgvc.report.audit.pull_request_block import render_block
from fgvc.report.audit.recompute import Recompute
from fgvc.report.audit.record import Record

__all__ = [
    "CHECKS",
    "FAIL",
    "UNCHECKED",
    "Recompute",
    "Record",
    "Result",
    "command",
    "limits",
    "outcome",
    "render_block",
    "run_audit",
]

CHECKS: tuple[Check, ...] = (
    files.status,
    files.hashes,
    files.names,
    files.retention,
    files.config,
    identity.stamp,
    identity.environment,
    identity.code,
    identity.command_recorded,
    derived_files.command_follows,
    identity.checkpoint,
    identity.checkpoint_ignored,
    stated_facts.checkpoint_config,
    stated_facts.stamp_follows,
    stated_facts.card_follows,
    derived_files.requirements,
    derived_files.versions,
    contents.minimum_contents,
    contents.labelmap,
    contents.splits,
    contents.counts,
    contents.subset,
    numbers.metrics_follow,
    numbers.comparability,
    stated_facts.selection_follows,
    viewers.curves_follow,
    viewers.viewer_follows,
    derived_files.page_follows,
    derived_files.plot_follows,
    fitted_images.plain_fit,
    fitted_images.fitted_on,
    fitted_images.no_test_image_fitted,
    notes.unreadable_images,
    notes.notes,
    numbers.test_read_once,
    promises.stack_validated,
    promises.source,
    promises.licence,
    promises.approval,
)


def run_audit(folder: Path, here: Recompute | None = None) -> tuple[Record, list[Result]]:
    """The record, and what every check says of it.

    Args:
        here: the code that runs the audit, to derive command and page anew; None: not checked.
    """
    record = Record(folder, here)
    return record, [run_check(check, record) for check in CHECKS]
