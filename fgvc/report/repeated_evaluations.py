"""Runs of task=eval -> repeats of the run they evaluate, rows of their own, or contradictions.

A checkpoint has a single answer on the same data: that of the run that fitted the head or, if this
run is not among the folders, that of the newest evaluation. An evaluation with the same predictions
is a repeat. An evaluation with other predictions (for example, from another device) contradicts the
run and is shown outside the ranking.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from fgvc.report.run_rows import Run


@dataclass(frozen=True)
class FoldedRuns:
    """runs: in order, without the evaluations that repeat another run. repeats: by folder of a run,
    how many evaluations repeat it. contradicts: folder of an evaluation -> folder of the run of the
    same checkpoint and data whose predictions differ."""

    runs: tuple[Run, ...]
    repeats: Mapping[str, int]
    contradicts: Mapping[str, str]


def fold_evaluations(runs: Iterable[Run]) -> FoldedRuns:
    """Count the evaluations that repeat another run, and mark those that contradict it.

    A record without the digest of its predictions is kept unchanged.
    """
    runs = tuple(runs)
    repeats: Counter[str] = Counter()
    contradicts: dict[str, str] = {}
    repeated: set[str] = set()
    for fits, evaluations in _by_checkpoint_and_data(runs):
        first = (fits or evaluations)[0]
        answers = {run.predictions_digest: run for run in reversed(fits)}
        for run in evaluations:
            same = answers.setdefault(run.predictions_digest, run)
            if same is not run:
                repeats[same.folder] += 1
                repeated.add(run.folder)
            elif run is not first:
                contradicts[run.folder] = first.folder
    kept = tuple(run for run in runs if run.folder not in repeated)
    return FoldedRuns(kept, repeats, contradicts)


def _by_checkpoint_and_data(runs: Iterable[Run]) -> list[tuple[list[Run], list[Run]]]:
    """Per checkpoint and data: the runs that fitted the head, and its evaluations; newest first."""
    groups: dict[tuple[str, str], tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for run in sorted(runs, key=lambda run: (run.started, run.folder), reverse=True):
        if run.predictions_digest is not None:
            group = groups[run.fit_checkpoint, run.comparability_key]
            group[run.task == "eval"].append(run)
    return list(groups.values())
