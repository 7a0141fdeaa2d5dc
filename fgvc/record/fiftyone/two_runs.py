"""The datasets of two runs on the same images -> one dataset, in which each run has its own fields.

The samples are matched by id. The fields of a run end in the id of its checkpoint.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.record.fiftyone import dataset, json_documents
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
    documents = [
        untrusted.read_json(source / "metadata.json", untrusted.LIST) for source in (first, second)
    ]
    infos = [document["info"] for document in documents]
    _check(*infos)
    runs = [RunFields(info).with_suffix() for info in infos]
    for source, run in zip((first, second), runs, strict=True):
        _copy_results(source, folder, run)
    dataset.write_samples(folder, _merged_samples(first, second, runs))
    classes = documents[0]["default_classes"]
    document = dataset.metadata(runs, classes, comparison_views(*runs))
    atomic.write_json(folder / "metadata.json", document)


def samples(folder: Path) -> Iterator[Document]:
    """The samples of a dataset, one at a time."""
    with io.TextIOWrapper(untrusted.open_regular(folder / "samples.json"), "ascii") as lines:
        next(lines)
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line.rstrip(",\n"))


def _check(first: dict[str, Any], second: dict[str, Any]) -> None:
    if first["manifest_digest"] != second["manifest_digest"]:
        images = [f"{info['dataset']} {info['manifest_digest'][:16]}" for info in (first, second)]
        raise UserError(
            f"run= and against= have different images ({images[0]} and {images[1]}): "
            "choose two runs on one dataset"
        )
    if first["checkpoint_id"] == second["checkpoint_id"]:
        raise UserError(
            f"run= and against= have the same checkpoint ({first['checkpoint_id'][:16]}) and thus "
            "the same predictions: choose another run, or leave against= out"
        )


def _copy_results(source: Path, folder: Path, run: RunFields) -> None:
    """Copy evaluations and brain runs under new names; they hold ids, but no field names."""
    for kind, names in (("evaluations", FIELDS), ("brain", (MAP,))):
        for name in names:
            if (file := source / kind / f"{name}.json").is_file():
                data = untrusted.read_bytes(file, untrusted.ARRAYS)
                atomic.write_bytes(folder / kind / f"{run.key(name)}.json", data)


def _merged_samples(first: Path, second: Path, runs: list[RunFields]) -> Iterator[bytes]:
    second_samples = {
        sample["_id"]["$oid"]: _rename_fields(sample, runs[1]) for sample in samples(second)
    }
    for sample in samples(first):
        other = second_samples.pop(sample["_id"]["$oid"], {})
        yield json_documents.json_line({**other, **_rename_fields(sample, runs[0])})
    for sample in second_samples.values():  # the validation images of the runs may differ
        yield json_documents.json_line(sample)


def _rename_fields(sample: Document, run: RunFields) -> Document:
    return {run.key(name) if name in FIELDS else name: value for name, value in sample.items()}
