"""Features of the test images -> a few numbers and a line of facts each, for the PROJECTOR tab.

The tab reads text files, and 5,794 features of 768 numbers would be 85 MB of them. So MOST images
are kept, spread evenly over the classes, as their first KEPT principal components with DIGITS
decimals, and no fact is longer than LONGEST characters: 2 MiB at the very most, 0.2 for 515 images.
N images, D feature width, P points, K components.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from fgvc import metrics
from fgvc.types import Features, LabelMap, Manifest, Predictions

MOST, KEPT, DIGITS, LONGEST = 2000, 32, 3, 60
COLUMNS = ("class", "predicted", "outcome", "confidence", "path")


@dataclass(frozen=True)
class Points:
    """x_PK: in units of the first component's spread. facts: a row of COLUMNS for each point."""

    x_PK: np.ndarray
    facts: Sequence[Sequence[str]]


def pca_points(
    features: Features, predictions: Predictions, manifest: Manifest, labelmap: LabelMap
) -> Points:
    """Points of those images that could be read.

    Args:
        features: one image at least; all of them in `predictions` too, rows ascending in both.
    """
    place_N = np.searchsorted(predictions.row_N, features.row_N)
    kept_P = _spread_evenly(predictions.label_N[place_N])
    place_P = place_N[kept_P]
    logits_PC, label_P = predictions.logits_NC[place_P], predictions.label_N[place_P]
    pred_P = metrics.topk(logits_PC, 1)[:, 0]
    confidence_P = np.exp(metrics.log_probabilities(logits_PC).max(axis=1))
    names = labelmap.names
    facts = [
        (
            _short(names[label]),
            _short(names[pred]),
            "right" if pred == label else "wrong",
            f"{confidence:.3f}",
            _short(manifest.path[row]),
        )
        for label, pred, confidence, row in zip(
            label_P.tolist(),
            pred_P.tolist(),
            confidence_P.tolist(),
            features.row_N[kept_P].tolist(),
            strict=True,
        )
    ]
    return Points(principal(features.x_ND[kept_P], KEPT).round(DIGITS), facts)


def principal(x_ND: np.ndarray, components: int) -> np.ndarray:
    """x_NK: the first principal components, the first of which has a standard deviation of 1."""
    centred_ND = x_ND.astype(np.float64) - x_ND.mean(axis=0, dtype=np.float64)
    width = x_ND.shape[1]
    wanted = (max(width - components, 0), width - 1)  # eigenvalues ascend
    _, vector_DK = eigh(centred_ND.T @ centred_ND, subset_by_index=wanted)
    x_NK = centred_ND @ vector_DK[:, ::-1]
    return x_NK / (x_NK[:, 0].std() or 1.0)


def _spread_evenly(label_N: np.ndarray) -> np.ndarray:
    """At most MOST places, ascending, of which every class has its share."""
    by_class_N = np.argsort(label_N, kind="stable")
    chosen_P = np.linspace(0, len(label_N) - 1, min(len(label_N), MOST)).round().astype(np.int64)
    return np.sort(by_class_N[chosen_P])


def _short(text: str) -> str:
    """One line without tabs; of a long one its beginning and its end."""
    line, half = " ".join(text.split()), LONGEST // 2
    return line if len(line) <= LONGEST else f"{line[: half - 1]}…{line[-half:]}"
