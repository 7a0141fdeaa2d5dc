"""Runs -> lines: the same answer given twice is one, and runs that differ in their seed alone too.

A line is what a table has a row for; its numbers are means over its seeds.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fgvc.report.repeated_evaluations import FoldedRuns, fold_evaluations
from fgvc.report.run_rows import Run

# bounds are averaged like the rest: they speak of the images that were drawn, the sd of the seeds
SPREAD = ("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece", "val_top1", "val_loss")
MEANS = (*SPREAD, "top1_low", "top1_high", "images_per_s", "peak_memory_mib", "in_box")
OF_EACH_RUN = ("seed", "config_hash", "checkpoint_sha256", "run_id", "folder", "started")
OF_EACH_RUN += ("finished", "predictions_digest")
NO_COLUMN = ("path", "comparability")


@dataclass(frozen=True)
class Line:
    """One configuration. runs: one a seed, ascending, the newest of each. repeats: number of
    older runs of the same question and answer, and of evaluations with the same predictions; these
    are not shown. contradicts: folder of the run of the same checkpoint and data whose predictions
    differ from those of this evaluation. superseded: folders of repeats that predict other classes
    than the newest run of their seed. probe_note: of a finetune, why it is not compared with its
    linear probe."""

    runs: tuple[Run, ...]
    repeats: int = 0
    contradicts: str | None = None
    superseded: tuple[str, ...] = ()
    probe_note: str | None = None

    @property
    def first(self) -> Run:
        """Where the seeds must agree, any run speaks for the line."""
        return self.runs[0]

    @property
    def outside(self) -> str | None:
        """Why the line is not ranked; None if it is ranked."""
        if overlap := max(run.overlap or 0 for run in self.runs):
            return (
                f"{overlap} of its {self.first.n} test images fitted or chose its head or backbone"
            )
        if self.contradicts is not None:
            return f"its predictions differ from those of {self.contradicts}, the same checkpoint"
        return None

    @property
    def fitted(self) -> bool:
        """A zero-shot run fits nothing, so its answer is the same under every final_fit."""
        return self.first.head != "text"

    def mean(self, field: str) -> float | None:
        """Over the seeds; None where a run lacks it."""
        values = [getattr(run, field) for run in self.runs]
        return None if None in values else statistics.fmean(values)

    def sd(self, field: str) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        values = [getattr(run, field) for run in self.runs]
        return None if None in values or len(values) < 2 else statistics.stdev(values)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all seeds, each text once, and those on the line itself."""
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
        """Every field of a Run: a mean, a list with an entry a seed, or what the seeds share."""
        row: dict[str, Any] = {"seeds": len(self.runs), "repeats": self.repeats}
        for name in (field.name for field in fields(Run) if field.name not in NO_COLUMN):
            if name in MEANS:
                row[name] = self.mean(name)
            elif name in OF_EACH_RUN:
                row[name] = [getattr(run, name) for run in self.runs]
            elif name == "notes":
                row[name] = list(self.notes)
            else:
                row[name] = getattr(self.first, name)
            if name in SPREAD:
                row[f"{name}_sd"] = self.sd(name)
        return row


def aggregate_seeds(runs: Iterable[Run]) -> list[Line]:
    """Lines in the order in which their first run comes."""
    folded = fold_evaluations(runs)
    families: dict[tuple[object, ...], dict[int, list[Run]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for run in folded.runs:
        family = families[_family(run, folded)]
        family[run.seed].append(run)
    return [_line(family, folded) for family in families.values()]


def _family(run: Run, folded: FoldedRuns) -> tuple[object, ...]:
    """Key of a line: what its runs share.

    The question, the answer and the comparability key name the fit of a plain run, so the numbers
    of fitted and of overlapping images do not separate seeds. They do separate debugging runs. A
    forced resume is a line of its own, because no config describes it, and so is an evaluation that
    contradicts its run.
    """
    alone = run.folder if run.forced or run.folder in folded.contradicts else None
    fit = None if run.debug is None else (run.fitted_on, run.overlap)
    return run.question, run.answer, run.comparability_key, fit, alone


def number_notes(lines: Iterable[Line]) -> dict[str, int]:
    """Number of each distinct note of the lines, from 1 in order of first occurrence."""
    notes = dict.fromkeys(note for line in lines for note in line.notes)
    return {note: number for number, note in enumerate(notes, 1)}


def unique_names(lines: Sequence[Line]) -> list[str]:
    """Name of each line: the axes; to distinguish equal names also the hash, commit or run_id."""
    names = [line.first.name for line in lines]
    for suffix in (_by_hash, _by_code, _by_run):
        taken = Counter(names)
        names = [
            name if taken[name] == 1 else f"{name} {suffix(line.first)}"
            for name, line in zip(names, lines, strict=True)
        ]
    return names


def _by_hash(run: Run) -> str:
    return f"#{run.config_hash[:8]}"


def _by_code(run: Run) -> str:
    patch = f"+{run.code_patch_sha256[:4]}" if run.code_patch_sha256 else ""
    return f"@{(run.git_commit or 'unknown')[:7]}{patch}"


def _by_run(run: Run) -> str:
    return run.run_id


def _line(by_seed: dict[int, list[Run]], folded: FoldedRuns) -> Line:
    newest = [max(by_seed[seed], key=lambda run: (run.started, run.folder)) for seed in by_seed]
    newest.sort(key=lambda run: run.seed)
    runs = [run for of_seed in by_seed.values() for run in of_seed]
    repeats = len(runs) - len(newest) + sum(folded.repeats.get(run.folder, 0) for run in runs)
    superseded = [
        run.folder for kept in newest for run in by_seed[kept.seed] if _predict_otherwise(run, kept)
    ]
    contradicts = folded.contradicts.get(newest[0].folder)
    return Line(tuple(newest), repeats, contradicts, tuple(sorted(superseded)))


def _predict_otherwise(run: Run, kept: Run) -> bool:
    """Whether two runs are known to predict different classes; older records have no digest."""
    one, other = run.predictions_digest, kept.predictions_digest
    return one is not None and other is not None and one != other
