"""Lines -> groups of comparable lines, each line compared with the best of its group.

A group is one comparability key (see record/comparability.py). A zero-shot line belongs to every
group that differs from it only in how the head was fitted. Lines that must not be ranked, such as
lines whose head was fitted or chosen on test images, are listed outside the ranking of their group.
Within a group, p-values are adjusted by Holm: a line whose adjusted p exceeds ALPHA is not
distinguishable from the best. The best line is selected on the same test images, so the family of
these comparisons is all pairs of lines. Finetunes and probes, and part attention and controls, are
paired without reading the predictions, so their families are the comparisons shown.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fgvc import metrics
from fgvc.record import command_file, verify
from fgvc.record.comparability import difference
from fgvc.record.comparable_probe import GENERAL, probe_command
from fgvc.record.console import TEST_MARKS
from fgvc.record.privacy import portable_command
from fgvc.record.verify import DamageError
from fgvc.report.aggregate_seeds import Line, aggregate_seeds
from fgvc.report.pairwise_tests import (
    PairwiseTest,
    PredictionsByPath,
    compare_lines,
    match_controls,
    prediction_shares,
)
from fgvc.report.predictions import FILE, read_test_predictions
from fgvc.report.run_rows import DamagedRun, Run

TO_ADD = "To add it: "  # before the command at the end of a note


@dataclass(frozen=True)
class RankingEntry:
    """A line in its group.

    versus: comparison with the best line; None for the best itself. over_probe: of a finetune, with
    the linear probe of the same join key; None if there is no such probe. controls: of part
    attention, with each control that exists, by name. identical_to: place of the first line with
    identical predictions, if it is another line. distinct_answers: number of distinct predictions
    among the seeds; None if they were not read.
    """

    line: Line
    versus: PairwiseTest | None = None
    over_probe: PairwiseTest | None = None
    controls: Mapping[str, PairwiseTest] = field(default_factory=dict)
    identical_to: int | None = None
    distinct_answers: int | None = None

    @property
    def comparisons(self) -> dict[str, PairwiseTest]:
        """The comparisons with the best line and with the linear probe that exist, by name."""
        tests = {"versus": self.versus, "over_probe": self.over_probe}
        return {name: test for name, test in tests.items() if test is not None}

    @property
    def seeds_identical(self) -> bool:
        return len(self.line.runs) > 1 and self.distinct_answers == 1


@dataclass(frozen=True)
class Group:
    """Lines of one comparability key, best first. unranked: lines that are not ranked."""

    key: str
    entries: tuple[RankingEntry, ...]
    unranked: tuple[Line, ...] = ()

    @property
    def rows(self) -> tuple[tuple[int | None, RankingEntry], ...]:
        """Place and entry of every line: the ranked lines, then the others, without a place."""
        return (
            *enumerate(self.entries, 1),
            *((None, RankingEntry(line)) for line in self.unranked),
        )

    @property
    def lines(self) -> tuple[Line, ...]:
        return tuple(entry.line for _, entry in self.rows)

    @property
    def partial(self) -> bool:
        """Whether every run declares a partial copy of the dataset."""
        return all(run.partial for line in self.lines for run in line.runs)

    @property
    def fitted(self) -> Line:
        """A line that represents the group: a fitted one if there is any."""
        return next((line for line in self.lines if line.fitted), self.lines[0])

    @property
    def apart(self) -> tuple[str, ...]:
        """Why the group is ranked apart from plain runs."""
        return tuple(reason.badge for reason in self.fitted.reasons if reason.apart)

    def shared(self, field: str) -> str | None:
        """The value of a field of Run that all lines share; None if they differ."""
        values = {getattr(line.first, field) for line in self.lines}
        return values.pop() if len(values) == 1 else None

    @property
    def data_marks(self) -> tuple[str, ...]:
        """What qualifies the data of every run: a partial copy, a subset, test = val."""
        subset, source = self.shared("subset"), self.shared("test_source")
        partial = ("partial copy",) if self.partial else ()
        smoke = (f"subset {subset}",) if subset else ()
        return (*partial, *smoke, *((TEST_MARKS[source],) if source in TEST_MARKS else ()))

    @property
    def protocol(self) -> tuple[str, ...]:
        """Preprocessing and the split of the fit."""
        run = self.fitted.first
        fit = f"fit on {run.final_fit}" if self.fitted.fitted else "no fit"
        return (f"{run.preprocess} preprocessing", fit)

    @property
    def title(self) -> tuple[str, ...]:
        """Dataset, its marks, the protocol, and why the group is ranked apart."""
        apart = self.apart if self.fitted.fitted else ()
        return (self.fitted.first.dataset, *self.data_marks, *self.protocol, *apart)


def distinct_titles(groups: Sequence[Group]) -> list[tuple[str, ...]]:
    """The title of each group; equal titles also name the parts of the key that differ."""
    titles = [group.title for group in groups]
    distinct = []
    for group, title in zip(groups, titles, strict=True):
        own, parts = group.fitted.first.comparability, {}
        for other, other_title in zip(groups, titles, strict=True):
            if other_title == title:
                differing = difference(own, other.fitted.first.comparability)
                # the images of the fit and of the evaluation often have one digest: named once
                parts |= {value: name for name, (value, _) in reversed([*differing.items()])}
        distinct.append((*title, *(f"{name} {value[:8]}" for value, name in parts.items())))
    return distinct


def rank_lines(runs: Sequence[Run]) -> tuple[list[Group], list[DamagedRun]]:
    """Group and rank the runs; predictions are read only for runs that are compared.

    Returns:
        The groups, and the runs whose predictions cannot be compared, which are in no group.
    """
    predictions: PredictionsByPath = {}
    damaged: list[DamagedRun] = []
    while True:  # without an unreadable run, an older run of the same question is used
        groups = _group_lines(aggregate_seeds(runs))
        unreadable = [
            run
            for lines in groups.values()
            for run in _read_predictions(_ranked(lines), predictions)
        ]
        if not unreadable:
            break
        damaged += unreadable
        unreadable_folders = {run.folder for run in unreadable}
        runs = [run for run in runs if run.folder not in unreadable_folders]

    def order(group: Group) -> tuple[object, ...]:
        """Data and fit, then plain runs first, then larger groups first."""
        run, size = group.fitted.first, len(group.entries)
        return run.dataset, run.preprocess, run.final_fit, group.apart, -size, group.key

    ranked_groups = [
        Group(
            key,
            _compare_ranked(_ranked(lines), predictions),
            tuple(line for line in lines if line.why_unranked is not None),
        )
        for key, lines in groups.items()
    ]
    return sorted(ranked_groups, key=order), damaged


def _ranked(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if line.why_unranked is None]


def _group_lines(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Lines by comparability key, best first."""
    groups: dict[str, list[Line]] = defaultdict(list)
    keys_of: dict[str, set[str]] = defaultdict(set)
    for line in sorted(lines, key=lambda line: not line.fitted):  # fitted lines first
        run = line.first
        keys = {run.comparability_key}
        if not line.fitted:
            keys = keys_of.get(run.comparability_base, {run.comparability_base})
        elif line.why_unranked is None:
            keys_of[run.comparability_base].add(run.comparability_key)
        for key in keys:
            groups[key].append(line)

    def best_first(line: Line) -> tuple[float, str, str, str]:
        return -line.top1, line.first.name, line.first.config_hash, line.first.folder

    return {key: sorted(of_key, key=best_first) for key, of_key in groups.items()}


