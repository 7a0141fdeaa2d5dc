"""Runs -> lines: runs that differ only in their seed, without repeated runs.

A line is one row of a table; its numbers are means over its seeds.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fgvc.record.not_ranked import Reason, contradiction
from fgvc.report.repeated_evaluations import FoldedRuns, fold_evaluations
from fgvc.report.run_rows import NO_COLUMN, Run

# bounds are averaged too: they describe the sample of images, the sd describes the seeds
WITH_SD = ("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece", "val_top1", "val_loss")
MEANS = (*WITH_SD, "top1_low", "top1_high", "images_per_s", "peak_memory_mib", "in_box")
PER_RUN = ("seed", "config_hash", "checkpoint_sha256", "run_id", "folder", "started")
PER_RUN += ("finished", "predictions_digest")


@dataclass(frozen=True)
class Line:
    """Runs of one configuration.

    runs: the newest run of each seed, by ascending seed. repeats: number of runs that are not
    shown: older runs with the same config, code, data and weights, and evaluations with the same
    predictions. contradicts: for an evaluation, folder of the run of the same checkpoint and data
    whose predictions differ. superseded: folders of older runs whose predictions differ from the
    newest run of their seed. probe_note: for a finetune, why it is not compared with its probe.
    """

    runs: tuple[Run, ...]
    repeats: int = 0
    contradicts: str | None = None
    superseded: tuple[str, ...] = ()
    probe_note: str | None = None

    @property
    def first(self) -> Run:
        """A run for the fields that all seeds share."""
        return self.runs[0]

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why the line is not ranked beside plain runs, of the seed with the largest overlap."""
        own = max(self.runs, key=lambda run: run.overlap or 0).reasons
        return own if self.contradicts is None else (*own, contradiction(self.contradicts))

    @property
    def why_unranked(self) -> str | None:
        """Why the line has no place in any ranking; None if it has a place."""
        return "; ".join(reason.text for reason in self.reasons if not reason.apart) or None

    @property
    def fitted(self) -> bool:
        """Whether a head was fitted; zero-shot predictions do not depend on final_fit."""
        return self.first.head != "text"

    def mean(self, field: str) -> float | None:
        """Mean over the seeds; None if a run lacks the field."""
        values = [getattr(run, field) for run in self.runs]
        return None if None in values else statistics.fmean(values)

    def sd(self, field: str) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        values = [getattr(run, field) for run in self.runs]
        return None if None in values or len(values) < 2 else statistics.stdev(values)

    @property
    def notes(self) -> tuple[str, ...]:
        """The distinct notes of all seeds and of the line itself."""
        notes = [note for run in self.runs for note in run.notes]
        if self.superseded:
            notes.append(
                f"{self.first.name}: {len(self.superseded)} older run"
                f"{'s' * (len(self.superseded) != 1)} of the same question, code, data and weights "
                f"(first: {self.superseded[0]}) predict other classes; the newest is shown"
            )
        if self.probe_note is not None:
            notes.append(self.probe_note)
        return tuple(dict.fromkeys(notes))

    @property
    def top1(self) -> float:
        return statistics.fmean(run.top1 for run in self.runs)

    def columns(self) -> dict[str, Any]:
        """Every field of Run: a mean, a list with one entry per seed, or the shared value."""
        row: dict[str, Any] = {"seeds": len(self.runs), "repeats": self.repeats}
        for name in (field.name for field in fields(Run) if field.name not in NO_COLUMN):
            if name in MEANS:
                row[name] = self.mean(name)
            elif name in PER_RUN:
                row[name] = [getattr(run, name) for run in self.runs]
            elif name == "notes":
                row[name] = list(self.notes)
            else:
                row[name] = getattr(self.first, name)
            if name in WITH_SD:
                row[f"{name}_sd"] = self.sd(name)
        return row


def aggregate_seeds(runs: Iterable[Run]) -> list[Line]:
    """Group runs into lines, in the order of their first runs."""
    folded = fold_evaluations(runs)
    runs_by_seed: dict[tuple[object, ...], dict[int, list[Run]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in folded.runs:
        family = runs_by_seed[_line_key(run, folded)]
        family[run.seed].append(run)
    return [_build_line(family, folded) for family in runs_by_seed.values()]


def _line_key(run: Run, folded: FoldedRuns) -> tuple[object, ...]:
    """The values that all runs of a line share.

    Question, answer and comparability key identify the fit of a plain run, so the numbers of fitted
    and overlapping images are not part of its key. They are part of the key of a debugging run. A
    forced resume is a line of its own, because no config describes it, and so is an evaluation that
    contradicts its run.
    """
    own_folder = run.folder if run.forced or run.folder in folded.contradicts else None
    fit = None if run.debug is None else (run.fitted_on, run.overlap)
    return run.question, run.answer, run.comparability_key, fit, own_folder


def number_notes(lines: Iterable[Line]) -> dict[str, int]:
    """Number of each distinct note of the lines, from 1 in order of first occurrence."""
    notes = dict.fromkeys(note for line in lines for note in line.notes)
    return {note: number for number, note in enumerate(notes, 1)}


def unique_names(lines: Sequence[Line]) -> list[str]:
    """Name of each line: its axes and, to tell equal names apart, its hash, commit or run_id."""
    names = [line.first.name for line in lines]
    suffixes = [_suffixes(line.first) for line in lines]
    for of_lines in zip(*suffixes, strict=True):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else f"{name} {suffix}"
            for name, suffix in zip(names, of_lines, strict=True)
        ]
    return names


def _suffixes(run: Run) -> tuple[str, str, str]:
    patch = f"+{run.code_patch_sha256[:4]}" if run.code_patch_sha256 else ""
    code = f"@{(run.git_commit or 'unknown')[:7]}{patch}"
    return f"#{run.config_hash[:8]}", code, run.run_id


def _build_line(by_seed: dict[int, list[Run]], folded: FoldedRuns) -> Line:
    newest = [max(by_seed[seed], key=lambda run: (run.started, run.folder)) for seed in by_seed]
    newest.sort(key=lambda run: run.seed)
    runs = [run for of_seed in by_seed.values() for run in of_seed]
    repeats = len(runs) - len(newest) + sum(folded.repeats.get(run.folder, 0) for run in runs)
    superseded = [
        run.folder
        for last in newest
        for run in by_seed[last.seed]
        # older records have no digest
        if None not in (digests := {run.predictions_digest, last.predictions_digest})
        and len(digests) > 1
    ]
    contradicts = folded.contradicts.get(newest[0].folder)
    return Line(tuple(newest), repeats, contradicts, tuple(sorted(superseded)))
