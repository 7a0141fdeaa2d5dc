"""What every experiment shares: a run folder, a dataset, features, and what it hands to writeup.

N images, C classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fgvc.config.compose import canonical, config_hash
from fgvc.config.schema import Config
from fgvc.data import dataset as datasets
from fgvc.model.backbone import hf_config, weights
from fgvc.parallel.device import check_precision, choose_device, device_of
from fgvc.parallel.process_group import ALONE, World
from fgvc.pipeline import validation, weights_overlap
from fgvc.pipeline.determinism import seed_everything
from fgvc.pipeline.features import Extractor
from fgvc.pipeline.job import Skipped
from fgvc.pipeline.run_identity import differing, identity_of
from fgvc.pipeline.shards import start_pool
from fgvc.record import console, stack_check
from fgvc.record.fitted_images import Fit, short_digests
from fgvc.record.run_dir import RESUME, SHORT, RunFolder, complete_runs, open_run, read_json
from fgvc.record.tensorboard import Board
from fgvc.store.content_store import ContentStore
from fgvc.types import (
    AttentionMaps,
    BadImage,
    Dataset,
    Features,
    Predictions,
    UserError,
    WeightsSource,
)


@dataclass
class Experiment:
    """One open run with its data at hand. plain, hash: the hashed part of its config.
    stack: what the gate said. world: its processes, of which this one writes. backbone_N: as
    `own_weights.backbone_images`."""

    task: str
    conf: Config
    plain: dict[str, Any]
    hash: str
    run: RunFolder
    dataset: Dataset
    extractor: Extractor
    board: Board
    stack: str
    world: World = ALONE
    backbone_N: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def classes(self) -> int:
        return len(self.dataset.labelmap)

    def record_test_read(self) -> None:
        """Record a read of test before its first image is read; the extractor calls this."""
        self.run.record_test_read(identity(self))


@dataclass(frozen=True)
class Outcome:
    """What a task found.

    splits: predictions by split. head: its state dict, or the checkpoint file it was read from,
    which is then kept as it is. numbers: more keys for metrics.json. fit: the images that fitted
    or chose the head, from which the overlap with test follows. whole: the state dict is that
    of backbone and head together. cost: as Extractor.cost, where no feature was extracted.
    steps: optimiser steps behind the weights. features, looks: of the test images that could be
    read; None where there are none to show. notes: one line each, which a reader of the numbers
    must know; printed and recorded with the numbers. unreadable: the images, of any
    split, that the run tried to read and could not.
    """

    splits: Mapping[str, Predictions]
    head: Mapping[str, torch.Tensor] | Path
    numbers: Mapping[str, object]
    fit: Fit
    whole: bool = False
    cost: Mapping[str, object] | None = None
    steps: int = 0
    features: Features | None = None
    looks: AttentionMaps | None = None
    notes: tuple[str, ...] = ()
    unreadable: tuple[BadImage, ...] = ()


@contextmanager
def open_experiment(
    task: str,
    conf: Config,
    plain: dict[str, Any],
    command: str,
    keep: Sequence[str] = (),
    world: World = ALONE,
    source: WeightsSource | None = None,
) -> Iterator[Experiment]:
    """An experiment in its run folder, seeded, its dataset loaded and its weights found.

    Args:
        task: what is done; task=eval runs under the config of a probe.
        keep: what of an earlier, interrupted process stays in the run folder.
        world: the processes that the run is cut over; this one leads. What is no training has
            those of `runtime.nproc` to extract its features.
        source: of the backbone's weights, where they need not be looked for.

    Raises:
        UserError: the dataset, the weights or the folder cannot be used, or there is no validation
            image and the task needs one.
    """
    gate = stack_gate(conf)
    seed_everything(conf)
    device = choose_device(device_of(conf.runtime.device))
    check_precision(conf.precision, device)
    run_hash = config_hash(plain)
    texts = {
        "config.yaml": yaml.safe_dump(asdict(conf), allow_unicode=True, sort_keys=False),
        "config.canonical.json": canonical(plain),
        "command.txt": command + "\n",
    }
    assert conf.runtime.run_id is not None
    root = Path(conf.runtime.output_root).expanduser()
    with open_run(root, conf.runtime.run_id, run_hash, texts, keep) as run:
        source = source or weights.find(conf.backbone)  # first: the quickest to fail
        backbone_N = weights_overlap.backbone_images(source)
        if source.made_by is not None:
            runs = weights_overlap.describe(source.made_by)
            console.say(f"note: the backbone comes from {runs}; the head of that run is not used")
        eps = hf_config.assumed_eps_note(conf.backbone, source)
        dataset = _dataset(task, conf, (*eps, *run.code.notes))
        crew = None if task == "train" else start_pool(conf, dataset, source)
        extractor = Extractor(conf, dataset, source, device, crew, may_skip=task != "eval")
        with contextlib.closing(extractor), Board(run.path) as board:
            if crew is not None:
                world = World(0, crew.size, f"runtime.nproc={crew.size}")
            experiment = Experiment(
                task,
                conf,
                plain,
                run_hash,
                run,
                dataset,
                extractor,
                board,
                gate,
                world,
                backbone_N,
            )
            extractor.before_test = experiment.record_test_read
            yield experiment


def _dataset(task: str, conf: Config, notes: Sequence[str]) -> Dataset:
    """The dataset, with the validation that the task needs; prints the notes on it after `notes`.

    Raises:
        UserError: the dataset cannot be used, or lacks validation images.
    """
    cache_root = Path(conf.runtime.cache_root).expanduser()
    with console.progress(conf.dataset.name, None, "files") as advance:
        dataset = datasets.load(conf.dataset, cache_root, advance, may_skip=task != "eval")
    validation.check(task, conf, dataset)
    for note in (*notes, *dataset.notes, *validation.notes(task, conf, dataset)):
        console.say(f"note: {note}")
    return dataset


def stack_gate(conf: Config) -> str:
    """Whether the recording stack was validated here, as the stamp says it.

    Raises:
        UserError: it was not, and the backbone is one of those that ask for it.
    """
    if conf.backbone.name not in stack_check.MODERN:
        return "not needed"
    if not conf.runtime.stack_check:
        return "skipped"
    stack_check.require(Path(conf.runtime.cache_root), f"backbone={conf.backbone.name}")
    return "validated"


def find_complete_run(job: Experiment, checkpoint_id: str | None = None) -> Skipped | None:
    """The complete run of the same question and answer under this run_id, if there is one.

    The folder that was opened for this one is then gone again, unless the run is refused and the
    folder holds the states of a stopped training.

    Args:
        checkpoint_id: of the checkpoint that task=eval reads; None for other tasks.

    Raises:
        UserError: a complete run of this config lies there, but from other code, data or weights,
            or of another checkpoint.
    """
    root, current = Path(job.conf.runtime.output_root).expanduser(), identity(job)
    for folder in complete_runs(root, job.run.run_id, job.hash):
        recorded = {**read_json(folder, "env_stamp.json"), "checkpoint": folder.name}
        current["checkpoint"] = checkpoint_id[:SHORT] if checkpoint_id else folder.name
        other = differing(recorded, current, _compared(job, current))
        if not other or not (job.run.path / RESUME).exists():  # states may be of this other data
            job.run.discard()
        if not other:
            console.say(f"complete already: {folder}")
            return Skipped(folder)
        raise UserError(
            f"{folder} is complete, with another {other[0]} ({recorded[other[0]]}, now "
            f"{current[other[0]]}): give a new runtime.run_id"
        )
    return None


def _compared(job: Experiment, names: Iterable[str]) -> tuple[str, ...]:
    """The parts of an identity that can change the answer: zero-shot reads no split of train."""
    unused = {"split_digest"} if job.conf.task.name == "zero_shot" else set()
    return tuple(name for name in names if name not in unused)


def weight_store(conf: Config) -> ContentStore:
    """Local weights by digest, so that a checkpoint that names them finds them again."""
    return ContentStore(Path(conf.runtime.cache_root).expanduser() / "weights", console.say)


def keep_weights(conf: Config, path: Path) -> None:
    """Put a weights file into the store; of sharded weights every shard, and their list."""
    store = weight_store(conf)
    files, shard_list = weights.files_of(path)
    for file in files:
        store.put(file)
    if shard_list is not None:
        store.put_bytes(shard_list)


def predictions(features: Features, dataset: Dataset, logits_NC: np.ndarray) -> Predictions:
    """Logits of the readable images, and a row of -inf for each unreadable one: it counts."""
    bad_rows = np.array([bad.row for bad in features.bad], np.int64)
    row_N = np.concatenate([features.row_N, bad_rows])
    lost = np.full((len(bad_rows), logits_NC.shape[1]), -np.inf, np.float32)
    order = np.argsort(row_N, kind="stable")
    logits_NC = np.concatenate([logits_NC.astype(np.float32), lost])[order]
    return Predictions(row_N[order], dataset.manifest.label_N[row_N[order]], logits_NC)


def fit_record(
    job: Experiment, row_N: np.ndarray, validation_N: np.ndarray, forced: bool = False
) -> Fit:
    """The fit of a head on rows of this run's manifest.

    Args:
        row_N: fitted on.
        validation_N: rows whose predictions chose the head; those in row_N do not count again.
    """
    manifest = job.dataset.manifest
    fitted_N, chosen_N = (
        short_digests(manifest.sha256, rows) for rows in (row_N, np.setdiff1d(validation_N, row_N))
    )
    split_digest = job.dataset.split_digest
    return Fit(manifest.digest, split_digest, fitted_N, chosen_N, forced, job.backbone_N)


def identity(job: Experiment) -> dict[str, object]:
    """What, with the config_hash, names the answer: two runs that share it are the same run."""
    return identity_of(job.task, job.run.code, job.dataset, job.extractor.source)
