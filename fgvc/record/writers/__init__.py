"""The results of a run -> the files of its folder, written by an ordered tuple of writers.

A writer is a `WriterSpec`: its files, and a function of the `RunRecord`. The order matters
in four places: the checkpoint comes first, because FiftyOne and the page quote its digest; the
overlays come before TensorBoard is closed; stamp and metrics hold the wall time of the run, so they
come after all that takes long and is not derived from them; the page comes last, because it lists
the other files.
Files that are known when a run starts (config.yaml, command.txt, code.patch) are written by
`run_dir.open_run`; the index, the status and the retention when the folder is sealed.

A writer imports what draws (jinja2, Pillow's fonts, FiftyOne's documents) when it writes, so that
a task starts without them.
"""

from __future__ import annotations

from collections.abc import Sequence

from fgvc.record.writers import fiftyone, files, tensorboard
from fgvc.record.writers.run_record import RunImages, RunRecord, WriterSpec

__all__ = ["WRITERS", "RunImages", "RunRecord", "WriterSpec", "write_record"]

WRITERS = (
    files.CHECKPOINT,
    files.LABEL_MAP,
    files.SPLITS,
    files.UNREADABLE,
    files.PREDICTIONS,
    files.CONFUSION,
    files.OVERLAYS,
    fiftyone.WRITER,
    files.STAMP,
    files.METRICS,
    tensorboard.WRITER,
    files.PAGE,
)


def write_record(record: RunRecord, writers: Sequence[WriterSpec] = WRITERS) -> None:
    """Write the files of a record, in the order of the writers.

    Raises:
        OSError: a file cannot be written.
    """
    for writer in writers:
        writer.write(record)
