"""Two runs -> which is better, on which classes and images, and what else differs between them.

Every difference is `run` minus `against`: a positive difference means that `run` is better. Runs
are compared image by image. Runs of different comparability keys are only compared by force, on
their common images, and the result lists the parts of the key that differ. The test of the pair
alone and that of the table (`table_pairs`) stand side by side. N common images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgvc import metrics, untrusted
from fgvc.html.class_names import display_names
from fgvc.record import comparability, verify
from fgvc.record.prediction_tables import read_hierarchy
from fgvc.record.verify import DamageError
from fgvc.report import predictions, run_rows
from fgvc.report.flatten import differences
from fgvc.report.pairwise_tests import ALPHA, DRAWS, SEED, verdict
from fgvc.report.run_rows import Run
from fgvc.report.table_pairs import pairs_in_table
from fgvc.types import UserError

NO_TABLE = "runs of different comparability are in different groups"
# of env_stamp.json; they always differ
PER_RUN = ("run_id", "config_hash", "started", "finished", "seconds")


@dataclass(frozen=True)
class ComparedRun:
    """One of the two runs. By path of a test image: truth, its class id in the dataset; predicted,
    the predicted class id, None if the image is unreadable. names: class id -> class name."""

    run: Run
    truth: Mapping[str, str]
    predicted: Mapping[str, str | None]
    names: Mapping[str, str]


def compare_runs(path: Path, against: Path, force: bool) -> dict[str, Any]:
    """Compare two runs; returns the result as plain data.

    Raises:
        UserError: a folder is damaged, the runs are not comparable and `force` is false, or they
            have no image in common.
    """
    side_a, side_b = _read_side(path, "run"), _read_side(against, "against")
    differs = comparability.difference(side_a.run.comparability, side_b.run.comparability)
    if differs and not force:
        different = (f"{name}: {a[:12]}, {b[:12]}" for name, (a, b) in differs.items())
        raise UserError(
            f"{side_a.run.folder} and {side_b.run.folder} are not comparable: they differ in "
            f"{'; '.join(different)}; choose runs that share these, or compare the common images "
            "by task.force=true"
        )
    images = _common_images(side_a, side_b)
    right_a_N = np.array([side_a.truth[image] == side_a.predicted[image] for image in images])
    right_b_N = np.array([side_b.truth[image] == side_b.predicted[image] for image in images])
    environment = _file_differences(path, against, "env_stamp.json")
    identical = all(side_a.predicted[image] == side_b.predicted[image] for image in images)
    accuracies = _accuracies(side_a, side_b, images, right_a_N, right_b_N)
    top1 = accuracies["top1"]
    pairs, why_none = pairs_in_table(side_a.run, side_b.run) if not differs else ([], NO_TABLE)
    changed = (
        _changed_images(side_a, side_b, images, changed_N)
        for changed_N in (right_a_N & ~right_b_N, right_b_N & ~right_a_N)
    )
    return {
        "comparable": not differs,
        "differs_in": {name: list(values) for name, values in differs.items()},
        "images": {
            "common": len(images),
            "only_run": len(side_a.truth) - len(images),
            "only_against": len(side_b.truth) - len(images),
        },
        "alpha": ALPHA,
        "null": metrics.NULL_HYPOTHESIS,
        "identical": identical,
        **accuracies,
        "top1": asdict(top1),
        "verdict": verdict(top1, top1.p, identical),
        "table": {"pairs": [pair.plain() for pair in pairs], "why_none": why_none},
        **dict(zip(("wrong_to_right", "right_to_wrong"), changed, strict=True)),
        "config": _file_differences(path, against, "config.canonical.json"),
        "environment": {key: both for key, both in environment.items() if key not in PER_RUN},
    }


def _read_side(path: Path, key: str) -> ComparedRun:
    try:
        run = run_rows.read_run(path.resolve())
        data = verify.read_verified(path, "labelmap.json", verify.read_index(path))
        labelmap = verify.parse_object("labelmap.json", data)
        read_hierarchy(labelmap)  # the page lists classes by it
        names = {row["id"]: row["name"] for row in labelmap["classes"]}
        images, label_N, pred_N = predictions.read_test_rows(run)
        if label_N.min(initial=0) < 0 or pred_N.min(initial=0) < metrics.UNREADABLE:
            raise ValueError("a negative class index")
        ids = list(names)
        truth = {image: ids[label] for image, label in zip(images, label_N, strict=True)}
        predicted = {
            image: None if pred == metrics.UNREADABLE else ids[pred]
            for image, pred in zip(images, pred_N, strict=True)
        }
        return ComparedRun(run, truth, predicted, names)
    except DamageError as error:
        raise UserError(f"{key}={path}: {error}") from error
    except predictions.READ_ERRORS as error:
        raise UserError(f"{key}={path}: not a record that this version reads") from error


def _common_images(side: ComparedRun, other: ComparedRun) -> list[str]:
    """Sorted paths of the test images that both runs have, with the same class in both."""
    images = sorted(side.truth.keys() & other.truth.keys())
    if not images:
        raise UserError(
            f"{side.run.folder} and {other.run.folder} have no test image in common: "
            "choose runs of one dataset"
        )
    for image in images:
        if side.truth[image] != other.truth[image]:
            raise UserError(
                f"{image} has class {side.truth[image]} in one run and {other.truth[image]} in the "
                "other: runs with different labels cannot be compared"
            )
    return images


def _accuracies(
    side_a: ComparedRun,
    side_b: ComparedRun,
    images: list[str],
    right_a_N: np.ndarray,
    right_b_N: np.ndarray,
) -> dict[str, Any]:
    """Accuracies on the common images, tests and intervals of their difference, and both accuracies
    of every class with images, largest difference first."""
    truth = [side_a.truth[image] for image in images]
    ids = sorted(set(truth))
    index = {key: c for c, key in enumerate(ids)}
    class_N = np.array([index[key] for key in truth])
    count_C = np.bincount(class_N)
    recall_a_C = np.bincount(class_N, weights=right_a_N) / count_C
    recall_b_C = np.bincount(class_N, weights=right_b_N) / count_C
    rows = []
    for c, key in enumerate(ids):
        a, b = float(recall_a_C[c]), float(recall_b_C[c])
        about = {"id": key, "name": side_a.names[key], "images": int(count_C[c])}
        rows.append({**about, "run": a, "against": b, "difference": a - b})
    per_class = metrics.bootstrap_mean_per_class(right_a_N, right_b_N, class_N, DRAWS, SEED)
    top1 = metrics.compare_top1(right_a_N[np.newaxis], right_b_N[np.newaxis])
    return {
        "run": _accuracy_of(side_a.run, right_a_N, recall_a_C),
        "against": _accuracy_of(side_b.run, right_b_N, recall_b_C),
        "mcnemar": asdict(metrics.mcnemar(right_a_N, right_b_N)),
        "top1": top1,
        "mean_per_class": asdict(per_class),
        "bootstrap": {"draws": DRAWS, "seed": SEED},
        "classes": sorted(rows, key=lambda row: (-abs(row["difference"]), row["name"])),
    }


def difference_tests(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The test of the pair alone, then those of the table, with the same fields."""
    alone = {"pairs": 1, "level": 1 - result["alpha"], "verdict": result["verdict"], "seeds": None}
    return [{**result["top1"], **alone}, *result["table"]["pairs"]]


