"""The results of a run -> fiftyone/, the dataset for the FiftyOne App."""

from __future__ import annotations

import os
from operator import attrgetter
from pathlib import Path

from fgvc.record.writers.run_record import RunRecord, WriterSpec


def write(record: RunRecord) -> None:
    """Write the FiftyOneDataset of a run, with its own numbers: FiftyOne averages otherwise."""
    from fgvc.html.class_names import display_names
    from fgvc.record.fiftyone import dataset
    from fgvc.record.fiftyone.samples import RunResults

    run, conf, data = record.run, record.conf, record.dataset
    assert run.checkpoint_id is not None, "the checkpoint comes first"
    below = Path(os.path.relpath(data.manifest.root, record.images.root)).as_posix()
    run_results = RunResults(
        data.manifest,
        below,
        display_names(data.labelmap.names),
        run.checkpoint_id,
        record.predictions,
        record.features,
        record.images.heat_map,
    )
    numbers = {split: record.numbers[split] for split in record.predictions}
    about = dataset.describe(lambda place: attrgetter(place)(conf), record.stamp, numbers)
    dataset.write(run.path / dataset.FOLDER, run_results, about)


WRITER = WriterSpec(("fiftyone/",), write)
