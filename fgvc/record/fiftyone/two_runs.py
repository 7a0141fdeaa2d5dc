"""The datasets of two runs on the same images -> one dataset, in which each run has its own fields.

The samples are matched by id. The fields of a run end in what distinguishes it from the other run.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

from fgvc import untrusted
from fgvc.record.fiftyone import dataset, display_text, json_documents
from fgvc.record.fiftyone.json_documents import Document
from fgvc.record.fiftyone.run_fields import FIELDS, MAP, RunFields, comparison_views
from fgvc.store import atomic
from fgvc.types import UserError


def write(folder: Path, first: Path, second: Path) -> None:
    """Merge two datasets.

    Args:
        folder: is created. first, second: fiftyone/ of two runs.

    Raises:
        UserError: the runs have different images, or the same checkpoint.
        OSError: the disk refuses.
    """
    files = [source / "metadata.json" for source in (first, second)]
    documents = [untrusted.read_json(file, untrusted.LIST) for file in files]
    infos = [document["info"] for document in documents]
    if infos[0]["manifest_digest"] != infos[1]["manifest_digest"]:
        images = [f"{info['dataset']} {info['manifest_digest'][:16]}" for info in infos]
        raise UserError(
            f"run= and against= have different images ({images[0]} and {images[1]}): "
            "choose two runs on one dataset"
        )
    if infos[0]["checkpoint_id"] == infos[1]["checkpoint_id"]:
        raise UserError(
            f"run= and against= have the same checkpoint ({infos[0]['checkpoint_id'][:16]}) and "
            "thus the same predictions: choose another run, or leave against= out"
        )
    if documents[0]["default_classes"] != documents[1]["default_classes"]:
        raise UserError(
            "run= and against= name their classes differently, because one is an older record: "
            "repeat it with task=eval checkpoint=RUN, and view that record"
        )
    labels = display_text.run_labels(infos)
    runs = [RunFields(info, label) for info, label in zip(infos, labels, strict=True)]
    # evaluations and brain runs hold ids, but no names of fields: copied under new names
    kinds = [("evaluations", name) for name in FIELDS] + [("brain", MAP)]
    for source, run in zip((first, second), runs, strict=True):
        for kind, name in kinds:
            if (file := source / kind / f"{name}.json").is_file():
                data = untrusted.read_bytes(file, untrusted.ARRAYS)
                atomic.write_bytes(folder / kind / f"{run.key(name)}.json", data)
    dataset.write_samples(folder, map(json_documents.json_line, _merged(first, second, runs)))
    document = dataset.metadata(runs, documents[0]["default_classes"], comparison_views(*runs))
    atomic.write_json(folder / "metadata.json", document)


def samples(folder: Path) -> Iterator[Document]:
    with io.TextIOWrapper(untrusted.open_regular(folder / "samples.json"), "ascii") as lines:
        next(lines)
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line.rstrip(",\n"))


def _merged(first: Path, second: Path, runs: list[RunFields]) -> Iterator[Document]:
    def renamed(folder: Path, run: RunFields) -> Iterator[Document]:
        for sample in samples(folder):
            yield {run.key(key) if key in FIELDS else key: value for key, value in sample.items()}

    others = {sample["_id"]["$oid"]: sample for sample in renamed(second, runs[1])}
    for sample in renamed(first, runs[0]):
        yield {**others.pop(sample["_id"]["$oid"], {}), **sample}
    yield from others.values()  # the validation images of the runs may differ
