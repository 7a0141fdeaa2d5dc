"""The datasets of two runs on the same images -> one dataset, in which each run has its own fields.

The samples are matched by id. The fields of a run end in what distinguishes it from the other run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

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
    with untrusted.open_regular(folder / "samples.json") as lines:
        next(lines)
        for line in lines:
            if line.startswith(b"{"):
                yield _parse(line)


def _merged(first: Path, second: Path, runs: list[RunFields]) -> Iterator[Document]:
    """The samples of both runs; those of the second are read where they are wanted."""

    def renamed(sample: Document, run: RunFields) -> Document:
        return {run.key(key) if key in FIELDS else key: value for key, value in sample.items()}

    with untrusted.open_regular(second / "samples.json") as others:
        place_of_id = _places(others)

        def other(place: int) -> Document:
            others.seek(place)
            return renamed(_parse(others.readline()), runs[1])

        for sample in samples(first):
            place = place_of_id.pop(sample["_id"]["$oid"], None)
            yield {**({} if place is None else other(place)), **renamed(sample, runs[0])}
        yield from map(other, place_of_id.values())  # the validation images of the runs may differ


def _places(lines: BinaryIO) -> dict[str, int]:
    """The start of each sample in a file, by the id of the sample."""
    place, places = len(lines.readline()), {}
    for line in lines:
        if line.startswith(b"{"):
            places[_parse(line)["_id"]["$oid"]] = place
        place += len(line)
    return places


def _parse(line: bytes) -> Document:
    return json.loads(line.rstrip(b",\n"))
