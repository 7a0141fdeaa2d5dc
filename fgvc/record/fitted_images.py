"""The images that a head was fitted or chosen on -> short digests in the checkpoint, overlap.

An image counts where it changed the head: as one of the fit, or as one of the validation split
whose predictions chose C, the learning rate or the epoch.

Where the backbone's weights come from a run of fgvc, the images that fitted or chose them count,
too: finetuned on another split, a backbone has seen test images with their labels.

An image is identified by the first eight bytes of its file's SHA256: 4.6 MB for the 579,184
training images of iNat2017, with a probability of any collision below 1e-8.
N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

IMAGES, VALIDATION, BACKBONE = "fit.images", "fit.validation", "fit.backbone"  # in ckpt.bin
TENSORS = (IMAGES, VALIDATION, BACKBONE)
HEX = 16  # digits of a SHA256 that make an int64


@dataclass(frozen=True)
class Fit:
    """What a head was fitted on. manifest, split: digests of the data it was fitted under.

    image_N: int64, sorted short digests, one per image of the fit. validation_N: likewise, of the
    validation images that chose the head without being in its fit. forced: whether the training
    was resumed by force, under another config than that of the state. backbone_N: likewise, of
    images that fitted or chose the backbone in earlier runs of fgvc.
    """

    manifest: str
    split: str
    image_N: np.ndarray
    validation_N: np.ndarray
    forced: bool = False
    backbone_N: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def facts(self) -> dict[str, object]:
        """Facts for the checkpoint."""
        backbone = {"backbone": len(self.backbone_N)} if len(self.backbone_N) else {}
        return {
            "images": len(self.image_N),
            "validation": len(self.validation_N),
            "forced": self.forced,
            **backbone,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for the checkpoint; no empty tensor for weights of another origin."""
        backbone = {BACKBONE: torch.from_numpy(self.backbone_N)} if len(self.backbone_N) else {}
        return {
            IMAGES: torch.from_numpy(self.image_N),
            VALIDATION: torch.from_numpy(self.validation_N),
            **backbone,
        }

    def overlap(self, image_N: np.ndarray) -> int:
        """How many of image_N, as `short_digests` gives them, fitted or chose head or backbone."""
        seen_N = np.concatenate([self.image_N, self.validation_N, self.backbone_N])
        return overlap(seen_N, image_N)


def from_checkpoint(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Fit:
    """The fit of a checkpoint.

    Raises:
        KeyError: the checkpoint does not record its fit (an older version wrote it).
        ValueError: the recorded tensors are no lists of short digests.
    """
    for name in TENSORS:
        if name in tensors and (tensors[name].dtype != torch.int64 or tensors[name].ndim != 1):
            raise ValueError(f"{name} is no list of int64")
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
    """image_N: int64, sorted, of digests in hexadecimal.

    Args:
        row_N: which of them; None: all.
    """
    rows = range(len(sha256)) if row_N is None else row_N.tolist()
    short = b"".join(bytes.fromhex(sha256[row][:HEX]) for row in rows)
    return np.sort(np.frombuffer(short, ">i8").astype(np.int64))


def overlap(fitted_N: np.ndarray, image_N: np.ndarray) -> int:
    """How many of image_N are among fitted_N; both as `short_digests` gives them."""
    return int(np.isin(image_N, fitted_N).sum())
