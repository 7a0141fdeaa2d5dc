"""Numbers of a run -> TensorBoard events under tb/.

KEYS is the whole list of scalar tags; a test reads the events back and holds them against it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

EVALUATION = ("top1", "top5", "mean_per_class", "macro_f1", "loss", "ece")
KEYS = (
    *(f"val/{name}" for name in EVALUATION),
    *(f"test/{name}" for name in EVALUATION),
    "select/val_loss",  # step: index on the path of C, ascending
    "select/val_top1",
    "select/log10_c",
)


class Board:
    """A writer of one run's events; close it before the folder is sealed."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tb"))

    def scalar(self, key: str, value: float, step: int = 0) -> None:
        assert key in KEYS, key
        self._writer.add_scalar(key, value, step)

    def evaluation(self, split: str, numbers: Mapping[str, object]) -> None:
        """The six numbers of a split, one point each."""
        for name in EVALUATION:
            value = numbers[name]
            if isinstance(value, int | float):
                self.scalar(f"{split}/{name}", value)

    def image(self, tag: str, png: bytes) -> None:
        from PIL import Image

        pixels_HWC = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        self._writer.add_image(tag, pixels_HWC, dataformats="HWC")

    def hparams(
        self, choices: Mapping[str, bool | str | float | int], test: Mapping[str, object]
    ) -> None:
        """What was chosen beside what came out, in the run's own folder (not one of its own)."""
        numbers = {f"hparam/test_{name}": test[name] for name in ("top1", "mean_per_class", "loss")}
        known = {name: value for name, value in numbers.items() if isinstance(value, float)}
        self._writer.add_hparams(dict(choices), known, run_name=".")

    def text(self, tag: str, text: str) -> None:
        self._writer.add_text(tag, text)

    def close(self) -> None:
        self._writer.close()
