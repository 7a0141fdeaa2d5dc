"""The jobs of a command -> the lines of its dry run: images, fits, memory, disk, cached features.

Nothing is written or downloaded. torch is imported only if features may be cached.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from rich import get_console
from rich.text import Text
from safetensors import SafetensorError, safe_open

from fgvc import untrusted
from fgvc.config.compose import config_hash, is_operation
from fgvc.config.override_grammar import key_of, value_of
from fgvc.config.overrides import AXES, JobConfig, choices
from fgvc.config.schema import Checkpoint, Config, chosen_checkpoint
from fgvc.config.schema.head import heads
from fgvc.config.search_space import Search
from fgvc.config.sweep_expansion import SIZE, Exclusion, feature_config, varying_keys
from fgvc.data import dataset as datasets
from fgvc.data import manifest, subset
from fgvc.launch.job_work import ImageCounts, fit_cost, repeated
from fgvc.parallel import bf16_cpu
from fgvc.record import measured_rate
from fgvc.record.run_dir import complete_runs
from fgvc.report import fit_estimate
from fgvc.report.cost_estimate import (
    LIST_JOBS,
    LISTED,
    NO_FIT,
    Assumptions,
    JobCost,
    Layout,
    Rate,
    format_estimate,
    vit_macs,
    wrap,
)
from fgvc.store import hashing, json_cache
from fgvc.types import TEST, TRAIN, VAL, UserError, WeightsSource

DEPTH = 12  # blocks of a model without a stated depth
RECORD = 3_000_000  # bytes of a run folder besides weights and logits: page, plots, stamp, events
NARROWEST = 60  # columns of a table of groups
LONG_FITS = 1e12  # FLOP; shorter fits take seconds, and their time is not estimated
OWN_KEYS = ("runtime.dry_run=", "runtime.dry_run_jobs=")
HIDDEN = ("hydra", "sweep", "runtime.")


def describe(
    run_id: str, jobs: Sequence[JobConfig], exclusions: Sequence[Exclusion], search: Search | None
) -> Iterator[str]:
    if search is not None:
        yield f"run_id {run_id}: {search.trials} trials ({search.sampler}), nothing started"
        for key, space in search.space.items():
            yield f"  {key}: {space}"
        return
    lists_all = jobs[0].conf.runtime.dry_run_jobs == "all"
    width = max(shutil.get_terminal_size().columns, NARROWEST)  # 80 without a terminal
    if not all(job.is_experiment for job in jobs):
        yield f"run_id {run_id}: {len(jobs)} job{'s' if len(jobs) > 1 else ''}, nothing started"
        shown = len(jobs) if lists_all else LISTED
        for job in jobs[:shown]:
            kind = "operation" if is_operation(job.conf) else "of a checkpoint"
            own = (item for item in choices(job.overrides) if not item.startswith(OWN_KEYS))
            yield from wrap(f"  {kind:<16}  ", " ".join(own), width)
        if len(jobs) > shown:
            yield f"  and {len(jobs) - shown} more; {LIST_JOBS} lists every job"
        return
    keys = varying_keys([job.overrides for job in jobs])
    varying = {key for key in keys if not key.startswith(HIDDEN)}
    shared = [item for item in jobs[0].overrides if key_of(item) not in keys]
    common = " ".join(item for item in shared if not key_of(item).startswith(HIDDEN))
    planned: set[str] = set()
    notes: dict[str, None] = {}
    costs = [_job_cost(job, run_id, varying, planned, notes) for job in jobs]
    excluded = [(_name(item.overrides, varying), item.reason) for item in exclusions]
    flops = sum(cost.fit.flops for cost in costs if cost.fit is not None and not cost.done)
    assumptions = replace(
        _assumptions(jobs, jobs[0].conf, sum(cost.forward for cost in costs), notes),
        flops=fit_estimate.matrix_rate() if flops >= LONG_FITS else None,
        memory=psutil.virtual_memory().total,
    )
    layout = Layout(width, lists_all or len(jobs) + len(exclusions) <= LISTED)
    yield from format_estimate(run_id, common, costs, excluded, assumptions, layout)


def show(line: str) -> None:
    """Print a line; on a terminal, a disk that is too small stands out."""
    if NO_FIT in line and get_console().is_terminal:
        text = Text(line)
        text.highlight_words([NO_FIT], "bold red")
        get_console().print(text, soft_wrap=True)
    else:
        print(line)


def _name(overrides: Sequence[str], varying: set[str]) -> str:
    """What distinguishes a job: the option of an axis, and other keys in full."""
    own = [item for item in overrides if key_of(item) in varying]
    axes = [value_of(item) for item in own if key_of(item) in (*AXES, SIZE)]
    return " ".join([*axes, *(item for item in own if key_of(item) not in (*AXES, SIZE))])


def _job_cost(
    job: JobConfig, run_id: str, varying: set[str], planned: set[str], notes: dict[str, None]
) -> JobCost:
    """The cost of one job.

    Args:
        varying: the keys that differ between the jobs.
        planned: the features that the jobs above extract; takes those of this job.
        notes: takes lines for the reader.
    """
    conf, row = job.conf, chosen_checkpoint(job.conf.backbone)
    images = count_images(conf)
    forward = cached = shared = trained = feature_bytes = 0
    width = (row.embedding or row.width) if conf.backbone.features == "projected" else row.width
    width *= 2 if conf.backbone.features == "cls_patch_mean" else 1
    if conf.task.name == "train":
        epochs, final_fit = conf.task.epochs, conf.final_fit
        trained = epochs * (images.train + (images.val if final_fit == "trainval" else 0))
        forward = images.test + (epochs * images.val if final_fit == "train" else 0)
    else:
        for role in ("test",) if conf.task.name == "zero_shot" else ("train", "test"):
            count = images.test if role == "test" else images.train + images.val
            try:
                key = _cache_key(conf, images, role)
            except UserError as error:  # the job will fail with it; the estimate is still printed
                notes[str(error)] = key = None
            features = key or f"{feature_config(job.plain)} {role}"
            if key is not None and (_cache_root(conf) / "features" / key / "done.json").is_file():
                cached += count
            elif features in planned:
                shared += count
            else:
                forward, feature_bytes = forward + count, feature_bytes + 4 * width * count
            planned.add(features)
            forward += repeated(conf, role, count)
    run_hash = config_hash(job.plain)
    root = Path(conf.runtime.output_root).expanduser()
    stride = getattr(conf.part_attention, "stride", None) or row.patch
    grid = (conf.resolution.side - row.patch) // stride + 1
    return JobCost(
        hash=run_hash,
        choices=_name(job.overrides, varying) or "(as above)",
        model=row.model,
        shape=_shape(row.architecture),
        side=conf.resolution.side,
        macs=vit_macs(row.width, row.block_count or DEPTH, grid**2 + row.prefix),
        forward=forward,
        trained=trained,
        cached=cached,
        shared=shared,
        done=bool(complete_runs(root, run_id, run_hash)),
        kept=(feature_bytes, _folder_bytes(conf, images, row, width)),
        fit=fit_cost(conf, images, width) if conf.task.name == "probe" else None,
        values={key_of(item): value_of(item) for item in job.overrides if key_of(item) in varying},
    )


def _folder_bytes(conf: Config, images: ImageCounts, row: Checkpoint, width: int) -> int:
    """Approximate size of a run folder: checkpoint, logits of the test images, record."""
    weights = 4 * images.classes * width
    if conf.task.name == "train":
        weights = 4 * 12 * (row.block_count or DEPTH) * row.width**2
    elif heads()[conf.head.name].bank is not None:
        weights = 4 * (images.train + images.val) * width
    return RECORD + weights + fit_estimate.record_bytes(images.test, images.classes)


_counts: dict[str, ImageCounts] = {}


def count_images(conf: Config) -> ImageCounts:
    """The images of a dataset on disk, or its expected counts if they are not there."""
    key = repr(conf.dataset) + conf.runtime.cache_root
    if key not in _counts:
        _counts[key] = _count_images(conf)
    return _counts[key]


def _count_images(conf: Config) -> ImageCounts:
    dataset, cache_root = conf.dataset, Path(conf.runtime.cache_root).expanduser()
    if dataset.reader == "synthetic" and not Path(dataset.root or "").expanduser().is_dir():
        return _expected_counts(conf, "is generated when it is first read")
    try:
        index = datasets.read(dataset)
        if dataset.subset:
            index = subset.tiny_subset(index, validation=dataset.val_fraction > 0)
        train, val, test = (int((index.split_N == split).sum()) for split in (TRAIN, VAL, TEST))
        classes, has_digests = len(index.labelmap), manifest.cache_file(index, cache_root).is_file()
        del index  # `load` reads it again: at 675,000 images, two take 500 MiB
        loaded = datasets.load(dataset, cache_root, remember=False) if has_digests else None
    except (UserError, OSError) as error:
        return _expected_counts(conf, f"cannot be read ({error}): counts of its definition")
    if not val:  # carved from train
        val = len(loaded.split.val_N) if loaded else round(dataset.val_fraction * train)
        train -= val
    return ImageCounts(classes, train, val, test, loaded, None)


def _expected_counts(conf: Config, reason: str) -> ImageCounts:
    counts, has_val = datasets.expected_counts(conf.dataset), conf.dataset.val_fraction > 0
    classes, train, test = counts.classes, counts.train, counts.test
    val_share = conf.dataset.val_fraction
    if conf.dataset.subset:
        classes = min(classes or subset.MAX_CLASSES, subset.MAX_CLASSES)
        train = classes * (subset.TRAIN_PER_CLASS + has_val)
        test = classes * subset.TEST_PER_CLASS
        val_share = 1 / 3
    val = round(val_share * train) if has_val else 0
    return ImageCounts(
        classes, train - val, val, test, None, f"dataset={conf.dataset.name} {reason}"
    )


def _cache_key(conf: Config, images: ImageCounts, role: str) -> str | None:
    """The name of these features in the cache; None if it takes weights or digests to know it."""
    folder, source = _cache_root(conf) / "features", _source(conf)
    if images.dataset is None or source is None or not folder.is_dir():
        return None
    from fgvc.parallel.device import choose_device  # torch
    from fgvc.pipeline.features import FeatureExtractor

    extractor = FeatureExtractor(conf, images.dataset, source, choose_device(conf.runtime.device))
    return hashing.sha256_json(extractor.key(role))[:32]


def _source(conf: Config) -> WeightsSource | None:
    """The weights with their digest; None for weights of the hub, which is not contacted."""
    backbone = conf.backbone
    if backbone.weights is not None:
        path = Path(backbone.weights)
        return WeightsSource("file", path.name, path, backbone.weights_sha256)
    if not backbone.pretrained:
        return WeightsSource("random", chosen_checkpoint(backbone).model)
    return None


def _assumptions(
    jobs: Sequence[JobConfig], conf: Config, forward: int, notes: dict[str, None]
) -> Assumptions:
    """Measured rates, free disk space, and the notes of all jobs. forward: images of all jobs."""
    folder, device, threads = _cache_root(conf), None, None
    rates: dict[tuple[str, str, int], Rate] = {}
    files = sorted((folder / "costs").glob("*.json"))
    if files:
        from torch import get_num_threads

        from fgvc.parallel.device import choose_device  # torch

        own = conf.runtime.threads
        threads = get_num_threads() if own is None else own * conf.runtime.nproc
        try:
            device = choose_device(conf.runtime.device).type
        except UserError as error:
            notes[str(error)] = None
    for file in files:
        rate = _rate(file, folder / "features" / file.stem / "key.json", device, threads, notes)
        if rate is not None:
            other = rates.setdefault((rate.model, rate.shape, rate.side), rate)
            if rate.images > other.images:  # small runs spend their time on starting
                rates[rate.model, rate.shape, rate.side] = rate
    root = _existing(Path(conf.runtime.output_root))
    free, cache, free_cache = shutil.disk_usage(root).free, _existing(folder), None
    if root.stat().st_dev != cache.stat().st_dev:
        free_cache = shutil.disk_usage(cache).free
    for job in jobs:
        if (note := count_images(job.conf).note) is not None:
            notes[note] = None
    hub = {chosen_checkpoint(j.conf.backbone).model for j in jobs if _source(j.conf) is None}
    if hub:
        models = ", ".join(sorted(hub)[:3]) + (" …" if len(hub) > 3 else "")
        notes[
            f"weights from the hub ({models}) are not looked up: whether their features are cached "
            "is known when the jobs run"
        ] = None
    notes |= dict.fromkeys(_precision_notes(jobs, device, forward))
    return Assumptions(
        device,
        list(rates.values()),
        free,
        list(notes),
        free_cache,
        compiles=conf.runtime.compile,
    )


def _precision_notes(jobs: Sequence[JobConfig], device: str | None, forward: int) -> Iterator[str]:
    """Notes on the precision of forward passes on this CPU.

    Args:
        device: None if it is not known without torch. forward: images of all jobs.
    """
    chosen = jobs[0].conf.runtime.device
    precisions = sorted({job.conf.precision for job in jobs})
    if "bf16" in precisions and device is None and bf16_cpu.has_bf16() is False:
        from fgvc.parallel.device import choose_device  # torch

        with contextlib.suppress(UserError):  # the jobs will fail with it
            device = choose_device(chosen).type
    task = jobs[0].conf.task.name
    for precision in precisions:
        slow = bf16_cpu.slow_note(precision, device or chosen)
        fast = bf16_cpu.fast_note(precision, device or chosen, forward, task)
        yield from (note for note in (slow, fast) if note is not None)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.expanduser().absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _rate(
    file: Path, key_file: Path, device: str | None, threads: int | None, notes: dict[str, None]
) -> Rate | None:
    """The rate that an extraction measured; None if its features are gone, or its conditions are
    not those of the planned jobs.

    Args:
        device, threads: of the planned jobs. notes: takes a line per damaged file, and one if rates
            are not used.
    """
    if not key_file.is_file():
        return None
    cost = json_cache.read(file, notes.setdefault, "not used")
    recorded = json_cache.read(key_file, notes.setdefault, "not used")
    if cost is None or recorded is None:
        return None
    key: Mapping[str, Any] = recorded["key"]
    if key["device"] != device or not cost["images_per_s"]:
        return None
    conditions = measured_rate.from_cost(cost)
    if conditions.is_loaded or conditions.threads not in (None, threads):
        notes[f"not used: rates of a busy machine, or with other than {threads} threads"] = None
        return None
    return Rate(
        model=key["model"],
        shape=_shape(key.get("architecture", {})),
        side=key["side"],
        macs=float(cost["macs"]),
        images_per_s=cost["images_per_s"],
        images=sum(map(_count_rows, key_file.parent.glob("*.safetensors"))),
    )


def _count_rows(shard: Path) -> int:
    try:
        with safe_open(untrusted.require_regular(shard), framework="np") as file:
            return file.get_slice("row").get_shape()[0]
    except (OSError, SafetensorError):  # damaged; the jobs compute it again
        return 0


def _shape(architecture: Mapping[str, Any]) -> str:
    return json.dumps(architecture, sort_keys=True) if architecture else ""


def _cache_root(conf: Config) -> Path:
    return Path(conf.runtime.cache_root).expanduser()
