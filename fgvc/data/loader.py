"""Rows of a manifest -> batches of pixels, in the requested order for any number of workers.

Each image is read, compared with its digest, decoded, cropped to its box if the manifest states so,
and preprocessed (evaluation) or augmented (training). An image that cannot be decoded, or that
disappears during a run, is reported in Batch.bad and never replaced. A file whose bytes differ from
the manifest ends the run.
N requested images, B batch, C 3 channels, H = W side.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fgvc.data import file_state
from fgvc.data.decode import ImageError, decode
from fgvc.data.preprocess import Preprocess, check_box, crop_to_box
from fgvc.data.sampler import Draws
from fgvc.parallel import signals
from fgvc.store import hashing
from fgvc.types import ABSENT, BadImage, Batch, Manifest, UserError

if TYPE_CHECKING:  # after torch, torchvision is the slowest import of a probe
    from fgvc.data.augment import Augment

MAX_WORKERS = 16


def batches(
    manifest: Manifest,
    row_N: np.ndarray,
    preprocess: Preprocess,
    batch_size: int,
    num_workers: int,
    check_digest: bool = True,
    sections: Sequence[int] | None = None,
    pin: bool = False,
) -> Iterator[Batch]:
    """Batches of the rows, in order.

    Args:
        row_N: rows of the manifest; may repeat.
        batch_size: images per batch, including bad images; the last batch may be smaller.
        num_workers: processes that read ahead; 0 reads in this process.
        check_digest: compare each file with the manifest's SHA256; False if no digest was computed.
        sections: numbers of consecutive rows, with the number of rows as their sum; no batch
            crosses their ends. None: all rows are one section.
        pin: put the pixels into page-locked memory, from which a GPU copies without waiting.

    Yields:
        Batch with uint8 pixels; B = 0 if all images of the batch are bad.

    Raises:
        UserError: a file changed after the manifest was built, or a worker was killed.
    """
    images = _Images(manifest, row_N, preprocess, check_digest)
    ends = np.cumsum([len(row_N)] if sections is None else sections, dtype=np.int64).tolist()
    spans = [
        range(start, min(start + batch_size, end))
        for first, end in zip([0, *ends], ends, strict=False)
        for start in range(first, end, batch_size)
    ]
    yield from _read_in_order(images, spans, num_workers, "runtime.eval_batch_size", pin)


def training_batches(
    manifest: Manifest,
    draws: Draws,
    augment: Augment,
    epoch: int,
    sizes: Sequence[int],
    num_workers: int,
    pin: bool = False,
) -> Iterator[Batch]:
    """Augmented batches of the draws, in order: the images that one rank reads in one epoch.

    Args:
        draws: usually the concatenated draws of all remaining steps.
        epoch: with the draws, determines the augmentation.
        sizes: images per batch, including bad images; positive, with the number of draws as their
            sum. They change no pixel.
        num_workers, pin: as in `batches`, which also states what is raised.

    Yields:
        Batch as in `batches`, and place_B.
    """
    assert sum(sizes) == len(draws)
    assert min(sizes, default=1) > 0
    images = _AugmentedImages(manifest, draws, augment, epoch)
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    spans = [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    results = _read_in_order(images, spans, num_workers, "runtime.micro_batch", pin)
    for span, batch in zip(spans, results, strict=True):
        yield with_places(batch, draws, slice(span.start, span.stop))


def with_places(batch: Batch, draws: Draws, span: slice) -> Batch:
    """Add place_B to a batch. span: its draws, including the bad images."""
    # a row that is drawn twice is bad twice, so the row identifies the bad places
    good_B = ~np.isin(draws.row_N[span], [bad.row for bad in batch.bad])
    return replace(batch, place_B=draws.place_N[span][good_B])


def worker_count(num_workers: int | None) -> int:
    """`runtime.num_workers`, by default one per core of this process; UserError: it is negative."""
    if num_workers is None:
        # the affinity mask, if supported: a batch system may assign fewer cores than there are
        mask = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        return min(len(mask) or os.cpu_count() or 1, MAX_WORKERS)
    if num_workers < 0:
        raise UserError(f"runtime.num_workers={num_workers}: 0 or more; null for one per core")
    return num_workers


@dataclass(frozen=True)
class _Fatal:
    """An error that ends the run, returned as a value: an exception raised in a worker would arrive
    as the text of a traceback."""

    message: str


Item = tuple[int, Tensor | BadImage | _Fatal]  # a manifest row and the result of reading it


class _Images(Dataset[Item]):
    """The requested rows only, picklable, so that workers can be spawned or forked."""

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

    def transform(self, index: int, image_CHW: Tensor) -> Tensor:
        """Image -> square; UserError if the image is too thin."""
        return self.preprocess(image_CHW)

    def __getitem__(self, index: int) -> Item:
        row, path, sha256 = self.row[index], self.path[index], self.sha256[index]
        file = f"{self.root}/{path}"
        if sha256 == ABSENT:  # absent in the manifest: not read even if the file exists now
            reason = file_state.read_error(file) or "could not be read when the run began"
            return row, BadImage(row, f"{path}: {reason}")
        try:
            data = file_state.read(file)
        except file_state.UnreadableFileError as error:
            when = "" if sha256 is None else " since the run began"
            return row, BadImage(row, f"{path}: {error}{when}", lost=sha256 is not None)
        if sha256 is not None and hashing.sha256_bytes(data) != sha256:
            return row, _Fatal(
                f"{file}: altered since the manifest was made; restore it, or start again"
            )
        try:
            image_CHW = decode(data, path, self.max_pixels)
            if self.box is not None:
                check_box(image_CHW, self.box[index])
                image_CHW = crop_to_box(image_CHW, self.box[index])
            return row, self.transform(index, image_CHW)
        except ImageError as error:
            return row, BadImage(row, str(error))
        except UserError as error:
            return row, BadImage(row, f"{path}: {error}")
        except Exception as error:
            raise RuntimeError(f"{path} (row {row}): {error!r}") from error


class _AugmentedImages(_Images):
    def __init__(self, manifest: Manifest, draws: Draws, augment: Augment, epoch: int) -> None:
        super().__init__(manifest, draws.row_N, augment.preprocess, check_digest=True)
        self.augment = augment
        self.epoch = epoch
        self.key: list[int] = manifest.key_N[draws.row_N].tolist()
        self.occurrence: list[int] = draws.occurrence_N.tolist()

    def transform(self, index: int, image_CHW: Tensor) -> Tensor:
        return self.augment(image_CHW, self.epoch, self.key[index], self.occurrence[index])


class _LoadedBatch(Batch):
    def pin_memory(self) -> Batch:
        """Called by the DataLoader, in a thread of its own."""
        return replace(self, pixels_BCHW=self.pixels_BCHW.pin_memory())


@dataclass(frozen=True)
class _Collate:
    side: int

    def __call__(self, items: list[Item]) -> Batch | _Fatal:
        for _, item in items:
            if isinstance(item, _Fatal):
                return item
        good = [(row, item) for row, item in items if isinstance(item, Tensor)]
        pixels = [item for _, item in good]
        return _LoadedBatch(
            torch.stack(pixels) if pixels else torch.empty(0, 3, self.side, self.side).byte(),
            np.array([row for row, _ in good], dtype=np.int64),
            tuple(item for _, item in items if isinstance(item, BadImage)),
        )


def _read_in_order(
    images: _Images, spans: Sequence[range], num_workers: int, size_key: str, pin: bool
) -> Iterator[Batch]:
    """One batch per span of indices; `size_key` is the config key of the batch size."""
    loader = DataLoader(
        images,
        batch_sampler=spans,  # pyright: ignore[reportArgumentType] any sequences of indices
        num_workers=min(num_workers, len(spans)),
        collate_fn=_Collate(images.preprocess.side),
        worker_init_fn=_ignore_signals,
        pin_memory=pin,
        generator=torch.Generator(),  # its seed must not be drawn from the model's generator
    )
    results: Iterator[Any] | None = None
    workers: list[BaseProcess] = []
    earlier_children = multiprocessing.active_children()
    try:
        with signals.blocked(tracked=multiprocessing.get_start_method() != "fork"):
            try:
                results = iter(loader)
            finally:  # a signal handler may have raised
                children = multiprocessing.active_children()
                workers = [child for child in children if child not in earlier_children]
        for span in spans:
            result = _next_batch(results, images.path[span.start], size_key)
            if isinstance(result, _Fatal):
                raise UserError(result.message)
            yield result
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None:  # its frames hold the loader and the workers
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__cause__
        raise
    finally:
        # an exception keeps this frame alive; the workers must end now
        loader_reference = None if results is None else weakref.ref(results)
        del results
        if loader_reference is None or loader_reference() is None:
            for worker in workers:  # that outlived the loader: a starting worker blocks SIGTERM
                worker.kill()
                worker.join()


def _ignore_signals(worker: int) -> None:
    """Leave signals that reach every process of a job (of a cluster, or Ctrl-C) to the main
    process. The worker ignores the first SIGTERM; the second ends it, so that it can be stopped.
    """
    signals.ignore_first_sigterm()  # they were blocked before this process started


def _next_batch(results: Iterator[Batch | _Fatal], path: str, size_key: str) -> Batch | _Fatal:
    """The next batch; UserError if a worker was killed. path: of the batch's first image."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # threads would slow down the reading of a small image here
    try:
        return next(results)
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):
            raise
        raise UserError(
            f"a loader process died at or after {path} ({' '.join(str(error).split())}): out of "
            f"memory? try a smaller runtime.num_workers or {size_key}"
        ) from error
    finally:
        torch.set_num_threads(threads)