def verdicts_differ(result: Mapping[str, Any]) -> bool:
    """Whether the verdict of some family of the table is not that of the pair alone."""
    return any(pair["verdict"] != result["verdict"] for pair in result["table"]["pairs"])


def _accuracy_of(run: Run, right_N: np.ndarray, recall_C: np.ndarray) -> dict[str, Any]:
    hits, n = int(right_N.sum()), len(right_N)
    return {
        "folder": run.folder,
        "name": run.name,
        "seed": run.seed,
        "comparability_key": run.comparability_key,
        "overlap": run.overlap,
        "top1": hits / n,
        "top1_ci95": list(metrics.wilson(hits, n)),
        "mean_per_class": float(recall_C.mean()),
    }


def _changed_images(
    side_a: ComparedRun, side_b: ComparedRun, images: list[str], changed_N: np.ndarray
) -> list[dict[str, str | None]]:
    """Path, class and both predicted classes of each image; None: unreadable."""
    return [
        {
            "path": image,
            "class": side_a.names[side_a.truth[image]],
            "run": side_a.names.get(side_a.predicted[image] or ""),
            "against": side_b.names.get(side_b.predicted[image] or ""),
        }
        for image in (images[n] for n in np.flatnonzero(changed_N))
    ]


def class_display_names(path: Path, against: Path) -> dict[str, str]:
    """Class name -> the name that people read, for the classes of both runs."""
    shown: dict[str, str] = {}
    for folder in (against, path):
        names = [row["name"] for row in _read_json(folder, "labelmap.json")["classes"]]
        shown |= zip(names, display_names(names), strict=True)
    return shown


def _file_differences(path: Path, against: Path, file: str) -> dict[str, list[Any]]:
    config, other_config = (_read_json(folder, file) for folder in (path, against))
    return {key: list(values) for key, values in differences(config, other_config).items()}


def _read_json(folder: Path, file: str) -> Mapping[str, Any]:
    return verify.parse_object(file, untrusted.read_bytes(folder / file, untrusted.LIST))
