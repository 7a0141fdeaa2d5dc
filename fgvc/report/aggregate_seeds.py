"""Runs -> lines: runs that differ only in their seed, without repeated runs and evaluations.

A line is one row of a table; its numbers are means over its seeds.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fgvc.record.comparability import Reason, contradiction
from fgvc.report.run_rows import NO_COLUMN, Run

# bounds are averaged too: they describe the sample of images, the sd describes the seeds
WITH_SD = ("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece", "val_top1", "val_loss")
IN_BOX = ("in_box", "in_box_random", "in_box_centre")
MEANS = (*WITH_SD, "top1_low", "top1_high", "images_per_s", "peak_memory_mib", *IN_BOX)
PER_RUN = ("seed", "config_hash", "checkpoint_sha256", "run_id", "folder", "started")
PER_RUN += ("finished", "predictions_digest", "other_load", "load_average", "threads", "cores")


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
    """Group runs into lines, in the order of their first runs.

    Question, answer and comparability key identify the fit of a plain run, so the numbers of fitted
    and overlapping images only distinguish debugging runs. A forced resume is a separate line,
    because no config describes it, and so is an evaluation that contradicts its run.
    """
    runs = list(runs)
    repeated, contradicted = _match_evaluations(runs)
    families: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        if run.folder in repeated:
            continue
        own_folder = run.folder if run.forced or run.folder in contradicted else None
        fit = None if run.debug is None else (run.fitted_on, run.overlap)
        families[run.question, run.answer, run.comparability_key, fit, own_folder].append(run)
    lines, repeats = [], Counter(repeated.values())
    for family in families.values():
        newest = {run.seed: run for run in sorted(family, key=_age)}
        superseded = [
            run.folder
            for run in family
            # older records have no digest
            if None not in (run.predictions_digest, newest[run.seed].predictions_digest)
            and run.predictions_digest != newest[run.seed].predictions_digest
        ]
        line = Line(
            tuple(newest[seed] for seed in sorted(newest)),
            len(family) - len(newest) + sum(repeats[run.folder] for run in family),
            contradicted.get(family[0].folder),
            tuple(sorted(superseded)),
        )
        lines.append(line)
    return lines


def _age(run: Run) -> tuple[str, str]:
    return run.started, run.folder


def _match_evaluations(runs: Sequence[Run]) -> tuple[dict[str, str], dict[str, str]]:
    """Folder of a run of task=eval -> folder of the run that it repeats, or that it contradicts.

    The reference for a checkpoint and data is the run that fitted the head or, if this run is not
    among the runs, the newest evaluation. An evaluation with the same predictions is a repeat. An
    evaluation with other predictions (for example, from another device) contradicts the reference.
    A record without the digest of its predictions does neither.
    """
    groups: dict[tuple[str, str], tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for run in sorted(runs, key=_age, reverse=True):
        if run.predictions_digest is not None:
            groups[run.fit_checkpoint, run.comparability_key][run.task == "eval"].append(run)
    repeated, contradicted = {}, {}
    for fitting_runs, evaluations in groups.values():
        reference = (fitting_runs or evaluations)[0]
        by_predictions = {run.predictions_digest: run for run in reversed(fitting_runs)}
        for run in evaluations:
            earlier = by_predictions.setdefault(run.predictions_digest, run)
            if earlier is not run:
                repeated[run.folder] = earlier.folder
            elif run is not reference:
                contradicted[run.folder] = reference.folder
    return repeated, contradicted


def number_notes(lines: Iterable[Line]) -> dict[str, int]:
    """Number of each distinct note of the lines, from 1 in order of first occurrence."""
    notes = dict.fromkeys(note for line in lines for note in line.notes)
    return {note: number for number, note in enumerate(notes, 1)}


def unique_names(lines: Sequence[Line]) -> list[str]:
    """Name of each line: its axes and, to distinguish equal names, its hash, commit or run_id."""
    names = [line.first.name for line in lines]
    for suffix in (
        lambda run: f"#{run.config_hash[:8]}",
        lambda run: f"@{(run.git_commit or 'unknown')[:7]}{_patch(run)}",
        lambda run: run.run_id,
    ):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else f"{name} {suffix(line.first)}"
            for name, line in zip(names, lines, strict=True)
        ]
    return names


def _patch(run: Run) -> str:
    return f"+{run.code_patch_sha256[:4]}" if run.code_patch_sha256 else ""
