"""Features of the test images -> points with a row of facts each, for the PROJECTOR tab.

The tab reads text files; 5,794 features of 768 numbers take 85 MB. Thus at most MAX_POINTS images
are written, spread evenly over the classes, with COMPONENTS principal components of DIGITS decimals
and facts of at most MAX_LENGTH characters: at most 2 MiB, 0.2 MiB for 515 images.
N images, D feature width, P points, K components.
"""

from __future__ import annotations

import numpy as np

from fgvc.html.class_names import display_names
from fgvc.record.principal_components import principal_components
from fgvc.types import Features, LabelMap, Manifest, Predictions

MAX_POINTS, COMPONENTS, DIGITS, MAX_LENGTH = 2000, 32, 3, 60
COLUMNS = ("class", "predicted", "outcome", "confidence", "path")


def pca_points(
    features: Features, predictions: Predictions, manifest: Manifest, labelmap: LabelMap
) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """The points of the readable images.

    Args:
        features: of at least one image; `predictions` contains all of them. Rows ascend in both.

    Returns:
        x_PK, in standard deviations of the first component, and a row of COLUMNS per point.
    """
    index_N = np.searchsorted(predictions.row_N, features.row_N)
    # at most MAX_POINTS, ascending, in which every class has its share
    by_class_N = np.argsort(predictions.label_N[index_N], kind="stable")
    spread_P = np.linspace(0, len(index_N) - 1, min(len(index_N), MAX_POINTS)).round()
    chosen_P = np.sort(by_class_N[spread_P.astype(np.int64)])
    index_P = index_N[chosen_P]
    label_P, pred_P = predictions.label_N[index_P], predictions.pred_N[index_P]
    confidence_P = predictions.score_NK[index_P, 0]
    names = display_names(labelmap.names)
    columns = (label_P, pred_P, confidence_P, features.row_N[chosen_P])
    facts = []
    for label, pred, confidence, row in zip(*(x_P.tolist() for x_P in columns), strict=True):
        true_name, pred_name, path = map(_short, (names[label], names[pred], manifest.path[row]))
        outcome = "right" if pred == label else "wrong"
        facts.append((true_name, pred_name, outcome, f"{confidence:.3f}", path))
    x_PK = principal_components(features.x_ND[chosen_P], COMPONENTS)
    return (x_PK / (x_PK[:, 0].std() or 1.0)).round(DIGITS), facts


def _short(text: str) -> str:
    """One line without tabs; a long line is cut in the middle."""
    line, half = " ".join(text.split()), MAX_LENGTH // 2
    return line if len(line) <= MAX_LENGTH else f"{line[: half - 1]}…{line[-half:]}"
