"""Predictions -> one line of JSON per sample, and the lists of an evaluation run.

Samples are ordered by the name of their split (test before val), then by row. The id of a sample
follows from the path of its image, so two runs on one dataset share their samples. The ids of
labels follow from the checkpoint too. N images, C classes, K top predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

from fgvc import metrics
from fgvc.record.fiftyone import json_documents
from fgvc.record.fiftyone.json_documents import Document
from fgvc.record.fiftyone.run_fields import OUTCOME, TRUTH
from fgvc.types import Features, Manifest, Predictions

UNREADABLE = "unreadable"  # tag of images that cannot be read
EVALUATED = {"test": "eval", "val": "eval_val"}  # split -> field that holds right or wrong
Heatmap = Callable[[int], np.ndarray | None]  # manifest row -> attention over the image, uint8


@dataclass(frozen=True)
class RunResults:
    """The results of a run on its images.

    below: path from the folder that sample paths are relative to, to the root of the manifest.
    classes: the names of the labels, as people read them. features: of the test images. heat: None
    without attention.
    """

    manifest: Manifest
    below: str
    classes: Sequence[str]
    checkpoint_id: str
    splits: Mapping[str, Predictions]
    features: Features | None = None
    heat: Heatmap | None = None

    def label_id(self, field: str, path: str) -> str:
        """The id of a label; a ground-truth label has the same id in every run."""
        names = (path,) if field == TRUTH else (self.checkpoint_id, field, path)
        return json_documents.hex_id(*names)


@dataclass(frozen=True)
class ImagePrediction:
    """The prediction for one image.

    top_K: class indices, the most probable first; empty if the image cannot be read. logits_C: None
    if the logits are not kept.
    """

    row: int
    label: int
    top_K: list[int]
    probability_K: list[float]
    hardness: float
    logits_C: np.ndarray | None


def sample_id(path: str) -> str:
    return json_documents.hex_id("sample", path)


def sample_lines(results: RunResults) -> Iterator[bytes]:
    """Every sample as JSON, built when it is wanted."""
    feature_of_row: Mapping[int, np.ndarray] = {}
    if (features := results.features) is not None:
        feature_of_row = dict(zip(features.row_N.tolist(), features.x_ND, strict=True))
    for split in sorted(results.splits):
        for prediction in _image_predictions(results.splits[split]):
            yield json_documents.json_line(_sample(results, split, prediction, feature_of_row))


def evaluation_results(results: RunResults, split: str) -> Document:
    """The results of FiftyOne's own evaluation of a split, image by image."""
    predictions = list(_image_predictions(results.splits[split]))
    paths = [results.manifest.path[prediction.row] for prediction in predictions]
    return {
        "cls": "fiftyone.utils.eval.classification.ClassificationResults",
        "custom_metrics": None,
        "ytrue": [results.classes[prediction.label] for prediction in predictions],
        "ypred": [
            results.classes[prediction.top_K[0]] if prediction.top_K else None
            for prediction in predictions
        ],
        "confs": [
            prediction.probability_K[0] if prediction.top_K else None for prediction in predictions
        ],
        "weights": None,
        "ytrue_ids": [results.label_id(TRUTH, path) for path in paths],
        "ypred_ids": [
            results.label_id("predictions", path) if prediction.top_K else None
            for prediction, path in zip(predictions, paths, strict=True)
        ],
        "classes": list(results.classes),
        "missing": "(none)",
    }


def _image_predictions(predictions: Predictions) -> Iterator[ImagePrediction]:
    logits_NC = predictions.logits_NC
    for index, row in enumerate(predictions.row_N.tolist()):
        readable = predictions.top_NK[index, 0] != metrics.UNREADABLE
        yield ImagePrediction(
            row,
            int(predictions.label_N[index]),
            predictions.top_NK[index].tolist() if readable else [],
            predictions.score_NK[index].tolist(),
            float(predictions.entropy_N[index]),
            None if logits_NC is None else logits_NC[index],
        )


def _sample(
    results: RunResults,
    split: str,
    prediction: ImagePrediction,
    feature_of_row: Mapping[int, np.ndarray],
) -> Document:
    row, top_K = prediction.row, prediction.top_K
    path = results.manifest.path[row]
    key = sample_id(path)
    truth, right = results.classes[prediction.label], bool(top_K) and top_K[0] == prediction.label
    sample: Document = {
        "_id": {"$oid": key},
        "filepath": str(PurePosixPath(results.below, path)),
        "tags": [split] if top_K else [split, UNREADABLE],
        "_media_type": "image",
        "_rand": int(key[:8], 16) / 2**32,
        TRUTH: _label(results, TRUTH, path, "Classification", label=truth),
        EVALUATED[split]: right,
    }
    if top_K:
        names = [results.classes[index] for index in top_K]
        values = {"label": names[0], "confidence": prediction.probability_K[0]}
        values[OUTCOME] = right
        if prediction.logits_C is not None:
            values["logits"] = json_documents.array(prediction.logits_C)
        values |= {"top": names, "top_confidence": prediction.probability_K}
        sample["predictions"] = _label(results, "predictions", path, "Classification", **values)
        sample["hardness"] = prediction.hardness
    if split == "test" and row in feature_of_row:
        sample["embedding"] = json_documents.array(feature_of_row[row].astype(np.float16))
    if results.heat is not None and (map_HW := results.heat(row)) is not None:
        assert map_HW.dtype == np.uint8
        heatmap = {"map": json_documents.array(map_HW), "range": [0, 255]}
        sample["attention"] = _label(results, "attention", path, "Heatmap", **heatmap)
    return sample


def _label(results: RunResults, field: str, path: str, kind: str, **values: object) -> Document:
    return {"_id": {"$oid": results.label_id(field, path)}, "_cls": kind, "tags": [], **values}