def _read_predictions(lines: Sequence[Line], predictions: PredictionsByPath) -> list[DamagedRun]:
    """Read the predictions if there are several runs to compare; returns the unreadable runs.

    If all can be read, these are the runs whose test images differ from those of most runs.
    """
    runs = [run for line in lines for run in line.runs]
    if len(runs) < 2:
        return []
    unreadable = []
    for run in (run for run in runs if run.path not in predictions):
        try:
            predictions[run.path] = read_test_predictions(run)
        except DamageError as error:
            unreadable.append(DamagedRun(run.folder, str(error)))
    if unreadable:
        return unreadable
    images_of = {run.folder: predictions[run.path].images_digest for run in runs}
    ((usual, _),) = Counter(images_of.values()).most_common(1)
    reason = f"{FILE}: other test images than the other runs of its comparability key"
    return [DamagedRun(folder, reason) for folder, images in images_of.items() if images != usual]


def _compare_ranked(
    lines: Sequence[Line], predictions: PredictionsByPath
) -> tuple[RankingEntry, ...]:
    if not lines:
        return ()
    lines = [replace(line, probe_note=_probe_note(line, lines)) for line in lines]
    pairs = [(line, lines[0]) for line in lines[1:]]
    versus = [None, *compare_lines(pairs, predictions, metrics.all_pairs(len(lines)))]
    finetunes = [line for line in lines if line.first.task == "train"]
    pairs = [(line, probe) for line in finetunes if (probe := _find_probe(line, lines))]
    tests = compare_lines(pairs, predictions)
    over_probe = {id(line): test for (line, _), test in zip(pairs, tests, strict=True)}
    triples = match_controls(lines)
    tests = compare_lines([(line, control) for line, _, control in triples], predictions)
    over_controls: dict[int, dict[str, PairwiseTest]] = defaultdict(dict)
    for (line, name, _), test in zip(triples, tests, strict=True):
        over_controls[id(line)][name] = test
    entries, first_place = [], {}
    for place, line in enumerate(lines, 1):
        shares = prediction_shares(line, predictions)
        first = place if shares is None else first_place.setdefault(shares, place)
        entry = RankingEntry(
            line,
            versus[place - 1],
            over_probe.get(id(line)),
            over_controls[id(line)],
            None if first == place else first,
            None if shares is None else len(shares),
        )
        entries.append(entry)
    return tuple(entries)


