"""The head, or the whole network, of a run -> ckpt.bin, whose digest names the folder."""

from __future__ import annotations

from pathlib import Path

from fgvc.record import checkpoint
from fgvc.record.writers.run_record import RunRecord, WriterSpec


def write(record: RunRecord) -> None:
    """Write ckpt.bin, or copy the checkpoint that was evaluated, and note its id in the folder."""
    folder = record.run.path
    if isinstance(record.checkpoint, Path):
        record.run.checkpoint_id = checkpoint.copy(record.checkpoint, folder)
    else:
        record.run.checkpoint_id = checkpoint.write(folder, *record.checkpoint)


WRITER = WriterSpec("checkpoint", (checkpoint.FILE,), write)
