"""The cascade and the certificate of fast predictions -> facts of metrics.json, and sentences.

Which images are checked follows from digests of the run and of its predictions: nobody can choose
them. An audit draws them again.
N images, n drawn images.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fgvc import metrics
from fgvc.store import hashing
from fgvc.types import nfc

CASCADE, CERTIFICATE = "cascade", "certificate"  # keys of metrics.json; CASCADE also of ckpt.bin
LEVEL = 0.95  # of confidence
# The bound is this many times the largest loss of margin seen. The statement about the share of
# images beyond it holds for a factor of 1 already. The factor covers test sets larger than the
# sample: for normal losses, the largest of 512 is 3 standard deviations, of 100,000 it is 4.3.
FACTOR = 2.0
DIGITS = 3  # of the largest loss, rounded up: the last bits of a logit differ between batch sizes


def digest(*parts: str | None) -> str:
    """The start of a draw: SHA256 over digests, 64 hex digits."""
    return hashing.sha256_json(list(parts))


def draw(seed: str, path: Sequence[str], count: int) -> np.ndarray:
    """Indices of `count` paths (all, if there are fewer), ascending.

    The paths are ordered by the SHA256 of seed and path; a larger count adds paths to a smaller.
    """
    keys = [hashlib.sha256(f"{seed} {nfc(name)}".encode()).digest() for name in path]
    return np.array(sorted(sorted(range(len(keys)), key=keys.__getitem__)[:count]), np.int64)


def digest_paths(path: Sequence[str]) -> str:
    """SHA256 over drawn paths, in their order."""
    return hashing.sha256_json([nfc(name) for name in path])


def cascade_bound(loss_n: np.ndarray) -> dict[str, Any]:
    """The margin below which a fast prediction is repeated.

    The sample is n images like the test images. With confidence LEVEL, at most `share` of all
    images lose more margin than the largest loss of the sample (Wilks, Annals of Mathematical
    Statistics 1941): a tolerance limit for any distribution.

    Args:
        loss_n: as from `metrics.margin_losses`.
    """
    largest = round_up(max(float(loss_n.max(initial=0.0)), 0.0))
    return {
        "sample": len(loss_n),
        "largest_loss": largest,
        "factor": FACTOR,
        "bound": FACTOR * largest,
        "share": metrics.upper_limit(0, len(loss_n), LEVEL) if len(loss_n) else 1.0,
        "level": LEVEL,
    }


def round_up(value: float) -> float:
    """To DIGITS significant digits."""
    if not (value and math.isfinite(value)):
        return value
    unit = 10.0 ** (math.floor(math.log10(value)) - DIGITS + 1)
    return float(f"{math.ceil(value / unit) * unit:.{DIGITS}g}")


def limit(differing: int, images: int, of: int) -> float:
    """Upper limit, at LEVEL, of the share of all images whose fp32 prediction differs.

    It is the share itself if every image was checked.
    """
    return differing / of if images == of else metrics.upper_limit(differing, images, LEVEL)


def sentences(numbers: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, sentence) of the cascade and of the certificate of metrics.json, if there are any."""
    lines = []
    if facts := numbers.get(CASCADE):
        share = 100 * facts["repeated"] / max(facts["images"], 1)
        lines.append(
            (
                CASCADE,
                f"{facts['repeated']} of {facts['images']} test images ({share:.1f} %) repeated in "
                f"fp32, because their margin is at most {facts['bound']:.3g}, {facts['factor']:g} "
                f"times the largest loss of margin of {facts['sample']} training images",
            )
        )
    if facts := numbers.get(CERTIFICATE):
        count, images, of = len(facts["differing"]), facts["images"], facts["of"]
        verb = "gets" if count == 1 else "get"
        if images == of:
            text = f"{count} of all {of} test images {verb} another prediction in fp32"
        else:
            percent = 100 * facts["limit"]
            # rounded up to two significant digits, so that "fewer than" stays true
            unit = 10.0 ** (math.floor(math.log10(percent)) - 1)
            shown = f"{math.ceil(percent / unit - 1e-9) * unit:.3g}"
            text = (
                f"{count} of {images} test images, drawn by digest, {verb} another prediction in "
                f"fp32; of all {of}, fewer than {shown} % ({100 * facts['level']:g} % confidence)"
            )
        lines.append((CERTIFICATE, text))
    return lines
