"""A run folder -> a checklist: every promise of a record, with its evidence.

files: are the bytes unchanged, the required files there, and do they agree? identity: code,
environment, checkpoint, stack, source, licence. numbers: do the metrics follow from the
predictions? precision_checks: cascade and certificate of fast predictions. stated_facts: facts that
the record states twice, images of the fit, and whether the run is plain. viewers: TensorBoard and
FiftyOne. derived_files: command, page and plot, derived again by the record's own code.
pull_request_block: what the audit proves, and what it cannot prove.
To add a check, write a function in one of these modules and list it in CHECKS.
"""

from __future__ import annotations

from pathlib import Path

from fgvc.report.audit import (
    derived_files,
    files,
    identity,
    numbers,
    precision_checks,
    stated_facts,
    viewers,
)
from fgvc.report.audit.check import Check, Result, run_check
from fgvc.report.audit.record import Recompute, Record

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
    files.minimum_contents,
    files.labelmap,
    files.splits,
    files.counts,
    files.subset,
    numbers.metrics_follow,
    numbers.comparability,
    precision_checks.cascade_follows,
    precision_checks.certificate_follows,
    stated_facts.selection_follows,
    viewers.curves_follow,
    viewers.viewer_follows,
    derived_files.page_follows,
    derived_files.plot_follows,
    stated_facts.plain_fit,
    stated_facts.fitted_on,
    stated_facts.no_test_image_fitted,
    files.unreadable_images,
    stated_facts.notes,
    numbers.test_read_once,
    identity.stack_validated,
    identity.source,
    identity.licence,
    identity.approval,
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
