"""The dataset of a run -> its images as the writers of the record need them.

N test images, M of them with attention, E errors, G tokens, H x W cells of a map.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
import torch
from PIL import Image

from fgvc import untrusted
from fgvc.config.schema import chosen_checkpoint
from fgvc.data import loader
from fgvc.data.decode import ImageError, decode, image_size
from fgvc.data.find_root import named_root
from fgvc.data.preprocess import crop_to_box, evaluation_transform
from fgvc.data.view_transform import View, view
from fgvc.html.class_names import display_names
from fgvc.pipeline.build_model import stride_of
from fgvc.pipeline.experiment import Experiment, Results
from fgvc.pipeline.localization import draw_overlay
from fgvc.record import image_overlay
from fgvc.types import Batch

OVERLAYS, ERRORS = 8, 5  # per run; of these chosen as errors
MAX_SIDE = 1024  # pixels of an overlay's longer side
STEM = 50  # characters of an image's name in the overlay's name, which has a maximum length


class DatasetImages:
    """The images of an experiment's dataset; implements `record.writers.RunImages`."""

    def __init__(self, experiment: Experiment, results: Results) -> None:
        dataset, conf = experiment.dataset, experiment.conf
        self._experiment, self._results = experiment, results
        self._manifest, self._preprocess = dataset.manifest, evaluation_transform(conf)
        self._row = {self._manifest.path[row]: row for row in dataset.split.test_N.tolist()}
        self.root = named_root(conf.dataset.root, conf.dataset.table)
        maps = results.attention_maps
        has_scores = maps is not None and maps.score_NG is not None
        self.heat_map = self._heat_map if has_scores else None
        self._index_of_row = (
            {} if maps is None else {row: index for index, row in enumerate(maps.row_N.tolist())}
        )

    def pixels(self, path: str) -> np.ndarray | None:
        """A test image upright, cropped where dataset.box_crop is set; uint8 RGB (H, W, 3)."""
        try:
            pixels_CHW = self._decode(path)
        except (OSError, ImageError):
            return None
        if (cut_N4 := self._manifest.cut_N4) is not None:
            pixels_CHW = crop_to_box(pixels_CHW, cut_N4[self._row[path]].tolist())
        return pixels_CHW.permute(1, 2, 0).numpy()

    def _decode(self, path: str) -> torch.Tensor:
        """The whole image, uint8 RGB (C, H, W)."""
        data = untrusted.read_bytes(self._manifest.root / path, untrusted.IMAGE)
        return decode(data, path, self._manifest.max_pixels)

    def network_views(self, row_N: np.ndarray) -> Iterable[Batch]:
        preprocess = self._experiment.extractor.preprocess
        return loader.batches(self._manifest, row_N, preprocess, max(1, len(row_N)), num_workers=0)

    def _heat_map(self, row: int) -> np.ndarray | None:
        """Attention over a whole image; None for an image that was not read."""
        maps, conf, manifest = self._results.attention_maps, self._experiment.conf, self._manifest
        index, cut_N4 = self._index_of_row.get(row), manifest.cut_N4
        if index is None or maps is None or maps.score_NG is None:
            return None
        size_12 = np.array([image_size(manifest.root / manifest.path[row], manifest.max_pixels)])
        cut_14 = None if cut_N4 is None else cut_N4[row : row + 1]
        patch, stride = chosen_checkpoint(conf.backbone).patch, stride_of(conf)
        image_view = view(self._preprocess, size_12, cut_14)
        return heat_map(image_view, size_12[0], maps.score_NG[index], patch, stride or patch)

    def overlays(self) -> Iterator[tuple[str, dict[str, str | int], bytes]]:
        """The most confident errors, and test images evenly spaced over the index; errors first.

        The latter do not depend on the predictions, so runs can be compared side by side.

        Yields:
            name, path and height of the title in pixels, PNG.
        """
        maps, manifest = self._results.attention_maps, self._manifest
        if maps is None:
            return
        cut_N4, conf = manifest.cut_N4, self._experiment.conf
        test = self._results.predictions["test"]
        names = display_names(self._experiment.dataset.labelmap.names)
        for number, place in enumerate(self._overlaid_places(maps.row_N.tolist())):
            row, label = int(test.row_N[place]), int(test.label_N[place])
            path, index = manifest.path[row], self._index_of_row[row]
            pred, probability = int(test.pred_N[place]), float(test.score_NK[place, 0])
            overlay = draw_overlay(
                self._decode(path),
                conf,
                image_overlay.title(names[pred], probability, names[label]),
                maps.index_NK[index],
                None if maps.score_NG is None else maps.score_NG[index],
                None if cut_N4 is None else cut_N4[row],
            ).within(MAX_SIDE)
            png = image_overlay.png(overlay)
            title = Image.open(io.BytesIO(png), formats=["PNG"]).height - overlay.image_HWC.shape[0]
            name = f"{number:02d}-{PurePosixPath(path).stem[:STEM]}"
            yield name, {"path": path, "title_px": title}, png

    def _overlaid_places(self, rows: Sequence[int]) -> list[int]:
        """The test images to draw, as places in the predictions.

        Args:
            rows: manifest rows of the test images with attention, in the order of the manifest.
        """
        test, paths = self._results.predictions["test"], self._manifest.path
        place_of_row = {row: place for place, row in enumerate(test.row_N.tolist())}
        place_M = np.array([place_of_row[row] for row in rows], np.int64)
        wrong_E = np.flatnonzero(test.pred_N[place_M] != test.label_N[place_M])
        confidence_E = test.score_NK[place_M[wrong_E], 0].tolist()
        # the order of the errors on the page of the run
        ranked = sorted(
            (-confidence, paths[rows[index]], index)
            for index, confidence in zip(wrong_E.tolist(), confidence_E, strict=True)
        )
        errors = [index for *_, index in ranked]
        count = min(OVERLAYS - min(ERRORS, len(errors)), len(rows))
        fixed = np.linspace(0, len(rows) - 1, count).round().astype(int).tolist()
        others = [index for index in errors if index not in fixed][: OVERLAYS - count]
        chosen = {*fixed, *others}
        right = [index for index in fixed if index not in errors]
        return place_M[[index for index in errors if index in chosen] + right].tolist()


