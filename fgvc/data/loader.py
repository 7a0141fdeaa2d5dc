"""Rows of a manifest -> batches of pixels, in the order asked for, whatever the number of workers.

Each image is read, held against its digest, decoded, cropped to its box where the manifest says
so, and preprocessed (evaluation) or augmented (training). One that cannot be decoded is reported in
Batch.bad and never replaced, as is a file that is missing; a file whose bytes are not those of the
manifest ends the run.
N images asked for, B batch, C 3 channels, H = W side.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fgvc.data import file_state
from fgvc.data.augment import Augment
from fgvc.data.decode import ImageError, decode
from fgvc.data.preprocess import Preprocess, check_box, crop_to_box
from fgvc.data.sampler import Draws
from fgvc.parallel import signals
from fgvc.store import hashing
from fgvc.types import ABSENT, BadImage, Batch, Manifest, UserError

MAX_WORKERS = 16


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
        batch_size: images a batch, bad ones included; the last batch may be smaller.
        num_workers: processes that read ahead; 0 reads in this process.
        check_digest: compare each file with the manifest's SHA256; without, the files were never
            looked at.

    Yields:
        Batch with uint8 pixels; a batch of nothing but bad images has B = 0.

    Raises:
        UserError: a file was altered since the manifest was made, named; or a worker was killed.
    """
    images = _Images(manifest, row_N, preprocess, check_digest)
    starts = range(0, len(row_N), batch_size)
    spans = [range(start, min(start + batch_size, len(row_N))) for start in starts]
    yield from _read_in_order(images, spans, num_workers, "runtime.eval_batch_size")


def training_batches(
    manifest: Manifest,
    draws: Draws,
    augment: Augment,
    epoch: int,
    sizes: Sequence[int],
    num_workers: int,
    check_digest: bool = True,
) -> Iterator[Batch]:
    """Augmented batches of the draws, in their order: what one rank reads of one epoch.

    Args:
        draws: from any step on; usually the joined parts of all the steps that are left.
        epoch: with the draws, decides the augmentation.
        sizes: images of each batch, bad ones included; positive, in sum those of the draws. They
            change no pixel.
        num_workers: processes that read ahead, two batches each; 0 reads in this process.
        check_digest: compare each file with the manifest's SHA256.

    Yields:
        Batch with uint8 pixels and place_B; a batch of nothing but bad images has B = 0.

    Raises:
        UserError: a file was altered since the manifest was made, named; or a worker was killed.
    """
    assert sum(sizes) == len(draws)
    assert min(sizes, default=1) > 0
    images = _AugmentedImages(manifest, draws, augment, epoch, check_digest)
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    spans = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    read = _read_in_order(images, spans, num_workers, "runtime.micro_batch")
    for span, batch in zip(spans, read, strict=True):
        yield with_places(batch, draws, slice(span.start, span.stop))


def with_places(batch: Batch, draws: Draws, span: slice) -> Batch:
    """The batch with place_B.

    Args:
        span: the draws of the batch, with those that could not be read.
    """
    # a row that is drawn twice is bad twice, so rows tell which places are left
    good_B = ~np.isin(draws.row_N[span], [bad.row for bad in batch.bad])
    return replace(batch, place_B=draws.place_N[span][good_B])


def worker_count(num_workers: int | None) -> int:
    """`runtime.num_workers`, or by default one process a core that this process may use.

    Raises:
        UserError: a negative number.
    """
    if num_workers is None:
        return min(_cores(), MAX_WORKERS)
    if num_workers < 0:
        raise UserError(f"runtime.num_workers={num_workers}: 0 or more; null for one a core")
    return num_workers


@dataclass(frozen=True)
class _Fatal:
    """Something that must end the run, carried out of a worker as a value: a raised exception would
    arrive as the text of a traceback."""

    message: str


Item = tuple[int, Tensor | BadImage | _Fatal]  # a manifest row and what became of it


