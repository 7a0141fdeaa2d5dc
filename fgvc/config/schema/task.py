"""task=: an experiment on the axes, or an operation on existing runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from fgvc.config.errors import ConfigError
from fgvc.config.schema.dataset import lacks_validation
from fgvc.config.schema.fields import bounded, later, one_of, place, verification
from fgvc.config.schema.head import heads


@dataclass
class OutputTask:
    """A task whose only option is where it writes: task=doctor, report and audit."""

    name: str = MISSING
    output: str | None = place()  # a file or a folder; null: below runtime.output_root


FEW_VALUES = 10  # of C, all of which are solved by either search
MIN_DECADES = 1e-9  # between two values of C, which are computed from logarithms


@dataclass
class ProbeTask:
    """task=probe: extract features, then fit a head to them."""

    name: str = MISSING
    c_low: float = bounded(1e-12, 1e12)
    c_high: float = bounded(1e-12, 1e12)
    c_count: int = bounded(1, 1000)  # log-spaced, both ends included
    # how C is selected among them: by a search, or by solving every value
    c_search: str = later("path", choices=("bracket", "path"))
    gap: float = bounded(1e-12, 1.0)  # relative objective gap on the path, for C up to gap_until
    final_gap: float = bounded(1e-12, 1.0)  # relative objective gap of the reported model
    gap_until: float = bounded(0.0)  # above this C, max_iterations may end the solve
    max_iterations: int = bounded(1)
    # training images that are forwarded in fp32 too, to bound the change of a margin; null: off
    cascade: int | None = later(None, (20, 1_000_000))
    # test images that are forwarded in fp32 too; not hashed: otherwise trying several numbers would
    # draw other images each time, until the result pleases
    certify: int | None = verification(1)


@dataclass
class EvaluationTask:
    """task=eval, task=zero_shot: nothing is fitted."""

    name: str = MISSING
    certify: int | None = verification(1)  # as in task=probe


@dataclass
class TrainTask:
    """task=train: train the head or the whole network by gradient; a recipe= sets these values.

    A step is one global batch, for any number of devices and micro-batches.
    """

    name: str = MISSING
    debug: str | None = field(default=MISSING, metadata={"choices": (None, "overfit")})
    epochs: int = bounded(1)
    batch_size: int = bounded(1)  # global: over all devices and micro-batches
    tune: str = one_of("full", "head")
    frozen_stages: int = bounded(0)  # 1: patch embedding, positions; 1 + n: also the first n blocks
    optimiser: str = one_of("adamw", "sgd")
    learning_rate: float = bounded(0.0)  # of the head, at the peak
    layer_decay: float = bounded(1e-3, 1.0)  # factor per block below the head; 1: none
    weight_decay: float = bounded(0.0)  # of matrices; not of biases, norms, positions
    momentum: float = bounded(0.0, 0.9999)  # sgd
    warmup_steps: int = bounded(0)
    final_rate: float = bounded(0.0, 1.0)  # end of the cosine, as a fraction of the peak
    clip_norm: float | None = bounded(1e-12)  # null: no clipping
    label_smoothing: float = bounded(0.0, 0.99)
    mixup: float = bounded(0.0)  # alpha of Beta(alpha, alpha); 0: off
    cutmix: float = bounded(0.0)
    mix_probability: float = bounded(0.0, 1.0)
    crop: str = one_of("resized", "random", "centre")
    crop_scale: float = bounded(0.01, 1.0)  # resized: smallest fraction of the area
    flip: float = bounded(0.0, 1.0)
    auto_augment: str = one_of("none", "randaugment", "trivialaugment")
    magnitude: int = bounded(0, 30)  # randaugment, of 31 bins
    operations: int = bounded(1, 10)  # randaugment
    erasing: float = bounded(0.0, 1.0)
    drop_path: float = bounded(0.0, 0.99)  # of the last block; rises linearly from 0
    ema: float | None = bounded(0.0, 0.999999)  # decay; null: no averaged weights
    sampling: str = one_of("uniform", "class_balanced")
    select: str = one_of("top1", "loss")  # criterion for the best epoch on validation
    patience: int | None = bounded(1)  # epochs without improvement before stopping; null: never


@dataclass
class PredictTask:
    """task=predict: images without a dataset -> class names, with the checkpoint's config."""

    name: str = MISSING
    top_k: int = bounded(1)  # classes per image, at most all classes
    format: str = one_of("table", "json", "csv")
    output: str | None = place()  # PATH.txt, .json or .csv, or a folder; null: the terminal
    overlay: str | None = place()  # a folder for images with their selected patches


@dataclass
class CheckTask:
    """task=check: run the stack (TensorBoard, FiftyOne, its database and App)."""

    name: str = MISSING
    record: bool = MISSING  # true: also update specs/stack.json and README's table


@dataclass
class ViewTask:
    """task=view: one run, or two runs of the same dataset, in the FiftyOne App; or TensorBoard."""

    name: str = MISSING
    viewer: str = one_of("fiftyone", "tensorboard")
    address: str = MISSING
    port: int = bounded(1024, 65535)


@dataclass
class CompareTask:
    """task=compare: compare two runs image by image."""

    name: str = MISSING
    force: bool = MISSING  # true: also compare runs of different comparability keys
    output: str | None = place()  # FILE.html, FILE.json or a folder for both; null: the terminal


@dataclass
class PruneTask:
    """task=prune: delete run folders and old tables after their retention time."""

    name: str = MISSING
    delete: bool = MISSING  # false: only list them
    pin: str | None = MISSING  # reason to keep run= permanently; nothing is pruned then
    unpin: str | None = MISSING  # reason to remove the pin


