"""A run folder -> a checklist: every promise of a record, with the evidence for it.

files: the bytes are those that were written. identity: who made it, with what. contents: what it
holds, and whether its parts agree. numbers: whether they follow. fit: the images of the
fit, and whether the run is plain. notes: what a reader must know. promises: stack, data, licence.
To add a check, write a function there and name it in CHECKS.
"""

from __future__ import annotations

from pathlib import Path

from fgvc.report.audit import contents, files, fit, identity, notes, numbers, promises
from fgvc.report.audit.block import markdown
from fgvc.report.audit.check import FAIL, Check, Result, answered
from fgvc.report.audit.record import Record

__all__ = ["CHECKS", "FAIL", "Record", "Result", "audited", "markdown"]

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
    identity.checkpoint,
    identity.checkpoint_ignored,
    contents.minimum_contents,
    contents.labelmap,
    contents.splits,
    contents.counts,
    contents.subset,
    numbers.metrics_follow,
    numbers.comparability,
    fit.plain_fit,
    fit.fitted_on,
    fit.no_test_image_fitted,
    notes.unreadable_images,
    notes.notes,
    numbers.test_read_once,
    promises.stack_validated,
    promises.source,
    promises.licence,
    promises.approval,
)


def audited(folder: Path) -> tuple[Record, list[Result]]:
    """The record, and what every check says of it."""
    record = Record(folder)
    return record, [answered(check, record) for check in CHECKS]
