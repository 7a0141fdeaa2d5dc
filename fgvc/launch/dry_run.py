"""The jobs of a command -> what a dry run shows of them: images, time, disk, and what is cached.

Nothing is written and nothing is fetched; torch is imported only where features may be cached.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fgvc import untrusted
from fgvc.config.compose import config_hash
from fgvc.config.overrides import AXES, Job
from fgvc.config.schema import Checkpoint, Config, chosen_checkpoint
from fgvc.config.sweep_exclusions import Exclusion
from fgvc.config.sweep_expansion import SIZE, feature_config, key_of, varying_keys
from fgvc.data import dataset as datasets
from fgvc.data import manifest, subset
from fgvc.record.run_dir import complete_runs
from fgvc.report.cost_estimate import Assumptions, JobCost, Rate, format_estimate, vit_macs
from fgvc.store import hashing, json_cache
from fgvc.types import TEST, TRAIN, VAL, Dataset, UserError, WeightsSource

DEPTH = {"large": 24, "so400m": 27, "giant": 40}  # blocks; 12 elsewhere, where no row says it
RECORD = 3_000_000  # bytes of a run folder beside what is counted: page, plots, stamp, board
HIDDEN = ("hydra", "sweep", "runtime.")


@dataclass(frozen=True)
class Images:
    """How many there are. loaded: where the pictures were hashed before, as features need it."""

    classes: int
    train: int
    val: int
    test: int
    loaded: Dataset | None
    note: str | None


def show(run_id: str, jobs: Sequence[Job], left_out: Sequence[Exclusion]) -> list[str]:
    """The lines of the plan."""
    apart = varying_keys([job.overrides for job in jobs])
    chosen = [_shown(job.overrides) for job in jobs]
    common = " ".join(item for item in chosen[0] if key_of(item) not in apart)
    seen: set[str] = set()
    notes: dict[str, None] = {}
    items = [
        _item(job, run_id, _name(mine, apart), seen, notes)
        for job, mine in zip(jobs, chosen, strict=True)
    ]
    conf = jobs[0].conf
    skipped = [(_name(_shown(one.overrides), apart), one.reason) for one in left_out]
    return list(format_estimate(run_id, common, items, skipped, _ground(jobs, conf, notes)))


def _name(overrides: Sequence[str], apart: set[str]) -> str:
    """What sets a job apart: an axis by its option alone, other keys in full."""
    mine = [item for item in overrides if key_of(item) in apart]
    axes = [item.partition("=")[2] for item in mine if key_of(item) in (*AXES, SIZE)]
    return " ".join([*axes, *(item for item in mine if key_of(item) not in (*AXES, SIZE))])


def _shown(overrides: Sequence[str]) -> list[str]:
    return [item for item in overrides if not key_of(item).startswith(HIDDEN)]


def _item(job: Job, run_id: str, choices: str, seen: set[str], notes: dict[str, None]) -> JobCost:
    """seen: the features that jobs above extract; this one's are added. notes: to be shown."""
    conf, row = job.conf, chosen_checkpoint(job.conf.backbone)
    images = _images(_Key(conf))
    forward = cached = above = trained = features = 0
    width = (row.embedding or row.width) if conf.backbone.features == "projected" else row.width
    width *= 2 if conf.backbone.features == "cls_patch_mean" else 1
    if conf.task.name == "train":
        epochs, fit = conf.task.epochs, conf.final_fit
        trained = epochs * (images.train + (images.val if fit == "trainval" else 0))
        forward = images.test + (epochs * images.val if fit == "train" else 0)
    else:
        for role in ("test",) if conf.task.name == "zero_shot" else ("train", "test"):
            count = images.test if role == "test" else images.train + images.val
            try:
                key = _features(conf, images, role)
            except UserError as error:  # it will end the job, and is no reason to show no plan
                notes[str(error)] = key = None
            name = key or f"{feature_config(job.plain)} {role}"
            if key is not None and _is_cached(conf, key):
                cached += count
            elif name in seen:
                above += count
            else:
                forward, features = forward + count, features + 4 * width * count
            seen.add(name)
    name = config_hash(job.plain)
    root = Path(conf.runtime.output_root).expanduser()
    return JobCost(
        hash=name,
        choices=choices or "(as above)",
        model=row.model,
        shape=_shape(row.architecture),
        side=conf.resolution.side,
        macs=_macs(conf, row),
        forward=forward,
        trained=trained,
        cached=cached,
        shared=above,
        done=bool(complete_runs(root, run_id, name)),
        kept=(features, _folder_bytes(conf, images, row, width)),
    )


