"""Lines of a table -> why the images per second of a line are not compared with those of others.

A rate depends on the device, its threads and the other work of the machine. Only the rates of the
largest set of lines with equal conditions are compared; the others are shown in grey.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fgvc.record.measured_rate import MeasuredRate
from fgvc.report.aggregate_seeds import Line
from fgvc.report.run_rows import Run

Conditions = tuple[str, int | None, int | None]  # device, threads, cores


def rate_notes(lines: Sequence[Line]) -> list[str | None]:
    """Per line, why its rate is not compared with the others; None if it is."""
    loads = [_load_note(line) for line in lines]
    conditions = [{_conditions(run) for run in line.runs} for line in lines]
    counts = Counter(
        next(iter(of_line))
        for of_line, load in zip(conditions, loads, strict=True)
        if load is None and len(of_line) == 1
    )
    usual = max(counts, key=counts.__getitem__, default=None)  # the first of equal counts
    notes: list[str | None] = []
    for of_line, load in zip(conditions, loads, strict=True):
        other = of_line - {usual}
        note = load or (_describe(*min(other, key=repr)) if other else None)
        notes.append(note)
    return notes


def _load_note(line: Line) -> str | None:
    rates = (MeasuredRate(None, run.other_load, None, run.threads, run.cores) for run in line.runs)
    return next((note for rate in rates if (note := rate.load_note)), None)


def _conditions(run: Run) -> Conditions:
    return run.gpu_name or run.device, run.threads, run.cores


def _describe(device: str, threads: int | None, cores: int | None) -> str:
    if threads is None:
        return f"measured on {device}, threads and load unknown"
    return f"measured on {device} with {threads} thread{'s' * (threads != 1)} of {cores} cores"
