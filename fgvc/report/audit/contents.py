"""Does the folder hold what it must, and do its parts agree on images, classes and splits?"""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np

from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree, join_names
from fgvc.report.audit.record import PREDICTIONS, SPLITS, Record
from fgvc.store import hashing
from fgvc.types import Split

MINIMUM = {  # what every record must hold
    "per_class.csv": "per-class accuracy",
    "confusion.csv": "confusion matrix",
    "confusion.png": "the same to look at",
    PREDICTIONS: "top-k and every wrong answer",
    "tb": "TensorBoard",
    "fiftyone/samples.json": "misclassification view",
    "report.html": "page",
}


def minimum_contents(record: Record) -> str:
    """Are per-class accuracy, confusion matrix, top-k numbers and wrong answers all there?"""
    absent = [f"{name} ({what})" for name, what in MINIMUM.items() if not _there(record, name)]
    if absent:
        raise DamageError(f"missing: {join_names(absent)}")
    test, rows = record.numbers["test"], record.predictions["test"]
    wrong = int((rows.pred_N != rows.label_N).sum())
    return f"{', '.join(MINIMUM)}; top-5 {test['top5']:.4f}; {wrong} wrong of {len(rows.label_N)}"


def _there(record: Record, name: str) -> bool:
    return any(one == name or one.startswith(f"{name}/") for one in record.artifacts)


def labelmap(record: Record) -> str:
    """Does labelmap.json match its checksum, the stamp, and the classes of the predictions?"""
    found = record.labelmap
    agree(
        "the checksum",
        ("labelmap.json's classes", found.digest),
        ("labelmap.json", record.json("labelmap.json")["checksum"]),
        ("env_stamp.json", record.stamp["labelmap_digest"]),
    )
    twice = [name for name, count in Counter(found.ids).items() if count > 1]
    if twice:
        raise DamageError(f"labelmap.json: ids twice: {join_names(twice)}")
    label_N = np.concatenate([rows.label_N for rows in record.predictions.values()])
    if not 0 <= label_N.min() <= label_N.max() < len(found):
        raise DamageError(f"{PREDICTIONS}: labels beyond the {len(found)} of labelmap.json")
    return f"{len(found)} classes, sha256 {found.digest}"


def splits(record: Record) -> str:
    """Do the split files match their digests, share no image, and name those predicted?"""
    told, images = record.json("splits/digests.json"), {one: record.split(one) for one in SPLITS}
    for name, paths in images.items():
        file = f"splits/{name}.txt"
        found = hashing.sha256_bytes(record.data(file))
        agree("the sha256", ("splits/digests.json", told[name]["sha256"]), (file, found))
        agree("the count", ("splits/digests.json", told[name]["images"]), (file, len(paths)))
    together = [path for paths in images.values() for path in paths]
    shared = [path for path, count in Counter(together).items() if count > 1]
    if shared:
        raise DamageError(f"splits: in more than one: {join_names(shared, most=2)}")
    agree(
        "split_digest",
        ("the split files", _digest(images)),
        ("splits/digests.json", told["split_digest"]),
        ("env_stamp.json", record.stamp["split_digest"]),
    )
    for name, rows in record.predictions.items():
        agree(f"{name}", ("the split file", sorted(images[name])), (PREDICTIONS, sorted(rows.path)))
    counts = ", ".join(f"{name} {len(paths)}" for name, paths in images.items())
    return f"{counts}; disjoint; split_digest {told['split_digest']}"


def _digest(images: dict[str, list[str]]) -> str:
    ends = np.cumsum([0, *(len(images[name]) for name in SPLITS)])
    rows = [np.arange(start, end) for start, end in itertools.pairwise(ends)]
    return Split(*rows).digest(tuple(path for name in SPLITS for path in images[name]))


def counts(record: Record) -> str:
    """Are there as many classes and images as the dataset officially has, or is it declared?"""
    train, val, test = (len(record.split(name)) for name in SPLITS)
    agree("test images", ("splits/test.txt", test), ("metrics.json", record.numbers["test"]["n"]))
    found = {"classes": len(record.labelmap), "train": train + val, "test": test}
    told = ", ".join(f"{key} {value}" for key, value in found.items())
    official = record.config["dataset"]["official"]
    if record.stamp["subset"] is not None:
        part = " of a partial copy" if record.stamp["partial"] else ""
        return f"{told}: the {record.config['dataset']['subset']} subset{part}"
    if record.stamp["partial"]:
        known = [key for key in found if official[key]]
        if known and all(found[key] == official[key] for key in known):
            raise DamageError(f"env_stamp.json: partial, but {told} are the official counts")
        return f"{told}: declared as a partial copy"
    for key, value in found.items():
        if official[key]:
            agree(key, ("the official count", official[key]), ("the record", value))
    return f"{told}: {'the official counts' if any(official.values()) else 'no official count'}"


def subset(record: Record) -> str:
    """Of a smoke run: are the tiny subsets recorded, with checksum, label coverage and time?"""
    told, configured = record.stamp["subset"], record.config["dataset"]["subset"]
    agree("a subset", ("the config", configured is not None), ("env_stamp.json", told is not None))
    if told is None:
        return "none: not a smoke run"
    for name in SPLITS:
        paths = record.split(name)
        agree(f"{name} images", ("env_stamp.json", told[name]), (f"splits/{name}.txt", len(paths)))
    agree("the checksum", ("manifest", record.stamp["manifest_digest"]), ("it", told["checksum"]))
    agree("label coverage", ("classes", told["classes"]), ("test", told["coverage"]["test"]))
    places = [record.stamp[f"tiny_{part}_subset_path"] for part in ("train", "infer")]
    for place in places:
        record.data(place)
    return f"{', '.join(places)}: {told['expected_seconds']} s expected, {told['checksum']}"
