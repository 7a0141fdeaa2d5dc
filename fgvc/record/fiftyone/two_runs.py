"""The datasets of two runs over the same images -> one, in which each run has fields of its own.

A sample is in both by its id; what a run says of it is named after the run's checkpoint.
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
    """Lay two datasets side by side.

    Args:
        folder: is made. first, second: fiftyone/ of two runs.

    Raises:
        UserError: they are not of the same images, or one checkpoint's.
        OSError: the disk refuses.
    """
    found = [_metadata(first), _metadata(second)]
    _check(*(one["info"] for one in found))
    answers = [RunFields(one["info"]).named for one in found]
    for source, answer in zip((first, second), answers, strict=True):
        _copy_results(source, folder, answer)
    dataset.write_samples(folder, _joined(first, second, answers))
    classes = found[0]["default_classes"]
    dataset.write_metadata(folder, dataset.metadata(answers, classes, comparison_views(*answers)))


def samples(folder: Path) -> Iterator[Document]:
    """The samples of a dataset, one at a time."""
    with io.TextIOWrapper(untrusted.open_regular(folder / "samples.json"), "ascii") as lines:
        next(lines)
        for line in lines:
            if line.startswith("{"):
                yield json.loads(line.rstrip(",\n"))


def _metadata(folder: Path) -> dict[str, Any]:
    return untrusted.read_json(folder / "metadata.json", untrusted.LIST)


def _check(first: dict[str, Any], second: dict[str, Any]) -> None:
    if first["manifest_digest"] != second["manifest_digest"]:
        told = [f"{one['dataset']} {one['manifest_digest'][:16]}" for one in (first, second)]
        raise UserError(
            f"run= and against= are of other images ({told[0]} and {told[1]}): "
            "choose two runs of one dataset"
        )
    if first["checkpoint_id"] == second["checkpoint_id"]:
        raise UserError(
            f"run= and against= are of one checkpoint ({first['checkpoint_id'][:16]}), which says "
            "the same twice: choose another run, or leave against= out"
        )


def _copy_results(source: Path, folder: Path, answer: RunFields) -> None:
    """Results name samples and labels by id and no field: only the file's name is new."""
    for kind, names in (("evaluations", FIELDS), ("brain", (MAP,))):
        for name in names:
            if (file := source / kind / f"{name}.json").is_file():
                atomic.write_bytes(
                    folder / kind / f"{answer.key(name)}.json",
                    untrusted.read_bytes(file, untrusted.ARRAYS),
                )


def _joined(first: Path, second: Path, answers: list[RunFields]) -> Iterator[bytes]:
    theirs = {sample["_id"]["$oid"]: _renamed(sample, answers[1]) for sample in samples(second)}
    for sample in samples(first):
        beside = theirs.pop(sample["_id"]["$oid"], {})
        yield json_documents.json_line({**beside, **_renamed(sample, answers[0])})
    for alone in theirs.values():  # validation may be another
        yield json_documents.json_line(alone)


def _renamed(sample: Document, answer: RunFields) -> Document:
    return {answer.key(name) if name in FIELDS else name: value for name, value in sample.items()}
