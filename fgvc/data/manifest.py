"""Index -> Manifest: SHA256 of every image, computed once and stored beside the state of its file.

A later start only reads the states (one `stat` per image); the bytes themselves are checked against
the digest whenever they are decoded. The digest of the manifest depends on no state.
N images; 4 values of a state: bytes, time of modification and time of change (ns), inode.

Size and time of modification alone miss files that were swapped: some archives give every file the
same time, and uncompressed images of one shape are equally long. On the file systems of Linux and
macOS, the time of change cannot be set by a program, and renaming a file updates it. Renaming a
folder does not, but gives its paths other inodes. On Windows the time of change is that of
creation. A file system without inodes reports 0, which is not compared; where inodes are not
stable, every start hashes every file.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import TypeVar

import numpy as np

from fgvc.data.index import Index, repeated
from fgvc.store import atomic, digest
from fgvc.types import TEST, Manifest, Progress, UserError

Result = TypeVar("Result")

CHUNK = 512  # files handed to a thread at a time
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SIZE, INODE = 0, 3  # columns of a state
MISSING = (-1, 0, 0, 0)
INODE_BITS = (1 << 63) - 1  # inodes of Windows have 128 bits
SLOW = 1e-4  # seconds a look; a disk that takes longer is asked by several threads
THREADS = 8  # waiting for a disk or a network, not computing


@dataclass(frozen=True)
class Known:
    """Digests, and the states of the files before they were hashed. sha256_N: 32 raw bytes each."""

    state_N4: np.ndarray
    sha256_N: np.ndarray


class Hex(Sequence[str]):
    """Digests of 32 raw bytes that read as 64 hex digits: 21 MB for 675,000 of them, not 76."""

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


def build(index: Index, cache_root: Path, progress: Progress | None = None) -> Manifest:
    """Manifest of an index, from the cache where the files are unchanged.

    A file of the same size whose state changed is hashed again, and accepted if its bytes are the
    same.

    Args:
        cache_root: the digests are kept in cache_root/manifests/.
        progress: advanced by the number of files hashed.

    Raises:
        UserError: files that are missing, or altered since they were hashed; names the first.
    """
    file = cache_file(index, cache_root)
    _check_names(index)
    state_N4 = _states(index)
    known = _load(file, len(index))
    if known is None:
        rows = np.arange(len(index))
        sha256_N = _hashed(index, rows, progress)
    else:
        rows = _changed(known.state_N4, state_N4)
        sha256_N = known.sha256_N.copy()
        _refuse_altered(index, rows[state_N4[rows, SIZE] != known.state_N4[rows, SIZE]], file)
        sha256_N[rows] = _hashed(index, rows, progress)
        _refuse_altered(index, rows[sha256_N[rows] != known.sha256_N[rows]], file)
    if len(rows):
        _save(file, Known(state_N4, sha256_N))
    names = Hex(sha256_N)
    return Manifest(
        index.root, index.path, index.label_N, index.split_N, names, index.box_N4, index.parts
    )


def cache_file(index: Index, cache_root: Path) -> Path:
    """Where the digests of these files are kept: named by the root and the paths in it."""
    running = hashlib.sha256(os.fsencode(index.root.resolve()))
    for path in index.path:
        running.update(b"\0" + path.encode())
    return cache_root / "manifests" / f"{running.hexdigest()[:16]}.npz"


def duplicate_notes(manifest: Manifest) -> tuple[str, ...]:
    """Notes on equal files: in both train and test, or under two labels in train."""
    rows_of: dict[str, list[int]] = {sha256: [] for sha256 in repeated(manifest.sha256)}
    if not rows_of:
        return ()
    for row, sha256 in enumerate(manifest.sha256):
        if sha256 in rows_of:
            rows_of[sha256].append(row)
    across, contradicting = [], []
    for rows in rows_of.values():
        train = [row for row in rows if manifest.split_N[row] != TEST]
        test = [row for row in rows if manifest.split_N[row] == TEST]
        if train and test:
            across.append((train[0], test[0]))
        other = [row for row in train if manifest.label_N[row] != manifest.label_N[train[0]]]
        if other:
            contradicting.append((train[0], other[0]))
    return _pair_note(manifest, across, "in both train and test") + _pair_note(
        manifest, contradicting, "in train under two labels"
    )


def _pair_note(manifest: Manifest, pairs: list[tuple[int, int]], what: str) -> tuple[str, ...]:
    if not pairs:
        return ()
    left, right = pairs[0]
    pictures = "1 picture occurs" if len(pairs) == 1 else f"{len(pairs)} pictures occur"
    first = f"{manifest.path[left]} = {manifest.path[right]}"
    return (f"{pictures} {what}, byte for byte (first: {first})",)


def _check_names(index: Index) -> None:
    """Refuse names that would break a list of one path a line.

    Raises:
        UserError: names the first.
    """
    for path in index.path:
        if CONTROL.search(path):
            raise UserError(f"{index.root}: {path!r}: a control character in a name; rename it")


def _states(index: Index) -> np.ndarray:
    """state_N4 of every file.

    Raises:
        UserError: missing files, the first and how many.
    """
    states = itertools.chain.from_iterable(_looked(_state, index))
    state_N4 = np.fromiter(states, dtype=np.int64, count=4 * len(index)).reshape(-1, 4)
    if len(missing := np.flatnonzero(state_N4[:, SIZE] < 0)):
        raise UserError(
            f"{index.root / index.path[missing[0]]}: missing, or no plain file ({len(missing)} of "
            f"the {len(index)} that the index names); restore them, or cut the index"
        )
    return state_N4


def _state(path: str) -> tuple[int, ...]:
    """State of a file; MISSING if there is no plain file."""
    try:
        stat = os.stat(path)  # noqa: PTH116 a Path for each of 675,000 files costs seconds
    except (FileNotFoundError, NotADirectoryError):
        return MISSING
    if not S_ISREG(stat.st_mode):
        return MISSING  # reading a pipe would wait for ever
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino & INODE_BITS


def _changed(before_N4: np.ndarray, now_N4: np.ndarray) -> np.ndarray:
    """Rows whose state changed; an inode of 0 is unknown."""
    differs_N4 = before_N4 != now_N4
    differs_N4[:, INODE] &= (before_N4[:, INODE] != 0) & (now_N4[:, INODE] != 0)
    return np.flatnonzero(differs_N4.any(axis=1))


def _looked(look: Callable[[str], Result], index: Index) -> Iterator[Result]:
    """`look` at every file: in turn on a fast disk, where threads would only get in the way."""
    root = str(index.root)
    start = time.perf_counter()
    first = [look(f"{root}/{path}") for path in index.path[:CHUNK]]
    slow = time.perf_counter() - start > SLOW * len(first)
    yield from first
    if slow:
        yield from _in_threads(look, index, np.arange(len(first), len(index)))
    else:
        yield from (look(f"{root}/{path}") for path in index.path[CHUNK:])


def _hashed(index: Index, rows: np.ndarray, progress: Progress | None) -> np.ndarray:
    sha256_N = np.empty(len(rows), dtype=np.dtype("V32"))
    for place, one in enumerate(_in_threads(digest.sha256_file, index, rows)):
        sha256_N[place] = bytes.fromhex(one)
        if progress is not None:
            progress(1, "hashing")
    return sha256_N


def _in_threads(work: Callable[[str], Result], index: Index, rows: np.ndarray) -> Iterator[Result]:
    """`work` on the full path of each row, in order."""
    root = str(index.root)

    def several(start: int) -> list[Result]:
        return [work(f"{root}/{index.path[row]}") for row in rows[start : start + CHUNK].tolist()]

    with ThreadPoolExecutor(THREADS) as pool:
        for results in pool.map(several, range(0, len(rows), CHUNK)):
            yield from results


def _refuse_altered(index: Index, rows: np.ndarray, file: Path) -> None:
    if len(rows):
        raise UserError(
            f"{index.root / index.path[rows[0]]}: altered since its digest was taken "
            f"({len(rows)} of {len(index)} files); restore it, or delete {file} to accept it"
        )


def _load(file: Path, count: int) -> Known | None:
    """The remembered columns; None where there are none, or none that can be read."""
    try:
        # opened here: np.load leaves the file open when it is no archive
        with file.open("rb") as data, np.load(data, allow_pickle=False) as columns:
            known = Known(columns["state_N4"], columns["sha256_N"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return known if len(known.state_N4) == count else None


def _save(file: Path, known: Known) -> None:
    with atomic.open_atomic(file) as out:
        np.savez(out, **vars(known))
