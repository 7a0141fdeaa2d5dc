"""What a finished run hands to the writers of its record.

N images, H x W pixels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fgvc import metrics
from fgvc.config.schema import Config
from fgvc.record.run_dir import RunFolder, now
from fgvc.types import Batch, ConfusionCounts, Dataset, Features, Predictions

if TYPE_CHECKING:  # for annotations only: a writer needs neither torch nor TensorBoard
    from torch import Tensor

    from fgvc.record.tensorboard import Board


class RunImages(Protocol):
    """The images of a run's dataset, read when a writer needs them.

    Attributes:
        root: the dataset root, to which the paths of FiftyOne's samples are relative.
        heat_map: manifest row -> attention over the whole image (uint8, H x W), or None for an
            image without scores. The attribute is None where part attention has no scores.
    """

    root: Path
    heat_map: Callable[[int], np.ndarray | None] | None

    def pixels(self, path: str) -> np.ndarray | None:
        """A test image upright, uint8 RGB (H, W, 3); None if it cannot be read."""
        ...

    def network_views(self, row_N: np.ndarray) -> Iterable[Batch]:
        """The images of manifest rows as the network receives them, before normalization."""
        ...

    def overlays(self) -> Iterable[tuple[str, Mapping[str, object], bytes]]:
        """Some test images with their attention maps; none without attention.

        Yields:
            name, path and height of the title in pixels (path, title_px), PNG.
        """
        ...


@dataclass(frozen=True)
class RunRecord:
    """The results of a finished run, from which the files of its folder are written.

    Attributes:
        run: the folder, in progress.
        name: the title of the run.
        predictions: by split.
        numbers, stamp: metrics.json and env_stamp.json without the wall time of the run.
        checkpoint: tensors and facts of ckpt.bin, or a verified checkpoint to copy.
        board: TensorBoard, with the curves of the training.
        steps: optimiser steps behind the weights.
        features: of the readable test images; None where there are none.
        unreadable: the rows of unreadable.json.
    """

    run: RunFolder
    conf: Config
    task: str
    name: str
    dataset: Dataset
    predictions: Mapping[str, Predictions]
    numbers: Mapping[str, Any]
    stamp: Mapping[str, object]
    checkpoint: Path | tuple[Mapping[str, Tensor], Mapping[str, Any]]
    board: Board
    images: RunImages
    steps: int = 0
    features: Features | None = None
    unreadable: Sequence[Mapping[str, str]] = ()

    @property
    def test(self) -> Predictions:
        return self.predictions["test"]

    @functools.cached_property
    def end(self) -> dict[str, Any]:
        """Time and wall time of the run when the first file that holds them is written."""
        return {"finished": now().isoformat(), "seconds": self.run.seconds}

    @property
    def timed_numbers(self) -> dict[str, Any]:
        """metrics.json."""
        cost = {**self.numbers["cost"], "seconds": self.end["seconds"]}
        return {**self.numbers, "cost": cost}

    @functools.cached_property
    def confusion(self) -> ConfusionCounts:
        """The confusion matrix of the test images."""
        return metrics.tally(self.test.pred_N, self.test.label_N, len(self.dataset.labelmap))


@dataclass(frozen=True)
class WriterSpec:
    """One part of a record.

    Attributes:
        files: the files that it may write; a name with a slash at its end is a folder.
        write: writes them into `record.run`.
    """

    files: tuple[str, ...]
    write: Callable[[RunRecord], None]
