"""Lines -> groups that may be ranked, each line held against the best of its group.

A group is one comparability key (see record/comparability.py). A zero-shot line belongs to every
group that differs from it only in how the head was fitted. Lines that must not be ranked, such as
lines whose head was fitted or chosen on test images, are listed outside the ranking of their group.
Within a group the p-values are Holm's: a line whose adjusted p exceeds ALPHA ties with the best.
The best line is selected on the same test images, so the family of these comparisons is all pairs
of lines. Finetunes and their probes, and part attention and its controls, are paired without
reading the answers, so their families are the comparisons shown.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fgvc import metrics
from fgvc.record.verify import DamageError
from fgvc.report import controls, predictions
from fgvc.report.aggregate_seeds import Line, aggregate_seeds
from fgvc.report.pairwise_tests import (
    PairwiseTest,
    PredictionsByPath,
    compare_lines,
    count_distinct_predictions,
    find_identical,
)
from fgvc.report.run_rows import DamagedRun, Run


@dataclass(frozen=True)
class Entry:
    """A line in its group.

    versus: against the best; None for the best itself. over_probe: of a finetune, against the
    linear probe of the same join key, where there is one. controls: of part
    attention, against each control by its name, where there is one. identical_to: place of the
    first line with identical answers, if it is another line. distinct_answers: number of distinct
    predictions among the seeds; None if they were not read.
    """

    line: Line
    versus: PairwiseTest | None = None
    over_probe: PairwiseTest | None = None
    controls: Mapping[str, PairwiseTest] = field(default_factory=dict)
    identical_to: int | None = None
    distinct_answers: int | None = None

    @property
    def seeds_identical(self) -> bool:
        return len(self.line.runs) > 1 and self.distinct_answers == 1


@dataclass(frozen=True)
class Group:
    """Lines of one comparability key, best first. outside: lines that are not ranked."""

    key: str
    entries: tuple[Entry, ...]
    outside: tuple[Line, ...] = ()

    @property
    def lines(self) -> tuple[Line, ...]:
        """All lines: first ranked ones, then those outside the ranking."""
        return (*(entry.line for entry in self.entries), *self.outside)

    @property
    def partial(self) -> bool:
        """Whether every run declares a partial copy; of one's own folder only the user knows."""
        return all(run.partial for line in self.lines for run in line.runs)

    @property
    def fitted(self) -> Line:
        """The line that speaks for the group: one whose final_fit is the group's, if there is."""
        return next((line for line in self.lines if line.fitted), self.lines[0])


def rank_lines(runs: Sequence[Run]) -> tuple[list[Group], list[DamagedRun]]:
    """Every run in its group, and the runs whose answers cannot be compared, in none.

    Predictions are read for the runs that are compared, and no other.
    """
    read: PredictionsByPath = {}
    damaged: list[DamagedRun] = []
    while True:  # a run that drops out may bring an older one of the same question to light
        groups = _grouped(aggregate_seeds(runs))
        lost = [one for lines in groups.values() for one in _read(_rivals(lines), read)]
        if not lost:
            break
        damaged += lost
        gone = {one.folder for one in lost}
        runs = [run for run in runs if run.folder not in gone]
    found = [_group(key, lines, read) for key, lines in groups.items()]
    return sorted(found, key=_order), damaged


def _rivals(lines: Sequence[Line]) -> list[Line]:
    """The lines that are ranked."""
    return [line for line in lines if line.outside is None]


def _group(key: str, lines: Sequence[Line], read: PredictionsByPath) -> Group:
    rivals = _rivals(lines)
    outside = tuple(line for line in lines if line.outside is not None)
    return Group(key, _compared(rivals, read) if rivals else (), outside)


