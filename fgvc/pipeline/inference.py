"""A classifier -> logits of manifest rows; a checkpoint of task=train -> its classifier.

N images, B batch, D feature width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import loader
from fgvc.data.preprocess import evaluation_transform
from fgvc.model import head as heads
from fgvc.model.backbone.load_state import first_difference
from fgvc.model.classifier import Classifier
from fgvc.model.part_attention import Selection
from fgvc.parallel.device import autocast
from fgvc.pipeline.attention_maps import append_columns
from fgvc.pipeline.build_model import build_model
from fgvc.types import BadImage, Batch, Dataset, Features, Manifest, UserError, WeightsSource

HEAD = "head."


@dataclass(frozen=True)
class Seen:
    """A batch as a model saw it: logits_BK, feature_BD float32 on its device, one row an image that
    could be read; selection: what part attention kept."""

    batch: Batch
    logits_BK: Tensor
    feature_BD: Tensor
    selection: Selection | None


@dataclass(frozen=True)
class Logits:
    """logits_NK: float32, one row an image asked for, -inf for one that cannot be read. found: of
    those that can, the features and what lies `beside` them, where they were asked for."""

    logits_NK: np.ndarray
    found: Features | None

    @staticmethod
    def joined(parts: Sequence[Logits]) -> Logits:
        """What several ranks classified, in their order."""
        logits_NK = np.concatenate([part.logits_NK for part in parts])
        told = [part.found for part in parts if part.found is not None]
        return Logits(logits_NK, _together(told) if told else None)


def classify(
    model: Classifier,
    conf: Config,
    dataset: Dataset,
    row_N: np.ndarray,
    device: torch.device,
    on_bad: Callable[[tuple[BadImage, ...]], None],
    features: bool = False,
) -> Logits:
    """Logits of the rows in their order.

    Args:
        on_bad: told of the images of each batch that cannot be read.
        features: whether they are wanted too, and where part attention looked.
    """
    logits_NK = np.full((len(row_N), len(dataset.labelmap)), -np.inf, np.float32)
    place = {row: index for index, row in enumerate(row_N.tolist())}
    told = []
    for seen in stream_batches(model, conf, dataset.manifest, row_N, device):
        batch, x_BD = seen.batch, np.empty((0, 0), np.float32)
        on_bad(batch.bad)
        if len(batch.row_B):
            logits_NK[[place[row] for row in batch.row_B.tolist()]] = seen.logits_BK.cpu().numpy()
        if features and len(batch.row_B):
            x_BD = append_columns(seen.feature_BD, seen.selection, scores=True).cpu().numpy()
        told.append(Features(x_BD, batch.row_B, batch.bad))
    return Logits(logits_NK, _together(told) if features else None)


def _together(told: Sequence[Features]) -> Features:
    """Features in the order given, those of no image left out."""
    some = [one for one in told if len(one.row_N)]
    bad = tuple(bad for one in told for bad in one.bad)
    if not some:
        return Features(np.empty((0, 0), np.float32), np.empty(0, np.int64), bad)
    x_ND = np.concatenate([one.x_ND for one in some])
    return Features(x_ND, np.concatenate([one.row_N for one in some]), bad)


@torch.inference_mode()
def stream_batches(
    model: Classifier,
    conf: Config,
    manifest: Manifest,
    row_N: np.ndarray,
    device: torch.device,
    check_digest: bool = True,
) -> Iterator[Seen]:
    """Batches of the rows in their order, each as the model saw it.

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
            yield Seen(batch, torch.empty(0, 0), torch.empty(0, 0), None)
            continue
        if selector is not None:
            selector.set_images(manifest.key_N[batch.row_B])
        pixels_BCHW = preprocess.normalize(batch.pixels_BCHW.to(device))
        with autocast(conf.precision, device):
            logits_BK, feature_BD = model.with_features(pixels_BCHW)
        yield Seen(batch, logits_BK.float(), feature_BD, selector and selector.last)


def load_classifier(
    conf: Config, facts: Mapping[str, Any], tensors: Mapping[str, Tensor], device: torch.device
) -> Classifier:
    """The classifier of a checkpoint that holds backbone and head.

    Raises:
        UserError: its tensors are not those of the model its config means.
    """
    eps = facts["backbone"].get("norm_eps", conf.backbone.norm_eps)
    conf = replace(conf, backbone=replace(conf.backbone, norm_eps=eps))
    row = chosen_checkpoint(conf.backbone)
    held = sum(value.numel() for value in tensors.values())
    empty = WeightsSource("random", row.model, held=held)  # overwritten: the file has every tensor
    backbone, selector = build_model(conf, empty)
    own = {name[len(HEAD) :]: value for name, value in tensors.items() if name.startswith(HEAD)}
    head = heads.load_head(facts["head"], own, len(facts["labelmap"]["ids"]), backbone.feature_dim)
    model = Classifier(backbone, head, selector)
    own_state = model.state_dict()
    if (difference := first_difference(tensors, own_state)) is not None:
        raise UserError(f"the checkpoint's tensors are not those of {row.model}: {difference}")
    model.load_state_dict(dict(tensors))
    return model.to(device).eval()
