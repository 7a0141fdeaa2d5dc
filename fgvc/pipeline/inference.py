"""A classifier and images, or a head and features -> predictions.

N images, B batch, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fgvc.config.schema import Config
from fgvc.data import loader
from fgvc.data.preprocess import evaluation_transform
from fgvc.model.classifier import Classifier
from fgvc.model.part_attention import Selection
from fgvc.parallel.device import autocast
from fgvc.pipeline.attention_maps import append_columns, split_columns
from fgvc.types import (
    AttentionMaps,
    BadImage,
    Batch,
    Dataset,
    Features,
    Manifest,
    Predictions,
)

CHUNK = 4096  # features per forward pass of a head: fixed, so that logits repeat to the last bit


@dataclass(frozen=True)
class BatchOutput:
    """A batch and the model's output: logits_BK, feature_BD float32 on its device, one row per
    readable image. selection: the patches that part attention selected."""

    batch: Batch
    logits_BK: Tensor
    feature_BD: Tensor
    selection: Selection | None


@dataclass(frozen=True)
class InferenceResults:
    """predictions: of every requested image. features, attention_maps: of the readable images;
    None if not requested, attention_maps also where part attention is off."""

    predictions: Predictions
    features: Features | None = None
    attention_maps: AttentionMaps | None = None


def predict_features(head: torch.nn.Module, features: Features, dataset: Dataset) -> Predictions:
    """Predictions of a head from features; an unreadable image gets a row of -inf logits."""
    logits_NK = head_logits(head, features.x_ND, len(dataset.labelmap))
    bad_rows = np.array([bad.row for bad in features.bad], np.int64)
    row_N = np.concatenate([features.row_N, bad_rows])
    bad_logits = np.full((len(bad_rows), logits_NK.shape[1]), -np.inf, np.float32)
    order = np.argsort(row_N, kind="stable")
    logits_NK = np.concatenate([logits_NK.astype(np.float32), bad_logits])[order]
    return Predictions(row_N[order], dataset.manifest.label_N[row_N[order]], logits_NK)


@torch.inference_mode()
def head_logits(head: torch.nn.Module, x_ND: np.ndarray, num_classes: int) -> np.ndarray:
    """Logits of a head from features, on the CPU in chunks of a fixed size."""
    chunks = [head(torch.from_numpy(x_ND[i : i + CHUNK])) for i in range(0, len(x_ND), CHUNK)]
    return torch.cat(chunks).numpy() if chunks else np.empty((0, num_classes), np.float32)


def classify(
    model: Classifier,
    conf: Config,
    dataset: Dataset,
    row_N: np.ndarray,
    device: torch.device,
    on_bad: Callable[[tuple[BadImage, ...]], None],
    features: bool = False,
) -> InferenceResults:
    """Predictions of a classifier for manifest rows, in their order.

    Args:
        on_bad: called with the unreadable images of each batch.
        features: whether to return features and attention maps too.
    """
    logits_NK = np.full((len(row_N), len(dataset.labelmap)), -np.inf, np.float32)
    index_of_row = {row: index for index, row in enumerate(row_N.tolist())}
    columns = []
    for output in stream_batches(model, conf, dataset.manifest, row_N, device):
        batch, x_BD = output.batch, np.empty((0, 0), np.float32)
        on_bad(batch.bad)
        if len(batch.row_B):
            indices = [index_of_row[row] for row in batch.row_B.tolist()]
            logits_NK[indices] = output.logits_BK.cpu().numpy()
        if features and len(batch.row_B):
            x_BD = append_columns(output.feature_BD, output.selection, scores=True).cpu().numpy()
        columns.append(Features(x_BD, batch.row_B, batch.bad))
    predictions = Predictions(row_N, dataset.manifest.label_N[row_N], logits_NK)
    if not features:
        return InferenceResults(predictions)
    return InferenceResults(
        predictions, *split_columns(_concat_features(columns), conf, scores=True)
    )


def concat_results(parts: Sequence[InferenceResults]) -> InferenceResults:
    """The results of several ranks, concatenated in the order of the ranks."""
    predictions = Predictions(
        *(
            np.concatenate([getattr(part.predictions, name) for part in parts])
            for name in ("row_N", "label_N", "logits_NC")
        )
    )
    features = [part.features for part in parts if part.features is not None]
    maps = [part.attention_maps for part in parts if part.attention_maps is not None]
    attention_maps = None
    if maps:
        scores = [each.score_NG for each in maps if each.score_NG is not None]
        attention_maps = AttentionMaps(
            np.concatenate([each.row_N for each in maps]),
            np.concatenate([each.index_NK for each in maps]),
            np.concatenate(scores) if scores else None,
            maps[0].grid,
        )
    return InferenceResults(
        predictions, _concat_features(features) if features else None, attention_maps
    )


def _concat_features(parts: Sequence[Features]) -> Features:
    """Features in the given order; parts without a readable image have no width and add none."""
    bad = tuple(bad for part in parts for bad in part.bad)
    readable = [part for part in parts if len(part.row_N)]
    if not readable:
        return Features(np.empty((0, 0), np.float32), np.empty(0, np.int64), bad)
    x_ND = np.concatenate([part.x_ND for part in readable])
    return Features(x_ND, np.concatenate([part.row_N for part in readable]), bad)


@torch.inference_mode()
def stream_batches(
    model: Classifier,
    conf: Config,
    manifest: Manifest,
    row_N: np.ndarray,
    device: torch.device,
    check_digest: bool = True,
) -> Iterator[BatchOutput]:
    """Run a classifier on manifest rows; yields the output of each batch, in the order of the rows.

    Args:
        check_digest: as in fgvc.data.loader.
    """
    preprocess, selector = evaluation_transform(conf), model.selector
    model.eval()
    for batch in loader.batches(
        manifest,
        row_N,
        preprocess,
        conf.runtime.eval_batch_size,
        loader.worker_count(conf.runtime.num_workers),
        check_digest,
    ):
        if not len(batch.row_B):
            yield BatchOutput(batch, torch.empty(0, 0), torch.empty(0, 0), None)
            continue
        if selector is not None:
            selector.set_images(manifest.key_N[batch.row_B])
        pixels_BCHW = preprocess.normalize(batch.pixels_BCHW.to(device))
        with autocast(conf.precision, device):
            logits_BK, feature_BD = model.with_features(pixels_BCHW)
        yield BatchOutput(batch, logits_BK.float(), feature_BD, selector and selector.last)
