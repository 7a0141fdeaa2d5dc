"""Predictions -> one JSON line a sample, and the lists that an evaluation run holds.

Samples come in the order of their splits' names, test before val, and of their rows. Ids follow
from the picture's path, so that samples of two runs of one dataset are the same; those of labels
from the checkpoint too. N images, C classes, K top predictions, D feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from scipy.special import entr

from fgvc import metrics
from fgvc.record.fiftyone import json_documents
from fgvc.record.fiftyone.json_documents import Document
from fgvc.record.fiftyone.run_fields import TRUTH
from fgvc.record.prediction_tables import LOGITS_UP_TO, TOP
from fgvc.types import Features, Manifest, Predictions

CHUNK = 256  # images whose probabilities are computed together
UNREADABLE = "unreadable"  # tag of pictures that could not be read
EVALUATED = {"test": "eval", "val": "eval_val"}
Heatmap = Callable[[int], np.ndarray | None]  # manifest row -> attention over the picture, uint8


@dataclass(frozen=True)
class RunResults:
    """What a run says of its images.

    below: where the manifest's root lies below the folder that paths are relative to. classes: the
    names of the labels. features: of test. heat: None where attention has nothing to show.
    """

    manifest: Manifest
    below: str
    classes: Sequence[str]
    checkpoint_id: str
    splits: Mapping[str, Predictions]
    features: Features | None = None
    heat: Heatmap | None = None

    def label_id(self, field: str, path: str) -> str:
        """Of a label; that of the truth is the same in every run."""
        return json_documents.hex_id(
            *((self.checkpoint_id, field, path) if field != TRUTH else (path,))
        )


@dataclass(frozen=True)
class ImagePrediction:
    """One image's share. best_K: class indices, probable first; empty where it was not read."""

    row: int
    label: int
    best_K: list[int]
    share_K: list[float]
    hardness: float
    logits_C: np.ndarray


def sample_id(path: str) -> str:
    """Of a picture, by its path in the manifest."""
    return json_documents.hex_id("sample", path)


def sample_lines(said: RunResults) -> Iterator[bytes]:
    """Every sample as JSON, without holding more than a chunk of them."""
    vectors = _vectors(said.features)
    for split in sorted(said.splits):
        for one in _image_predictions(said.splits[split]):
            yield json_documents.json_line(_sample(said, split, one, vectors))


def evaluation_results(said: RunResults, split: str) -> Document:
    """The results of FiftyOne's own evaluation of a split, image by image."""
    ones = list(_image_predictions(said.splits[split]))
    paths = [said.manifest.path[one.row] for one in ones]
    return {
        "cls": "fiftyone.utils.eval.classification.ClassificationResults",
        "custom_metrics": None,
        "ytrue": [said.classes[one.label] for one in ones],
        "ypred": [said.classes[one.best_K[0]] if one.best_K else None for one in ones],
        "confs": [one.share_K[0] if one.best_K else None for one in ones],
        "weights": None,
        "ytrue_ids": [said.label_id(TRUTH, path) for path in paths],
        "ypred_ids": [
            said.label_id("predictions", path) if one.best_K else None
            for one, path in zip(ones, paths, strict=True)
        ],
        "classes": list(said.classes),
        "missing": "(none)",
    }


def _image_predictions(predictions: Predictions) -> Iterator[ImagePrediction]:
    for start in range(0, len(predictions.row_N), CHUNK):
        part = slice(start, start + CHUNK)
        logits_NC, label_N = predictions.logits_NC[part], predictions.label_N[part]
        readable_N = metrics.readable(logits_NC)
        known_NC = np.where(readable_N[:, None], logits_NC, 0)
        share_NC = np.exp(metrics.log_probabilities(known_NC))
        top_NK = metrics.topk(known_NC, min(TOP, known_NC.shape[1]))
        hardness_N = entr(share_NC).sum(axis=1)
        for place, row in enumerate(predictions.row_N[part].tolist()):
            best_K = top_NK[place] if readable_N[place] else top_NK[place, :0]
            yield ImagePrediction(
                row,
                int(label_N[place]),
                best_K.tolist(),
                share_NC[place, best_K].tolist(),
                float(hardness_N[place]),
                logits_NC[place],
            )


def _sample(
    said: RunResults, split: str, one: ImagePrediction, vectors: Mapping[int, np.ndarray]
) -> Document:
    path = said.manifest.path[one.row]
    key = sample_id(path)
    sample: Document = {
        "_id": json_documents.object_id(key),
        "filepath": str(PurePosixPath(said.below, path)),
        "tags": [split] if one.best_K else [split, UNREADABLE],
        "_media_type": "image",
        "_rand": int(key[:8], 16) / 2**32,
        TRUTH: _label(said, TRUTH, path, "Classification", label=said.classes[one.label]),
        EVALUATED[split]: bool(one.best_K) and one.best_K[0] == one.label,
    }
    if one.best_K:
        sample["predictions"] = _prediction(said, one, path)
        sample["hardness"] = one.hardness
    if split == "test" and one.row in vectors:
        sample["embedding"] = json_documents.array(vectors[one.row].astype(np.float16))
    if said.heat is not None and (map_HW := said.heat(one.row)) is not None:
        assert map_HW.dtype == np.uint8
        seen = {"map": json_documents.array(map_HW), "range": [0, 255]}
        sample["attention"] = _label(said, "attention", path, "Heatmap", **seen)
    return sample


def _prediction(said: RunResults, one: ImagePrediction, path: str) -> Document:
    names = [said.classes[index] for index in one.best_K]
    more = {"label": names[0], "confidence": one.share_K[0]}
    if len(one.logits_C) <= LOGITS_UP_TO:
        more["logits"] = json_documents.array(one.logits_C)
    more |= {"top": names, "top_confidence": one.share_K}
    return _label(said, "predictions", path, "Classification", **more)


def _label(said: RunResults, field: str, path: str, kind: str, **more: object) -> Document:
    key = json_documents.object_id(said.label_id(field, path))
    return {"_id": key, "_cls": kind, "tags": [], **more}


def _vectors(features: Features | None) -> Mapping[int, np.ndarray]:
    if features is None:
        return {}
    return dict(zip(features.row_N.tolist(), features.x_ND, strict=True))
