"""A record -> whether it has all required files, and whether these agree on images and classes."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np

from fgvc.metrics import UNREADABLE
from fgvc.record.run_dir import UNREADABLE_FILE
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree, join_names
from fgvc.report.audit.record import PREDICTIONS, SPLITS, STAMP, Record
from fgvc.store import hashing
from fgvc.types import Split

MINIMUM = {  # required of every record
    "per_class.csv": "per-class accuracy",
    "confusion.csv": "confusion matrix",
    "confusion.svg": "confusion plot",
    PREDICTIONS: "top-k and every wrong prediction",
    "tb": "TensorBoard",
    "fiftyone/samples.json": "misclassification view",
    "report.html": "page",
}


def minimum_contents(record: Record) -> str:
    """Are per-class accuracy, confusion matrix, top-k and wrong predictions all there?"""
    recorded = {*record.artifacts, *(file.partition("/")[0] for file in record.artifacts)}
    if "confusion.png" in recorded:  # the plot of an older record
        recorded.add("confusion.svg")
    missing = [f"{name} ({what})" for name, what in MINIMUM.items() if name not in recorded]
    if missing:
        raise DamageError(f"missing: {join_names(missing)}")
    test, rows = record.numbers["test"], record.predictions["test"]
    errors = int((rows.pred_N != rows.label_N).sum())
    return f"{', '.join(MINIMUM)}; top-5 {test['top5']:.4f}; {errors} wrong of {len(rows.label_N)}"


def labelmap(record: Record) -> str:
    """Does labelmap.json match its checksum, the stamp, and the classes of the predictions?"""
    recorded = record.labelmap
    agree(
        "the checksum",
        ("labelmap.json's classes", recorded.digest),
        ("labelmap.json", record.json("labelmap.json")["checksum"]),
        (STAMP, record.stamp["labelmap_digest"]),
    )
    repeated = [name for name, count in Counter(recorded.ids).items() if count > 1]
    if repeated:
        raise DamageError(f"labelmap.json: repeated ids: {join_names(repeated)}")
    label_N = np.concatenate([rows.label_N for rows in record.predictions.values()])
    if not 0 <= label_N.min() <= label_N.max() < len(recorded):
        raise DamageError(f"{PREDICTIONS}: labels beyond the {len(recorded)} of labelmap.json")
    return f"{len(recorded)} classes, sha256 {recorded.digest}"


def splits(record: Record) -> str:
    """Do the splits match their digests, share no image, and list the predicted images?"""
    recorded = record.json("splits/digests.json")
    images = {name: record.split(name) for name in SPLITS}
    for name, paths in images.items():
        file = f"splits/{name}.txt"
        digest = hashing.sha256_bytes(record.data(file))
        agree("the sha256", ("splits/digests.json", recorded[name]["sha256"]), (file, digest))
        agree("the count", ("splits/digests.json", recorded[name]["images"]), (file, len(paths)))
    all_paths = [path for paths in images.values() for path in paths]
    shared = [path for path, count in Counter(all_paths).items() if count > 1]
    if shared:
        raise DamageError(f"splits: images in more than one split: {join_names(shared, most=2)}")
    ends = np.cumsum([0, *(len(images[name]) for name in SPLITS)])
    rows = (np.arange(start, end) for start, end in itertools.pairwise(ends))
    agree(
        "split_digest",
        ("the split files", Split(*rows).digest(tuple(all_paths))),
        ("splits/digests.json", recorded["split_digest"]),
        (STAMP, record.stamp["split_digest"]),
    )
    for name, rows in record.predictions.items():
        agree(name, ("the split file", sorted(images[name])), (PREDICTIONS, sorted(rows.path)))
    counts = ", ".join(f"{name} {len(paths)}" for name, paths in images.items())
    return f"{counts}; disjoint; split_digest {recorded['split_digest']}"


def counts(record: Record) -> str:
    """Are the counts the official ones, or is the dataset declared a subset or partial copy?"""
    train, val, test = (len(record.split(name)) for name in SPLITS)
    agree("test images", ("splits/test.txt", test), ("metrics.json", record.numbers["test"]["n"]))
    totals = {"classes": len(record.labelmap), "train": train + val, "test": test}
    summary = ", ".join(f"{key} {value}" for key, value in totals.items())
    official = record.config["dataset"]["official"]
    if record.stamp["subset"] is not None:
        part = " of a partial copy" if record.stamp["partial"] else ""
        return f"{summary}: subset {record.config['dataset']['subset']}{part}"
    if record.stamp["partial"]:
        published = [key for key in totals if official[key]]
        if published and all(totals[key] == official[key] for key in published):
            raise DamageError(f"env_stamp.json: partial, but {summary} are the official counts")
        return f"{summary}: declared as a partial copy"
    for key, value in totals.items():
        if official[key]:
            agree(key, ("the official count", official[key]), ("the record", value))
    return f"{summary}: {'the official counts' if any(official.values()) else 'no official count'}"


def subset(record: Record) -> str:
    """Does a smoke run record its tiny subsets with checksum, label coverage and time?"""
    tiny, has_tiny = record.stamp["subset"], record.config["dataset"]["subset"] is not None
    agree("a subset", ("the config", has_tiny), (STAMP, tiny is not None))
    if tiny is None:
        return "none: not a smoke run"
    for name in SPLITS:
        listed = (f"splits/{name}.txt", len(record.split(name)))
        agree(f"{name} images", (STAMP, tiny[name]), listed)
    agree("checksum", ("manifest", record.stamp["manifest_digest"]), ("subset", tiny["checksum"]))
    agree("label coverage", ("classes", tiny["classes"]), ("test", tiny["coverage"]["test"]))
    files = [record.stamp[f"tiny_{part}_subset_path"] for part in ("train", "infer")]
    for file in files:
        record.data(file)
    return f"{', '.join(files)}: {tiny['expected_seconds']} s expected, {tiny['checksum']}"


def unreadable_images(record: Record) -> str:
    """Do the counts of unreadable images match the predictions and unreadable.json?"""
    counts = record.numbers["unreadable"]
    try:
        rows = json.loads(record.text(UNREADABLE_FILE)) if any(counts.values()) else []
        listed = Counter(row["split"] for row in rows)
    except (ValueError, TypeError, KeyError) as error:
        raise DamageError(f"{UNREADABLE_FILE}: not a list of images with their splits") from error
    for split, count in counts.items():
        what, recorded = f"unreadable images of {split}", ("metrics.json", count)
        agree(what, (UNREADABLE_FILE, listed[split]), recorded)
        if split in record.predictions:
            predicted = int((record.predictions[split].pred_N == UNREADABLE).sum())
            agree(what, (PREDICTIONS, predicted), recorded)
    return f"{sum(counts.values())} images"