def _find_probe(finetune: Line, lines: Sequence[Line]) -> Line | None:
    """The linear probe of a finetune, joined by key; None if there is none.

    A probe with the part attention of the finetune is preferred to one without part attention.
    Among several probes, the lowest validation loss decides, then the smallest config hash; the
    test numbers are not used.
    """
    keys = {run.join_key for run in finetune.runs}
    own_parts = _part_settings(finetune.first)
    probes = [
        line
        for line in _linear_probes(lines)
        if {run.join_key for run in line.runs} == keys
        and (_part_settings(line.first) == own_parts or line.first.part_attention == "off")
    ]

    def preference(line: Line) -> tuple[bool, float, str, str]:
        loss, run = line.mean("val_loss"), line.first
        loss = math.inf if loss is None else loss
        return _part_settings(run) != own_parts, loss, run.config_hash, run.folder

    return min(probes, key=preference, default=None)


def _probe_note(line: Line, lines: Sequence[Line]) -> str | None:
    """Why a finetune is not compared with its linear probe, and what to run; None if it is.

    There is none fitted on the same images, or its seeds of random weights do not match. Among
    several probes, the note is about the one that lacks the fewest seeds.
    """
    if line.first.task != "train" or _find_probe(line, lines) is not None:
        return None
    seeds = {run.seed for run in line.runs}
    probe_seeds = [
        {run.seed for run in probe.runs}
        for probe in _linear_probes(lines)
        if probe.first.join_base == line.first.join_base
    ]
    if not probe_seeds:
        return _missing_probe(line)
    nearest = min(probe_seeds, key=lambda own: (len(seeds - own), len(own - seeds), sorted(own)))
    probe_lacks = bool(seeds - nearest)
    override = f"seed={','.join(map(str, sorted((seeds - nearest) or (nearest - seeds))))}"
    return (
        f"{line.first.name}: not compared with its linear probe: random weights depend on the "
        f"seed, and the probe {f'lacks {override}' if probe_lacks else f'has {override} too'}. "
        f"Run the {'probe' if probe_lacks else 'finetune'} with {override}"
    )


def _missing_probe(finetune: Line) -> str | None:
    """A note with the command of the linear probe; runs with the same probe have the same note."""
    run = finetune.first
    if any(reason.apart for reason in finetune.reasons):
        return None  # a probe is never ranked there
    try:
        artifacts = verify.read_index(run.path)
        data = verify.read_verified(run.path, verify.CONFIG, artifacts)
        config = verify.parse_object(verify.CONFIG, data)
        recorded = verify.read_verified(run.path, command_file.FILE, artifacts).decode()
    except (DamageError, UnicodeDecodeError):
        return None
    seeds = [member.seed for member in finetune.runs] if run.weights_kind == "random" else []
    command = probe_command(config, recorded, seeds=seeds)
    return (
        f"not compared with a linear probe: none of these settings was fitted on {run.final_fit} "
        f"like the finetune. {TO_ADD}{GENERAL if command is None else portable_command(command)}"
    )


def _part_settings(run: Run) -> tuple[object, ...]:
    """The settings of part attention that a probe has; others are used only in training."""
    return run.part_attention, run.part_tokens, run.part_stride, run.last_block


def _linear_probes(lines: Sequence[Line]) -> list[Line]:
    return [line for line in lines if (line.first.task, line.first.head) == ("probe", "linear")]
