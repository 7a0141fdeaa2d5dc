"""Index -> Manifest: SHA256 of every image, computed once and cached with the state of its file.

A later start only reads the states (one `stat` per image, see `file_state`). The bytes are compared
with the digest whenever they are decoded. The digest of the manifest does not depend on states.
Files of an official dataset must not change: a file with other bytes is refused. Images of a user's
own folder or table may change: such a file is hashed again, with a note, and the digest of the
manifest changes. N images; 4 values of a state.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fgvc.data import digest_cache, file_state
from fgvc.data.digest_cache import CHUNK, Digests, HexDigests
from fgvc.data.index import Index, repeated
from fgvc.data.split import SPLIT_NAMES
from fgvc.store import hashing, json_cache
from fgvc.types import ABSENT, TEST, TRAIN, VAL, Manifest, Progress, UserError

Result = TypeVar("Result")

CONTROL = re.compile(r"[\x00-\x1f\x7f]")
SLOW_STAT = 1e-4  # seconds per stat; a slower disk is read by several threads
THREADS = 8  # they wait for a disk or a network
SKIP_HINT = (
    "dataset.on_bad_image=skip leaves such images out of the fit and counts them as wrong in "
    "validation and test"
)
NO_SKIP_HINT = "task=eval keeps dataset.on_bad_image=error of its checkpoint"


def skip_hint(suggest_skip: bool) -> str:
    """The end of a message on an unreadable image: suggests skipping where the task allows it."""
    return f", or {SKIP_HINT}" if suggest_skip else f" ({NO_SKIP_HINT})"


class ImageFilesError(UserError):
    """Files cannot be read, or changed since they were hashed; the message names the first."""


@dataclass(frozen=True)
class Policy:
    """How to treat files that changed or cannot be read.

    rehash: accept files that changed since they were hashed. skip: keep files that cannot be read
    in the manifest, as ABSENT. restore, accept: advice for messages on files that cannot be read,
    and on files that changed. suggest_skip: whether messages may suggest dataset.on_bad_image=skip.
    """

    rehash: bool = False
    skip: bool = False
    restore: str = "restore it"
    accept: str = "restore it"
    suggest_skip: bool = True


def build(
    index: Index,
    cache_root: Path,
    progress: Progress | None = None,
    policy: Policy = Policy(),
    notify: Callable[[str], None] = lambda note: None,
    remember: bool = True,
) -> Manifest:
    """Manifest of an index; digests of unchanged files come from the cache.

    A file whose state changed is hashed again, and accepted if its bytes are the same.

    Args:
        cache_root: the digests are stored in cache_root/manifests/.
        progress: advanced by the number of files hashed.
        notify: called with notes on files that changed or cannot be read, and on a damaged cache.
        remember: whether to store new digests in the cache.

    Raises:
        ImageFilesError: files cannot be read, or changed, and the policy refuses them.
        UserError: no image of train, or none of test, can be read.
    """
    file = cache_file(index, cache_root)
    for path in index.path:
        if CONTROL.search(path):  # it would break a list of one path per line
            raise UserError(f"{index.root}: {path!r}: a control character in a name; rename it")
    values = itertools.chain.from_iterable(_stat_all(file_state.state, index))
    state_N4 = np.fromiter(values, dtype=np.int64, count=4 * len(index)).reshape(-1, 4)
    absent = np.flatnonzero(state_N4[:, file_state.SIZE] < 0)
    _check_absent(index, absent, policy)  # before the others are hashed
    if remember:
        json_cache.clear_folder(file.parent, notify)
    cached = digest_cache.load(file, len(index), notify)
    rows = np.setdiff1d(file_state.changed_rows(cached.state_N4, state_N4), absent)
    current, unreadable = _rehash(index, cached, state_N4, rows, policy, progress)
    if len(rows) > len(unreadable) and remember:
        digest_cache.save(file, current)
    absent = np.union1d(absent, unreadable)
    _check_absent(index, absent, policy)
    if len(altered := _altered_rows(cached, current)):
        notify(
            f"{len(altered)} of {len(index)} files changed since they were last hashed (first: "
            f"{index.path[altered[0]]}): hashed again; the manifest digest is new"
        )
    if len(absent):
        notify(
            f"{len(absent)} of {len(index)} images cannot be read (first: "
            f"{index.path[absent[0]]}: {_reason(index, absent[0])}); {SKIP_HINT}"
        )
    sha256_N = current.sha256_N.copy()
    sha256_N[absent] = np.void(bytes.fromhex(ABSENT))  # the cache keeps the last digest
    digests = HexDigests(sha256_N)
    return Manifest(
        index.root, index.path, index.label_N, index.split_N, digests, index.box_N4, index.parts
    )


def _rehash(
    index: Index,
    cached: Digests,
    state_N4: np.ndarray,
    rows: np.ndarray,
    policy: Policy,
    progress: Progress | None,
) -> tuple[Digests, np.ndarray]:
    """Hash `rows` again: new digests, and unreadable rows; ImageFilesError: files changed."""
    current = Digests(cached.state_N4.copy(), cached.sha256_N.copy())
    current.state_N4[rows] = state_N4[rows]
    if not policy.rehash:  # a file of another size need not be hashed
        resized_N = current.state_N4[:, file_state.SIZE] != cached.state_N4[:, file_state.SIZE]
        resized = np.flatnonzero(resized_N & _hashed_before(cached)).tolist()
        readable = [row for row in resized if _read_error(index, row) is None]
        _refuse_altered(index, np.array(readable, np.int64), policy)
    read_n = np.zeros(len(rows), bool)
    for position, sha256 in enumerate(_in_threads(_sha256, index, rows)):
        if sha256 is not None:
            current.sha256_N[rows[position]], read_n[position] = sha256, True
        if progress is not None:
            progress(1, "hashing")
    unreadable = rows[~read_n]
    current.state_N4[unreadable] = cached.state_N4[unreadable]
    if not policy.rehash:
        _refuse_altered(index, _altered_rows(cached, current), policy)
    return current, unreadable


def _hashed_before(cached: Digests) -> np.ndarray:
    return cached.state_N4[:, file_state.SIZE] >= 0


def _altered_rows(cached: Digests, current: Digests) -> np.ndarray:
    """Rows of files that were hashed before and have other bytes now."""
    return np.flatnonzero(_hashed_before(cached) & (cached.sha256_N != current.sha256_N))


def cache_file(index: Index, cache_root: Path) -> Path:
    """The cache file of these digests; its name is a hash of the root and the paths."""
    hasher = hashlib.sha256(os.fsencode(index.root.resolve()))
    for path in index.path:
        hasher.update(b"\0" + path.encode())
    return cache_root / "manifests" / f"{hasher.hexdigest()[:16]}.digests"


def duplicate_notes(manifest: Manifest) -> tuple[str, ...]:
    """Notes on identical files: in two splits, or with two labels outside test."""
    rows_of: dict[str, list[int]] = {sha256: [] for sha256 in repeated(manifest.sha256)}
    rows_of.pop(ABSENT, None)
    for row, sha256 in enumerate(manifest.sha256 if rows_of else ()):
        if sha256 in rows_of:
            rows_of[sha256].append(row)
    pairs: dict[str, list[tuple[int, int]]] = {}
    for left, right in ((TRAIN, TEST), (VAL, TEST), (TRAIN, VAL)):
        where = f"in both {SPLIT_NAMES[left]} and {SPLIT_NAMES[right]}"
        pairs[where] = []
        for rows in rows_of.values():
            split_R = manifest.split_N[rows]
            if (split_R == left).any() and (split_R == right).any():
                first, other = (int(np.argmax(split_R == split)) for split in (left, right))
                pairs[where].append((rows[first], rows[other]))
    conflicts = pairs["in train under two labels"] = []
    for rows in rows_of.values():
        fitted = [row for row in rows if manifest.split_N[row] != TEST]
        other = [row for row in fitted if manifest.label_N[row] != manifest.label_N[fitted[0]]]
        if other:
            conflicts.append((fitted[0], other[0]))
    notes = []
    for what, rows in pairs.items():
        if rows:
            left, right = (manifest.path[row] for row in rows[0])
            images = "1 image occurs" if len(rows) == 1 else f"{len(rows)} images occur"
            notes.append(f"{images} {what}, byte for byte (first: {left} = {right})")
    return tuple(notes)


def _check_absent(index: Index, rows: np.ndarray, policy: Policy) -> None:
    """Raise UserError if the policy does not skip unreadable files, or if all of train or all of
    test is unreadable."""
    if not len(rows):
        return
    message = f"{index.root / index.path[rows[0]]}: {_reason(index, rows[0])}"
    if not policy.skip:
        raise ImageFilesError(
            f"{message} ({len(rows)} of {len(index)} images cannot be read); {policy.restore}"
            f"{skip_hint(policy.suggest_skip)}"
        )
    remaining = np.delete(index.split_N, rows)
    for name, split in (("training", TRAIN), ("test", TEST)):
        if split in index.split_N and split not in remaining:
            raise UserError(f"{message}: none of the {name} images can be read; {policy.restore}")


def _read_error(index: Index, row: int) -> str | None:
    return file_state.read_error(f"{index.root}/{index.path[row]}")


def _reason(index: Index, row: int) -> str:
    return _read_error(index, row) or "could not be read a moment ago"


def _stat_all(function: Callable[[str], Result], index: Index) -> Iterator[Result]:
    """Call `function` on every file: with threads on a slow disk, without on a fast disk."""
    root, start = str(index.root), time.perf_counter()
    first = [function(f"{root}/{path}") for path in index.path[:CHUNK]]
    slow = time.perf_counter() - start > SLOW_STAT * len(first)
    yield from first
    if slow:
        yield from _in_threads(function, index, np.arange(len(first), len(index)))
    else:
        yield from (function(f"{root}/{path}") for path in index.path[CHUNK:])


def _sha256(path: str) -> bytes | None:
    try:
        return bytes.fromhex(hashing.sha256_file(path))
    except OSError as error:
        if error.errno not in file_state.FILE_ERRORS:
            raise
        return None


def _in_threads(
    function: Callable[[str], Result], index: Index, rows: np.ndarray
) -> Iterator[Result]:
    """Call `function` on the full path of each row, in order."""
    root = str(index.root)

    def run_chunk(start: int) -> list[Result]:
        chunk = rows[start : start + CHUNK].tolist()
        return [function(f"{root}/{index.path[row]}") for row in chunk]

    with ThreadPoolExecutor(THREADS) as pool:
        for results in pool.map(run_chunk, range(0, len(rows), CHUNK)):
            yield from results


def _refuse_altered(index: Index, rows: np.ndarray, policy: Policy) -> None:
    if len(rows):
        raise ImageFilesError(
            f"{index.root / index.path[rows[0]]}: altered since its digest was taken "
            f"({len(rows)} of {len(index)} files); {policy.accept}"
        )
