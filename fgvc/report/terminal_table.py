"""A table of runs on the terminal, 80 columns wide.

One block for each comparability key; what must be known of the data and the weights stands below.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from fgvc import metrics
from fgvc.record import console
from fgvc.report.aggregate_seeds import Line, number_notes, unique_names
from fgvc.report.baselines import Table
from fgvc.report.pairwise_tests import ALPHA, PairwiseTest
from fgvc.report.ranking import Entry, Group
from fgvc.report.run_rows import Run, fit_marks

COLUMNS = ("run", "top-1 [95 %]", "per class", "images/s", "")
ABOUT = ("license", "contamination", "label_noise")
MARKS = {"identical": "≡", "tie": "="}  # by verdict against the best
OUTSIDE = "out"


def print_table(table: Table) -> None:
    """Every block, then what its marks mean, provenance, and the folders that are in none."""
    numbered = number_notes(line for group in table.groups for line in group.lines)
    for group in table.groups:
        number, all_names = len(group.entries), unique_names(group.lines)
        names = all_names[:number]
        rows = [_cells(*pair, number) for pair in zip(group.entries, names, strict=True)]
        outside = list(zip(group.outside, all_names[number:], strict=True))
        rows += [_cells(Entry(line), name, None) for line, name in outside]
        for row, line in zip(rows, group.lines, strict=True):
            row[0] += " · partial" if line.first.partial and not group.partial else ""
            row[0] += _subset_mark(line, group) + _source_mark(line, group)
            row[0] += _note_marks(line, numbered)
        console.table(_title(group), COLUMNS, rows)
        for line, name in outside:
            reason = f"{OUTSIDE}  not ranked: {name}: {line.outside}"
            for part in textwrap.wrap(reason, 80, subsequent_indent=" " * 5):
                console.say(part)
        for line in (*_identical(group, names), *_controls(group, names)):
            console.say(line)
        for line in _over_probes(group, names):
            console.say(line)
    for line in _legend(table):
        console.say(line)
    for note, number in numbered.items():
        console.say(f"[{number}]  {note}")
    _provenance(table)
    for one in table.damaged:
        state = "" if one.other_version else "damaged, left out: "
        console.say(f"{state}{one.folder}: {one.why}")


def _title(group: Group) -> str:
    run, subset = group.fitted.first, _subset(group)
    partial_mark = ", PARTIAL COPY" if group.partial else ""
    subset_mark = f", SUBSET {subset}" if subset else ""
    parts = (
        f"{run.dataset}{partial_mark}{subset_mark}{console.test_mark(_source(group))}",
        run.preprocess,
        f"fit on {run.final_fit}{fit_marks(run)}" if group.fitted.fitted else "no fit",
        f"{run.n} test images",
    )
    return f"comparable ({group.key[:8]}): {' · '.join(parts)}"


def _cells(entry: Entry, name: str, rivals: int | None) -> list[str]:
    """A row. rivals: lines of the ranking; None for a line outside it."""
    line, seeds = entry.line, len(entry.line.runs)
    rate = line.mean("images_per_s")
    mark = "best" if entry.versus is None else MARKS.get(entry.versus.verdict, "")
    return [
        name if seeds == 1 else f"{name} · {_seeds(entry)}",
        _spread(line, "top1") if seeds > 1 else console.interval(_interval(line.first)),
        _spread(line, "mean_per_class"),
        f"{rate:.0f}" if rate else "–",
        OUTSIDE if rivals is None else mark if rivals > 1 else "",
    ]


def _subset(group: Group) -> str | None:
    """The dataset.subset that all runs of a group share; None if they differ or have none."""
    subsets = {line.first.subset for line in group.lines}
    return subsets.pop() if len(subsets) == 1 else None


def _subset_mark(line: Line, group: Group) -> str:
    """Addition to a line's name if the group's title does not state its subset; may be empty."""
    subset = line.first.subset
    return f" · subset {subset}" if subset and not _subset(group) else ""


def _source(group: Group) -> str:
    """What all runs of a group have as the test (Dataset.test_source); empty if they differ."""
    sources = {line.first.test_source for line in group.lines}
    return sources.pop() if len(sources) == 1 else ""


def _source_mark(line: Line, group: Group) -> str:
    """Addition to a line's name if the group's title does not state its test; may be empty."""
    mark = console.TEST_MARKS.get(line.first.test_source)
    return f" · {mark}" if mark and not _source(group) else ""


def _note_marks(line: Line, numbered: Mapping[str, int]) -> str:
    """The numbers of a line's notes, as shown after its name."""
    return "".join(f" [{numbered[note]}]" for note in line.notes)


def _seeds(entry: Entry) -> str:
    """Number of seeds and, if it is smaller, the number of distinct predictions."""
    seeds, distinct = len(entry.line.runs), entry.distinct_answers
    if entry.seeds_identical:
        return f"{seeds} seeds, identical answers"
    if distinct is not None and distinct < seeds:
        return f"{seeds} seeds, {distinct} different answers"
    return f"{seeds} seeds"


def _interval(run: Run) -> dict[str, object]:
    return {"top1": run.top1, "top1_ci95": (run.top1_low, run.top1_high)}


