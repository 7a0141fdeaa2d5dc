"""Attention maps of some test images -> overlays/ and TensorBoard."""

from __future__ import annotations

from fgvc.record.writers.run_record import RunRecord, WriterSpec


def write(record: RunRecord) -> None:
    for name, png in record.images.overlays():
        record.run.write_bytes(f"overlays/{name}.png", png)
        record.board.image(f"overlays/{name}", png)


WRITER = WriterSpec("overlays", ("overlays/",), write)
