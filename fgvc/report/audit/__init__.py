"""A run folder -> a checklist: every promise of a record, with its evidence.

files: are the bytes unchanged? identity: code, environment, checkpoint. contents: required files,
and whether they agree. numbers: do the metrics follow from the predictions? stated_facts: facts
that the record states twice. viewers: TensorBoard and FiftyOne. fitted_images: images of the fit,
and whether the run is plain. notes: notes and unreadable images. promises: stack, source, licence.
derived_files: command, page and plot, derived again by the record's own code. limits: what the
audit cannot prove. To add a check, write a function in one of these modules and list it in CHECKS.
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


def run_audit(folder: Path, recompute: Recompute | None = None) -> tuple[Record, list[Result]]:
    """Run every check on a run folder.

    Args:
        recompute: the running code, to derive command and page again; None: these are not checked.

    Returns:
        The record, and one result per check.
    """
    record = Record(folder, recompute)
    return record, [run_check(check, record) for check in CHECKS]
