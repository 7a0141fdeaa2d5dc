"""A table of runs -> the terminal, 80 columns wide.

One block per comparability key; licences and contamination of data and weights follow.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from fgvc import metrics
from fgvc.html.formats import interval, percent
from fgvc.record import console
from fgvc.record.not_ranked import UNRANKED
from fgvc.report.aggregate_seeds import Line, number_notes, unique_names
from fgvc.report.baselines import Table
from fgvc.report.pairwise_tests import ALPHA, PairwiseTest
from fgvc.report.ranking import Entry, Group

COLUMNS = ("run", "top-1 [95 %]", "per class", "images/s", "")
CARD_KEYS = ("license", "contamination", "label_noise")
MARKS = {"identical": "≡", "tie": "="}  # by verdict against the best
NOT_RANKED = "out"


def print_table(table: Table) -> None:
    """Print every block, then the legend, notes, provenance and the folders that are left out."""
    note_numbers = number_notes(line for group in table.groups for line in group.lines)
    for group in table.groups:
        ranked, all_names = len(group.entries), unique_names(group.lines)
        names = all_names[:ranked]
        rows = [_cells(*pair, ranked) for pair in zip(group.entries, names, strict=True)]
        unranked = list(zip(group.unranked, all_names[ranked:], strict=True))
        rows += [_cells(Entry(line), name, None) for line, name in unranked]
        for row, line in zip(rows, group.lines, strict=True):
            row[0] += _marks(line, group)
            row[0] += "".join(f" [{note_numbers[note]}]" for note in line.notes)
        console.table(_title(group), COLUMNS, rows)
        apart = (reason.sentence for line in group.lines for reason in line.reasons if reason.apart)
        out = (f"{NOT_RANKED}  {UNRANKED}: {name}: {line.why_unranked}" for line, name in unranked)
        for reason in (*dict.fromkeys(apart), *out):
            for part in textwrap.wrap(reason, 80, subsequent_indent=" " * 5):
                console.say(part)
        for lines in (_identical_lines, _control_lines, _probe_lines):
            for line in lines(group, names):
                console.say(line)
    for line in _legend(table):
        console.say(line)
    for note, number in note_numbers.items():
        console.say(f"[{number}]  {note}")
    _provenance(table)
    for run in table.damaged:
        state = "" if run.other_version else "damaged, left out: "
        console.say(f"{state}{run.folder}: {run.why}")


def _title(group: Group) -> str:
    (dataset, *others), subset = group.title, _shared(group, "subset")
    test_mark = console.test_mark(_shared(group, "test_source") or "")
    partial_mark = ", PARTIAL COPY" if group.partial else ""
    subset_mark = f", SUBSET {subset}" if subset else ""
    data = f"{dataset}{partial_mark}{subset_mark}{test_mark}"
    parts = (data, *others, f"{group.fitted.first.n} test images")
    return f"comparable ({group.key[:8]}): {' · '.join(parts)}"


def _cells(entry: Entry, name: str, ranked: int | None) -> list[str]:
    """The cells of a row; ranked: number of ranked lines, None for a line outside the ranking."""
    line, seeds = entry.line, len(entry.line.runs)
    rate, run = line.mean("images_per_s"), line.first
    top1 = {"top1": run.top1, "top1_ci95": (run.top1_low, run.top1_high)}
    mark = "best" if entry.versus is None else MARKS.get(entry.versus.verdict, "")
    return [
        name if seeds == 1 else f"{name} · {_seeds(entry)}",
        _spread(line, "top1") if seeds > 1 else interval(top1),
        _spread(line, "mean_per_class"),
        f"{rate:.0f}" if rate else "–",
        NOT_RANKED if ranked is None else mark if ranked > 1 else "",
    ]


def _shared(group: Group, field: str) -> str | None:
    """The value of a field that all runs of a group share; None if they differ."""
    values = {getattr(line.first, field) for line in group.lines}
    return values.pop() if len(values) == 1 else None


def _marks(line: Line, group: Group) -> str:
    """Additions to the name of a line that the title of its group does not state."""
    run, test_mark = line.first, console.TEST_MARKS.get(line.first.test_source)
    marks = (
        ("partial", run.partial and not group.partial),
        (f"subset {run.subset}", run.subset and not _shared(group, "subset")),
        (test_mark, test_mark and not _shared(group, "test_source")),
    )
    return "".join(f" · {mark}" for mark, applies in marks if applies)


def _seeds(entry: Entry) -> str:
    """Number of seeds and, if it is smaller, the number of distinct predictions."""
    seeds, distinct = len(entry.line.runs), entry.distinct_answers
    if entry.seeds_identical:
        return f"{seeds} seeds, identical predictions"
    if distinct is not None and distinct < seeds:
        return f"{seeds} seeds, {distinct} different predictions"
    return f"{seeds} seeds"


def _spread(line: Line, field: str) -> str:
    """Mean ± sd over the seeds, in percent; the number itself for one seed."""
    sd = line.sd(field)
    mean = percent(line.mean(field))
    return mean if sd is None else f"{mean} ± {percent(sd)}"


def _probe_lines(group: Group, names: list[str]) -> Iterator[str]:
    """Each finetune's gain over its linear probe, and whether the gain is significant."""
    for entry, name in zip(group.entries, names, strict=True):
        if entry.over_probe is not None:
            gain = _describe(entry.over_probe, " points", "a finding", "a finding")
            text = f"{name}, against its linear probe: {gain}"
            yield from textwrap.wrap(text, 80, subsequent_indent="  ")


