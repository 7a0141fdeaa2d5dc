"""Numbers of a run -> TensorBoard events under tb/.

KEYS are all scalar tags of a probe, TRAINING all of a finetune, PARTS those of part attention
beside either; IMAGES, TEXTS and CURVES are the other tags of a finished run. Tests read the events
back and hold them against the lists.
One rule for steps: a point's step is the number of optimiser steps behind the weights that it
measures. So the final evaluation of a finetune lies on its own curve, and that of a probe, which
takes none, at 0. (select/val_* and select/log10_c of a probe: index on its path.)
    events.py  events -> the event file
    sheet.py   pictures and captions -> one sheet (IMAGES)
    points.py  features -> a bounded table of points (PROJECTOR)
B pictures, C channels, H x W pixels.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from fgvc.metrics.precision_recall import Curve
from fgvc.record.tensorboard.events import summary_writer
from fgvc.record.tensorboard.image_sheet import draw_sheet
from fgvc.record.tensorboard.projector import COLUMNS, Points
from fgvc.store.disk_errors import add_path
from fgvc.untrusted.escape import tsv_cell

if TYPE_CHECKING:
    from torch import Tensor

Point = tuple[str, int, float]  # key, step, value

EVALUATION = ("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece")
EVALUATIONS = tuple(f"{split}/{name}" for split in ("val", "test") for name in EVALUATION)
KEYS = (
    *EVALUATIONS,
    "select/val_loss",  # step: index on the path of C, ascending
    "select/val_top1",
    "select/log10_c",
)
TRAINING = (
    *EVALUATIONS,  # val at the end of each epoch, test once
    "train/loss",
    "train/top1",  # of the step's images; of a mixed image the label of the larger share counts
    "train/images_per_s",
    "train/memory_mib",  # the peak so far
    "optim/lr",  # of the head
    "optim/grad_norm",  # before it is clipped
    "select/best_epoch",
    "select/best_score",  # what the best is chosen by
)
PARTS = (  # of the test images, where boxes or parts are known
    "parts/in_box",
    "parts/part_distance_px",
    "parts/part_distance",  # in diagonals of the box
    "parts/part_coverage",
    "parts/duplicates",
)
ALL = frozenset(KEYS + TRAINING + PARTS)
IMAGES = ("confusion/test", "mistakes/test")  # mistakes: where there are any
TEXTS = ("run/numbers", "run/command", "run/config", "run/stamp")
CURVES = ("all/macro", "all/micro")  # precision and recall; worst/CLASS: of some classes
EMBEDDING = "test"
# what the HPARAMS tab tells runs apart by. Every run declares all of it, though a probe has no
# epochs: of all the runs that it shows, the tab believes the first
AXES = {"dataset": "", "backbone": "", "size": "", "resolution": 0, "head": ""}  # the first columns
CHOICES = AXES | {
    "task": "",
    "part_attention": "",
    "preprocess": "",
    "precision": "",
    "final_fit": "",
    "seed": 0,
    "epochs": 0,
    "batch_size": 0,
    "optimiser": "",
    "learning_rate": 0.0,
    "layer_decay": 0.0,
    "weight_decay": 0.0,
}
RESULTS = ("test/top1", "test/mean_per_class", "test/macro_f1", "test/loss", "val/top1")


class Board:
    """A writer of one run's events; close it before the folder is sealed."""

    def __init__(self, folder: Path) -> None:
        """Begin tb/ anew: events of an earlier process may be torn, and are told again."""
        self._folder = folder / "tb"
        if self._folder.exists():
            shutil.rmtree(self._folder)
        self._writer, self._events = summary_writer(self._folder)
        self._points: dict[tuple[str, int], float] = {}

    def scalar(self, key: str, value: float, step: int = 0) -> None:
        """One point of a curve; a point that is there already stays as it is."""
        assert key in ALL, key
        if (key, step) not in self._points:
            self._points[key, step] = float(value)
            self._writer.add_scalar(key, value, step)

    @property
    def history(self) -> list[Point]:
        """Every point so far in the order of writing, as plain values for a resume state."""
        return [(key, step, value) for (key, step), value in self._points.items()]

    def replay(self, history: Iterable[Point]) -> None:
        """Write the points of the processes before this one, so that no curve has a seam.

        Args:
            history: as `history` gave it to the resume state that is gone on from.
        """
        assert not self._points, "a replay comes first"
        for key, step, value in history:
            self.scalar(key, value, step)

    def evaluation(self, split: str, numbers: Mapping[str, object], step: int = 0) -> None:
        """The six numbers of a split, one point each.

        Args:
            step: optimiser steps behind the weights; of a finetune, those of the chosen weights.
        """
        for name in EVALUATION:
            value = numbers[name]
            if isinstance(value, int | float):
                self.scalar(f"{split}/{name}", value, step)

    def image(self, tag: str, png: bytes) -> None:
        from PIL import Image

        pixels_HWC = np.asarray(Image.open(io.BytesIO(png), formats=("PNG",)).convert("RGB"))
        self._writer.add_image(tag, pixels_HWC, dataformats="HWC")

    def pictures(
        self, tag: str, pixels_BCHW: Tensor, captions: Sequence[str], step: int = 0
    ) -> None:
        """Pictures as the network gets them, before normalisation: one sheet of 16 at most.

        Pictures are no part of the history: a resumed run draws them again.

        Args:
            pixels_BCHW: uint8 RGB. captions: one a picture, of one line or several.
        """
        sheet_HWC = draw_sheet(pixels_BCHW.permute(0, 2, 3, 1).cpu().numpy(), captions)
        self._writer.add_image(tag, sheet_HWC, step, dataformats="HWC")

    def curve(self, tag: str, curve: Curve) -> None:
        """Precision and recall at thresholds evenly spaced from 0 to 1."""
        columns = (
            curve.hit_T,
            curve.false_T,
            curve.passed_T,
            curve.missed_T,
            curve.precision_T,
            curve.recall_T,
        )
        self._writer.add_pr_curve_raw(tag, *columns, num_thresholds=len(curve.hit_T))

    def embedding(self, shown: Points) -> None:
        """The points of the PROJECTOR tab."""
        facts = [list(map(tsv_cell, row)) for row in shown.facts]
        with add_path(self._folder):
            self._writer.add_embedding(
                shown.x_PK, facts, tag=EMBEDDING, metadata_header=list(COLUMNS)
            )

    def hparams(self, choices: Mapping[str, str | float | int]) -> None:
        """What was chosen, beside RESULTS, which the tab finds among the scalars of this folder.

        Not by SummaryWriter.add_hparams, which would write those scalars twice.

        Args:
            choices: those of CHOICES that this run has.
        """
        from tensorboard.plugins.hparams import plugin_data_pb2 as messages
        from torch.utils.tensorboard.summary import hparams

        assert choices.keys() <= CHOICES.keys(), choices
        declared, _, _ = hparams(CHOICES, dict.fromkeys(RESULTS, 0.0))
        held = declared.value[0].metadata.plugin_data
        data = messages.HParamsPluginData()  # pyright: ignore[reportAttributeAccessIssue]
        data.ParseFromString(held.content)
        for info in data.experiment.hparam_infos:  # the tab sorts what differs to the front
            info.differs = info.name in AXES
        held.content = data.SerializeToString()
        _, *session = hparams(dict(choices), {})
        for summary in (declared, *session):
            self._writer._get_file_writer().add_summary(summary)

    def text(self, tag: str, text: str) -> None:
        """Markdown."""
        self._writer.add_text(tag, text)

    def close(self) -> None:
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; silently after an error, so that this error is reported."""
        if kind is None:
            self.close()
        else:
            self._events.abandon()
