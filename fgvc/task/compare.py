"""task=compare: two runs, image by image -> tables on the terminal, and everything as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc.pipeline.job import Job
from fgvc.record import console
from fgvc.record.find_run import find_run
from fgvc.report.compare import compare_runs
from fgvc.store import atomic
from fgvc.store.output_path import JSON, output_file

MOST = 10  # lines of a table; the JSON holds them all
Told = Mapping[str, Any]


def run(job: Job) -> None:
    """Compare run= with against=.

    Raises:
        UserError: a folder is damaged, or the runs do not compare.
        OSError: task.output cannot be written.
    """
    conf = job.conf
    assert conf.run is not None
    assert conf.against is not None
    run, against = (
        find_run(Path(conf.run), "run"),
        find_run(Path(conf.against), "against"),
    )
    target = _target(conf.task.output, run, against)
    told = compare_runs(run, against, conf.task.force)
    if target is not None:
        atomic.write_json(target, told)
    for line in (*_warning(told), *_overlaps(told)):
        console.say(line)
    _numbers(told)
    console.say(_finding(told))
    _classes(told["classes"])
    _images("wrong in against, right in run", told["wrong_to_right"])
    _images("right in against, wrong in run", told["right_to_wrong"])
    _differences("config", told["config"])
    _differences("environment", told["environment"])
    if target is not None:
        console.say(f"as JSON: {target}")


def _target(output: str | None, run: Path, against: Path) -> Path | None:
    """The JSON file, in a folder named by both checkpoints; None for the terminal alone."""
    names = "_".join(path.resolve().name for path in (run, against))
    return None if output is None else output_file(output, f"compare_{names}.json", JSON)


def _warning(told: Told) -> Sequence[str]:
    """What a forced comparison must not leave unsaid."""
    if told["comparable"]:
        return ()
    images = told["images"]
    differs = [f"{name} ({a[:12]}, {b[:12]})" for name, (a, b) in told["differs_in"].items()]
    return (
        f"FORCED: these runs do not compare, they differ in {'; '.join(differs)}",
        f"{images['common']} common images; left out: {images['only_run']} of run, "
        f"{images['only_against']} of against",
    )


def _overlaps(told: Told) -> Sequence[str]:
    """A note for each side whose head was fitted or chosen on its test images."""
    return [
        f"note: {name}: {told[name]['overlap']} of its test images fitted or chose its head or "
        "backbone"
        for name in ("run", "against")
        if told[name]["overlap"]
    ]


def _numbers(told: Told) -> None:
    mine, theirs = told["run"], told["against"]
    console.say(f"run:     {mine['name']} ({mine['folder']})")
    console.say(f"against: {theirs['name']} ({theirs['folder']})")
    rows = [
        ["top-1 [95 %]", *map(console.interval, (mine, theirs)), _points(told["top1"])],
        [
            "mean per class",
            *(console.percent(one["mean_per_class"]) for one in (mine, theirs)),
            _points(told["mean_per_class"]),
        ],
        ["only it right", str(told["mcnemar"]["only_a"]), str(told["mcnemar"]["only_b"]), ""],
    ]
    console.table(_images_compared(told), ["%", "run", "against", "difference"], rows)


def _images_compared(told: Told) -> str:
    """How many images were compared: a forced comparison leaves out those of one run alone."""
    counts = told["images"]
    kind = "common" if counts["only_run"] or counts["only_against"] else "test"
    return f"{counts['common']} {kind} images"


def _points(change: Told) -> str:
    value, low, high = (100 * change[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _finding(told: Told) -> str:
    top, alpha = told["top1"], told["alpha"]
    if told["identical"]:
        images = _images_compared(told)
        return f"identical answers: both predict the same class for each of the {images}"
    verdict = f"{'a tie: no finding' if top['p'] > alpha else 'a finding'} at {alpha}"
    if top["same_right"]:
        verdict += "; the same images are right, with other mistakes"
    return f"McNemar, exact: p = {top['p']:.3g} ({verdict}). Null: {told['null']}."


def _classes(classes: Sequence[Told]) -> None:
    changed = [row for row in classes if row["difference"]]
    rows = [
        [
            row["name"],
            str(row["images"]),
            console.percent(row["run"]),
            console.percent(row["against"]),
            f"{100 * row['difference']:+.1f}",
        ]
        for row in changed[:MOST]
    ]
    if rows:
        title = f"classes that changed most ({len(changed)} of {len(classes)} changed), %"
        console.table(title, ["class", "images", "run", "against", ""], rows)


def _images(title: str, images: Sequence[Told]) -> None:
    if images:
        rows = [[one["path"], one["class"]] for one in images[:MOST]]
        shown = f", {MOST} shown" if len(images) > MOST else ""
        console.table(f"{title} ({len(images)}{shown})", ["image", "class"], rows, numbers=False)


def _differences(what: str, found: Mapping[str, Sequence[object]]) -> None:
    if not found:
        return console.say(f"{what}: no difference")
    rows = [[key, *map(str, values)] for key, values in found.items()]
    return console.table(f"{what}: {len(rows)} differ", ["key", "run", "against"], rows, False)
