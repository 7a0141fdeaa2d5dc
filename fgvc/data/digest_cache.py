"""Digests of files and the states of those files -> one cache file, and back.

    32 bytes             SHA256 of what follows
    N x 4 x 8 bytes      states, little-endian int64
    N x 32 bytes         SHA256 of each file
N images; 4 values of a state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fgvc import untrusted
from fgvc.data.file_state import NO_STATE
from fgvc.store import atomic, json_cache

ROW_BYTES = 32  # of a state, and of a digest
CHUNK = 512  # files per step


@dataclass(frozen=True)
class Digests:
    """Digests, and the states of the files before they were hashed; NO_STATE: never hashed.

    sha256_N: 32 raw bytes each.
    """

    state_N4: np.ndarray
    sha256_N: np.ndarray


class HexDigests(Sequence[str]):
    """A sequence of hex digests, stored as 32 raw bytes each: 21 MB for 675,000, not 76 MB."""

    def __init__(self, raw_N: np.ndarray) -> None:
        self.raw_N = raw_N

    def __len__(self) -> int:
        return len(self.raw_N)

    def __getitem__(self, row: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.raw_N[row].tobytes().hex()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), CHUNK):
            yield from (raw.hex() for raw in self.raw_N[start : start + CHUNK].tolist())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


def load(file: Path, count: int, notify: Callable[[str], None]) -> Digests:
    """The cached digests of `count` files; none, with a note, if the cache is damaged."""
    empty = Digests(
        np.tile(np.array(NO_STATE, np.int64), (count, 1)), np.zeros(count, np.dtype("V32"))
    )
    try:
        data = untrusted.read_bytes(file, ROW_BYTES + 2 * ROW_BYTES * count)
    except FileNotFoundError:
        return empty
    except OSError:
        data = b""
    sha256, rows = data[:ROW_BYTES], data[ROW_BYTES:]
    if len(rows) != 2 * ROW_BYTES * count or hashlib.sha256(rows).digest() != sha256:
        notify(f"{file}: a damaged cache of digests; all {count} files are hashed again")
        return empty
    state_N4 = np.frombuffer(rows, "<i8", 4 * count).reshape(-1, 4).astype(np.int64)
    return Digests(state_N4, np.frombuffer(rows, "V32", count, ROW_BYTES * count))


def save(file: Path, digests: Digests) -> None:
    """Write the cache atomically; OSError: the file cannot be written."""
    rows = digests.state_N4.astype("<i8").tobytes() + digests.sha256_N.tobytes()
    json_cache.remove_folder(file)
    atomic.write_bytes(file, hashlib.sha256(rows).digest() + rows)
