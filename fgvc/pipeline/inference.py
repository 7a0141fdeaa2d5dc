"""A classifier and images, or a head and features -> predictions.

A cache, or a message from rank to rank, holds one array per image: first the feature, then the
selected patches, then the scores of all patches.
N images, B batch, D feature width, K classes or selected patches, G patches of the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc import metrics
from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import loader
from fgvc.data.preprocess import evaluation_transform
from fgvc.data.view_transform import grid_side
from fgvc.model.backbone.base import feature_dim
from fgvc.model.classifier import Classifier
from fgvc.model.part_attention import SCORED, Selection
from fgvc.parallel.device import autocast
from fgvc.pipeline.build_model import stride_of
from fgvc.types import AttentionMaps, BadImage, Batch, Dataset, Features, Manifest, Predictions

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


@torch.inference_mode()
def predict_features(head: torch.nn.Module, features: Features, dataset: Dataset) -> Predictions:
    """Predictions of a head from features, on the CPU in chunks of a fixed size."""
    collector = _collector(dataset)
    chunks = torch.from_numpy(features.x_ND).split(CHUNK) if len(features.x_ND) else ()
    rows = np.split(features.row_N, range(CHUNK, len(features.row_N), CHUNK))
    for row_B, chunk_BD in zip(rows, chunks, strict=False):
        collector.add(row_B, head(chunk_BD).numpy().astype(np.float32))
    bad_rows = np.array([bad.row for bad in features.bad], np.int64)
    return collector.result(np.sort(np.concatenate([features.row_N, bad_rows])))


@torch.inference_mode()
def head_logits(head: torch.nn.Module, x_ND: np.ndarray) -> np.ndarray:
    """float32 logits_NC of few images."""
    return head(torch.from_numpy(x_ND)).numpy().astype(np.float32)


def _collector(dataset: Dataset) -> metrics.PredictionCollector:
    """A collector of logits; the larger split decides for both whether logits are kept."""
    images, classes = (
        max(len(dataset.split.val_N), len(dataset.split.test_N)),
        len(dataset.labelmap),
    )
    keep = metrics.keeps_logits(images, classes)
    return metrics.PredictionCollector(dataset.manifest.label_N, classes, keep)


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
    collector, columns = _collector(dataset), []
    for output in stream_batches(model, conf, dataset.manifest, row_N, device):
        batch, x_BD = output.batch, np.empty((0, 0), np.float32)
        on_bad(batch.bad)
        if len(batch.row_B):
            collector.add(batch.row_B, output.logits_BK.cpu().numpy())
        if features and len(batch.row_B):
            x_BD = append_columns(output.feature_BD, output.selection, scores=True).cpu().numpy()
        columns.append(Features(x_BD, batch.row_B, batch.bad))
    predictions = collector.result(row_N)
    if not features:
        return InferenceResults(predictions)
    return InferenceResults(
        predictions, *split_columns(concat_features(columns), conf, scores=True)
    )


def concat_results(parts: Sequence[InferenceResults]) -> InferenceResults:
    """The results of several ranks, concatenated in the order of the ranks."""

    def joined(values: Sequence[Any], *names: str) -> Any:
        return [np.concatenate([getattr(value, name) for value in values]) for name in names]

    features = [part.features for part in parts if part.features is not None]
    maps = [part.attention_maps for part in parts if part.attention_maps is not None]
    attention_maps = None
    if maps:
        scored = [each for each in maps if each.score_NG is not None]
        (score_NG,) = joined(scored, "score_NG") if scored else (None,)
        row_N, index_NK = joined(maps, "row_N", "index_NK")
        attention_maps = AttentionMaps(row_N, index_NK, score_NG, maps[0].grid)
    return InferenceResults(
        metrics.concatenate([part.predictions for part in parts]),
        concat_features(features) if features else None,
        attention_maps,
    )


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
        pin=device.type == "cuda",
    ):
        if not len(batch.row_B):
            yield BatchOutput(batch, torch.empty(0, 0), torch.empty(0, 0), None)
            continue
        if selector is not None:
            selector.set_images(manifest.key_N[batch.row_B])
        pixels_BCHW = preprocess.normalize(batch.pixels_BCHW.to(device, non_blocking=True))
        with autocast(conf.precision, device):
            logits_BK, feature_BD = model.with_features(pixels_BCHW)
        yield BatchOutput(batch, logits_BK.float(), feature_BD, selector and selector.last)


def append_columns(feature_BD: Tensor, selection: Selection | None, scores: bool) -> Tensor:
    """Features, the indices of the selected patches and the score of every patch, as float32.

    Args:
        selection: None where part attention is off.
        scores: whether to append the scores, if there are any.
    """
    if selection is None:
        return feature_BD
    columns = [feature_BD, selection.index_BK.float()]  # float32 represents every index exactly
    if scores and selection.patch_scores is not None:
        columns.append(selection.patch_scores)
    return torch.cat(columns, 1)


def split_columns(
    columns: Features, conf: Config, scores: bool
) -> tuple[Features, AttentionMaps | None]:
    """The features and the attention maps; None where part attention is off or N is 0.

    The features are moved to the beginning of columns.x_ND, because a copy may fill gigabytes.

    scores: as for `append_columns`.
    """
    name = conf.part_attention.name
    if name == "off" or not len(columns.row_N):
        return columns, None
    row = chosen_checkpoint(conf.backbone)
    width = feature_dim(row, conf.backbone.features)
    grid = grid_side(conf.resolution.side, row.patch, stride_of(conf))
    score_width = grid**2 if scores and name in SCORED else 0
    score_start = columns.x_ND.shape[1] - score_width
    index_NK = columns.x_ND[:, width:score_start].astype(np.int64)
    score_NG = columns.x_ND[:, score_start:].copy() if score_width else None
    attention_maps = AttentionMaps(columns.row_N, index_NK, score_NG, grid)
    x_ND = _move_first_columns(columns.x_ND, width)
    return Features(x_ND, columns.row_N, columns.bad), attention_maps


def _move_first_columns(x_NW: np.ndarray, width: int) -> np.ndarray:
    """The first columns as a contiguous matrix in the memory of x_NW, which is overwritten."""
    assert x_NW.flags.c_contiguous
    x_ND = x_NW.reshape(-1)[: len(x_NW) * width].reshape(-1, width)
    for start in range(0, len(x_NW), CHUNK):
        rows = slice(start, start + CHUNK)
        x_ND[rows] = x_NW[rows, :width]  # ends before the next rows begin; numpy copies the overlap
    return x_ND


def concat_features(parts: Sequence[Features]) -> Features:
    """Features in the given order; parts without a readable image have no width and add none."""
    bad = tuple(bad for part in parts for bad in part.bad)
    readable = [part for part in parts if len(part.row_N)]
    if not readable:
        return Features(np.empty((0, 0), np.float32), np.empty(0, np.int64), bad)
    x_ND = np.concatenate([part.x_ND for part in readable])
    return Features(x_ND, np.concatenate([part.row_N for part in readable]), bad)
