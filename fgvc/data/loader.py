"""Rows of a manifest -> batches of pixels, in the order asked for, whatever the number of workers.

Each picture is read, held against its digest, decoded, cropped to its box where the manifest says
so, and preprocessed. One that cannot be decoded is reported in Batch.bad and never replaced; one
that the manifest did not see so ends the run.
B batch, C 3 channels, H = W side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fgvc.data.decode import ImageError, decode
from fgvc.data.preprocess import Preprocess, cropped
from fgvc.store import digest
from fgvc.types import BadImage, Batch, Manifest, UserError

MOST_WORKERS = 16


def batches(
    manifest: Manifest,
    row_N: np.ndarray,
    preprocess: Preprocess,
    batch_size: int,
    num_workers: int,
    check_digest: bool = True,
) -> Iterator[Batch]:
    """Batches of the rows, in their order.

    Args:
        row_N: rows of the manifest; may repeat.
        batch_size: pictures a batch, bad ones included; the last batch may be smaller.
        num_workers: processes that read ahead; 0 reads in this process.
        check_digest: compare each file with the manifest's SHA256.

    Yields:
        Batch with uint8 pixels; a batch of nothing but bad pictures has B = 0.

    Raises:
        UserError: a file that is missing, unreadable or altered, named; or a worker was killed.
    """
    loader = DataLoader(
        _Pictures(manifest, row_N, preprocess, check_digest),
        batch_size=batch_size,
        num_workers=min(num_workers, math.ceil(len(row_N) / batch_size)),
        collate_fn=_Collate(preprocess.side),
    )
    results = iter(loader)
    try:
        for start in range(0, len(row_N), batch_size):
            result = _next(results, manifest.path[row_N[start]])
            if isinstance(result, _Fatal):
                raise UserError(result.message)
            yield result
    finally:
        # an exception keeps this frame; its workers must not live as long
        del results


def worker_count(num_workers: int | None) -> int:
    """`runtime.num_workers`, or by default one process a core that this process may use.

    Raises:
        UserError: a negative number.
    """
    if num_workers is None:
        return min(_cores(), MOST_WORKERS)
    if num_workers < 0:
        raise UserError(f"runtime.num_workers={num_workers}: 0 or more; null for one a core")
    return num_workers


@dataclass(frozen=True)
class _Fatal:
    """Something that must end the run, carried out of a worker as a value: a raised exception would
    arrive as the text of a traceback."""

    message: str


Item = tuple[int, Tensor | BadImage | _Fatal]  # a manifest row and what became of it


class _Pictures(Dataset[Item]):
    """Picklable, so that workers can be spawned as well as forked; only the rows asked for."""

    def __init__(
        self, manifest: Manifest, row_N: np.ndarray, preprocess: Preprocess, check_digest: bool
    ) -> None:
        self.root = str(manifest.root)
        self.row: list[int] = row_N.tolist()
        self.path = [manifest.path[row] for row in self.row]
        self.sha256 = [manifest.sha256[row] if check_digest else None for row in self.row]
        self.box = None
        if manifest.cropped:
            assert manifest.box_N4 is not None
            self.box = manifest.box_N4[row_N].tolist()
        self.preprocess = preprocess

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, place: int) -> Item:
        row, path = self.row[place], self.path[place]
        try:
            data = _read(f"{self.root}/{path}", self.sha256[place])
        except UserError as error:
            return row, _Fatal(str(error))
        try:
            picture_CHW = decode(data, path)
            if self.box is not None:
                picture_CHW = cropped(picture_CHW, self.box[place])
            return row, self.preprocess(picture_CHW)
        except ImageError as error:
            return row, BadImage(row, str(error))
        except UserError as error:
            return row, BadImage(row, f"{path}: {error}")
        except Exception as error:
            raise RuntimeError(f"{path} (row {row}): {error!r}") from error


@dataclass(frozen=True)
class _Collate:
    side: int

    def __call__(self, items: list[Item]) -> Batch | _Fatal:
        for _, item in items:
            if isinstance(item, _Fatal):
                return item
        good = [(row, item) for row, item in items if isinstance(item, Tensor)]
        pixels = [item for _, item in good]
        return Batch(
            torch.stack(pixels) if pixels else torch.empty(0, 3, self.side, self.side).byte(),
            np.array([row for row, _ in good], dtype=np.int64),
            tuple(item for _, item in items if isinstance(item, BadImage)),
        )


def _read(path: str, sha256: str | None) -> bytes:
    """A file's bytes; UserError if they cannot be had or are not those of the digest."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 no Path object for every picture of an epoch
            data = file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); restore it") from error
    if sha256 is not None and digest.sha256_bytes(data) != sha256:
        raise UserError(f"{path}: altered since the manifest was made; restore it, or start again")
    return data


def _next(results: Iterator[Batch | _Fatal], path: str) -> Batch | _Fatal:
    """The next batch, whose first picture is `path`; UserError if a worker was killed."""
    try:
        with _one_thread():
            return next(results)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise UserError(
            f"a loader process died at or after {path} ({' '.join(str(error).split())}): out of "
            "memory? try a smaller runtime.num_workers or runtime.eval_batch_size"
        ) from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread while reading in this process: sharing a single small picture among threads
    costs several times what it saves. Worker processes have one anyway."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _cores() -> int:
    # the affinity mask where there is one: a batch system may lend fewer cores than there are
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
