"""TensorBoard events -> an event file, written in the calling thread -> the curves of its scalars.

TensorBoard's own writer runs in a separate thread. On a full disk it prints a traceback, and a
later call raises an error without path and size.
"""

from __future__ import annotations

import itertools
import logging
import os
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c

from fgvc import untrusted
from fgvc.store.disk_errors import open_named

FLUSH = 120.0  # seconds between flushes; a kill can lose the events of this time
_number = itertools.count()


class Events:
    """One event file; errors of the disk name its path."""

    def __init__(self, folder: Path) -> None:
        with _without_boto3():
            from tensorboard.compat.proto import event_pb2

        folder.mkdir(parents=True, exist_ok=True)
        owner = f"{int(time.time()):010}.{os.getpid()}"  # no host name: records are shared
        self._folder = folder
        self.path = folder / f"events.out.tfevents.{owner}.{next(_number)}"
        self._file = open_named(self.path)
        self._flushed = time.monotonic()
        messages: Any = event_pb2  # its classes are generated on import
        source = messages.SourceMetadata(writer="fgvc")
        self.add_event(
            messages.Event(
                wall_time=time.time(), file_version="brain.Event:2", source_metadata=source
            )
        )
        self.flush()

    def get_logdir(self) -> str:
        return str(self._folder)

    def add_event(self, event: Any) -> None:
        """Write a record of TFRecord: TensorBoard's own writer computes the sums in Python."""
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length) + data + _checksum(data))
        if time.monotonic() - self._flushed > FLUSH:
            self.flush()

    def flush(self) -> None:
        self._file.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        """Close silently, because another error is being raised."""
        self._file.abandon()
        self._file.close()


def _checksum(data: bytes) -> bytes:
    """The CRC-32C of a TFRecord, masked: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def summary_writer(folder: Path) -> tuple[Any, Events]:
    """A torch SummaryWriter that writes through Events, and these Events."""
    with _without_boto3():
        from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

    events = Events(folder)

    class EventFileWriter(FileWriter):
        def __init__(self) -> None:
            self.event_writer = events  # type: ignore[assignment]

    class Writer(SummaryWriter):
        def _get_file_writer(self) -> FileWriter:
            if self.file_writer is None:
                self.file_writer = EventFileWriter()
                self.all_writers = {str(folder): self.file_writer}
            return self.file_writer

    return Writer(str(folder)), events


@contextmanager
def _without_boto3() -> Iterator[None]:
    """Let `import boto3` fail: TensorBoard imports it for buckets where it is installed, and that
    takes longer than writing the events of a run."""
    if "boto3" in sys.modules:
        yield
        return
    sys.modules["boto3"] = None  # type: ignore[assignment]  # the import system allows None
    try:
        yield
    finally:
        del sys.modules["boto3"]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Points (step, value) of each scalar tag, in the order of writing; values are float32.

    Args:
        folder: a run folder.

    Raises:
        OSError: tb/ is missing, or one of its event files is a pipe or device.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    limits = {"scalars": 0, "images": 1, "tensors": 1, "histograms": 1, "compressedHistograms": 1}
    for file in (folder / "tb").iterdir():
        if "tfevents" in file.name:
            untrusted.require_regular(file)
    events = EventAccumulator(str(folder / "tb"), size_guidance=limits).Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }
