"""task.cascade: predictions of fast logits -> the same with float32 logits where a margin is small.

A bound on the loss of margin is learnt on training images that are forwarded in both precisions,
before test is read. A test image whose fast margin is above the bound keeps its prediction; the
others are forwarded again in float32. Prediction means that of the same head on float32 features.

The head has seen the sample, features and rounding errors included. It fits each of these images by
a multiple of its own fast feature, which raises the fast margin of its own class: the sample loses
rather more margin than test images, so the bound is conservative.
N images, n repeated or sampled images, B batch, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from fgvc import metrics
from fgvc.config.schema import Config
from fgvc.data.preprocess import evaluation_transform
from fgvc.model.classifier import Classifier
from fgvc.pipeline.experiment import Experiment
from fgvc.pipeline.inference import BatchOutput, head_logits
from fgvc.pipeline.reference import ReferenceExtractor, exact_products
from fgvc.pipeline.restore import StoredCheckpoint
from fgvc.record import precision_checks
from fgvc.types import Features, Manifest, Predictions, UserError

# manifest rows, ascending -> the predictions of all images, with float32 features in these rows
Repeat = Callable[[np.ndarray], Predictions]


def learn_bound(
    experiment: Experiment,
    head: torch.nn.Module,
    features: Features,
    reference: ReferenceExtractor,
    count: int,
) -> dict[str, Any]:
    """The bound and its source, as from `precision_checks.cascade_bound`.

    Args:
        head: predicts test.
        features: fast, of the images of the fit and of validation.
        count: of these images, drawn by the digest of config, images and weights.
    """
    dataset, source = experiment.dataset, experiment.extractor.source
    seed = precision_checks.digest(
        experiment.config_hash, dataset.manifest.digest, source.sha256, precision_checks.CASCADE
    )
    path = [dataset.manifest.path[row] for row in features.row_N.tolist()]
    index_n = precision_checks.draw(seed, path, count)
    sample = Features(features.x_ND[index_n], features.row_N[index_n])
    fast, exact = (
        head_logits(head, each.x_ND) for each in (sample, reference.select("train", sample.row_N))
    )
    return precision_checks.cascade_bound(metrics.margin_losses(fast, exact))


def repeat_small_margins(
    fast: Predictions, repeat: Repeat, bound: Mapping[str, Any]
) -> tuple[Predictions, dict[str, Any]]:
    """Predictions of float32 features where the fast margin is at most the bound.

    Returns:
        The predictions; and the bound with the numbers of repeated and of readable images, for
        metrics.json.
    """
    margin_N = metrics.score_margins(fast.score_NK)
    index_n = np.flatnonzero(margin_N <= bound["bound"])
    counts = {"repeated": len(index_n), "images": int((fast.pred_N != metrics.UNREADABLE).sum())}
    return repeat(fast.row_N[index_n]) if len(index_n) else fast, {**bound, **counts}


def stored_bound(stored: StoredCheckpoint) -> dict[str, Any] | None:
    """The bound that the run of a checkpoint learnt; None: it had no cascade.

    Raises:
        UserError: it is damaged.
    """
    facts = stored.metadata.get(precision_checks.CASCADE)
    if facts is None:
        return None
    bound = facts.get("bound") if isinstance(facts, dict) else None
    if not (isinstance(bound, float) and math.isfinite(bound) and bound >= 0):
        raise UserError(
            f"{stored.file}: the bound of its cascade is no number of at least 0. Repeat the run "
            "that made it"
        )
    return facts


@torch.inference_mode()
def repeat_batch(
    model: Classifier,
    conf: Config,
    manifest: Manifest,
    output: BatchOutput,
    bound: Mapping[str, Any],
) -> tuple[np.ndarray, int]:
    """Logits_BC of a batch, in float32 where the fast margin is at most the bound, and the number
    of these images."""
    logits_BC = output.logits_BK.cpu().numpy()
    index_n = np.flatnonzero(_is_small(logits_BC, bound)) if len(logits_BC) else np.empty(0, int)
    if not len(index_n):
        return logits_BC, 0
    if model.selector is not None:
        model.selector.set_images(manifest.key_N[output.batch.row_B[index_n]])
    pixels = output.batch.pixels_BCHW[index_n].to(output.feature_BD.device)
    with exact_products(conf):
        logits_nC = model(evaluation_transform(conf).normalize(pixels))
    logits_BC = logits_BC.copy()
    logits_BC[index_n] = logits_nC.float().cpu().numpy()
    return logits_BC, len(index_n)


def _is_small(logits_NC: np.ndarray, bound: Mapping[str, Any]) -> np.ndarray:
    """Whether the margin of the prediction of each image is at most the bound."""
    return metrics.margins(logits_NC, logits_NC.argmax(axis=1)) <= bound["bound"]