@dataclass
class PlanTask:
    """task=plan: write the plan document of an experiment; an unanswered item is a failure."""

    name: str = MISSING
    plans: str = one_of("probe", "zero_shot", "train")
    overrides: list[str] = MISSING  # of the experiment, such as task.epochs=10
    title: str | None = MISSING  # the question; null: from the axes
    output: str | None = place()  # FILE.md or a folder; null: specs/NNN-name of the checkout


@dataclass
class ExportTask:
    """task=export: write a checkpoint with its backbone, as safetensors and as ONNX."""

    name: str = MISSING
    tolerance: float = bounded(0.0)  # largest difference of a logit between torch and ONNX
    output: str | None = place()  # a folder; null: <runtime.output_root>/export/CHECKPOINT


@dataclass(frozen=True)
class TaskSpec:
    """A task: its page, fgvc/task/NAME.py, is imported when it runs.

    Attributes:
        options: dataclass of the `task` node.
        experiment: whether it has a config hash and a run folder, its weights and device are
            checked, and it can run as runtime.nproc processes; otherwise it is an operation on
            existing files.
        inputs: of checkpoint, run, against and image, those that it requires beside its dataset or
            instead of it. optional_inputs: those that it can read.
        check: (config): refuses, with ConfigError, what would fail only after data is loaded.
    """

    options: type
    experiment: bool = False
    inputs: tuple[str, ...] = ()
    optional_inputs: tuple[str, ...] = ()
    check: Callable[[Any], None] | None = None


def _check_probe(conf: Any) -> None:
    """Errors of a probe that would otherwise appear after its features are extracted."""
    task = conf.task
    if heads()[conf.head.name].learns and lacks_validation(conf.dataset):
        raise ConfigError(
            f"dataset.val_fraction=0: no validation image to choose head={conf.head.name} on. "
            "Set it to 0.1"
        )
    if task.c_count > 1 and task.c_low > task.c_high:
        raise ConfigError(
            f"task.c_low={task.c_low:g} task.c_high={task.c_high:g}: the lowest C exceeds the "
            "highest. Swap them"
        )
    if 0 < math.log10(task.c_high / task.c_low) < MIN_DECADES * (task.c_count - 1):
        raise ConfigError(
            f"task.c_low={task.c_low!r} task.c_high={task.c_high!r}: {task.c_count} values between "
            "them are closer than C is computed. Move them apart, or set both alike"
        )


def _check_train(conf: Any) -> None:
    """Errors of a finetune that would otherwise appear after its data is loaded."""
    task, head = conf.task, conf.head.name
    if not heads()[head].learns:
        raise ConfigError(
            f"head={head}: task=train needs a head with weights to learn, such as head=linear"
        )
    if conf.final_fit == "train" and lacks_validation(conf.dataset):
        raise ConfigError(
            "dataset.val_fraction=0: no validation image to choose the best epoch on. Set 0.1, "
            "or set final_fit=trainval, which reports the last epoch"
        )
    if conf.final_fit == "trainval" and conf.runtime.stop_before_test:
        raise ConfigError(
            "runtime.stop_before_test=true: final_fit=trainval has no validation to stop at"
        )
    if task.tune == "head" and task.frozen_stages:
        raise ConfigError(
            f"task.frozen_stages={task.frozen_stages}: task.tune=head freezes the whole backbone"
        )
    if task.patience is not None and conf.final_fit == "trainval":
        raise ConfigError(
            f"task.patience={task.patience}: final_fit=trainval has no validation to stop on"
        )
    nproc, mixes = conf.runtime.nproc, bool(task.mixup or task.cutmix)
    if nproc > task.batch_size // (2 if mixes else 1):
        raise ConfigError(
            f"runtime.nproc={nproc}: task.batch_size={task.batch_size} is global and cannot be "
            f"split into {nproc} parts{' in pairs, which mixup and cutmix need' if mixes else ''}"
        )


def _check_view(conf: Any) -> None:
    if conf.task.viewer == "fiftyone" and conf.run is None:
        raise ConfigError("task=view needs run=PATH")
    if conf.task.viewer == "tensorboard" and conf.against is not None:
        raise ConfigError(
            f"against={conf.against}: task.viewer=tensorboard shows all runs below run=, or below "
            "runtime.output_root. Leave against out"
        )


def _check_prune(conf: Any) -> None:
    if (conf.run is None) != (conf.task.pin is None and conf.task.unpin is None):
        raise ConfigError(
            "task=prune: run=PATH requires task.pin=WHY or task.unpin=WHY, and these require "
            "run=PATH"
        )


TASKS = {
    "probe": TaskSpec(ProbeTask, experiment=True, check=_check_probe),
    "zero_shot": TaskSpec(EvaluationTask, experiment=True),
    "train": TaskSpec(TrainTask, experiment=True, check=_check_train),
    "eval": TaskSpec(EvaluationTask, experiment=True, inputs=("checkpoint",)),
    "predict": TaskSpec(PredictTask, inputs=("checkpoint", "image")),
    "doctor": TaskSpec(OutputTask),
    "check": TaskSpec(CheckTask),
    "view": TaskSpec(ViewTask, optional_inputs=("run", "against"), check=_check_view),
    "report": TaskSpec(OutputTask),
    "compare": TaskSpec(CompareTask, inputs=("run", "against")),
    "audit": TaskSpec(OutputTask, inputs=("run",)),
    "plan": TaskSpec(PlanTask),
    "prune": TaskSpec(PruneTask, optional_inputs=("run",), check=_check_prune),
    "export": TaskSpec(ExportTask, inputs=("checkpoint",), optional_inputs=("image",)),
}