class _Images(Dataset[Item]):
    """Picklable, so that workers can be spawned as well as forked; only the rows asked for."""

    def __init__(
        self, manifest: Manifest, row_N: np.ndarray, preprocess: Preprocess, check_digest: bool
    ) -> None:
        self.root = str(manifest.root)
        self.row: list[int] = row_N.tolist()
        self.path = [manifest.path[row] for row in self.row]
        self.sha256 = [manifest.sha256[row] if check_digest else None for row in self.row]
        cut_N4 = manifest.cut_N4
        self.box = None if cut_N4 is None else cut_N4[row_N].tolist()
        self.preprocess = preprocess
        self.max_pixels = manifest.max_pixels

    def __len__(self) -> int:
        return len(self.row)

    def square(self, index: int, image_CHW: Tensor) -> Tensor:
        """The square that an image becomes; UserError if it cannot."""
        return self.preprocess(image_CHW)

    def __getitem__(self, index: int) -> Item:
        row, path, sha256 = self.row[index], self.path[index], self.sha256[index]
        file = f"{self.root}/{path}"
        if sha256 == ABSENT:  # in the manifest: a file that appeared since is not read either
            why = file_state.read_error(file) or "could not be read when the run began"
            return row, BadImage(row, f"{path}: {why}")
        try:
            data = file_state.read(file)
        except file_state.UnreadableError as error:
            since = "" if sha256 is None else " since the run began"
            return row, BadImage(row, f"{path}: {error}{since}", lost=sha256 is not None)
        if sha256 is not None and hashing.sha256_bytes(data) != sha256:
            return row, _Fatal(
                f"{file}: altered since the manifest was made; restore it, or start again"
            )
        try:
            image_CHW = decode(data, path, self.max_pixels)
            if self.box is not None:
                check_box(image_CHW, self.box[index])
                image_CHW = crop_to_box(image_CHW, self.box[index])
            return row, self.square(index, image_CHW)
        except ImageError as error:
            return row, BadImage(row, str(error))
        except UserError as error:
            return row, BadImage(row, f"{path}: {error}")
        except Exception as error:
            raise RuntimeError(f"{path} (row {row}): {error!r}") from error


class _AugmentedImages(_Images):
    """The same images, augmented."""

    def __init__(
        self, manifest: Manifest, draws: Draws, augment: Augment, epoch: int, check_digest: bool
    ) -> None:
        super().__init__(manifest, draws.row_N, augment.preprocess, check_digest)
        self.augment = augment
        self.epoch = epoch
        self.key: list[int] = manifest.key_N[draws.row_N].tolist()
        self.occurrence: list[int] = draws.occurrence_N.tolist()

    def square(self, index: int, image_CHW: Tensor) -> Tensor:
        return self.augment(image_CHW, self.epoch, self.key[index], self.occurrence[index])


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


def _read_in_order(
    images: _Images, spans: Sequence[range], num_workers: int, knob: str
) -> Iterator[Batch]:
    """One batch for every span of indices; `knob` is the key that sets its size."""
    loader = DataLoader(
        images,
        batch_sampler=spans,  # pyright: ignore[reportArgumentType] any sequence of indices will do
        num_workers=min(num_workers, len(spans)),
        collate_fn=_Collate(images.preprocess.side),
        worker_init_fn=_ignore_signals,
        generator=torch.Generator(),  # what it draws on starting must not move the model's draws
    )
    results: Iterator[Any] | None = None
    workers: list[BaseProcess] = []
    before = multiprocessing.active_children()
    try:
        with signals.blocked(tracked=multiprocessing.get_start_method() != "fork"):
            try:
                results = iter(loader)
            finally:  # the handler of a notice in another thread may have raised
                workers = [
                    child for child in multiprocessing.active_children() if child not in before
                ]
        for span in spans:
            result = _next_batch(results, images.path[span.start], knob)
            if isinstance(result, _Fatal):
                raise UserError(result.message)
            yield result
    except BaseException as error:
        _clear_frames(error)
        raise
    finally:
        # an exception keeps this frame; its workers must not live as long
        gone = None if results is None else weakref.ref(results)
        del results
        if gone is None or gone() is None:
            _kill(workers)


def _clear_frames(error: BaseException | None) -> None:
    """Clear the frames of an exception: they hold the loader and its workers."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__


def _kill(workers: Sequence[BaseProcess]) -> None:
    """Kill workers that outlived their loader: a starting worker blocks SIGTERM."""
    for worker in workers:
        worker.kill()
        worker.join()


def _ignore_signals(worker: int) -> None:
    """Let a notice that reaches every process of a job (a cluster's, or Ctrl-C) be the main
    process's to answer. A second SIGTERM ends the worker: that is how it is cleared away.
    """
    for each in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    signals.unblock()  # they were blocked before this process started


def _next_batch(results: Iterator[Batch | _Fatal], path: str, knob: str) -> Batch | _Fatal:
    """The next batch, whose first image is `path`; UserError if a worker was killed."""
    try:
        with _one_thread():
            return next(results)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise UserError(
            f"a loader process died at or after {path} ({' '.join(str(error).split())}): out of "
            f"memory? try a smaller runtime.num_workers or {knob}"
        ) from error


@contextmanager
def _one_thread() -> Iterator[None]:
    """One torch thread while reading in this process: sharing a single small image among threads
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
