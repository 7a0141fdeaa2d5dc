"""Pixels of the network's input <-> pixels of the original image; patches -> boxes in the image.

Coordinates are continuous: pixel i reaches from i to i + 1, so its centre is i + 0.5. Sizes and
boxes are those of the upright image, as `decode` returns it after EXIF rotation.
N images, K points or patches per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fgvc.data.preprocess import Preprocess, clamped_span


@dataclass(frozen=True)
class View:
    """Position of the network's square in each image: original = start + step * network.

    start_N2: float64 x, y of the square's upper left corner, in original pixels. step_N2: width and
    height of a network pixel, in original pixels. side: network pixels of the square.
    """

    start_N2: np.ndarray
    step_N2: np.ndarray
    side: int

    def to_original(self, xy_NK2: np.ndarray) -> np.ndarray:
        """Network x, y -> original x, y, float64."""
        return self.start_N2[:, None] + self.step_N2[:, None] * xy_NK2

    def to_network(self, xy_NK2: np.ndarray) -> np.ndarray:
        """Original x, y -> network x, y, float64; the network's input is 0..side."""
        return (xy_NK2 - self.start_N2[:, None]) / self.step_N2[:, None]

    @property
    def seen(self) -> np.ndarray:
        """seen_N4: x, y, width, height of the network's view, float64, in original pixels."""
        return np.concatenate([self.start_N2, self.step_N2 * self.side], axis=1)

    def patches(self, index_NK: np.ndarray, patch: int, stride: int | None = None) -> np.ndarray:
        """Patches as boxes in the image.

        Args:
            index_NK: indices row by row on the grid; the upper left patch is 0.
            patch: side of a patch in network pixels.
            stride: network pixels from a patch to the next; None: `patch`, without overlap.

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
    """The view of the evaluation transform on images of these sizes.

    Args:
        size_N2: integer width and height, upright.
        box_N4: x, y, width, height to which images are cropped first (dataset.box_crop); None:
            whole images.

    Raises:
        UserError: an image is so thin that the transform refuses it.
    """
    corner_N2, cut_N2 = np.zeros_like(size_N2), size_N2
    if box_N4 is not None:  # each image's part inside its box, as in `crop_to_box`
        spans = [
            (clamped_span(x, w, width), clamped_span(y, h, height))
            for (x, y, w, h), (width, height) in zip(box_N4.tolist(), size_N2.tolist(), strict=True)
        ]
        corner_N2, end_N2 = np.moveaxis(np.array(spans, np.int64).reshape(-1, 2, 2), -1, 0)
        cut_N2 = end_N2 - corner_N2
    sizes = [preprocess.resized_size(height, width) for width, height in cut_N2.tolist()]
    resized_N2 = np.array(sizes, np.int64).reshape(-1, 2)[:, ::-1]
    # half to even, as torchvision's centre crop
    left_N2 = np.rint((resized_N2 - preprocess.side) / 2)
    assert left_N2.min(initial=0) >= 0
    step_N2 = cut_N2 / resized_N2
    return View(corner_N2 + step_N2 * left_N2, step_N2, preprocess.side)


def grid_side(side: int, patch: int, stride: int | None = None) -> int:
    """Patches along a square of `side` pixels, `stride` pixels apart."""
    return (side - patch) // (stride or patch) + 1
