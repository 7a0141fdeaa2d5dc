"""Weights that a run of fgvc wrote -> the images that fitted or chose their backbone, and notes.

If a backbone was finetuned on another split of the same dataset, the training may have included
test images of a probe. They count like images that fitted the head.
N images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fgvc.config.finetuned_weights import backbone_was_trained
from fgvc.record import checkpoint, fitted_images
from fgvc.record.fitted_images import earlier_runs
from fgvc.types import Dataset, UserError, WeightsSource


def backbone_images(source: WeightsSource) -> np.ndarray:
    """image_N: short digests, sorted, of every image that changed the backbone in a run of fgvc.

    Every earlier finetune counts. The checkpoint is verified.

    Raises:
        UserError: the checkpoint is damaged, or does not record its images.
    """
    if source.made_by is None or source.path is None:
        return np.empty(0, np.int64)
    tensors, metadata, _ = checkpoint.read(source.path)
    try:
        fit = fitted_images.from_checkpoint(metadata, tensors)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"backbone.weights={source.path}: does not record which images fitted it ({error}). "
            "Repeat the run that made it"
        ) from error
    own = (fit.image_N, fit.validation_N) if backbone_was_trained(metadata) else ()
    return np.unique(np.concatenate([fit.backbone_N, *own]))


def notes(source: WeightsSource, image_N: np.ndarray, dataset: Dataset) -> tuple[str, ...]:
    """Notes on validation images that fitted or chose the backbone.

    Args:
        image_N: as from `backbone_images`.
    """
    val_N = dataset.split.val_N
    count = fitted_images.overlap(
        image_N, fitted_images.short_digests(dataset.manifest.sha256, val_N)
    )
    if not count:
        return ()
    return (
        f"{count} of the {len(val_N)} validation images fitted or chose the backbone "
        f"({describe(source.made_by)}): numbers on validation, and what is chosen on them, favour "
        "it",
    )


def describe(made_by: Mapping[str, Any] | None) -> str:
    """The runs of fgvc that made a file of weights, the newest first, in one line."""
    runs = earlier_runs({"made_by": made_by})
    return ", after ".join(f"task={run['task']} on {run['dataset']}" for run in runs)
