"""A table of runs -> the terminal, 80 columns wide.

One block per comparability key; licences and contamination of data and weights follow.
"""

from __future__ import annotations

import textwrap

from fgvc import metrics
from fgvc.html.formats import interval, p_value, percent
from fgvc.record import console
from fgvc.record.comparability import UNRANKED
from fgvc.report.aggregate_seeds import Line, number_notes, unique_names
from fgvc.report.baselines import BaselinesTable
from fgvc.report.comparable_rates import rate_notes
from fgvc.report.pairwise_tests import ALPHA, ATTENTION_FREE, WORDS, PairwiseTest, in_box_shares
from fgvc.report.ranking import Group, RankingEntry, distinct_titles

COLUMNS = ("run", "top-1 [95 %]", "per class", "images/s", "")
SEPARATOR = " · "  # of the parts of a name
MARKS = {"identical": "≡", "tie": "="}  # by verdict against the best
NOT_RANKED = "out"
RATE_LEGEND = (
    "( )  images/s that do not compare with the others: measured on a busy machine, or with "
    "another device or number of threads"
)
SIGN_FLIPS = {  # the lines that each test is for
    "sign_flip": "several seeds",
    "sign_flip_subsets": "unequal numbers of seeds: geometric mean of p over equal numbers",
}


def print_table(table: BaselinesTable) -> None:
    """Print every block, then the legend, notes, provenance and the folders that are left out."""
    note_numbers = number_notes(line for group in table.groups for line in group.lines)
    titles = distinct_titles(table.groups)
    for group, title in zip(table.groups, titles, strict=True):
        names, of_rates = unique_names(group.lines), rate_notes(group.lines)
        common, short_names = _split_names([*map(_with_seeds, group.rows, names)])
        rows = [
            _cells(group, entry, name, [note_numbers[note] for note in entry.line.notes], rate_note)
            for (_, entry), name, rate_note in zip(group.rows, short_names, of_rates, strict=True)
        ]
        console.table(_title(group, title, common), COLUMNS, rows)
        apart = (reason.sentence for line in group.lines for reason in line.reasons if reason.apart)
        unranked = zip(group.unranked, names[len(group.entries) :], strict=True)
        out = (f"{NOT_RANKED}  {UNRANKED}: {name}: {line.why_unranked}" for line, name in unranked)
        for reason in (*dict.fromkeys(apart), *out):
            _say(reason, indent=5)
        _print_comparisons(group, names)
    _print_legend([entry for group in table.groups for entry in group.entries])
    if any(note for group in table.groups for note in rate_notes(group.lines)):
        _say(RATE_LEGEND, indent=5)
    for note, number in note_numbers.items():
        console.say(f"[{number}]  {note}")
    _print_provenance(table)
    for run in table.damaged:
        state = "" if run.other_version else "damaged, left out: "
        console.say(f"{state}{run.folder}: {run.why}")


def _say(text: str, indent: int = 2, head: str = "") -> None:
    """Print a text in 80 columns; further lines are indented."""
    for line in textwrap.wrap(text, 80, initial_indent=head, subsequent_indent=" " * indent):
        console.say(line)


def _title(group: Group, title: tuple[str, ...], common: str) -> str:
    marks = [
        mark.replace("subset", "SUBSET") if mark.startswith("subset ") else mark.upper()
        for mark in group.data_marks
    ]
    parts = (", ".join([title[0], *marks]), *title[1 + len(marks) :])
    images = f"{group.fitted.first.n} test images"
    rows = (f"every row: {common}",) if common else ()
    return f"comparable ({group.key[:8]}): {SEPARATOR.join((*parts, images, *rows))}"


def _with_seeds(row: tuple[int | None, RankingEntry], name: str) -> str:
    seeds, distinct = len(row[1].line.runs), row[1].distinct_answers
    if seeds == 1:
        return name
    same = "identical" if distinct == 1 else f"{distinct} different"
    differ = distinct is None or distinct == seeds
    return f"{name}{SEPARATOR}{seeds} seeds{'' if differ else f', {same} predictions'}"


def _split_names(names: list[str]) -> tuple[str, list[str]]:
    """The parts that all names have, and each name without them: 80 columns are few."""
    parts = [name.split(SEPARATOR) for name in names]
    shared = [part for part in parts[0] if all(part in others for others in parts)]
    if len(names) < 2 or any(len(own) == len(shared) for own in parts):
        shared = shared[:-1] if len(names) > 1 else []  # a row keeps a name
    short = [SEPARATOR.join(part for part in own if part not in shared) for own in parts]
    return SEPARATOR.join(shared), short


