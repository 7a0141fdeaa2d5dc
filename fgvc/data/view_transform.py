"""Pixels that the network saw <-> pixels of the image they came from; patches as boxes there.

Coordinates are continuous: pixel i reaches from i to i + 1, so its centre is i + 0.5. An image is
as `decode` gives it, that is, upright: EXIF rotation is done already, sizes and boxes are of the
rotated image. N images, K points or patches of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgvc.data.preprocess import Preprocess, clamped_span


@dataclass(frozen=True)
class View:
    """Where each image's square lies in it: original = start + step * network.

    start_N2: float64 x, y of the square's upper left corner, in original pixels. step_N2: original
    pixels, across and down, that one network pixel is long. side: network pixels of the square.
    """

    start_N2: np.ndarray
    step_N2: np.ndarray
    side: int

    def to_original(self, xy_NK2: np.ndarray) -> np.ndarray:
        """Network x, y -> original x, y, float64."""
        return self.start_N2[:, None] + self.step_N2[:, None] * xy_NK2

    def to_network(self, xy_NK2: np.ndarray) -> np.ndarray:
        """Original x, y -> network x, y, float64; outside 0..side the network did not look."""
        return (xy_NK2 - self.start_N2[:, None]) / self.step_N2[:, None]

    @property
    def seen(self) -> np.ndarray:
        """seen_N4: x, y, width, height of what the network saw, float64, in original pixels."""
        return np.concatenate([self.start_N2, self.step_N2 * self.side], axis=1)

    def patches(self, index_NK: np.ndarray, patch: int, stride: int | None = None) -> np.ndarray:
        """Patches as boxes in the image.

        Args:
            index_NK: row by row on the grid, the upper left patch is 0.
            patch: network pixels of a patch's side.
            stride: network pixels from a patch to the next; None: the patch, without overlap.

        Returns:
            box_NK4: float64 x, y, width, height in original pixels.
        """
        stride = stride or patch
        columns = grid_side(self.side, patch, stride)
        assert index_NK.min(initial=0) >= 0
        assert index_NK.max(initial=0) < columns**2
        row_NK, column_NK = np.divmod(index_NK, columns)
        corner_NK2 = self.to_original(stride * np.stack([column_NK, row_NK], axis=-1))
        size_NK2 = np.broadcast_to(self.step_N2[:, None] * patch, corner_NK2.shape)
        return np.concatenate([corner_NK2, size_NK2], axis=-1)


def view(preprocess: Preprocess, size_N2: np.ndarray, box_N4: np.ndarray | None = None) -> View:
    """How the evaluation transform looks at images of these sizes.

    Args:
        size_N2: integer width and height, upright.
        box_N4: x, y, width, height that images are cut to before anything else
            (dataset.box_crop); None: they are taken whole.

    Raises:
        UserError: so thin an image that the transform refuses it.
    """
    corner_N2, cut_N2 = np.zeros_like(size_N2), size_N2
    if box_N4 is not None:
        corner_N2, cut_N2 = _box_parts(size_N2, box_N4)
    sizes = [preprocess._size(height, width) for width, height in cut_N2.tolist()]
    resized_N2 = np.array(sizes, np.int64).reshape(-1, 2)[:, ::-1]
    # half to even, as torchvision's centre crop begins
    left_N2 = np.rint((resized_N2 - preprocess.side) / 2)
    assert left_N2.min(initial=0) >= 0
    step_N2 = cut_N2 / resized_N2
    return View(corner_N2 + step_N2 * left_N2, step_N2, preprocess.side)


def grid_side(side: int, patch: int, stride: int | None = None) -> int:
    """Patches along a square of `side` pixels, `stride` pixels apart."""
    return (side - patch) // (stride or patch) + 1


def _box_parts(size_N2: np.ndarray, box_N4: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corner and size of the part of each image that its box leaves, as `cropped` cuts it."""
    pairs = zip(box_N4.tolist(), size_N2.tolist(), strict=True)
    spans = [
        (clamped_span(x, w, width), clamped_span(y, h, height))
        for (x, y, w, h), (width, height) in pairs
    ]
    span_N22 = np.array(spans, np.int64).reshape(-1, 2, 2)
    return span_N22[..., 0], span_N22[..., 1] - span_N22[..., 0]
