"""Notes and counts of unreadable images -> whether they agree with the rest of the record."""

from __future__ import annotations

import json
from collections import Counter

from fgvc.metrics import UNREADABLE
from fgvc.record.run_dir import UNREADABLE_FILE
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree
from fgvc.report.audit.record import PREDICTIONS, Record


def unreadable_images(record: Record) -> str:
    """Do the counts of unreadable images match the predictions and unreadable.json?"""
    counts = record.numbers["unreadable"]
    listed = _count_by_split(record) if any(counts.values()) else Counter()
    for split, count in counts.items():
        what, recorded = f"unreadable images of {split}", ("metrics.json", count)
        agree(what, (UNREADABLE_FILE, listed[split]), recorded)
        if split in record.predictions:
            predicted = int((record.predictions[split].pred_N == UNREADABLE).sum())
            agree(what, (PREDICTIONS, predicted), recorded)
    return f"{sum(counts.values())} images"


def _count_by_split(record: Record) -> Counter[str]:
    """Number of rows of unreadable.json per split."""
    try:
        rows = json.loads(record.text(UNREADABLE_FILE))
        return Counter(row["split"] for row in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise DamageError(f"{UNREADABLE_FILE}: not a list of images with their splits") from error


def notes(record: Record) -> str:
    """Does the record contain the notes on the fit that the checkpoint keeps?

    The note on unreadable images is excluded: its text in the record also counts test images.
    """
    start = "of the fit: " if record.stamp["task"] == "eval" else ""
    expected = [
        note for note in record.facts["fit"]["notes"] if start or "cannot be read (" not in note
    ]
    for note in expected:
        if f"{start}{note}" not in record.numbers["notes"]:
            raise DamageError(f"metrics.json: notes lack a note of ckpt.bin: {note}")
    return f"{len(record.numbers['notes'])}, with {len(expected)} of ckpt.bin"
