"""A config and its dataset -> whether validation images are needed, and whether there are any.

N images, C classes.
"""

from __future__ import annotations

import math

import numpy as np

from fgvc.config.schema import Config
from fgvc.config.schema.head import heads
from fgvc.data import split
from fgvc.types import VAL, Dataset, UserError


def reads_validation(task: str, conf: Config) -> bool:
    """Whether validation chooses the head: C of a probe, or the epoch of a finetune."""
    return task == "probe" or (task == "train" and conf.final_fit == "train")


def notes(task: str, conf: Config, dataset: Dataset) -> tuple[str, ...]:
    """Notes on the validation split; none if the task does not read it."""
    if not reads_validation(task, conf):
        return ()
    return split.validation_notes(
        dataset.manifest.label_N,
        dataset.split,
        dataset.labelmap,
        conf.dataset.val_fraction,
        has_val_split=bool((dataset.manifest.split_N == VAL).any()),
    )


def check(task: str, conf: Config, dataset: Dataset) -> None:
    """Refuse a run that needs a validation image if there is none.

    Raises:
        UserError: names settings that work on these images.
    """
    purpose = None  # what validation has to choose
    if task == "probe" and heads()[conf.head.name].learns:
        purpose = f"head={conf.head.name}"
    if task == "train" and conf.final_fit == "train" and conf.task.debug != "overfit":
        purpose = "the best epoch"
    if purpose is None or len(dataset.split.val_N):
        return
    train_N = dataset.split.train_N
    count_C = np.bincount(dataset.manifest.label_N[train_N], minlength=len(dataset.labelmap))
    images, classes = len(train_N), len(count_C)
    without = "final_fit=trainval (which reports the last epoch)"
    if task == "probe":
        without = f"head=knn head.k={min(images, 20)} (which chooses nothing)"
    key = f"dataset.val_fraction={conf.dataset.val_fraction:g}"
    if count_C.max(initial=0) < 2:
        raise UserError(
            f"{key}: no class has a second training image for validation, so there is no image to "
            f"choose {purpose} on. Set {without}, or add training images"
        )
    raise UserError(
        f"{key}: selects none of the {images} images in train, so there is no image to choose "
        f"{purpose} on. Set dataset.val_fraction={suggested_fraction(images, classes):g}, or "
        f"{without}"
    )


def suggested_fraction(images: int, classes: int) -> float:
    """A dataset.val_fraction with one validation image per class, at most 0.9."""
    return min(0.9, math.ceil(100 * classes / images) / 100)
