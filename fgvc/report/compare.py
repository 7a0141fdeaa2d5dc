"""Two runs -> is one better, on which classes and images, and what else differs between them?

Every difference is `run` minus `against`: above zero, `run` is better. Runs are compared image by
image; those of different comparability keys only by force, on the images that both have under the
same class, and the answer then says what differs.
N common images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fgvc import metrics, untrusted
from fgvc.record import comparability, prediction_tables, verify
from fgvc.record.verify import DamageError
from fgvc.report import predictions, run_rows
from fgvc.report.flatten import differences
from fgvc.report.pairwise_tests import ALPHA, DRAWS, SEED
from fgvc.report.run_rows import Run
from fgvc.types import UserError, nfc

OF_EACH_RUN = ("run_id", "config_hash", "started", "finished", "seconds")  # of a stamp


@dataclass(frozen=True)
class Side:
    """One of the two. truth: the dataset's own class id by path of a test image; predicted: the
    predicted class id by path, None if the image could not be read; right: by path, whether the
    prediction is right; names: class id -> class name."""

    run: Run
    truth: Mapping[str, str]
    predicted: Mapping[str, str | None]
    right: Mapping[str, bool]
    names: Mapping[str, str]


def compare_runs(path: Path, against: Path, force: bool) -> dict[str, Any]:
    """The whole comparison as plain data.

    Raises:
        UserError: a folder is damaged, the runs do not compare and `force` is not given, or they
            have no image in common.
    """
    mine, theirs = _side(path, "run"), _side(against, "against")
    differs = comparability.difference(mine.run.comparability, theirs.run.comparability)
    if differs and not force:
        raise UserError(_refusal(mine.run, theirs.run, differs))
    images = _common(mine, theirs)
    right_a_N, right_b_N = (
        np.array([side.right[image] for image in images]) for side in (mine, theirs)
    )
    ids = sorted(set(mine.truth.values()))
    index_of = {key: index for index, key in enumerate(ids)}
    class_N = np.array([index_of[mine.truth[image]] for image in images])
    return {
        "run": _told(mine.run, right_a_N, class_N),
        "against": _told(theirs.run, right_b_N, class_N),
        "comparable": not differs,
        "differs_in": {name: list(values) for name, values in differs.items()},
        "images": {
            "common": len(images),
            "only_run": len(mine.right) - len(images),
            "only_against": len(theirs.right) - len(images),
        },
        "alpha": ALPHA,
        "null": metrics.NULL_HYPOTHESIS,
        "identical": all(mine.predicted[image] == theirs.predicted[image] for image in images),
        "mcnemar": asdict(metrics.mcnemar(right_a_N, right_b_N)),
        "top1": asdict(
            metrics.compare_top1(right_a_N[np.newaxis], right_b_N[np.newaxis], DRAWS, SEED)
        ),
        "mean_per_class": asdict(
            metrics.bootstrap_mean_per_class(right_a_N, right_b_N, class_N, DRAWS, SEED)
        ),
        "bootstrap": {"draws": DRAWS, "seed": SEED},
        "classes": _classes(mine.names, ids, class_N, right_a_N, right_b_N),
        "wrong_to_right": _changed(mine, images, right_a_N & ~right_b_N),
        "right_to_wrong": _changed(mine, images, right_b_N & ~right_a_N),
        "config": _between(path, against, "config.canonical.json"),
        "environment": {
            key: values
            for key, values in _between(path, against, "env_stamp.json").items()
            if key not in OF_EACH_RUN
        },
    }


def _side(path: Path, what: str) -> Side:
    try:
        run = run_rows.read_run(path.resolve())
        index = verify.read_index(path)
        columns = ["path", "split", "label", "pred"]
        data = verify.read_verified(path, predictions.FILE, index)
        table = prediction_tables.read_predictions(data, columns)
        test = table.filter(pa.array(table["split"].to_numpy() == "test"))
        labelmap = verify.parse_object(
            "labelmap.json", verify.read_verified(path, "labelmap.json", index)
        )
        names = {row["id"]: row["name"] for row in labelmap["classes"]}
        ids, images = list(names), [nfc(image) for image in test["path"].to_pylist()]
        label_N, pred_N = (test[name].to_numpy() for name in ("label", "pred"))
        if label_N.min(initial=0) < 0 or pred_N.min(initial=0) < metrics.UNREADABLE:
            raise ValueError("a class index below the first")
        truth = dict(zip(images, (ids[label] for label in label_N), strict=True))
        classes = (None if pred == metrics.UNREADABLE else ids[pred] for pred in pred_N)
        predicted = dict(zip(images, classes, strict=True))
        right = dict(zip(images, (label_N == pred_N).tolist(), strict=True))
        return Side(run, truth, predicted, right, names)
    except DamageError as why:
        raise UserError(f"{what}={path}: {why}") from why
    except predictions.ODD as error:
        raise UserError(f"{what}={path}: not a record that this version reads") from error


def _refusal(mine: Run, theirs: Run, differs: Mapping[str, tuple[str, str]]) -> str:
    told = "; ".join(f"{name}: {one[:12]}, {other[:12]}" for name, (one, other) in differs.items())
    return (
        f"{mine.folder} and {theirs.folder} do not compare, they differ in {told}; choose runs "
        "that share them, or task.force=true compares the images they have in common"
    )


def _common(mine: Side, theirs: Side) -> list[str]:
    """Test images of both, by path, each of the same class in both."""
    images = sorted(mine.right.keys() & theirs.right.keys())
    if not images:
        raise UserError(
            f"{mine.run.folder} and {theirs.run.folder} have no test image in common: "
            "choose runs of one dataset"
        )
    for image in images:
        if mine.truth[image] != theirs.truth[image]:
            raise UserError(
                f"{image} is of class {mine.truth[image]} in one run and {theirs.truth[image]} in "
                "the other: their labels do not agree, so nothing can be compared"
            )
    return images


def _told(run: Run, right_N: np.ndarray, class_N: np.ndarray) -> dict[str, Any]:
    """A run's accuracy on the common images."""
    hits, n = int(right_N.sum()), len(right_N)
    recall = [float(right_N[class_N == label].mean()) for label in np.unique(class_N)]
    return {
        "folder": run.folder,
        "name": run.name,
        "comparability_key": run.comparability_key,
        "overlap": run.overlap,
        "top1": hits / n,
        "top1_ci95": list(metrics.wilson(hits, n)),
        "mean_per_class": float(np.mean(recall)),
    }


def _classes(
    names: Mapping[str, str],
    ids: list[str],
    class_N: np.ndarray,
    right_a_N: np.ndarray,
    right_b_N: np.ndarray,
) -> list[dict[str, Any]]:
    """Every class that has images, the largest change of accuracy first."""
    rows = []
    for label in np.unique(class_N).tolist():
        of_class_N = class_N == label
        run, against = (float(right_N[of_class_N].mean()) for right_N in (right_a_N, right_b_N))
        told = {"id": ids[label], "name": names[ids[label]], "images": int(of_class_N.sum())}
        rows.append({**told, "run": run, "against": against, "difference": run - against})
    return sorted(rows, key=lambda row: (-abs(row["difference"]), row["name"]))


def _changed(side: Side, images: list[str], changed_N: np.ndarray) -> list[dict[str, str]]:
    kept = [image for image, changed in zip(images, changed_N, strict=True) if changed]
    return [{"path": image, "class": side.names[side.truth[image]]} for image in kept]


def _between(path: Path, against: Path, file: str) -> dict[str, list[Any]]:
    own, other = (
        verify.parse_object(file, untrusted.read_bytes(folder / file, untrusted.LIST))
        for folder in (path, against)
    )
    return {key: list(values) for key, values in differences(own, other).items()}