def _identical_lines(group: Group, names: list[str]) -> Iterator[str]:
    """Each set of lines with the same predicted class for every test image."""
    sets: dict[int, list[str]] = {}
    for entry, name in zip(group.entries, names, strict=True):
        if (first := entry.identical_to) is not None:
            sets.setdefault(first, [names[first - 1]]).append(name)
    for members in sets.values():
        text = f"identical predictions: {'; '.join(members)}"
        yield from textwrap.wrap(text, 80, subsequent_indent="  ")


def _control_lines(group: Group, names: list[str]) -> Iterator[str]:
    """The gain of each part attention over each of its controls."""
    rows = [pair for pair in zip(group.entries, names, strict=True) if pair[0].controls]
    if not rows:
        return
    number = sum(len(entry.controls) for entry, _ in rows)
    yield f"part attention against its controls: top-1 in points, p after Holm over {number}"
    for entry, name in rows:
        run, share = entry.line.first, entry.line.mean("in_box")
        about = [name] if run.part_tokens is None else [name, f"{run.part_tokens} patches"]
        about += [] if share is None else [f"{percent(share)} % of them in the box"]
        yield from textwrap.wrap(" · ".join(about), 80, initial_indent="  ", subsequent_indent="  ")
        for control, comparison in entry.controls.items():
            gain = _describe(comparison, "", "helps", "hurts")
            yield f"    against {control.replace('_', ' ')}: {gain}"


def _describe(test: PairwiseTest, unit: str, higher: str, lower: str) -> str:
    """A difference in points with interval, p and verdict.

    Args:
        higher, lower: words for a significant difference.
    """
    tie = "no finding, the same images right" if test.same_right else "no finding"
    verdicts = {"identical": "identical predictions", "tie": tie, "higher": higher, "lower": lower}
    low, change, high = (100 * value for value in (test.low, test.difference, test.high))
    return (
        f"{change:+.1f}{unit} [{low:+.1f}, {high:+.1f}], p = {test.p_holm:.2g}: "
        f"{verdicts[test.verdict]}"
    )


def _legend(table: Table) -> Iterator[str]:
    entries = [entry for group in table.groups for entry in group.entries]
    versus = [entry.versus for entry in entries if entry.versus is not None]
    meanings = {
        "identical": "identical to the best: the same predicted class for every image",
        "tie": f"a tie with the best: p > {ALPHA} after Holm over all pairs of its table",
    }
    for verdict, mark in MARKS.items():
        if verdict in {comparison.verdict for comparison in versus}:
            yield f"{mark}  {meanings[verdict]}"
    probes = [entry.over_probe for entry in entries if entry.over_probe is not None]
    of_controls = [test for entry in entries for test in entry.controls.values()]
    if used := {comparison.test for comparison in (*versus, *probes, *of_controls)}:
        tests = "; ".join(_test_names(used))
        yield from textwrap.wrap(
            f"p: {tests}. Null: {metrics.NULL_HYPOTHESIS}.", 80, subsequent_indent="   "
        )
    if any(len(entry.line.runs) > 1 for entry in entries):
        yield "±  standard deviation over seeds"


def _test_names(used: set[str]) -> Iterator[str]:
    """The tests that were used, with the lines that each is for."""
    if "mcnemar" in used:
        yield "McNemar's exact test (one prediction per image)"
    cases = {
        "sign_flip": "several seeds",
        "sign_flip_subsets": "unequal numbers of seeds: geometric mean of p over equal numbers",
    }
    if flips := [text for name, text in cases.items() if name in used]:
        yield f"exact sign-flip test ({'; '.join(flips)})"


def _provenance(table: Table) -> None:
    """Print licence and contamination per dataset, and contamination per pretrained backbone."""
    runs = [line.first for group in table.groups for line in group.lines]
    for name, run in {run.dataset: run for run in runs}.items():
        console.provenance(name, {about: getattr(run, f"dataset_{about}") for about in CARD_KEYS})
    contamination = {
        (run.backbone, run.backbone_contamination): None
        for run in runs
        # no backbone can have been trained on generated images, whose card says "none"
        if run.weights_kind != "random" and not run.dataset_contamination.startswith("none")
    }
    for name, text in contamination:
        console.say(f"{name}, contamination: {text}")
