"""The images that fitted or selected a head -> short digests in the checkpoint, overlap counts.

An image counts if it influenced the head: as a training image, or as a validation image whose
prediction helped to select C, the learning rate or the epoch.

If the backbone's weights come from a run of fgvc, the images that fitted or selected these weights
count too: a backbone that was finetuned on another split may have seen test images with labels.

An image is identified by the first eight bytes of the SHA256 of its file. These take 4.6 MB for the
579,184 training images of iNat2017; the probability of a collision is below 1e-8.
N images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # a sweep and its workers load this module, but no torch
    from torch import Tensor

IMAGES, VALIDATION, BACKBONE = "fit.images", "fit.validation", "fit.backbone"  # in ckpt.bin
TENSORS = (IMAGES, VALIDATION, BACKBONE)
HEX = 16  # hex digits of a SHA256 that fill an int64


@dataclass(frozen=True)
class Fit:
    """The data that a head was fitted on. manifest, split: their digests.

    image_N: int64, sorted short digests of the training images. validation_N: of the validation
    images that selected the head and are not in image_N. forced: whether the training was resumed
    by force with another config. backbone_N: of the images that fitted or selected the backbone in
    earlier runs of fgvc.
    """

    manifest: str
    split: str
    image_N: np.ndarray
    validation_N: np.ndarray
    forced: bool = False
    backbone_N: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def facts(self) -> dict[str, object]:
        """The facts in the checkpoint."""
        counts = {"images": len(self.image_N), "validation": len(self.validation_N)}
        backbone = {"backbone": len(self.backbone_N)} if len(self.backbone_N) else {}
        return {**counts, "forced": self.forced, **backbone}

    def tensors(self) -> dict[str, Tensor]:
        """The tensors in the checkpoint; without BACKBONE unless fgvc trained the backbone."""
        import torch

        arrays = {IMAGES: self.image_N, VALIDATION: self.validation_N}
        arrays |= {BACKBONE: self.backbone_N} if len(self.backbone_N) else {}
        return {name: torch.from_numpy(values_N) for name, values_N in arrays.items()}

    def overlap(self, image_N: np.ndarray) -> int:
        """The number of images (as `short_digests`) that fitted or selected head or backbone."""
        return overlap(np.concatenate([self.image_N, self.validation_N, self.backbone_N]), image_N)


def from_checkpoint(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Fit:
    """The Fit recorded in a checkpoint.

    Raises:
        KeyError: the checkpoint has no record of its fit (an older version wrote it).
        ValueError: a recorded tensor is not a list of short digests.
    """
    import torch

    for name in TENSORS:
        if name in tensors and (tensors[name].dtype != torch.int64 or tensors[name].ndim != 1):
            raise ValueError(f"{name}: not a list of int64")
    backbone = {"backbone_N": tensors[BACKBONE].numpy()} if BACKBONE in tensors else {}
    return Fit(
        facts["answer"]["manifest_digest"],
        facts["split_digest"],
        tensors[IMAGES].numpy(),
        tensors[VALIDATION].numpy(),
        facts["fit"]["forced"],
        **backbone,
    )


def short_digests(sha256: Sequence[str], row_N: np.ndarray | None = None) -> np.ndarray:
    """image_N: sorted int64 short digests.

    Args:
        sha256: in hexadecimal. row_N: the selected rows; None: all.
    """
    rows = range(len(sha256)) if row_N is None else row_N.tolist()
    short = b"".join(bytes.fromhex(sha256[row][:HEX]) for row in rows)
    return np.sort(np.frombuffer(short, ">i8").astype(np.int64))


def overlap(fitted_N: np.ndarray, image_N: np.ndarray) -> int:
    """The number of images in image_N that are in fitted_N; both as `short_digests`."""
    return int(np.isin(image_N, fitted_N).sum())


def earlier_runs(weights: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The runs of fgvc that trained the weights, the newest first."""
    while (made_by := weights.get("made_by")) is not None:
        yield made_by
        weights = made_by["weights"]
