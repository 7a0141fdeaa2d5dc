"""task=compare: two runs, image by image -> tables on the terminal, a page, and JSON with all."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.overrides import declared_values
from fgvc.html.formats import interval, level, p_value, percent
from fgvc.pipeline.job import Job
from fgvc.pipeline.recorded_images import image_reader
from fgvc.record import console
from fgvc.record.find_run import find_run
from fgvc.record.run_page import FILE
from fgvc.report.compare import (
    class_display_names,
    compare_runs,
    difference_tests,
    verdicts_differ,
)
from fgvc.report.compare_page import PairAlbum, render_comparison
from fgvc.report.pairwise_tests import WORDS
from fgvc.store import atomic
from fgvc.store.output_path import output_file

MAX_LINES = 10  # per table; the JSON holds all
SUFFIXES = (".json", ".html")
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
    run_folder, against = find_run(Path(conf.run), "run"), find_run(Path(conf.against), "against")
    folders = (run_folder, against)
    targets = _targets(conf.task.output, folders)
    result = compare_runs(run_folder, against, conf.task.force)
    names = class_display_names(run_folder, against)
    closing = []
    for target in targets:
        if target.suffix.lower() == ".json":
            atomic.write_json(target, result)
            closing.append(f"as JSON: {target}")
        else:
            album, tried = _album(job, folders)
            page = render_comparison(result, folders, names, album, target.parent)
            atomic.write_bytes(target, page.encode())
            if not album.has_dataset and (result["wrong_to_right"] or result["right_to_wrong"]):
                places = f" in {' or '.join(map(str, tried))}" if tried else ""
                closing.append(f"page: few pictures, no dataset{places}: give dataset.root=PATH")
            closing.append(f"page: {target}")
    _print(result, names)
    hint = "pictures, classes and differences on a page: add task.output=compare.html"
    for line in closing or [hint]:
        console.say(line)


def _targets(output: str | None, folders: Sequence[Path]) -> list[Path]:
    """The files to write: the one that task.output names, or both in a folder."""
    if output is None:
        return []
    names = "_".join(path.resolve().name for path in folders)
    file = output_file(output, f"compare_{names}.json", SUFFIXES)
    if file == Path(output).expanduser():
        return [file]
    return [file.with_suffix(suffix) for suffix in SUFFIXES]


def _album(job: Job, folders: Sequence[Path]) -> tuple[PairAlbum, list[Path]]:
    """The test images of either run, and where they were looked for."""
    given, data_root = declared_values(job.overrides), Path(job.conf.runtime.data_root)
    tried: dict[Path, None] = {}
    pages = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):  # without its page, a run has no pictures
            pages.append(untrusted.read_text(folder / FILE))
    for folder in folders:
        reader, roots = image_reader(folder, given, data_root)
        tried |= dict.fromkeys(roots)
        if reader is not None:
            return PairAlbum(reader, pages), []
    return PairAlbum(None, pages), list(tried)


def _print(result: Comparison, names: Mapping[str, str]) -> None:
    _warnings(result)
    _numbers(result)
    changed, rows = [row for row in result["classes"] if row["difference"]], []
    for row in changed[:MAX_LINES]:
        shares = percent(row["run"]), percent(row["against"])
        points = f"{100 * row['difference']:+.1f}"
        rows.append([names[row["name"]], str(row["images"]), *shares, points])
    if rows:
        counts = f"{len(changed)} of {len(result['classes'])} changed"
        columns = ["class", "images", "run", "against", ""]
        console.table(f"classes that changed most ({counts}), %", columns, rows)
    _images("wrong in against, right in run", result["wrong_to_right"], names)
    _images("right in against, wrong in run", result["right_to_wrong"], names)
    _differences("config", result["config"])
    _differences("environment", result["environment"])


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
    """Print the numbers of both runs, and whether their difference is significant."""
    sides, top = (result["run"], result["against"]), result["top1"]
    console.say(f"run:     {sides[0]['name']} ({sides[0]['folder']})")
    console.say(f"against: {sides[1]['name']} ({sides[1]['folder']})")
    only_right = [str(result["mcnemar"][key]) for key in ("only_a", "only_b")]
    means = [percent(side["mean_per_class"]) for side in sides]
    rows = [
        ["top-1 [95 %]", *map(interval, sides), _points(top)],
        ["mean per class", *means, _points(result["mean_per_class"])],
        ["right only here", *only_right, ""],
    ]
    counts = result["images"]
    kind = "common" if counts["only_run"] or counts["only_against"] else "test"
    images = f"{counts['common']} {kind} images"
    console.table(images, ["%", "run", "against", "difference"], rows)
    if result["identical"]:
        console.say(f"identical predictions: both predict the same class for each of the {images}")
    else:
        _tests(result)
    if why := result["table"]["why_none"]:
        console.say(f"not compared by the table of the output root: {why}")


def _tests(result: Comparison) -> None:
    """Print the test of the pair alone, and as one pair of the families of the table."""
    rows = []
    for number, about in enumerate(difference_tests(result)):
        compared = "this pair alone"
        if number:
            compared = f"one of {about['pairs']} pairs: {about['family']}"
            if max(map(len, about["seeds"])) > 1:
                compared += f"; {' and '.join(str(len(seeds)) for seeds in about['seeds'])} seeds"
        points = f"{_points(about)}\n{level(about['level'])} interval"
        rows.append([compared, points, p_value(about["p"]), WORDS[about["verdict"]]])
    title = "is the difference in top-1 significant? in points; in a table, after Holm"
    console.table(title, ["compared", "difference", "p", "verdict"], rows, numbers=False)
    if result["top1"]["same_right"]:
        console.say("the same images are right, with other mistakes")
    if verdicts_differ(result):
        console.say(
            "the verdicts differ: the table adjusts for all pairs it compares; the pair alone "
            "counts only if it was chosen before the numbers were read"
        )
    console.say(f"p of the pair alone: McNemar's exact test. Null: {result['null']}.")


def _points(change: Comparison) -> str:
    value, low, high = (100 * change[key] for key in ("value", "low", "high"))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _images(title: str, images: Sequence[Comparison], names: Mapping[str, str]) -> None:
    if images:
        rows = [[image["path"], names[image["class"]]] for image in images[:MAX_LINES]]
        shown = f", {MAX_LINES} shown" if len(images) > MAX_LINES else ""
        console.table(f"{title} ({len(images)}{shown})", ["image", "class"], rows, numbers=False)


def _differences(what: str, values_of: Mapping[str, Sequence[object]]) -> None:
    if not values_of:
        return console.say(f"{what}: no difference")
    rows = [
        [key, *("–" if value is None else str(value) for value in values)]
        for key, values in values_of.items()
    ]
    return console.table(f"{what}: {len(rows)} differ", ["key", "run", "against"], rows, False)
