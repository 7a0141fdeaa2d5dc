"""Files of a record -> whether they are the bytes that the run wrote, complete, and consistent."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import numpy as np

from fgvc.metrics import UNREADABLE
from fgvc.record import verify
from fgvc.record.retention import FILE, SHORTEST
from fgvc.record.run_dir import OUTSIDE_INDEX, SHORT, UNREADABLE_FILE
from fgvc.record.verify import DamageError
from fgvc.report.audit.check import agree, join_names
from fgvc.report.audit.record import PREDICTIONS, SPLITS, STAMP, Record
from fgvc.report.flatten import conflicting_keys, flatten
from fgvc.store import hashing
from fgvc.types import Split

ROW = "backbone.checkpoint."  # in the hashed config: the chosen row of the family's table
ANY = "any"  # in the hashed config: the key changes no number, and every value matches
MINIMUM = {  # required of every record
    "per_class.csv": "per-class accuracy",
    "confusion.csv": "confusion matrix",
    "confusion.svg": "confusion plot",
    PREDICTIONS: "top-k and every wrong prediction",
    "tb": "TensorBoard",
    "fiftyone/samples.json": "misclassification view",
    "report.html": "page",
}


def status(record: Record) -> str:
    """Do the checksums of status.json and artifacts.json match, and did the run complete?"""
    state = verify.read_status(record.path)
    verify.read_index(record.path)
    agree("started", (STAMP, record.stamp["started"]), ("status.json", state["started"]))
    return f"done, {state['started'][:19]} to {state['updated'][:19]} UTC"


def hashes(record: Record) -> str:
    """Does every file match artifacts.json, with no file missing and no extra file?"""
    present, changed = set(record.files()), []
    extra = sorted(present - record.artifacts.keys() - set(OUTSIDE_INDEX))
    missing = sorted(record.artifacts.keys() - present)
    for name in sorted(present & record.artifacts.keys()):
        entry, file = record.artifacts[name], record.path / name
        is_file = file.is_file() and not file.is_symlink()
        same_size = is_file and file.stat().st_size == entry["bytes"]
        if not same_size or hashing.sha256_file(file) != entry["sha256"]:
            changed.append(name)
    differences = {"changed": changed, "missing": missing, "extra": extra}
    problems = [f"{what}: {join_names(names)}" for what, names in differences.items() if names]
    if problems:
        raise DamageError("; ".join(problems))
    size = sum(entry["bytes"] for entry in record.artifacts.values())
    return f"{len(record.artifacts)} files, {size} bytes, each sha256 recomputed"


def names(record: Record) -> str:
    """Is the folder named after its run, config and checkpoint?"""
    run_id, config_hash, checkpoint_id = record.path.parts[-3:]
    checkpoint_digest = hashing.sha256_file(record.path / verify.CKPT)
    config_digest = hashing.sha256_bytes(record.data("config.canonical.json"))
    agree("the run_id", ("the folder", run_id), (STAMP, record.stamp["run_id"]))
    agree("the hash", ("the folder", config_hash), ("config.canonical.json", config_digest[:SHORT]))
    agree("the sha256", ("the folder", checkpoint_id), (verify.CKPT, checkpoint_digest[:SHORT]))
    return f"config_hash {config_digest}, checkpoint_id {checkpoint_digest}"


def retention(record: Record) -> str:
    """Does retention.json belong to this run and keep the run for at least 90 days?"""
    stored = verify.read_retention(record.path)
    days = (stored.expires - stored.created).total_seconds() / 86400
    if days < SHORTEST:
        raise DamageError(f"{FILE}: {days:.1f} days, at least {SHORTEST}")
    pinned = f"; pinned by {', '.join(stored.pinned_by)}" if stored.pinned_by else ""
    return f"{FILE}: {days:.0f} days, expires {stored.expires.isoformat()}{pinned}"


def config(record: Record) -> str:
    """Is the hashed config in canonical form, and does config.yaml agree with it?"""
    data = record.data("config.canonical.json")
    if data != hashing.canonical_json(record.config):
        raise DamageError("config.canonical.json: not in canonical form")
    hashed = {key: value for key, value in flatten(record.config).items() if value != ANY}
    if keys := conflicting_keys(hashed, flatten(record.shown_config), (ROW,)):
        raise DamageError(f"config.yaml: {join_names(keys)} differ from config.canonical.json")
    return f"config.canonical.json: {len(data)} bytes, sha256 is the config_hash"


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