def _spread(line: Line, field: str) -> str:
    """Mean ± sd over the seeds, in percent; the number itself for one seed."""
    sd = line.sd(field)
    mean = console.percent(line.mean(field))
    return mean if sd is None else f"{mean} ± {console.percent(sd)}"


def _over_probes(group: Group, names: list[str]) -> Iterator[str]:
    """What each finetune gained over its linear probe, and whether that is a finding."""
    for entry, name in zip(group.entries, names, strict=True):
        if (over := entry.over_probe) is None:
            continue
        low, change, high = (100 * value for value in (over.low, over.difference, over.high))
        verdict = _describe(over, "a finding", "a finding")
        text = (
            f"{name}, against its linear probe: {change:+.1f} points "
            f"[{low:+.1f}, {high:+.1f}], p = {over.p_holm:.2g}: {verdict}"
        )
        yield from textwrap.wrap(text, 80, subsequent_indent="  ")


def _identical(group: Group, names: list[str]) -> Iterator[str]:
    """Each set of lines that predict the same class for every test image."""
    sets: dict[int, list[str]] = {}
    for entry, name in zip(group.entries, names, strict=True):
        if (first := entry.identical_to) is not None:
            sets.setdefault(first, [names[first - 1]]).append(name)
    for members in sets.values():
        text = f"identical answers: {'; '.join(members)}"
        yield from textwrap.wrap(text, 80, subsequent_indent="  ")


def _controls(group: Group, names: list[str]) -> Iterator[str]:
    """What each choice of part attention gained over each of its controls, in 80 columns."""
    held = [pair for pair in zip(group.entries, names, strict=True) if pair[0].controls]
    if not held:
        return
    number = sum(len(entry.controls) for entry, _ in held)
    yield f"part attention against its controls: top-1 in points, p after Holm over {number}"
    for entry, name in held:
        run, share = entry.line.first, entry.line.mean("in_box")
        about = [name] if run.part_tokens is None else [name, f"{run.part_tokens} patches"]
        about += [] if share is None else [f"{console.percent(share)} % of them in the box"]
        yield from textwrap.wrap(" · ".join(about), 80, initial_indent="  ", subsequent_indent="  ")
        for control, one in entry.controls.items():
            low, change, high = (100 * value for value in (one.low, one.difference, one.high))
            yield (
                f"    against {control.replace('_', ' ')}: {change:+.1f} [{low:+.1f}, {high:+.1f}],"
                f" p = {one.p_holm:.2g}: {_describe(one, 'helps', 'hurts')}"
            )


def _describe(comparison: PairwiseTest, higher: str, lower: str) -> str:
    """A verdict in words; `higher` and `lower` name a significant difference."""
    if comparison.verdict == "identical":
        return "identical answers"
    if comparison.verdict == "tie":
        return "no finding, the same images right" if comparison.same_right else "no finding"
    return higher if comparison.verdict == "higher" else lower


def _legend(table: Table) -> Iterator[str]:
    entries = [entry for group in table.groups for entry in group.entries]
    versus = [entry.versus for entry in entries if entry.versus is not None]
    meanings = {
        "identical": "identical to the best: the same predicted class for every image",
        "tie": f"a tie with the best: p > {ALPHA} after Holm over all pairs of its table",
    }
    for verdict, mark in MARKS.items():
        if verdict in {one.verdict for one in versus}:
            yield f"{mark}  {meanings[verdict]}"
    compared = [*versus, *(one for entry in entries for one in _others(entry))]
    if compared:
        tests = "; ".join(_tests({one.test for one in compared}))
        yield from textwrap.wrap(
            f"p: {tests}. Null: {metrics.NULL_HYPOTHESIS}.", 80, subsequent_indent="   "
        )
    if any(len(entry.line.runs) > 1 for entry in entries):
        yield "±  standard deviation over seeds"


def _tests(used: set[str]) -> Iterator[str]:
    """The kinds of tests, each once, with the lines that each is used for."""
    if "mcnemar" in used:
        yield "McNemar's exact test (one answer per image)"
    cases = {
        "sign_flip": "several seeds",
        "sign_flip_subsets": "unequal numbers of seeds: geometric mean of p over equal numbers",
    }
    if flips := [text for name, text in cases.items() if name in used]:
        yield f"exact sign-flip test ({'; '.join(flips)})"


def _others(entry: Entry) -> Iterator[PairwiseTest]:
    """Comparisons with a probe or a control."""
    yield from entry.controls.values()
    if entry.over_probe is not None:
        yield entry.over_probe


def _provenance(table: Table) -> None:
    """Once a dataset, and once a backbone that may have met its pictures before."""
    runs = [line.first for group in table.groups for line in group.lines]
    for name, run in {run.dataset: run for run in runs}.items():
        console.provenance(name, {about: getattr(run, f"dataset_{about}") for about in ABOUT})
    met = [run for run in runs if run.weights_kind != "random" and not _unseen(run)]
    for name, text in dict.fromkeys((run.backbone, run.backbone_contamination) for run in met):
        console.say(f"{name}, contamination: {text}")


def _unseen(run: Run) -> bool:
    """Pictures that no backbone can have met, as their card says (generated ones)."""
    return run.dataset_contamination.startswith("none")
