"""A run that is about to be sealed -> its report.html, with pictures from its dataset.

H x W pixels, C 3 channels.
"""

from __future__ import annotations

import numpy as np

from fgvc import untrusted
from fgvc.data.decode import ImageError, decode
from fgvc.data.preprocess import crop_to_box
from fgvc.pipeline.experiment import Experiment
from fgvc.record import page
from fgvc.report.run_names import run_name
from fgvc.types import Dataset


def write(experiment: Experiment, checkpoint_id: str, forced: bool) -> None:
    """Write the page; every other file of the folder lies there.

    Args:
        forced: whether the training was resumed by force.
    """
    made_by = experiment.extractor.source.made_by
    name = run_name(
        experiment.plain, experiment.task, experiment.conf.resolution.side, forced, made_by
    )
    pictures = _Pictures(experiment.dataset)
    page.write(
        experiment.run, experiment.conf, name, checkpoint_id, experiment.board.history, pictures
    )


class _Pictures:
    """Test images as their dataset means them: upright, and cut to their box where it says so."""

    def __init__(self, dataset: Dataset) -> None:
        self._manifest = dataset.manifest
        self._row = {self._manifest.path[row]: row for row in dataset.split.test_N.tolist()}

    def __call__(self, path: str) -> np.ndarray | None:
        """pixels_HWC: uint8 RGB; None where it cannot be read, as a page may lack a picture."""
        try:
            data = untrusted.read_bytes(self._manifest.root / path, untrusted.PICTURE)
            pixels_CHW = decode(data, path, self._manifest.max_pixels)
        except (OSError, ImageError):
            return None
        if (cut_N4 := self._manifest.cut_N4) is not None:
            pixels_CHW = crop_to_box(pixels_CHW, cut_N4[self._row[path]].tolist())
        return pixels_CHW.permute(1, 2, 0).numpy()
