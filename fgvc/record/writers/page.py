"""The other files of a run folder -> report.html."""

from __future__ import annotations

from fgvc.record.writers.run_record import RunRecord, WriterSpec


def write(record: RunRecord) -> None:
    """Write the page of a run whose other files are complete."""
    from fgvc.record import run_page
    from fgvc.record.run_page.album import Album

    run, album = record.run, Album(record.images.pixels)
    assert run.checkpoint_id is not None, "the checkpoint comes first"
    text = run_page.derive(
        run.path, record.conf, record.name, run.checkpoint_id, record.board.history, album
    )
    run.write_text("report.html", text)


WRITER = WriterSpec("page", ("report.html",), write)
