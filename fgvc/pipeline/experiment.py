"""A config -> an open experiment: run folder, dataset, feature extractor, TensorBoard; and the
results that a task returns.

N images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from fgvc.config.compose import canonical, config_hash
from fgvc.config.finetuned_weights import backbone_was_trained
from fgvc.config.schema import Config
from fgvc.data import dataset as datasets
from fgvc.model.backbone import hf_config, weights
from fgvc.parallel import bf16_cpu
from fgvc.parallel.process_group import ProcessGroup, join_group
from fgvc.pipeline import validation
from fgvc.pipeline.determinism import set_up_process
from fgvc.pipeline.feature_rows import FeatureRows
from fgvc.pipeline.features import FeatureExtractor
from fgvc.pipeline.job import Job, Skipped
from fgvc.pipeline.rank_extraction import RankedExtractor
from fgvc.pipeline.restore import read_checkpoint
from fgvc.record import class_means, command_file, console, run_dir, stack_check
from fgvc.record.class_means import ClassMeans
from fgvc.record.env_stamp import GitState
from fgvc.record.fitted_images import FittedImages, earlier_runs, overlap, short_digests
from fgvc.record.tensorboard import Board
from fgvc.types import (
    AttentionMaps,
    BadImage,
    Dataset,
    Features,
    Predictions,
    Preempted,
    UserError,
    WeightsSource,
)

DATA = ("manifest_digest", "split_digest", "labelmap_digest", "weights_digest", "weights_revision")
SHOWN = 16  # hex digits of a digest in a message


@dataclass
class Experiment:
    """An open run with its data.

    plain, config_hash: the hashed part of the config, and its hash. stack_check: as in the
    environment stamp. group: the processes of the run; this process is rank 0.
    backbone_image_N: short digests of the images that changed the backbone in runs of fgvc.
    """

    task: str
    conf: Config
    plain: dict[str, Any]
    config_hash: str
    run: run_dir.RunFolder
    dataset: Dataset
    extractor: FeatureExtractor
    board: Board
    stack_check: str
    group: ProcessGroup
    backbone_image_N: np.ndarray

    @property
    def num_classes(self) -> int:
        return len(self.dataset.labelmap)

    @property
    def identity(self) -> dict[str, object]:
        """The identity of the run besides its config: equal identities mean equal results."""
        return identity_of(self.task, self.run.code, self.dataset, self.extractor.source)

    def record_test_read(self) -> None:
        """Record a read of test; the extractor calls this before it reads the first image."""
        self.run.record_test_read(self.identity)

    def find_complete_run(self, checkpoint_id: str | None = None) -> Skipped | None:
        """The complete run of the same config, code, data and weights under this run_id, if any.

        The folder of the opened run is then deleted, unless the run is refused and the folder holds
        the states of a stopped training.

        checkpoint_id: of the checkpoint that task=eval reads; None for other tasks.

        Raises:
            UserError: a complete run of this config exists with other code, data, weights or
                checkpoint.
        """
        run, current = self.run, self.identity
        root = Path(self.conf.runtime.output_root).expanduser()
        for folder in run_dir.complete_runs(root, run.run_id, self.config_hash):
            recorded = {**run_dir.read_json(folder, "env_stamp.json"), "checkpoint": folder.name}
            current["checkpoint"] = checkpoint_id[: run_dir.SHORT] if checkpoint_id else folder.name
            # zero-shot reads no split of train
            unused = {"split_digest"} if self.conf.task.name == "zero_shot" else set()
            different = differing(recorded, current, tuple(n for n in current if n not in unused))
            has_states = (run.path / run_dir.RESUME).exists()
            if not (different and has_states):  # the states may be of the other data
                run.discard()
            if different:
                name = different[0]
                raise UserError(
                    f"{folder} is complete, with another {name} ({recorded[name]}, now "
                    f"{current[name]}): give a new runtime.run_id"
                )
            console.say(f"complete already: {folder}")
            return Skipped(folder)
        return None

    def digest_fitted_images(
        self, row_N: np.ndarray, validation_N: np.ndarray, forced: bool = False
    ) -> FittedImages:
        """The digests of the images that fitted and chose a head.

        Args:
            row_N: manifest rows that the head was fitted on.
            validation_N: rows whose predictions chose the head; those in row_N do not count again.
            forced: whether the training was resumed by force.
        """
        manifest = self.dataset.manifest
        return FittedImages(
            manifest.digest,
            self.dataset.split_digest,
            short_digests(manifest.sha256, row_N),
            short_digests(manifest.sha256, np.setdiff1d(validation_N, row_N)),
            forced,
            self.backbone_image_N,
        )

    def class_means(
        self, features: FeatureRows | None, fitted: FittedImages | None = None
    ) -> ClassMeans | str:
        """The class means of features that were not trained on their images, or why there are none.

        Args:
            features: of training or validation images; None: no such image is left.
            fitted: the images that this run trained the backbone on; None: it is frozen.
        """
        if features is None:
            return "the backbone was trained on all of them, so none can choose the limit"
        manifest, trained_N = self.dataset.manifest, [self.backbone_image_N]
        trained_N += [] if fitted is None else [fitted.image_N]
        image_N = short_digests(manifest.sha256, features.row_N)
        if overlap(np.concatenate(trained_N), image_N):
            return "the backbone was trained on the images that would choose the limit"
        label_N = manifest.label_N[features.row_N]
        return class_means.fit(features.x_RD, features.index_N, label_N)


@dataclass(frozen=True)
class Results:
    """The results of a task, to be written by `write_run`.

    predictions: by split.
    head: state dict of the head, or the checkpoint file that holds it, which is then copied.
    numbers: further entries of metrics.json.
    fitted_images: the images that fitted or chose the head, to count their overlap with test.
    has_backbone: whether `head` is the state dict of backbone and head together.
    cost: as from `FeatureExtractor.cost`; None: the cost of the extractor.
    steps: optimiser steps behind the weights.
    features, attention_maps: of the readable test images; None where there are none.
    notes: one line each that a reader of the numbers must know; printed and recorded.
    unreadable: images of any split that the run could not read.
    class_means: of known images, for the checkpoint; or why there are none.
    cascade: the bound of task.cascade, for the checkpoint.
    """

    predictions: Mapping[str, Predictions]
    head: Mapping[str, torch.Tensor] | Path
    numbers: Mapping[str, object]
    fitted_images: FittedImages
    has_backbone: bool = False
    cost: Mapping[str, object] | None = None
    steps: int = 0
    features: Features | None = None
    attention_maps: AttentionMaps | None = None
    notes: tuple[str, ...] = ()
    unreadable: tuple[BadImage, ...] = ()
    class_means: ClassMeans | str = ""
    cascade: Mapping[str, Any] | None = None


@contextmanager
def open_experiment(
    task: str,
    job: Job,
    conf: Config,
    plain: dict[str, Any],
    keep: Sequence[str] = (),
    group: ProcessGroup | None = None,
    source: WeightsSource | None = None,
) -> Iterator[Experiment]:
    """Open the run folder, seed the process, load the dataset and find the weights.

    Args:
        task: the task that runs.
        job: its command and start.
        conf: of the job; for task=eval, the config of the checkpoint. plain: its hashed part.
        keep: files of an earlier, interrupted process to keep in the run folder.
        group: the ranks of a training. None: they extract features, and start when they are needed.
        source: of the backbone's weights; None: they are searched for.

    Raises:
        UserError: the dataset, the weights or the folder cannot be used, or there is no validation
            image and the task needs one.
    """
    stack = _check_stack(conf)
    device, runtime = set_up_process(conf), conf.runtime
    run_hash, root = config_hash(plain), Path(runtime.output_root).expanduser()
    texts = {
        "config.yaml": yaml.safe_dump(asdict(conf), allow_unicode=True, sort_keys=False),
        "config.canonical.json": canonical(plain),
        command_file.FILE: job.command + "\n",
    }
    assert runtime.run_id is not None
    ranks = (runtime.nproc, runtime.device, runtime.stop_grace)
    joined = join_group(*ranks, lazy=True) if group is None else group.naming_lost_rank()
    # the group inside, so that the run records its errors
    opened = run_dir.open_run(root, runtime.run_id, run_hash, texts, keep, job.started)
    with opened as run, joined as group:

        def mark_preempted(reason: str) -> None:
            if run.sealed is None:
                run_dir.write_status(run.path, "preempted", run.started, Preempted(reason))

        if group.watchdog is not None:
            group.watchdog.is_training = task == "train"
            group.watchdog.on_end = mark_preempted
        source = source or weights.find(conf.backbone)  # first, because it fails fastest
        image_N = _backbone_images(source)
        if source.made_by is not None:
            runs = describe_earlier_runs(source)
            console.say(f"note: the backbone comes from {runs}; the head of that run is not used")
        slow = bf16_cpu.slow_note(conf.precision, device.type)
        notes = (
            *(() if slow is None else (slow,)),
            *hf_config.assumed_eps_note(conf.backbone, source),
            *run.code.notes,
        )
        dataset = _load_dataset(task, conf, notes)
        kind: Callable[..., FeatureExtractor] = FeatureExtractor
        if task != "train" and group.size > 1:
            kind = partial(RankedExtractor, group=group)
        extractor = kind(conf, dataset, source, device, suggest_skip=task != "eval")
        with Board(run.path) as board:
            experiment = Experiment(
                task, conf, plain, run_hash, run, dataset, extractor, board, stack, group, image_N
            )
            extractor.before_test = experiment.record_test_read
            yield experiment
            extractor.end()


def _backbone_images(source: WeightsSource) -> np.ndarray:
    """image_N: short digests, sorted, of every image that changed the backbone in a run of fgvc.

    If a backbone was finetuned on another split of the same dataset, the training may have included
    test images of a probe. They count like images that fitted the head. Every earlier finetune
    counts. The checkpoint is verified.

    Raises:
        UserError: the checkpoint is damaged, or does not record its images.
    """
    if source.made_by is None or source.path is None:
        return np.empty(0, np.int64)
    stored = read_checkpoint(source.path, "backbone.weights=")
    trained = backbone_was_trained(stored.metadata)
    own = (stored.fitted_images.image_N, stored.fitted_images.validation_N) if trained else ()
    return np.unique(np.concatenate([stored.fitted_images.backbone_N, *own]))


def describe_earlier_runs(source: WeightsSource) -> str:
    """The runs of fgvc that made a file of weights, the newest first, in one line."""
    runs = earlier_runs({"made_by": source.made_by})
    return ", after ".join(f"task={run['task']} on {run['dataset']}" for run in runs)


def _load_dataset(task: str, conf: Config, notes: Sequence[str]) -> Dataset:
    """Load the dataset and check its validation split; prints `notes`, then its own notes."""
    cache_root = Path(conf.runtime.cache_root).expanduser()
    with console.progress(conf.dataset.name, None, "files") as advance:
        dataset = datasets.load(conf.dataset, cache_root, advance, suggest_skip=task != "eval")
    validation.check(task, conf, dataset)
    for note in (*notes, *dataset.notes, *validation.notes(task, conf, dataset)):
        console.say_note(f"note: {note}")
    return dataset


def _check_stack(conf: Config) -> str:
    """Whether the recording stack was validated here; UserError: it was not, but must be."""
    if conf.backbone.name not in stack_check.MODERN:
        return "not needed"
    if not conf.runtime.stack_check:
        return "skipped"
    stack_check.require(Path(conf.runtime.cache_root), f"backbone={conf.backbone.name}")
    return "validated"


def identity_of(
    task: str, code: GitState, dataset: Dataset, source: WeightsSource
) -> dict[str, object]:
    """The identity of a run as plain data; None where a part does not exist.

    source: of the pretrained weights; the seed of random weights is in the config.
    """
    return {
        "task": task,
        "git_commit": code.commit,
        "code_patch_sha256": code.patch_sha256,
        "manifest_digest": dataset.manifest.digest,
        "split_digest": dataset.split_digest,
        "labelmap_digest": dataset.labelmap.digest,
        "weights_digest": source.sha256,
        "weights_revision": source.revision,
    }


def differing(
    recorded: Mapping[str, object], current: Mapping[str, object], names: tuple[str, ...] = DATA
) -> list[str]:
    """The names whose values differ.

    Hub revisions are compared only if both exist: a file has none and is identified by its digest.
    """
    unequal = [name for name in names if recorded.get(name) != current.get(name)]
    revisions = recorded.get("weights_revision"), current.get("weights_revision")
    return [name for name in unequal if name != "weights_revision" or None not in revisions]


def check_data(
    recorded: Mapping[str, object], current: Mapping[str, object], path: object, also: str = ""
) -> None:
    """Refuse to continue on other images, another split, label map or other weights.

    Args:
        path: of the earlier state or run, with which the message begins.
        also: other differences, for the message.

    Raises:
        UserError: names each part that differs with both values.
    """
    if not (names := differing(recorded, current)):
        return
    values = "; ".join(
        f"{name}: {str(recorded.get(name))[:SHOWN]} there, {str(current.get(name))[:SHOWN]} here"
        for name in names
    )
    raise UserError(
        f"{path}: trained on other data or weights than there are now ({values}{also}). Restore "
        "them, or train under a new runtime.run_id without runtime.resume; "
        "runtime.resume_force=true accepts only differences of the config"
    )