def _cells(
    group: Group, entry: RankingEntry, name: str, notes: list[int], rate_note: str | None
) -> list[str]:
    """The cells of a row; its name has the values that the title of the group lacks."""
    line, run, seeds = entry.line, entry.line.first, len(entry.line.runs)
    test_mark = console.TEST_MARKS.get(run.test_source)
    for mark, applies in (
        ("partial", run.partial and not group.partial),
        (f"subset {run.subset}", run.subset and not group.shared("subset")),
        (test_mark, test_mark and not group.shared("test_source")),
    ):
        name += f" · {mark}" if applies else ""
    name += "".join(f" [{number}]" for number in notes)
    top1 = {"top1": run.top1, "top1_ci95": (run.top1_low, run.top1_high)}
    rate = line.mean("images_per_s")
    rate_text = "–" if rate is None else f"{rate:.0f}"
    mark = "best" if entry.versus is None else MARKS.get(entry.versus.verdict, "")
    if line.why_unranked is not None:
        mark = NOT_RANKED
    elif len(group.entries) == 1:
        mark = ""
    return [
        name,
        _spread(line, "top1") if seeds > 1 else interval(top1),
        _spread(line, "mean_per_class"),
        f"({rate_text})" if rate and rate_note else rate_text,
        mark,
    ]


def _spread(line: Line, field: str) -> str:
    """Mean ± sd over the seeds, in percent; the number itself for one seed."""
    sd = line.sd(field)
    mean = percent(line.mean(field))
    return mean if sd is None else f"{mean} ± {percent(sd)}"


def _print_comparisons(group: Group, names: list[str]) -> None:
    """Lines with identical predictions, and gains over the controls and over the linear probe."""
    rows = list(zip(group.entries, names, strict=False))
    identical: dict[int, list[str]] = {}
    for entry, name in rows:
        if (first := entry.identical_to) is not None:
            identical.setdefault(first, [names[first - 1]]).append(name)
    for members in identical.values():
        _say(f"identical predictions: {'; '.join(members)}")
    if number := sum(len(entry.controls) for entry in group.entries):
        title = "part attention against its controls: top-1 in points, after Holm over"
        console.say(f"{title} {number} pair{'s' * (number != 1)}")
    for entry, name in (pair for pair in rows if pair[0].controls):
        run, shares = entry.line.first, in_box_shares(entry.line, group.lines)
        about = [name] if run.part_tokens is None else [name, f"{run.part_tokens} patches"]
        if shares["in_box"] is not None:
            others = ", ".join(f"{name} {_share(shares[name])}" for name in ATTENTION_FREE)
            about.append(f"{_share(shares['in_box'])} % of them in the box ({others})")
        _say(SEPARATOR.join(about), head="  ")
        for control, test in entry.controls.items():
            gain = describe_test(test)
            console.say(f"    against {control.replace('_', ' ')}: {gain}")
    for entry, name in rows:
        if entry.over_probe is not None:
            gain = describe_test(entry.over_probe)
            _say(f"{name}, against its linear probe, in points after Holm: {gain}")


def _share(fraction: float | None) -> str:
    return "not run" if fraction is None else percent(fraction)


def describe_test(test: PairwiseTest) -> str:
    """A difference in points with interval and p after Holm, and the verdict."""
    same = ", the same images right" if test.verdict == "tie" and test.same_right else ""
    low, change, high = (100 * value for value in (test.low_holm, test.value, test.high_holm))
    return (
        f"{change:+.1f} [{low:+.1f}, {high:+.1f}], p {p_value(test.p_holm)}: "
        f"{WORDS[test.verdict]}{same}"
    )


def _print_legend(entries: list[RankingEntry]) -> None:
    verdicts = {entry.versus.verdict for entry in entries if entry.versus is not None}
    meanings = {
        "identical": "identical to the best: the same predicted class for every image",
        "tie": f"{WORDS['tie']} from the best: p > {ALPHA} after Holm over all pairs of its group",
    }
    for verdict in (verdict for verdict in meanings if verdict in verdicts):
        _say(f"{MARKS[verdict]}  {meanings[verdict]}", indent=3)
    compared = (test for entry in entries for test in entry.comparisons.values())
    of_controls = (test for entry in entries for test in entry.controls.values())
    if used := {test.test for test in (*compared, *of_controls)}:
        flips = "; ".join(text for name, text in SIGN_FLIPS.items() if name in used)
        names = ["McNemar's exact test (one prediction per image)"] * ("mcnemar" in used)
        names += [f"exact sign-flip test ({flips})"] if flips else []
        _say(f"p: {'; '.join(names)}. Null: {metrics.NULL_HYPOTHESIS}.", indent=3)
    if any(len(entry.line.runs) > 1 for entry in entries):
        console.say("±  standard deviation over seeds")


def _print_provenance(table: BaselinesTable) -> None:
    """Print licence and contamination per dataset, and contamination per pretrained backbone."""
    runs = [line.first for group in table.groups for line in group.lines]
    for name, run in {run.dataset: run for run in runs}.items():
        card = {key: getattr(run, f"dataset_{key}") for key in console.PROVENANCE}
        console.provenance(name, card)
    contamination = {
        (run.backbone, run.backbone_contamination): None
        for run in runs
        # no backbone can have been trained on generated images, whose card says "none"
        if run.weights_kind != "random" and not run.dataset_contamination.startswith("none")
    }
    for name, text in contamination:
        console.say(f"backbone {name}, contamination: {text}")
