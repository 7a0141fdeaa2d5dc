"""Numbers of a run -> TensorBoard events under tb/.

KEYS are all scalar tags of a probe, TRAINING all scalar tags of a finetune, PARTS the additional
tags of part attention. IMAGES, TEXTS and CURVES are the other tags of a finished run. Tests compare
the written events with these lists.
The step of a point is the number of optimiser steps behind the weights that it measures. Thus the
final evaluation of a finetune is on its validation curve, and a probe's is at step 0. (For
select/val_* and select/log10_c of a probe the step is the index among the solved values of C.)
    events.py       events -> the event file, and tb/ -> the curves
    hparams.py      choices -> a row of the HPARAMS tab and its columns
    image_sheet.py  images and captions -> one sheet (IMAGES)
    projector.py    features -> a bounded table of points (PROJECTOR)
    server.py       a folder of events -> the real TensorBoard
B images, C channels, H x W pixels, T thresholds, P points, K components.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fgvc.metrics.precision_recall import PrecisionRecallCurve
from fgvc.record.tensorboard.events import summary_writer
from fgvc.record.tensorboard.hparams import AXES, CHOICES, declaration, session
from fgvc.record.tensorboard.image_sheet import draw_sheet
from fgvc.record.tensorboard.projector import COLUMNS
from fgvc.store.disk_errors import add_path
from fgvc.untrusted.escape import tsv_cell

if TYPE_CHECKING:
    from torch import Tensor

Point = tuple[str, int, float]  # key, step, value

EVALUATION = ("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece")
EVALUATIONS = tuple(f"{split}/{name}" for split in ("val", "test") for name in EVALUATION)
KEYS = (
    *EVALUATIONS,
    "select/val_loss",  # step: index among the solved values of C, ascending
    "select/val_top1",
    "select/log10_c",
)
TRAINING = (
    *EVALUATIONS,  # val at the end of each epoch, test once
    "train/loss",
    "train/top1",  # of the step's images; a mixed image has the label of its larger share
    "train/images_per_s",
    "train/memory_mib",  # peak so far
    "optim/lr",  # of the head
    "optim/grad_norm",  # before clipping
    "select/best_epoch",
    "select/best_score",  # the validation number that selects the epoch
)
PARTS = (  # of the test images, if their boxes or parts are known
    "parts/in_box",
    "parts/part_distance_px",
    "parts/part_distance",  # in diagonals of the box
    "parts/part_coverage",
    "parts/duplicates",
)
ALL = frozenset(KEYS + TRAINING + PARTS)
# of test; TensorBoard sorts tags by name, so that pictures follow the curves. Mistakes: if any;
# part attention has view/overlays/IMAGE, too
IMAGES = ("view/confusion", "view/mistakes")
TRAINING_IMAGES = "view/training"  # the first images of a finetune, as the network receives them
TEXTS = ("run/numbers", "run/command", "run/config", "run/stamp")
CURVES = ("all/macro", "all/micro")  # precision and recall; some classes have worst/CLASS, too
EMBEDDING = "test"


class Board:
    """A writer of one run's events; close it before the folder is sealed."""

    def __init__(self, folder: Path) -> None:
        """Start tb/ again: a killed process may leave a torn file; `replay` writes its points."""
        self._folder = folder / "tb"
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._writer, self._events = summary_writer(self._folder)
        self._points: dict[tuple[str, int], float] = {}

    def scalar(self, key: str, value: float, step: int = 0) -> None:
        """Write one point of a curve, unless the curve has a point at this step already."""
        assert key in ALL, key
        if (key, step) not in self._points:
            self._points[key, step] = float(value)
            self._writer.add_scalar(key, value, step)

    @property
    def history(self) -> list[Point]:
        """All points so far, in the order of writing, as plain values for a resume state."""
        return [(key, step, value) for (key, step), value in self._points.items()]

    def replay(self, history: Iterable[Point]) -> None:
        """Write the points of earlier processes of this run.

        Args:
            history: the value of `history` in the resume state from which the run resumes.
        """
        assert not self._points, "replay() must come before other points"
        for key, step, value in history:
            self.scalar(key, value, step)

    def evaluation(self, split: str, numbers: Mapping[str, object], step: int = 0) -> None:
        """Write one point per number in EVALUATION.

        Args:
            step: optimiser steps behind the evaluated weights.
        """
        for name in EVALUATION:
            value = numbers[name]
            if isinstance(value, int | float):
                self.scalar(f"{split}/{name}", value, step)

    def image(self, tag: str, image: bytes | np.ndarray) -> None:
        """Write an image: a PNG, or uint8 RGB (H, W, C)."""
        from PIL import Image

        if isinstance(image, bytes):
            image = np.asarray(Image.open(io.BytesIO(image), formats=("PNG",)).convert("RGB"))
        self._writer.add_image(tag, image, dataformats="HWC")

    def images(self, tag: str, pixels_BCHW: Tensor, captions: Sequence[str], step: int = 0) -> None:
        """Write a sheet of at most 16 images, as the network receives them before normalisation.

        Images are not in the history: a resumed run draws them again. The sheet is a JPEG of high
        quality: a PNG of photographs takes a third of a second, and a megabyte of the record.

        Args:
            pixels_BCHW: uint8 RGB. captions: one per image, of one or several lines.
        """
        from PIL import Image
        from tensorboard.compat.proto import summary_pb2

        sheet_HWC = draw_sheet(pixels_BCHW.permute(0, 2, 3, 1).cpu().numpy(), captions)
        jpeg = io.BytesIO()
        Image.fromarray(sheet_HWC).save(jpeg, "JPEG", quality=95, subsampling="4:4:4")
        height, width, _ = sheet_HWC.shape
        messages: Any = summary_pb2  # its classes are generated on import
        encoded = messages.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=jpeg.getvalue()
        )
        value = messages.Summary.Value(tag=tag, image=encoded)
        summary = messages.Summary(value=[value])
        self._writer._get_file_writer().add_summary(summary, step)

    def curve(self, tag: str, curve: PrecisionRecallCurve) -> None:
        """Write precision and recall at thresholds evenly spaced from 0 to 1."""
        self._writer.add_pr_curve_raw(
            tag,
            curve.hit_T,
            curve.false_T,
            curve.passed_T,
            curve.missed_T,
            curve.precision_T,
            curve.recall_T,
            num_thresholds=len(curve.hit_T),
        )

    def embedding(self, x_PK: np.ndarray, facts: Iterable[Iterable[str]]) -> None:
        """Write the points of the PROJECTOR tab, as of `projector.pca_points`."""
        cells = [list(map(tsv_cell, row)) for row in facts]
        with add_path(self._folder):
            self._writer.add_embedding(x_PK, cells, tag=EMBEDDING, metadata_header=list(COLUMNS))

    def hparams(self, choices: Mapping[str, str | float | int]) -> None:
        """Write the run's hyperparameters.

        Args:
            choices: the values of the members of CHOICES that this run has.
        """
        assert choices.keys() <= CHOICES.keys(), choices
        for summary in (declaration(AXES), *session(choices)):
            self._writer._get_file_writer().add_summary(summary)

    def text(self, tag: str, text: str) -> None:
        self._writer.add_text(tag, text)

    def close(self) -> None:
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; after an error, silently, so that the first error is reported."""
        if kind is None:
            self.close()
        else:
            self._events.abandon()