def heat_map(
    image_view: View, size_2: np.ndarray, score_G: np.ndarray, patch: int, stride: int
) -> np.ndarray:
    """The scores of one image as a map over the whole image.

    Args:
        image_view: the network's view of this image.
        size_2: its width and height, upright. score_G: row by row over the token grid.
        patch, stride: network pixels per patch side, and from one patch to the next.

    Returns:
        map_HW: uint8; 0 outside the network's view; inside it, 1 for the lowest score to 255 for
        the highest. Each cell has the score of the patch with the nearest centre.
    """
    side = round(len(score_G) ** 0.5)
    cell_2 = image_view.step_N2[0] * stride
    columns, rows = np.maximum(1, np.rint(size_2 / cell_2)).astype(int).tolist()
    x_HW, y_HW = np.meshgrid((np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows)
    xy_K2 = np.stack([x_HW, y_HW], axis=-1).reshape(-1, 2) * size_2
    network_K2 = image_view.to_network(xy_K2[None])[0]
    inside_K = ((network_K2 >= 0) & (network_K2 < image_view.side)).all(axis=1)
    token_K2 = np.rint((network_K2 - patch / 2) / stride).clip(0, side - 1).astype(int)
    low, high = float(score_G.min()), float(score_G.max())
    level_G = np.rint(1 + 254 * (score_G - low) / max(high - low, 1e-30)).astype(np.uint8)
    map_K = np.where(inside_K, level_G[token_K2[:, 1] * side + token_K2[:, 0]], 0)
    return map_K.reshape(rows, columns).astype(np.uint8)
