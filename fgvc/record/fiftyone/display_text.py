"""Axes of runs and names of classes -> the names of datasets, fields and views in the App."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAIN = {  # axis -> its place in the config; the axes that usually distinguish two runs
    "task": "task.name",
    "backbone": "backbone.name",
    "size": "backbone.size",
    "head": "head.name",
    "resolution": "resolution.side",
    "part_attention": "part_attention.name",
}
MINOR = {  # named only if no axis of MAIN differs
    "features": "backbone.features",
    "preprocess": "preprocess",
    "precision": "precision",
    "final_fit": "final_fit",
    "seed": "seed",
}
FORMATS = {"resolution": "{} px", "seed": "seed {}"}
MAX_LABEL = 40  # characters of a run or class in a name
SHORT = 8  # hex digits of a checkpoint id in a name


def axes(value_at: Callable[[str], Any]) -> dict[str, str]:
    """The axes of a run as words. value_at: the value at a place in the run's config."""
    places = MAIN | MINOR
    return {axis: FORMATS.get(axis, "{}").format(value_at(at)) for axis, at in places.items()}


def title(info: Mapping[str, Any]) -> str:
    """The name of a run, with the checkpoint id that distinguishes repetitions."""
    return f"{info['name']} ({info['checkpoint_id'][:SHORT]})"


def dataset_name(infos: Sequence[Mapping[str, Any]]) -> str:
    """The name of the dataset of one run or of two runs."""
    if len(infos) == 1:
        return title(infos[0])
    ids = [info["checkpoint_id"][:SHORT] for info in infos]
    return f"{infos[0]['dataset']} {' against '.join(run_labels(infos))} ({', '.join(ids)})"


def run_labels(infos: Sequence[Mapping[str, Any]]) -> list[str]:
    """Label of each of two runs: the axes in which they differ, or the ids of their checkpoints.

    Args:
        infos: `info` of metadata.json; that of an older record has no axes.
    """
    first, second = (info.get("axes", {}) for info in infos)
    for group in (MAIN, MINOR):
        varied = [axis for axis in group if axis in first and first[axis] != second.get(axis)]
        labels = [
            shorten(" ".join(run.get(axis, "") for axis in varied)) for run in (first, second)
        ]
        if all(map(field_suffix, labels)) and len(set(map(field_suffix, labels))) == len(infos):
            return labels
    return [info["checkpoint_id"][:SHORT] for info in infos]


def field_suffix(label: str) -> str:
    """A label as the end of a field's name: letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def pair_name(label: str, pred: str, count: int) -> str:
    """A confusion of two classes; the first name omits the words that end both.

    >>> pair_name("Rusty Blackbird", "Brewer Blackbird", 8)
    'Rusty → Brewer Blackbird (8)'
    """
    words, pred_words = label.split(), pred.split()
    while len(words) > 1 and len(pred_words) > 1 and words[-1] == pred_words[-1]:
        words, pred_words = words[:-1], pred_words[:-1]
    return f"{shorten(' '.join(words))} → {shorten(pred)} ({count})"


def shorten(text: str) -> str:
    return text if len(text) <= MAX_LABEL else f"{text[: MAX_LABEL - 1]}…"


def slug(name: str) -> str:
    """The part of a URL that names a view, as FiftyOne makes it; "" if no character is left."""
    kept = re.sub(r"[^a-z0-9\s+_.-]", "", name.lower())
    return re.sub(r"[\s+_.-]+", "-", kept).strip("-")
