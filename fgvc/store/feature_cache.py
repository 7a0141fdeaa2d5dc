"""Manifest rows -> features that are computed once, whoever asks and whenever someone is killed.

    <root>/<32 hex digits of the key's digest>/
        key.json               what the features are of: the whole key, the rows, the shard length
        00000.safetensors      x (n, D) float32, row (n,) int64; metadata: the unreadable rows
        00000.sha256           digest of the shard; a shard that does not match is computed again
        done.json              written last: the digests of all shards
        lock                   one process computes, the others wait and then read

Rows are cut into shards before anything is computed, and `compute` sees whole shards only, so the
batches, and with them the last bits of the features, do not depend on where a run was interrupted.
N rows asked for, n rows of a shard, D feature width.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fgvc import untrusted
from fgvc.store import atomic, hashing, json_cache, temporary_files
from fgvc.store.file_lock import lock
from fgvc.types import BadImage, Compute, ComputeMany, Features, UserError

KEY, DONE = "key.json", "done.json"


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=2)


class FeatureCache:
    """Features by key, under one folder."""

    def __init__(self, root: str | Path, on_note: Callable[[str], None] = _warn) -> None:
        """on_note is told, in one line, of every shard that is damaged and computed again."""
        self.root = Path(root)
        self._on_note = on_note

    def get(
        self,
        key: Mapping[str, object],
        row_N: np.ndarray,
        compute: Compute,
        shard_rows: int = 512,
        on_wait: Callable[[str], None] | None = None,
        compute_many: ComputeMany | None = None,
    ) -> Features:
        """The features of `row_N`, read where they lie and computed where they do not.

        Args:
            key: everything that can change a feature, as plain data.
            row_N: manifest rows, strictly ascending.
            compute: rows of one shard -> their features; each row comes back in row_N or in bad.
            shard_rows: rows computed and kept at once; what a kill can cost.
            on_wait: told once, in one line, who is computing these features already.
            compute_many: computes the missing shards at once, where several can; the bytes are the
                same as those of `compute`, shard by shard.

        Returns:
            x_ND float32 with its rows ascending, and the rows that could not be read.

        Raises:
            UserError: the folder holds features of something else under this key.
            OSError: the disk refused a write; earlier shards are kept.
        """
        assert np.all(np.diff(row_N) > 0), "rows must ascend"
        folder = self.root / hashing.sha256_bytes(hashing.canonical_json(dict(key)))[:32]
        for each in (self.root, folder):
            json_cache.clear_folder(each, self._on_note)
        json_cache.remove_folder(folder / "lock")
        with lock(folder / "lock", wait=True, on_wait=on_wait):
            temporary_files.remove_stale(folder)
            _check_key(folder, key, row_N, shard_rows, self._on_note)
            if compute_many is not None:
                self._fill(folder, row_N, compute_many, shard_rows)
            features = _concatenate(self._shards(folder, row_N, compute, shard_rows), len(row_N))
            if not any(bad.lost for bad in features.bad):
                _write_done(folder, len(row_N), shard_rows, self._on_note)
        return features

    def _shards(
        self, folder: Path, row_N: np.ndarray, compute: Compute, shard_rows: int
    ) -> Iterator[Features]:
        for path, row_n in _shard_rows(folder, row_N, shard_rows):
            shard = self._read(path, row_n)
            if shard is None:
                shard = compute(row_n)
                assert _covers_rows(shard, row_n), "compute must account for every row"
                _write(path, shard)
            yield shard

    def _fill(
        self, folder: Path, row_N: np.ndarray, compute_many: ComputeMany, shard_rows: int
    ) -> None:
        """Write every shard that is missing, each as soon as it is there."""
        shards = _shard_rows(folder, row_N, shard_rows)
        missing = [(path, row_n) for path, row_n in shards if self._read(path, row_n) is None]
        for place, shard in compute_many([row_n for _, row_n in missing]) if missing else ():
            path, row_n = missing[place]
            assert _covers_rows(shard, row_n), "compute must account for every row"
            _write(path, shard)

    def _read(self, path: Path, row_n: np.ndarray) -> Features | None:
        """The shard, or None where it is missing or is not what was written for these rows."""
        if not os.path.lexists(path):
            return None
        try:
            sha256 = hashing.sha256_file(path)
            shard = _load_shard(path) if sha256 == _recorded_digest(path) else None
            if shard is not None and _covers_rows(shard, row_n):
                return shard
            reason = "it does not match its digest or its rows"
        except OSError as error:
            reason = error.strerror or str(error)
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
            reason = "no shard of features"
        json_cache.report(path, reason, self._on_note, "computed again")
        return None


def _shard_rows(
    folder: Path, row_N: np.ndarray, shard_rows: int
) -> Iterator[tuple[Path, np.ndarray]]:
    """The file and the rows of each shard."""
    for number, start in enumerate(range(0, len(row_N), shard_rows)):
        yield folder / f"{number:05d}.safetensors", row_N[start : start + shard_rows]


def _check_key(
    folder: Path,
    key: Mapping[str, object],
    row_N: np.ndarray,
    shard_rows: int,
    on_note: Callable[[str], None],
) -> None:
    """Write key.json, or compare the key that is there with the one that is asked for.

    The shards stay if key.json is damaged: the folder is named by the digest of the key, and each
    shard is compared with its own digest and its rows.

    Raises:
        UserError: a whole key.json of other features.
    """
    rows = hashing.sha256_bytes(np.ascontiguousarray(row_N, np.int64).tobytes())
    wanted = {"key": dict(key), "rows": rows, "shard_rows": shard_rows}
    path = folder / KEY
    known = json_cache.read(path, on_note)
    if known is None:
        json_cache.write(path, wanted)
    elif hashing.canonical_json(known) != hashing.canonical_json(wanted):
        raise UserError(f"{path} is of other features than those asked for: delete {folder}")


def _covers_rows(shard: Features, row_n: np.ndarray) -> bool:
    """Whether every row is there once, with features or among the bad, and the good ones ascend."""
    good, bad = shard.row_N.tolist(), [bad.row for bad in shard.bad]
    return good == sorted(good) and sorted(good + bad) == row_n.tolist()


def _write(path: Path, shard: Features) -> None:
    """Write a shard whole, its digest first: a shard without one would have to be thrown away.

    A shard that lacks a lost image is not written: another run may read that image again.
    """
    if any(bad.lost for bad in shard.bad):
        return
    tensors = {
        "x": np.ascontiguousarray(shard.x_ND, np.float32),
        "row": np.ascontiguousarray(shard.row_N, np.int64),
    }
    bad = json.dumps([[bad.row, bad.message] for bad in shard.bad])
    data = save(tensors, {"bad": bad})
    sidecar = path.with_suffix(".sha256")
    for each in (sidecar, path):
        json_cache.remove_folder(each)
    atomic.write_text(sidecar, hashing.sha256_bytes(data) + "\n")
    atomic.write_bytes(path, data)


def _recorded_digest(path: Path) -> str | None:
    try:
        return (
            untrusted.read_bytes(path.with_suffix(".sha256"), 100).decode(errors="replace").strip()
        )
    except OSError:
        return None


def _load_shard(path: Path) -> Features:
    with safe_open(untrusted.require_regular(path), framework="np") as file:
        bad = tuple(BadImage(row, message) for row, message in json.loads(file.metadata()["bad"]))
        return Features(file.get_tensor("x"), file.get_tensor("row"), bad)


def _concatenate(shards: Iterator[Features], rows: int) -> Features:
    """All shards in one array, allocated once: features of a large dataset fill gigabytes."""
    x_ND = np.empty((0, 0), np.float32)
    row_N = np.empty(rows, np.int64)
    bad: list[BadImage] = []
    n = 0
    for shard in shards:
        bad += shard.bad
        if not len(shard.row_N):
            continue
        if n == 0:
            x_ND = np.empty((rows, shard.x_ND.shape[1]), np.float32)
        until = n + len(shard.row_N)
        x_ND[n:until], row_N[n:until] = shard.x_ND, shard.row_N
        n = until
    return Features(x_ND[:n], row_N[:n], tuple(bad))


def _write_done(folder: Path, rows: int, shard_rows: int, on_note: Callable[[str], None]) -> None:
    """Write done.json, unless it lists these very shards already."""
    names = [f"{number:05d}.safetensors" for number in range(-(-rows // shard_rows))]
    shards = {name: _recorded_digest(folder / name) for name in names}
    path = folder / DONE
    if json_cache.read(path, on_note) != shards:
        json_cache.write(path, shards)
