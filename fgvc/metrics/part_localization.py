"""Selected patches, boxes and parts -> how well the selection finds the object and its parts.

Coordinates are original pixels, x to the right and y down. A patch and a box are x, y, width,
height; NaN means no box, or a part that is not visible. Each metric is a mean over the images for
which it is defined, with their number. Pure functions.
N images, K selected patches (one per head, or the best overall), P parts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean over `images` images; value is None without images."""

    value: float | None
    images: int


def localization(
    patch_NK4: np.ndarray,
    index_NK: np.ndarray,
    box_N4: np.ndarray | None,
    part_NP2: np.ndarray | None,
) -> dict[str, Mean]:
    """All metrics below by name; metrics whose boxes or parts are missing have no images.

    Args:
        patch_NK4: selected patches. index_NK: their indices on the grid.
        box_N4: the object's box. part_NP2: x, y of its parts.
    """
    images = len(patch_NK4)
    box_N4 = np.full((images, 4), np.nan) if box_N4 is None else box_N4
    part_NP2 = np.full((images, 0, 2), np.nan) if part_NP2 is None else part_NP2
    return {
        "in_box": in_box(patch_NK4, box_N4),
        "part_distance_px": part_distance(patch_NK4, part_NP2),
        "part_distance": part_distance(patch_NK4, part_NP2, box_N4),
        "part_coverage": coverage(patch_NK4, part_NP2),
        "duplicates": duplicates(index_NK),
    }


def in_box(patch_NK4: np.ndarray, box_N4: np.ndarray) -> Mean:
    """Share of the selected patches whose centre is in the box or on its border."""
    offset_NK2 = _centres(patch_NK4) - box_N4[:, None, :2]
    inside_NK = ((offset_NK2 >= 0) & (offset_NK2 <= box_N4[:, None, 2:])).all(axis=-1)
    return _mean(inside_NK.mean(axis=1), np.asarray(np.isfinite(box_N4).all(axis=1)))


def part_distance(
    patch_NK4: np.ndarray, part_NP2: np.ndarray, box_N4: np.ndarray | None = None
) -> Mean:
    """Mean distance from the centre of each selected patch to the nearest visible part.

    Args:
        box_N4: measure in diagonals of the box instead of pixels, over the images with a box.
    """
    nearest_NK = _distances(patch_NK4, part_NP2).min(axis=2, initial=np.inf)
    valid_N = np.asarray(_visible(part_NP2).any(axis=1))
    distance_N = nearest_NK.mean(axis=1)
    if box_N4 is not None:
        diagonal_N = np.hypot(box_N4[:, 2], box_N4[:, 3])
        valid_N &= diagonal_N > 0
        distance_N = distance_N / np.where(valid_N, diagonal_N, 1)
    return _mean(distance_N, valid_N)


def coverage(patch_NK4: np.ndarray, part_NP2: np.ndarray) -> Mean:
    """Share of the visible parts within half a patch diagonal of a selected centre.

    This circle passes through the corners of the patch.
    """
    radius_NK1 = np.hypot(patch_NK4[..., 2:3], patch_NK4[..., 3:]) / 2
    covered_NP = (_distances(patch_NK4, part_NP2) <= radius_NK1).any(axis=1)
    visible_N = _visible(part_NP2).sum(axis=1)
    return _mean(covered_NP.sum(axis=1) / np.maximum(visible_N, 1), visible_N > 0)


def duplicates(index_NK: np.ndarray) -> Mean:
    """Share of the selected patches that repeat a patch selected by an earlier head."""
    ordered_NK = np.sort(index_NK, axis=1)
    repeated_N = (ordered_NK[:, 1:] == ordered_NK[:, :-1]).sum(axis=1)
    return _mean(repeated_N / index_NK.shape[1], np.ones(len(index_NK), bool))


def _centres(patch_NK4: np.ndarray) -> np.ndarray:
    return patch_NK4[..., :2] + patch_NK4[..., 2:] / 2


def _visible(part_NP2: np.ndarray) -> np.ndarray:
    return np.asarray(np.isfinite(part_NP2).all(axis=-1))


def _distances(patch_NK4: np.ndarray, part_NP2: np.ndarray) -> np.ndarray:
    """distance_NKP from centres to parts, infinite to a part that is not visible."""
    offset_NKP2 = _centres(patch_NK4)[:, :, None] - part_NP2[:, None]
    distance_NKP = np.hypot(offset_NKP2[..., 0], offset_NKP2[..., 1])
    return np.where(_visible(part_NP2)[:, None], distance_NKP, np.inf)


def _mean(value_N: np.ndarray, valid_N: np.ndarray) -> Mean:
    images = int(valid_N.sum())
    return Mean(float(value_N[valid_N].mean()) if images else None, images)
