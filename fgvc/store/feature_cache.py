"""Manifest rows -> features that are computed once, even if processes compete or are killed.

    <root>/<32 hex digits of the key's digest>/
        key.json               the whole key, the digest of the rows, the shard length
        00000.safetensors      x (n, D) float32, row (n,) int64; metadata: the unreadable rows
        00000.sha256           digest of the shard; a shard that does not match is computed again
        done.json              written last: the digests of all shards
        lock                   one process computes, the others wait and then read

Rows are divided into shards before anything is computed, and only whole shards are computed.
Thus the batches, and the last bits of the features, do not depend on where a run was interrupted.
N requested rows, n rows of a shard, D feature width.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from fgvc import untrusted
from fgvc.store import atomic, hashing, json_cache, temporary_files
from fgvc.store.file_lock import lock
from fgvc.types import BadImage, Features, UserError

KEY, DONE = "key.json", "done.json"
# rows of several shards -> (index of the shard, features), in any order
ComputeMany = Callable[[Sequence[np.ndarray]], Iterator[tuple[int, Features]]]


class FeatureCache:
    """Features by key, under one folder."""

    def __init__(self, root: str | Path, notify: json_cache.Notify = warnings.warn) -> None:
        """notify is called with one line per damaged shard, which is computed again."""
        self.root = Path(root)
        self._notify = notify

    def get(
        self,
        key: Mapping[str, object],
        row_N: np.ndarray,
        compute_many: ComputeMany,
        shard_rows: int = 512,
        on_wait: Callable[[str], None] | None = None,
    ) -> Features:
        """The features of `row_N`: cached shards are read, missing shards are computed.

        Args:
            key: everything that can change a feature, as plain data.
            row_N: manifest rows, strictly ascending.
            compute_many: computes all missing shards, in any order; each row of a shard is returned
                in row_N or in bad. Not called if no shard is missing.
            shard_rows: rows per shard, which are lost if the process is killed.
            on_wait: called once with a line about the process that computes these features.

        Returns:
            x_ND float32 with its rows ascending, and the rows that could not be read.

        Raises:
            UserError: the folder of this key holds other features.
            OSError: a shard cannot be written; earlier shards are kept.
        """
        assert np.all(np.diff(row_N) > 0), "rows must ascend"
        folder = self.root / hashing.sha256_json(dict(key))[:32]
        for path in (self.root, folder):
            json_cache.clear_folder(path, self._notify)
        json_cache.remove_folder(folder / "lock")
        starts = range(0, len(row_N), shard_rows)
        shards = [
            (folder / f"{number:05d}.safetensors", row_N[start : start + shard_rows])
            for number, start in enumerate(starts)
        ]
        matrix = _Matrix(len(row_N))
        with lock(folder / "lock", wait=True, on_wait=on_wait):
            temporary_files.remove_stale(folder)
            self._check_key(folder, key, row_N, shard_rows)
            missing = []
            for start, (path, row_n) in zip(starts, shards, strict=True):
                if (shard := self._read(path, row_n)) is None:
                    missing.append((start, path, row_n))
                else:
                    matrix.put(start, shard)
            rows = [row_n for _, _, row_n in missing]
            for index, shard in compute_many(rows) if missing else ():
                start, path, row_n = missing[index]
                _write(path, row_n, shard)
                matrix.put(start, shard)
            features = matrix.features()
            if not any(bad.lost for bad in features.bad):
                digests = {path.name: _recorded_digest(path) for path, _ in shards}
                if json_cache.read(folder / DONE, self._notify) != digests:
                    json_cache.write(folder / DONE, digests)
        return features

    def _check_key(
        self, folder: Path, key: Mapping[str, object], row_N: np.ndarray, shard_rows: int
    ) -> None:
        """Write key.json, or compare it with the requested key.

        The shards are kept if key.json is damaged: the folder is named by the digest of the key,
        and each shard is compared with its digest and its rows.

        Raises:
            UserError: key.json is valid and of other features.
        """
        rows = hashing.sha256_bytes(np.ascontiguousarray(row_N, np.int64).tobytes())
        expected = {"key": dict(key), "rows": rows, "shard_rows": shard_rows}
        stored = json_cache.read(folder / KEY, self._notify)
        if stored is None:
            json_cache.write(folder / KEY, expected)
        elif hashing.canonical_json(stored) != hashing.canonical_json(expected):
            raise UserError(
                f"{folder / KEY} belongs to other features than the requested ones: delete {folder}"
            )

    def _read(self, path: Path, row_n: np.ndarray) -> Features | None:
        """The shard, or None if it is missing or damaged or has other rows."""

        def load(path: Path) -> Features | None:
            if hashing.sha256_file(path) != _recorded_digest(path):
                return None
            shard = _load_shard(path)
            return shard if _covers_rows(shard, row_n) else None

        return json_cache.read_whole(path, load, self._notify, "computed again")


def _covers_rows(shard: Features, row_n: np.ndarray) -> bool:
    """Whether every row occurs once, with features or in bad, and rows with features ascend."""
    good, bad = shard.row_N.tolist(), [bad.row for bad in shard.bad]
    return good == sorted(good) and sorted(good + bad) == row_n.tolist()


def _write(path: Path, row_n: np.ndarray, shard: Features) -> None:
    """Write the digest of a shard, then the shard: a shard without a digest would be discarded.

    A shard with a lost image is not written, because another run may read that image again.
    """
    assert _covers_rows(shard, row_n), "compute must account for every row"
    if any(bad.lost for bad in shard.bad):
        return
    tensors = {
        "x": np.ascontiguousarray(shard.x_ND, np.float32),
        "row": np.ascontiguousarray(shard.row_N, np.int64),
    }
    bad = json.dumps([[bad.row, bad.message] for bad in shard.bad])
    data = save(tensors, {"bad": bad})
    sidecar = path.with_suffix(".sha256")
    for file in (sidecar, path):
        json_cache.remove_folder(file)
    atomic.write_text(sidecar, hashing.sha256_bytes(data) + "\n")
    atomic.write_bytes(path, data)


def _recorded_digest(path: Path) -> str | None:
    try:
        return untrusted.read_text(path.with_suffix(".sha256"), 100, "latin-1").strip()
    except OSError:
        return None


def _load_shard(path: Path) -> Features:
    with safe_open(untrusted.require_regular(path), framework="np") as file:
        bad = tuple(BadImage(row, message) for row, message in json.loads(file.metadata()["bad"]))
        return Features(file.get_tensor("x"), file.get_tensor("row"), bad)


class _Matrix:
    """All shards in one array, allocated once: large datasets fill gigabytes."""

    def __init__(self, rows: int) -> None:
        self._x_ND = np.empty((0, 0), np.float32)
        self._row_N = np.empty(rows, np.int64)
        self._shards: dict[int, tuple[int, tuple[BadImage, ...]]] = {}  # start -> rows, bad

    def put(self, start: int, shard: Features) -> None:
        """Copy a shard to the place of its first requested row."""
        count = len(shard.row_N)
        if count and not self._x_ND.size:
            self._x_ND = np.empty((len(self._row_N), shard.x_ND.shape[1]), np.float32)
        if count:
            self._x_ND[start : start + count] = shard.x_ND
            self._row_N[start : start + count] = shard.row_N
        self._shards[start] = count, shard.bad

    def features(self) -> Features:
        """The features of all shards; rows move up where unreadable images left a gap."""
        end, bad = 0, []
        for start, (count, bad_of_shard) in sorted(self._shards.items()):
            if start > end:
                self._x_ND[end : end + count] = self._x_ND[start : start + count]
                self._row_N[end : end + count] = self._row_N[start : start + count]
            end += count
            bad += bad_of_shard
        return Features(self._x_ND[:end], self._row_N[:end], tuple(bad))
