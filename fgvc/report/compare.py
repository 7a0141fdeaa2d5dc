"""Two runs -> which is better, on which classes and images, and what else differs between them.

Every difference is `run` minus `against`: a positive difference means that `run` is better. Runs
are compared image by image. Runs of different comparability keys are only compared by force, on
their common images, and the result lists the parts of the key that differ. N common images.
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

PER_RUN = (
    "run_id",
    "config_hash",
    "started",
    "finished",
    "seconds",
)  # of env_stamp.json; they always differ


@dataclass(frozen=True)
class Side:
    """One of the two runs. By path of a test image: truth, its class id in the dataset; predicted,
    the predicted class id, None if the image is unreadable; right, whether the two are equal.
    names: class id -> class name."""

    run: Run
    truth: Mapping[str, str]
    predicted: Mapping[str, str | None]
    right: Mapping[str, bool]
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
        raise UserError(_refusal(side_a.run, side_b.run, differs))
    images = _common_images(side_a, side_b)
    right_a_N, right_b_N = (
        np.array([side.right[image] for image in images]) for side in (side_a, side_b)
    )
    ids = sorted(set(side_a.truth.values()))
    index_of = {key: index for index, key in enumerate(ids)}
    class_N = np.array([index_of[side_a.truth[image]] for image in images])
    return {
        "run": _accuracy_of(side_a.run, right_a_N, class_N),
        "against": _accuracy_of(side_b.run, right_b_N, class_N),
        "comparable": not differs,
        "differs_in": {name: list(values) for name, values in differs.items()},
        "images": {
            "common": len(images),
            "only_run": len(side_a.right) - len(images),
            "only_against": len(side_b.right) - len(images),
        },
        "alpha": ALPHA,
        "null": metrics.NULL_HYPOTHESIS,
        "identical": all(side_a.predicted[image] == side_b.predicted[image] for image in images),
        **_test_difference(right_a_N, right_b_N, class_N),
        "classes": _class_rows(side_a.names, ids, class_N, right_a_N, right_b_N),
        "wrong_to_right": _changed_images(side_a, images, right_a_N & ~right_b_N),
        "right_to_wrong": _changed_images(side_a, images, right_b_N & ~right_a_N),
        "config": _file_differences(path, against, "config.canonical.json"),
        "environment": {
            key: values
            for key, values in _file_differences(path, against, "env_stamp.json").items()
            if key not in PER_RUN
        },
    }


def _test_difference(
    right_a_N: np.ndarray, right_b_N: np.ndarray, class_N: np.ndarray
) -> dict[str, Any]:
    """Tests and intervals of the difference in top-1 and in mean per-class accuracy."""
    top1 = metrics.compare_top1(right_a_N[np.newaxis], right_b_N[np.newaxis], DRAWS, SEED)
    per_class = metrics.bootstrap_mean_per_class(right_a_N, right_b_N, class_N, DRAWS, SEED)
    return {
        "mcnemar": asdict(metrics.mcnemar(right_a_N, right_b_N)),
        "top1": asdict(top1),
        "mean_per_class": asdict(per_class),
        "bootstrap": {"draws": DRAWS, "seed": SEED},
    }


def _read_side(path: Path, key: str) -> Side:
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
            raise ValueError("a negative class index")
        truth = dict(zip(images, (ids[label] for label in label_N), strict=True))
        classes = (None if pred == metrics.UNREADABLE else ids[pred] for pred in pred_N)
        predicted = dict(zip(images, classes, strict=True))
        right = dict(zip(images, (label_N == pred_N).tolist(), strict=True))
        return Side(run, truth, predicted, right, names)
    except DamageError as error:
        raise UserError(f"{key}={path}: {error}") from error
    except predictions.READ_ERRORS as error:
        raise UserError(f"{key}={path}: not a record that this version reads") from error


def _refusal(run: Run, other_run: Run, differs: Mapping[str, tuple[str, str]]) -> str:
    differences = "; ".join(
        f"{name}: {value[:12]}, {other[:12]}" for name, (value, other) in differs.items()
    )
    return (
        f"{run.folder} and {other_run.folder} are not comparable: they differ in {differences}; "
        "choose runs that share these, or compare the common images by task.force=true"
    )


def _common_images(side: Side, other: Side) -> list[str]:
    """Sorted paths of the test images that both runs have, with the same class in both."""
    images = sorted(side.right.keys() & other.right.keys())
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


def _accuracy_of(run: Run, right_N: np.ndarray, class_N: np.ndarray) -> dict[str, Any]:
    """Name and accuracy of a run on the common images."""
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


def _class_rows(
    names: Mapping[str, str],
    ids: list[str],
    class_N: np.ndarray,
    right_a_N: np.ndarray,
    right_b_N: np.ndarray,
) -> list[dict[str, Any]]:
    """Both accuracies of every class with images, largest difference first."""
    rows = []
    for label in np.unique(class_N).tolist():
        of_class_N = class_N == label
        run, against = (float(right_N[of_class_N].mean()) for right_N in (right_a_N, right_b_N))
        about = {"id": ids[label], "name": names[ids[label]], "images": int(of_class_N.sum())}
        rows.append({**about, "run": run, "against": against, "difference": run - against})
    return sorted(rows, key=lambda row: (-abs(row["difference"]), row["name"]))


def _changed_images(side: Side, images: list[str], changed_N: np.ndarray) -> list[dict[str, str]]:
    return [
        {"path": image, "class": side.names[side.truth[image]]}
        for image, changed in zip(images, changed_N, strict=True)
        if changed
    ]


def _file_differences(path: Path, against: Path, file: str) -> dict[str, list[Any]]:
    config, other_config = (
        verify.parse_object(file, untrusted.read_bytes(folder / file, untrusted.LIST))
        for folder in (path, against)
    )
    return {key: list(values) for key, values in differences(config, other_config).items()}
