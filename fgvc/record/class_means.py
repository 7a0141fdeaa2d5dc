"""Features of images that a model can classify -> their mean per class and a limit, in ckpt.bin.

A classifier gives one of its classes to any picture. The distance of a picture from the nearest
class mean shows whether it resembles any training image at all. The distance is 1 - cosine, so it
does not depend on the scale of the features.
N images, R rows of features, C classes, M classes that have an image, D width, B batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import nctdtrit, ndtri

if TYPE_CHECKING:  # a sweep and its workers load this module, but no torch
    from torch import Tensor

MEANS = "class.means"  # in ckpt.bin
FACTS = "class_means"
QUANTILE = 0.98  # of the distances of held-out images; about 2 % of such images are farther away
CONFIDENCE = 0.95  # that the limit of few images is not too low
MAX_HELD_OUT = 10_000  # images, evenly spaced, behind the quantile
CHUNK = 1024  # images whose similarities to all means are in memory together
DIGITS = 6  # of the limit, which must not depend on the number of threads


@dataclass(frozen=True)
class ClassMeans:
    """What the features of known images look like; at most as many numbers as a linear head has.

    mean_MD: float32, of unit length; classes without images have none. limit: the distance from the
    nearest mean that a fraction QUANTILE of held-out images keep. images: behind the limit.
    """

    mean_MD: np.ndarray
    limit: float
    images: int

    def facts(self) -> dict[str, object]:
        return {"limit": self.limit, "quantile": QUANTILE, "images": self.images}

    def tensors(self) -> dict[str, Tensor]:
        import torch

        return {MEANS: torch.from_numpy(self.mean_MD)}

    def relative_distance(self, feature_BD: np.ndarray) -> np.ndarray:
        """distance_B: from the nearest mean, divided by the limit; above 1 an image is far."""
        similarity_BM = unit_length(feature_BD) @ self.mean_MD.T
        return (1 - np.nan_to_num(similarity_BM.max(axis=1))) / self.limit


def fit(x_RD: np.ndarray, index_N: np.ndarray, label_N: np.ndarray) -> ClassMeans | str:
    """The means of features by class, and the limit; or why there is no limit, in one line.

    The distance of an image is measured as if its class mean had been computed without it, so it
    counts as held out. With fewer than 49 images no order statistic reaches the quantile. The limit
    is then at least the tolerance bound of a normal distribution (one-sided, Owen 1963).

    Args:
        x_RD: features that were not themselves trained on these images.
        index_N: the rows of these images.
        label_N: of these images.
    """
    if len(index_N) < 2:
        return f"too few images to choose the limit ({len(index_N)})"
    labels, class_N, count_M = np.unique(label_N, return_inverse=True, return_counts=True)
    sum_MD = np.zeros((len(labels), x_RD.shape[1]))
    for first in range(0, len(index_N), CHUNK):
        rows = slice(first, first + CHUNK)
        # row by row, which gives the bits of `np.add.at` in a sixth of its time
        unit_BD = unit_length(x_RD[index_N[rows]])
        for index, unit_D in zip(class_N[rows].tolist(), unit_BD, strict=True):
            sum_MD[index] += unit_D
    mean_MD = unit_length(sum_MD)

    def held_out(rows: np.ndarray) -> np.ndarray:
        """distance_B: from the nearest mean, with the own class mean without the image."""
        unit_BD, class_B = unit_length(x_RD[index_N[rows]]), class_N[rows]
        similarity_BM = unit_BD @ mean_MD.T
        own_B = (unit_length(sum_MD[class_B] - unit_BD) * unit_BD).sum(axis=1)
        own_B[count_M[class_B] == 1] = -1  # the only image of its class
        similarity_BM[np.arange(len(rows)), class_B] = own_B
        return 1 - similarity_BM.max(axis=1)

    selected = np.unique(np.linspace(0, len(index_N) - 1, MAX_HELD_OUT).round().astype(np.int64))
    chunks = np.array_split(selected, -(-len(selected) // CHUNK))
    distance_N = np.concatenate([held_out(rows) for rows in chunks])
    limit = max(round(_upper_bound(distance_N), DIGITS), 10**-DIGITS)
    return ClassMeans(mean_MD.astype(np.float32), limit, len(distance_N))


def _upper_bound(distance_N: np.ndarray) -> float:
    """The distance that a fraction QUANTILE of new images keep; of few images, with CONFIDENCE."""
    count = len(distance_N)
    place = int(np.ceil(QUANTILE * (count + 1)))
    if place <= count:
        return float(np.sort(distance_N)[place - 1])
    root = np.sqrt(count)
    width = nctdtrit(count - 1, ndtri(QUANTILE) * root, CONFIDENCE) / root
    return float(max(distance_N.max(), distance_N.mean() + width * distance_N.std(ddof=1)))


def unit_length(x_ND: np.ndarray) -> np.ndarray:
    """Each row divided by its length; a row of zeros stays."""
    return x_ND / np.maximum(np.linalg.norm(x_ND, axis=1, keepdims=True), 1e-12)


def from_checkpoint(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ClassMeans | str:
    """The class means of a checkpoint, or why it has none.

    Raises:
        KeyError, ValueError: means or limit are missing or damaged.
    """
    recorded = facts.get(FACTS)
    if recorded is None:
        return "an older version of fgvc wrote the checkpoint"
    if "reason" in recorded:
        return recorded["reason"]
    import torch

    mean_MD, classes = tensors[MEANS], len(facts["labelmap"]["names"])
    if mean_MD.dtype != torch.float32 or mean_MD.ndim != 2 or not mean_MD.isfinite().all():
        raise ValueError(f"{MEANS}: not rows of finite float32")
    if not 0 < len(mean_MD) <= classes:
        raise ValueError(f"{MEANS}: {len(mean_MD)} rows for {classes} classes")
    return ClassMeans(mean_MD.numpy(), recorded["limit"], recorded["images"])
