"""task=compare: two runs, image by image -> tables on the terminal, and the full result as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc.html.formats import interval, percent
from fgvc.pipeline.job import Job
from fgvc.record import console
from fgvc.record.find_run import find_run
from fgvc.report.compare import compare_runs
from fgvc.store import atomic
from fgvc.store.output_path import JSON, output_file

MAX_LINES = 10  # per table; the JSON holds all
Comparison = Mapping[str, Any]


def run(job: Job) -> None:
    """Compare run= with against=.

    Raises:
        UserError: a folder is damaged, or the runs are not comparable.
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
    result = compare_runs(run, against, conf.task.force)
    if target is not None:
        atomic.write_json(target, result)
    for line in (*_warning(result), *_overlaps(result)):
        console.say(line)
    _numbers(result)
    console.say(_finding(result))
    _classes(result["classes"])
    _images("wrong in against, right in run", result["wrong_to_right"])
    _images("right in against, wrong in run", result["right_to_wrong"])
    _differences("config", result["config"])
    _differences("environment", result["environment"])
    if target is not None:
        console.say(f"as JSON: {target}")


def _target(output: str | None, run: Path, against: Path) -> Path | None:
    """The JSON file, in a folder named by both checkpoints; None for the terminal alone."""
    names = "_".join(path.resolve().name for path in (run, against))
    return None if output is None else output_file(output, f"compare_{names}.json", JSON)


def _warning(result: Comparison) -> Sequence[str]:
    """The warning of a forced comparison."""
    if result["comparable"]:
        return ()
    images = result["images"]
    differs = [f"{name} ({a[:12]}, {b[:12]})" for name, (a, b) in result["differs_in"].items()]
    return (
        f"FORCED: these runs are not comparable, they differ in {'; '.join(differs)}",
        f"{images['common']} common images; left out: {images['only_run']} of run, "
        f"{images['only_against']} of against",
    )


def _overlaps(result: Comparison) -> Sequence[str]:
    """A note for each side whose head was fitted or chosen on its test images."""
    return [
        f"note: {name}: {result[name]['overlap']} of its test images fitted or chose its head or "
        "backbone"
        for name in ("run", "against")
        if result[name]["overlap"]
    ]


def _numbers(result: Comparison) -> None:
    run, against = result["run"], result["against"]
    console.say(f"run:     {run['name']} ({run['folder']})")
    console.say(f"against: {against['name']} ({against['folder']})")
    rows = [
        ["top-1 [95 %]", *map(interval, (run, against)), _points(result["top1"])],
        [
            "mean per class",
            *(percent(side["mean_per_class"]) for side in (run, against)),
            _points(result["mean_per_class"]),
        ],
        ["only it right", str(result["mcnemar"]["only_a"]), str(result["mcnemar"]["only_b"]), ""],
    ]
    console.table(_images_compared(result), ["%", "run", "against", "difference"], rows)


def _images_compared(result: Comparison) -> str:
    """Number of compared images; a forced comparison leaves out images of only one run."""
    counts = result["images"]
    kind = "common" if counts["only_run"] or counts["only_against"] else "test"
    return f"{counts['common']} {kind} images"


def _points(change: Comparison) -> str:
    value, low, high = (100 * change[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _finding(result: Comparison) -> str:
    top, alpha = result["top1"], result["alpha"]
    if result["identical"]:
        images = _images_compared(result)
        return f"identical predictions: both predict the same class for each of the {images}"
    verdict = f"{'a tie: no finding' if top['p'] > alpha else 'a finding'} at {alpha}"
    if top["same_right"]:
        verdict += "; the same images are right, with other mistakes"
    return f"McNemar, exact: p = {top['p']:.3g} ({verdict}). Null: {result['null']}."


def _classes(classes: Sequence[Comparison]) -> None:
    changed = [row for row in classes if row["difference"]]
    rows = [
        [
            row["name"],
            str(row["images"]),
            percent(row["run"]),
            percent(row["against"]),
            f"{100 * row['difference']:+.1f}",
        ]
        for row in changed[:MAX_LINES]
    ]
    if rows:
        title = f"classes that changed most ({len(changed)} of {len(classes)} changed), %"
        console.table(title, ["class", "images", "run", "against", ""], rows)


def _images(title: str, images: Sequence[Comparison]) -> None:
    if images:
        rows = [[image["path"], image["class"]] for image in images[:MAX_LINES]]
        shown = f", {MAX_LINES} shown" if len(images) > MAX_LINES else ""
        console.table(f"{title} ({len(images)}{shown})", ["image", "class"], rows, numbers=False)


def _differences(what: str, values_of: Mapping[str, Sequence[object]]) -> None:
    if not values_of:
        return console.say(f"{what}: no difference")
    rows = [[key, *map(str, values)] for key, values in values_of.items()]
    return console.table(f"{what}: {len(rows)} differ", ["key", "run", "against"], rows, False)