def _macs(conf: Config, row: Checkpoint) -> float:
    stride = getattr(conf.part_attention, "stride", None) or row.patch
    grid = (conf.resolution.side - row.patch) // stride + 1
    return vit_macs(row.width, _depth(row), grid**2 + row.prefix)


def _depth(row: Checkpoint) -> int:
    vision = row.architecture.get("vision_config", row.architecture)
    told = vision.get("depth", vision.get("num_hidden_layers"))
    return int(told) if told is not None else DEPTH.get(row.size, 12)


def _folder_bytes(conf: Config, images: Images, row: Checkpoint, width: int) -> int:
    """Of a run folder, roughly: the checkpoint, the logits of the test images, the records."""
    weights = 4 * images.classes * width
    if conf.task.name == "train":
        weights = 4 * 12 * _depth(row) * row.width**2
    elif conf.head.name == "knn":
        weights = 4 * (images.train + images.val) * width
    return RECORD + weights + 8 * images.test * images.classes


# --- the images ---


class _Key:
    """A config, equal to another one that reads the same images in the same split."""

    def __init__(self, conf: Config) -> None:
        self.conf = conf

    def _said(self) -> str:
        return repr(self.conf.dataset) + self.conf.runtime.cache_root

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._said() == other._said()

    def __hash__(self) -> int:
        return hash(self._said())


@functools.lru_cache(maxsize=32)
def _images(key: _Key) -> Images:
    """The images of a dataset as they lie on disk; where they do not, as its definition says."""
    conf, cache_root = key.conf.dataset, Path(key.conf.runtime.cache_root).expanduser()
    if conf.reader == "synthetic" and not Path(conf.root or "").expanduser().is_dir():
        return _official(key.conf, "is drawn when it is first read")
    try:
        index = datasets.read(conf)
        if conf.subset:
            index = subset.tiny_subset(index, validation=conf.val_fraction > 0)
        loaded = None
        if manifest.cache_file(index, cache_root).is_file():
            loaded = datasets.load(conf, cache_root, remember=False)
    except (UserError, OSError) as error:
        return _official(key.conf, f"cannot be read ({error}): counts of its definition")
    train, val, test = (int((index.split_N == split).sum()) for split in (TRAIN, VAL, TEST))
    if not val:  # carved from train
        val = len(loaded.split.val_N) if loaded else round(conf.val_fraction * train)
        train -= val
    return Images(len(index.labelmap), train, val, test, loaded, None)


def _official(conf: Config, why: str) -> Images:
    counts = datasets.expected_counts(conf.dataset)
    classes, train, test = counts.classes, counts.train, counts.test
    if conf.dataset.subset:
        classes = min(classes or subset.MAX_CLASSES, subset.MAX_CLASSES)
        train = classes * (subset.TRAIN_PER_CLASS + (conf.dataset.val_fraction > 0))
        test = classes * subset.TEST_PER_CLASS
    share = 1 / 3 if conf.dataset.subset else conf.dataset.val_fraction
    val = round(share * train) if conf.dataset.val_fraction else 0
    return Images(classes, train - val, val, test, None, f"dataset={conf.dataset.name} {why}")


# --- what is cached, and how fast it was ---


