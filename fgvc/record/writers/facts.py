"""Facts of a run -> JSON files and index files: stamp, label map, splits, numbers, unreadable."""

from __future__ import annotations

from fgvc.record import env_stamp
from fgvc.record.run_dir import UNREADABLE_FILE
from fgvc.record.writers.run_record import RunRecord, WriterSpec
from fgvc.store import hashing

SPLIT_NAMES = ("train", "val", "test")


def write_stamp(record: RunRecord) -> None:
    """Write env_stamp.json; ValueError if it violates its schema."""
    record.run.write_json("env_stamp.json", dict(env_stamp.validate(record.stamp)))


def write_label_map(record: RunRecord) -> None:
    """Write index, id and name of each class, and the tree above the classes if there is one."""
    labelmap, hierarchy = record.dataset.labelmap, record.dataset.hierarchy
    classes = [
        {"index": index, "id": key, "name": name}
        for index, (key, name) in enumerate(zip(labelmap.ids, labelmap.names, strict=True))
    ]
    entries: dict[str, object] = {"classes": classes, "checksum": labelmap.digest}
    if hierarchy is not None:  # determines the distances of mistakes
        entries["parents"] = [list(chain) for chain in hierarchy.chain]
        entries["nodes"] = dict(hierarchy.names)
    record.run.write_json("labelmap.json", entries)


def write_splits(record: RunRecord) -> None:
    """Write the paths of each split, and digests of these files."""
    dataset = record.dataset
    digests: dict[str, object] = {}
    for split in SPLIT_NAMES:
        rows = getattr(dataset.split, f"{split}_N").tolist()
        text = "".join(f"{dataset.manifest.path[row]}\n" for row in rows)
        record.run.write_text(f"splits/{split}.txt", text)
        digests[split] = {"sha256": hashing.sha256_bytes(text.encode()), "images": len(rows)}
    digests["split_digest"] = dataset.split_digest
    record.run.write_json("splits/digests.json", digests)


def write_metrics(record: RunRecord) -> None:
    record.run.write_json("metrics.json", record.numbers)


def write_unreadable(record: RunRecord) -> None:
    """List the images that cannot be read, if there are any."""
    if record.unreadable:
        record.run.write_json(UNREADABLE_FILE, record.unreadable)


STAMP = WriterSpec("stamp", ("env_stamp.json",), write_stamp)
LABEL_MAP = WriterSpec("label map", ("labelmap.json",), write_label_map)
SPLITS = WriterSpec("splits", ("splits/",), write_splits)
METRICS = WriterSpec("metrics", ("metrics.json",), write_metrics)
UNREADABLE = WriterSpec("unreadable images", (UNREADABLE_FILE,), write_unreadable)
