"""The files of a run folder that is about to be sealed -> report.html, to read, print and share.

Only the curves and the test images are not read from the folder: the curves come from the Board
that wrote tb/, the images from the dataset. gallery: which classes, errors and images to show.
attention: the overlays and part numbers. A page may be moved or passed on alone: links to files and
to the table of all runs are text, which a script makes links where the page lies in its place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from fgvc import metrics, untrusted
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.html.charts import Chart, chart
from fgvc.html.class_groups import top_groups
from fgvc.html.class_names import display_names
from fgvc.html.confusion import drawn_groups, page_plot
from fgvc.html.formats import TOP5_FROM
from fgvc.html.render import render
from fgvc.record import (
    command_file,
    comparability,
    comparable_probe,
    measured_rate,
    precision_checks,
    prediction_tables,
    privacy,
    retention,
)
from fgvc.record.badges import reason_badges, stamp_badges
from fgvc.record.fitted_images import earlier_runs
from fgvc.record.run_dir import RESUME, SHORT, TEST_READS, UNREADABLE_FILE, read_json
from fgvc.record.run_page import class_table, gallery
from fgvc.record.run_page.attention import attention
from fgvc.record.tensorboard import Point
from fgvc.untrusted.shell import command as shell_command
from fgvc.untrusted.shell import fgvc, file_word, split, variable

FILE = "report.html"
Plain = Mapping[str, Any]
TABLE = "../../../baselines.html"  # of all runs, from a page in its place
FOLDER_OF = {"tb": "TensorBoard", "splits": "index files", "overlays": "attention maps"}
LISTED = 100  # unreadable images listed on a page
LOOSE = "solved as far as the choice needs"  # to a gap wider than task.gap, by a search
NUMBERS = (
    ("top5", "top-5", "percent"),
    ("mean_per_class", "mean per class", "percent"),
    ("macro_f1", "macro-F1", "percent"),
    ("loss", "loss, nats", "decimals"),
    ("ece", "calibration error", "percent"),
    ("n", "images", "whole"),
    ("unreadable", "unreadable", "whole"),
)


def derive(
    folder: Path,
    conf: Config,
    name: str,
    checkpoint_id: str,
    history: Iterable[Point],
    album: gallery.Album,
) -> str:
    """The page of a run folder: the same files give the same text, before and after sealing.

    Args:
        name: the title of the page.
        history: the points of the run's TensorBoard curves.
        album: the test images of the page.
    """
    stamp, numbers = read_json(folder, "env_stamp.json"), read_json(folder, "metrics.json")
    labelmap = read_json(folder, "labelmap.json")
    names = display_names([row["name"] for row in labelmap["classes"]])
    hierarchy = prediction_tables.read_hierarchy(labelmap)
    commands = command_file.split(untrusted.read_text(folder / command_file.FILE))
    parts = comparability.Comparability(**numbers["comparability"])
    reasons = comparability.reasons(numbers, parts)
    contamination = " ".join(conf.backbone.contamination.split())
    unreadable = (folder / UNREADABLE_FILE).is_file()
    images = gallery.read_test_images(folder / "predictions.parquet")
    label_N, pred_N = (np.array([image[key] for image in images]) for key in ("label", "pred"))
    counts = metrics.tally(pred_N, label_N, len(names))
    shown = gallery.gallery(folder, images, album)
    place = (stamp["run_id"], stamp["config_hash"][:SHORT], checkpoint_id[:SHORT], FILE)
    facts = {
        "name": name,
        "names": names,
        "listed": LISTED,
        "stamp": stamp,
        "numbers": numbers,
        "rate": measured_rate.from_cost(numbers["cost"]),
        "rows": [row for row in NUMBERS if row[0] != "top5" or len(names) >= TOP5_FROM],
        "splits": [split for split in ("val", "test") if numbers.get(split)],
        "badges": [*reason_badges(reasons), *stamp_badges(stamp, contamination)],
        "settings": _settings(conf, stamp, numbers),
        "identity": _identity(stamp, numbers, checkpoint_id),
        "repeat": _repeat(stamp, commands, checkpoint_id),
        "probe": comparable_probe.advice(
            read_json(folder, "config.canonical.json"), commands[0], stamp["task"]
        ),
        "charts": [chart for chart in _charts(stamp, numbers, history) if chart],
        "confusion": page_plot(counts, names, drawn_groups(hierarchy)),
        "matrix_up_to": prediction_tables.MATRIX_UP_TO,
        "by_class": class_table.class_table(counts, names, top_groups(hierarchy)),
        "gallery": shown,
        "attention": attention(folder, conf, numbers, images, shown["surest"], album),
        "unreadable": read_json(folder, UNREADABLE_FILE) if unreadable else [],
        "backbone": {
            "contamination": contamination,
            "license": chosen_checkpoint(conf.backbone).license,
        },
        "earlier": list(earlier_runs(stamp["weights"])),
        "place": "/".join(place),
        "table": TABLE,
        "files": _files(folder),
    }
    return render("run.html", facts)


def _settings(conf: Config, stamp: Plain, numbers: Plain) -> list[tuple[str, object]]:
    """The axes, then the other settings that determine the numbers."""
    grid = "×".join(str(side) for side in stamp["token_grid"])
    library = "cudnn" if stamp["device"] == "cuda" else "mkldnn"
    convolutions = stamp["fp32_precision"][f"{library}.conv"]
    precision = f"{conf.precision}, matmul {conf.matmul_precision}, convolutions {convolutions}"
    rows: list[tuple[str, object]] = [
        ("task", stamp["task"]),
        ("dataset", stamp["dataset"]),
        ("backbone", f"{conf.backbone.name} {conf.backbone.size}"),
        ("model", chosen_checkpoint(conf.backbone).model),
        ("features", conf.backbone.features),
        ("head", conf.head.name),
        ("resolution", f"{stamp['resolution']} px, {grid} tokens"),
        ("part attention", conf.part_attention.name),
        ("preprocessing", f"{conf.preprocess}, normalised as {stamp['normalization']}"),
        ("fitted on", f"{conf.final_fit}, {numbers['fitted_on']} images"),
        ("precision", precision),
        *precision_checks.sentences(numbers),
        ("seed", conf.seed),
    ]
    if stamp["task"] == "train":
        task = conf.task
        rows.append(("optimiser", f"{task.optimiser}, {task.learning_rate:g} at its peak"))
        rows.append(("epochs", f"{task.epochs}, batches of {task.batch_size}"))
    return rows


def _identity(stamp: Plain, numbers: Plain, checkpoint_id: str) -> list[tuple[str, str | None]]:
    """Digests of everything that identifies the run; equal digests mean equal content."""
    return [
        ("run", stamp["run_id"]),
        ("config", stamp["config_hash"]),
        ("checkpoint", checkpoint_id),
        ("comparability", numbers["comparability_key"]),
        ("images", stamp["manifest_digest"]),
        ("images of the fit", numbers["comparability"]["fitted_manifest"]),
        ("split of the fit", numbers["comparability"]["fitted_split"]),
        ("split", stamp["split_digest"]),
        ("label map", stamp["labelmap_digest"]),
        ("weights", stamp["weights_digest"]),
        ("commit", stamp["git_commit"]),
    ]


def _repeat(
    stamp: Plain, commands: tuple[str, str | None], checkpoint_id: str
) -> list[tuple[str, str]]:
    """(comment, command) in the order in which a person runs them on another machine.

    Args:
        commands: as from `command_file.split`.
    """
    hashes = (stamp["config_hash"], checkpoint_id)
    below = "/".join((stamp["run_id"], *(sha256[:SHORT] for sha256 in hashes)))
    weights, lock = stamp["weights"], stamp["requirements_checksum"]
    steps = [("the output root; set the other variables below likewise", "OUTPUT_ROOT=outputs")]
    commit = stamp["git_commit"]
    revision = "(not recorded)" if commit is None else file_word(commit)
    steps.append(("the code", f"git checkout {revision}"))
    if stamp["code_patch_sha256"]:
        patch = f'"$OUTPUT_ROOT"{file_word(f"/{below}/code.patch")}'
        steps.append(("the uncommitted changes", f"git apply {patch}"))
    if lock:
        steps.append((f"the packages (sha256 {lock})", "uv pip sync requirements.txt"))
    if weights["kind"] == "file":
        file = file_word(weights["name"])
        steps.append((f"the weights; sha256 must be {weights['sha256']}", f"sha256sum {file}"))
    names = ("the run", "or the whole sweep, with this run as one of its jobs")
    for name, command in zip(names, commands, strict=True):
        if command is not None:  # without the run_id, so that the repeated run has its own
            words = [word for word in split(command) if not word.startswith("runtime.run_id=")]
            steps.append((name, privacy.portable_command(shell_command(words))))
    evaluate = f"{fgvc('task=eval')} {variable('checkpoint', 'OUTPUT_ROOT', f'/{below}')}"
    return [*steps, ("or only the evaluation, from ckpt.bin", evaluate)]


def _charts(stamp: Plain, numbers: Plain, history: Iterable[Point]) -> list[Chart | None]:
    """Learning curves of a training; for a probe, validation results along the path of C."""
    selection = numbers["selection"] or {}
    if stamp["task"] == "train":
        return _learning_curves(selection, history)
    path = selection.get("path", [])
    mark = (selection["c"], f"C = {selection['c']:.3g}") if path else None
    x = ("C, the inverse of the penalty", True)
    charts = ("Validation loss", "nats", "val_loss", 1), ("Validation top-1", "%", "val_top1", 100)
    return [
        chart(
            title,
            x,
            (unit, False),
            [
                ("validation", [(row["c"], factor * row[key]) for row in path]),
                (LOOSE, [(row["c"], factor * row[key]) for row in path if row.get("loose")]),
            ],
            mark,
            dots=(LOOSE,),
        )
        for title, unit, key, factor in charts
    ]


def _learning_curves(selection: Plain, history: Iterable[Point]) -> list[Chart | None]:
    points: dict[str, list[tuple[float, float]]] = {}
    for key, step, value in history:
        # in float32 like TensorBoard's events, from which an audit reads them
        shown = float(np.float32(value)) * (100 if key == "val/top1" else 1)
        points.setdefault(key, []).append((float(step), shown))
    best_step = selection["best_step"] if selection["select"] else None
    mark = None if best_step is None else (float(best_step), "chosen")
    charts = (
        ("Loss", "nats", {"training": "train/loss", "validation": "val/loss"}, mark),
        ("Validation top-1", "%", {"validation": "val/top1"}, mark),
        ("Learning rate", "", {"head": "optim/lr"}, None),
    )
    return [
        chart(
            title,
            ("optimiser steps", False),
            (unit, False),
            [(name, points.get(key, [])) for name, key in keys.items()],
            chart_mark,
        )
        for title, unit, keys, chart_mark in charts
    ]


def _files(folder: Path) -> list[tuple[str, str]]:
    """The other files of the folder: relative link and name; one entry per subfolder.

    artifacts.json and the retention are written after the page; test reads go into metrics.json.
    """
    left_out = (FILE, RESUME, TEST_READS, "artifacts.json", retention.FILE)
    paths = sorted(path for path in folder.iterdir() if path.name not in left_out)
    return [
        (f"{quote(path.name)}/", f"{path.name}/ {FOLDER_OF.get(path.name, '')}".strip())
        if path.is_dir()
        else (quote(path.name), path.name)
        for path in paths
    ]