def _features(conf: Config, images: Images, role: str) -> str | None:
    """The name under which the extractor keeps these features; None where it cannot be known."""
    folder, source = _root(conf) / "features", _source(conf)
    if images.loaded is None or source is None or not folder.is_dir():
        return None
    from fgvc.parallel.device import choose_device  # torch
    from fgvc.pipeline.features import Extractor

    extractor = Extractor(conf, images.loaded, source, choose_device(conf.runtime.device))
    return hashing.sha256_bytes(hashing.canonical_json(extractor.key(role)))[:32]


def _is_cached(conf: Config, name: str) -> bool:
    return (_root(conf) / "features" / name / "done.json").is_file()


def _source(conf: Config) -> WeightsSource | None:
    """The weights by their digest; None for those of the hub, which is not asked."""
    backbone = conf.backbone
    if backbone.weights is not None:
        path = Path(backbone.weights)
        return WeightsSource("file", path.name, path, backbone.weights_sha256)
    if not backbone.pretrained:
        return WeightsSource("random", chosen_checkpoint(backbone).model)
    return None


def _ground(jobs: Sequence[Job], conf: Config, notes: dict[str, None]) -> Assumptions:
    folder, device = _root(conf), None
    measured: dict[tuple[str, str, int], Rate] = {}
    files = sorted((folder / "costs").glob("*.json"))
    if files:
        from fgvc.parallel.device import choose_device  # torch

        try:
            device = choose_device(conf.runtime.device).type
        except UserError as error:
            notes[str(error)] = None
    for file in files:
        rate = _rate(file, folder / "features" / file.stem / "key.json", device, notes)
        if rate is not None:
            other = measured.setdefault((rate.model, rate.shape, rate.side), rate)
            if rate.images > other.images:  # a small run is slow to get going
                measured[rate.model, rate.shape, rate.side] = rate
    root = Path(conf.runtime.output_root).expanduser().absolute()
    free = shutil.disk_usage(next(p for p in (root, *root.parents) if p.exists())).free
    return Assumptions(device, list(measured.values()), free, [*notes, *_notes(jobs)])


def _notes(jobs: Sequence[Job]) -> list[str]:
    notes = dict.fromkeys(note for job in jobs if (note := _images(_Key(job.conf)).note))
    afar = {chosen_checkpoint(j.conf.backbone).model for j in jobs if _source(j.conf) is None}
    if afar:
        named = ", ".join(sorted(afar)[:3]) + (" …" if len(afar) > 3 else "")
        notes[f"the hub is not asked for weights ({named}): whether their features are cached is "
              "seen when the jobs run"] = None  # fmt: skip
    return list(notes)


def _rate(file: Path, key: Path, device: str | None, notes: dict[str, None]) -> Rate | None:
    """The rate that an extraction measured; None if its features are gone or of another device.

    notes: takes a line on each damaged file.
    """
    if not key.is_file():
        return None
    cost, known = (json_cache.read(each, notes.setdefault, "not used") for each in (file, key))
    if cost is None or known is None:
        return None
    about: Mapping[str, Any] = known["key"]
    if about["device"] != device or not cost["images_per_s"]:
        return None
    return Rate(
        model=about["model"],
        shape=_shape(about.get("architecture", {})),
        side=about["side"],
        macs=float(cost["macs"]),
        images_per_s=cost["images_per_s"],
        images=sum(map(_rows, key.parent.glob("*.safetensors"))),
    )


def _rows(shard: Path) -> int:
    try:
        with safe_open(untrusted.require_regular(shard), framework="np") as file:
            return file.get_slice("row").get_shape()[0]
    except (OSError, SafetensorError):  # damaged: computed again when the jobs run
        return 0


def _shape(architecture: Mapping[str, Any]) -> str:
    return json.dumps(architecture, sort_keys=True) if architecture else ""


def _root(conf: Config) -> Path:
    return Path(conf.runtime.cache_root).expanduser()
