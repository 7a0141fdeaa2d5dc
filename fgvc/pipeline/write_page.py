"""A run before it is sealed -> its report.html, with images of its dataset.

H x W pixels, C 3 channels.
"""

from __future__ import annotations

import numpy as np

from fgvc import untrusted
from fgvc.data.decode import ImageError, decode
from fgvc.data.preprocess import crop_to_box
from fgvc.pipeline.experiment import Experiment
from fgvc.record import run_page
from fgvc.report.run_names import run_name
from fgvc.types import Dataset


def write(experiment: Experiment, checkpoint_id: str, forced: bool) -> None:
    """Write the page from the other files of the folder, which must exist.

    Args:
        forced: whether the training was resumed by force.
    """
    conf, plain = experiment.conf, experiment.plain
    made_by = experiment.extractor.source.made_by
    name = run_name(plain, experiment.task, conf.resolution.side, forced, made_by)
    images, history = _TestImages(experiment.dataset), experiment.board.history
    run_page.write(experiment.run, conf, name, checkpoint_id, history, images)


class _TestImages:
    """Reads test images by their paths: upright, and cropped where dataset.box_crop is set."""

    def __init__(self, dataset: Dataset) -> None:
        self._manifest = dataset.manifest
        self._row = {self._manifest.path[row]: row for row in dataset.split.test_N.tolist()}

    def __call__(self, path: str) -> np.ndarray | None:
        """pixels_HWC: uint8 RGB; None for an unreadable image, which the page leaves out."""
        try:
            data = untrusted.read_bytes(self._manifest.root / path, untrusted.IMAGE)
            pixels_CHW = decode(data, path, self._manifest.max_pixels)
        except (OSError, ImageError):
            return None
        if (cut_N4 := self._manifest.cut_N4) is not None:
            pixels_CHW = crop_to_box(pixels_CHW, cut_N4[self._row[path]].tolist())
        return pixels_CHW.permute(1, 2, 0).numpy()