def _grouped(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by comparability key, best first."""
    groups: dict[str, list[Line]] = defaultdict(list)
    keys_of: dict[str, set[str]] = defaultdict(set)
    for line in (one for one in lines if one.fitted):
        groups[line.first.comparability_key].append(line)
        if line.outside is None:
            keys_of[line.first.comparability_base].add(line.first.comparability_key)
    for line in (one for one in lines if not one.fitted):
        base = line.first.comparability_base
        for key in keys_of.get(base, {base}):
            groups[key].append(line)
    return {key: sorted(of_key, key=_best_first) for key, of_key in groups.items()}


def _best_first(line: Line) -> tuple[float, str, str, str]:
    return -line.top1, line.first.name, line.first.config_hash, line.first.folder


def _order(group: Group) -> tuple[object, ...]:
    """Sort key: data and fit, then plain runs first, then larger groups first."""
    run = group.fitted.first
    unusual = (run.comparability.fitted_elsewhere, run.forced, run.debug is not None)
    return (run.dataset, run.preprocess, run.final_fit, *unusual, -len(group.entries), group.key)


def _read(lines: Sequence[Line], read: PredictionsByPath) -> list[DamagedRun]:
    """Read the answers of runs that have others to be compared with; returns those that failed."""
    runs = [run for line in lines for run in line.runs]
    if len(runs) < 2:
        return []
    lost = []
    for run in (one for one in runs if one.path not in read):
        try:
            read[run.path] = predictions.read_test_predictions(run)
        except DamageError as why:
            lost.append(DamagedRun(run.folder, str(why)))
    return lost or _of_other_images(runs, read)


def _of_other_images(runs: Sequence[Run], read: PredictionsByPath) -> list[DamagedRun]:
    """The key promises the same images; a run that breaks the promise of the rest is not paired."""
    ((usual, _),) = Counter(read[run.path].images for run in runs).most_common(1)
    why = f"{predictions.FILE}: other test images than the rest of its comparability key"
    return [DamagedRun(run.folder, why) for run in runs if read[run.path].images != usual]


def _compared(lines: Sequence[Line], read: PredictionsByPath) -> tuple[Entry, ...]:
    lines = [replace(line, probe_note=_probe_note(line, lines)) for line in lines]
    best = lines[0]
    pairs = [(line, best) for line in lines[1:]]
    versus = compare_lines(pairs, read, metrics.all_pairs(len(lines)))
    finetunes = [line for line in lines if line.first.task == "train"]
    pairs = [(line, probe) for line in finetunes if (probe := _probe_of(line, lines))]
    over = dict(zip([id(line) for line, _ in pairs], compare_lines(pairs, read), strict=True))
    controlled = _controlled(lines, read)
    places = find_identical(lines, read)
    return tuple(
        Entry(
            line,
            comparison,
            over.get(id(line)),
            controlled[id(line)],
            places.get(place),
            count_distinct_predictions(line, read),
        )
        for place, (line, comparison) in enumerate(zip(lines, (None, *versus), strict=True), 1)
    )


def _controlled(
    lines: Sequence[Line], read: PredictionsByPath
) -> dict[int, dict[str, PairwiseTest]]:
    """By line, what holding it against its controls says; all of the group are Holm's at once."""
    triples = controls.match_controls(lines)
    held = compare_lines([(line, control) for line, _, control in triples], read)
    found: dict[int, dict[str, PairwiseTest]] = {id(line): {} for line in lines}
    for (line, name, _), comparison in zip(triples, held, strict=True):
        found[id(line)][name] = comparison
    return found


def _probe_of(finetune: Line, lines: Sequence[Line]) -> Line | None:
    """The linear probe for a finetune, joined by key and never by the order of jobs.

    Its part attention is that of the finetune, or off if there is no such probe. Of several probes,
    the lowest validation loss decides, then the smallest config hash: not the test.
    """
    keys = {run.join_key for run in finetune.runs}
    own_parts = _parts(finetune.first)
    probes = [
        line
        for line in _linear_probes(lines)
        if {run.join_key for run in line.runs} == keys
        and (_parts(line.first) == own_parts or line.first.part_attention == "off")
    ]

    def preference(line: Line) -> tuple[bool, float, str, str]:
        loss = line.mean("val_loss")
        run = line.first
        return (
            _parts(run) != own_parts,
            math.inf if loss is None else loss,
            run.config_hash,
            run.folder,
        )

    return min(probes, key=preference, default=None)


def _probe_note(line: Line, lines: Sequence[Line]) -> str | None:
    """Which seeds keep a finetune of random weights from its linear probe; None where none do.

    Of several probes, the one that lacks the fewest seeds is meant.
    """
    if line.first.task != "train" or _probe_of(line, lines) is not None:
        return None
    seeds = {run.seed for run in line.runs}
    others = [
        {run.seed for run in probe.runs}
        for probe in _linear_probes(lines)
        if probe.first.join_base == line.first.join_base
    ]
    if not others:
        return None
    of_probe = min(others, key=lambda own: (len(seeds - own), len(own - seeds), sorted(own)))
    lacks = bool(seeds - of_probe)
    given = f"seed={','.join(map(str, sorted((seeds - of_probe) or (of_probe - seeds))))}"
    return (
        f"{line.first.name}: not compared with its linear probe: random weights depend on the "
        f"seed, and the probe {f'lacks {given}' if lacks else f'has {given} too'}. "
        f"Run the {'probe' if lacks else 'finetune'} with {given}"
    )


def _parts(run: Run) -> tuple[object, ...]:
    """Part attention as a probe has it, without what only training uses."""
    return run.part_attention, run.part_tokens, run.part_stride, run.last_block


def _linear_probes(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if (line.first.task, line.first.head) == ("probe", "linear")]
