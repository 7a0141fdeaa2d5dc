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
    run, against = find_run(Path(conf.run), "run"), find_run(Path(conf.against), "against")
    target = None
    if conf.task.output is not None:
        names = "_".join(path.resolve().name for path in (run, against))
        target = output_file(conf.task.output, f"compare_{names}.json", JSON)
    result = compare_runs(run, against, conf.task.force)
    if target is not None:
        atomic.write_json(target, result)
    _warnings(result)
    _numbers(result)
    changed, rows = [row for row in result["classes"] if row["difference"]], []
    for row in changed[:MAX_LINES]:
        shares = percent(row["run"]), percent(row["against"])
        rows.append([row["name"], str(row["images"]), *shares, f"{100 * row['difference']:+.1f}"])
    if rows:
        counts = f"{len(changed)} of {len(result['classes'])} changed"
        columns = ["class", "images", "run", "against", ""]
        console.table(f"classes that changed most ({counts}), %", columns, rows)
    _images("wrong in against, right in run", result["wrong_to_right"])
    _images("right in against, wrong in run", result["right_to_wrong"])
    _differences("config", result["config"])
    _differences("environment", result["environment"])
    if target is not None:
        console.say(f"as JSON: {target}")


def _warnings(result: Comparison) -> None:
    """Warn of a forced comparison, and of a head that was fitted or chosen on its test images."""
    if not result["comparable"]:
        images = result["images"]
        differs = [f"{name} ({a[:12]}, {b[:12]})" for name, (a, b) in result["differs_in"].items()]
        console.say(f"FORCED: these runs are not comparable, they differ in {'; '.join(differs)}")
        console.say(
            f"{images['common']} common images; left out: {images['only_run']} of run, "
            f"{images['only_against']} of against"
        )
    for name in ("run", "against"):
        if overlap := result[name]["overlap"]:
            console.say(
                f"note: {name}: {overlap} of its test images fitted or chose its head or backbone"
            )


def _numbers(result: Comparison) -> None:
    """Print the numbers of both runs, and whether their difference is a finding."""
    sides, top = (result["run"], result["against"]), result["top1"]
    console.say(f"run:     {sides[0]['name']} ({sides[0]['folder']})")
    console.say(f"against: {sides[1]['name']} ({sides[1]['folder']})")
    only_right = [str(result["mcnemar"][key]) for key in ("only_a", "only_b")]
    means = [percent(side["mean_per_class"]) for side in sides]
    rows = [
        ["top-1 [95 %]", *map(interval, sides), _points(top)],
        ["mean per class", *means, _points(result["mean_per_class"])],
        ["only it right", *only_right, ""],
    ]
    counts = result["images"]
    kind = "common" if counts["only_run"] or counts["only_against"] else "test"
    images = f"{counts['common']} {kind} images"
    console.table(images, ["%", "run", "against", "difference"], rows)
    if result["identical"]:
        console.say(f"identical predictions: both predict the same class for each of the {images}")
        return
    finding = "a tie: no finding" if top["p"] > result["alpha"] else "a finding"
    verdict = f"{finding} at {result['alpha']}"
    if top["same_right"]:
        verdict += "; the same images are right, with other mistakes"
    console.say(f"McNemar, exact: p = {top['p']:.3g} ({verdict}). Null: {result['null']}.")


def _points(change: Comparison) -> str:
    value, low, high = (100 * change[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


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
