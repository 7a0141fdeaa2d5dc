"""(seed, epoch, image key, occurrence) -> the random stream of one image.

Every draw for an image follows from its key (fgvc.types.Manifest.key_N), not from its row in the
manifest. No draw depends on the order of the index, and adding or removing an image does not change
the draws of the others. Streams are hashes, not states of a library's generator. Thus they are the
same on every machine and with every library version.
N images.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np


def stream(seed: int, epoch: int, key: int, occurrence: int, purpose: bytes = b"") -> int:
    """BLAKE2b, 8 bytes, of the four numbers as little-endian uint64.

    Args:
        purpose: at most 16 bytes; keeps draws of different kinds independent.
    """
    packed = struct.pack("<4Q", seed, epoch, key, occurrence)
    digest = hashlib.blake2b(packed, digest_size=8, person=purpose).digest()
    return int.from_bytes(digest, "little")


def order_by_stream(
    key_N: np.ndarray, seed: int, epoch: int, purpose: bytes, occurrence_N: np.ndarray | None = None
) -> np.ndarray:
    """Indices that sort the keys by their streams: a seeded shuffle.

    Args:
        key_N: uint64.
        occurrence_N: distinguishes equal keys; None: all zero.
    """
    repeat_N = np.zeros(len(key_N), np.int64) if occurrence_N is None else occurrence_N
    pairs = zip(key_N.tolist(), repeat_N.tolist(), strict=True)
    streams = (stream(seed, epoch, key, occurrence, purpose) for key, occurrence in pairs)
    return np.argsort(np.fromiter(streams, np.uint64, len(key_N)), kind="stable")
