"""task=: an experiment on the axes, or an operation on existing runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded, one_of, place


@dataclass
class ProbeTask:
    """task=probe: extract features, then fit a head to them."""

    name: str = MISSING
    c_low: float = bounded(1e-12)
    c_high: float = bounded(1e-12)
    c_count: int = bounded(1, 1000)  # log-spaced, both ends included
    gap: float = bounded(1e-12, 1.0)  # relative objective gap on the path, for C up to gap_until
    final_gap: float = bounded(1e-12, 1.0)  # relative objective gap of the reported model
    gap_until: float = bounded(0.0)  # above this C, max_iterations may end the solve
    max_iterations: int = bounded(1)


@dataclass
class ZeroShotTask:
    """task=zero_shot: compare images with text features of the class names; nothing is fitted."""

    name: str = MISSING


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
class EvalTask:
    """task=eval: repeat the evaluation of a checkpoint, with the config of the checkpoint."""

    name: str = MISSING


@dataclass
class PredictTask:
    """task=predict: images without a dataset -> class names, with the checkpoint's config."""

    name: str = MISSING
    top_k: int = bounded(1)  # classes per image, at most all classes
    format: str = one_of("table", "json", "csv")
    output: str | None = place()  # PATH.txt, .json or .csv, or a folder; null: the terminal
    overlay: str | None = place()  # a folder for images with their selected patches


@dataclass
class DoctorTask:
    """task=doctor: check a dataset on disk against its definition."""

    name: str = MISSING
    output: str | None = place()  # FILE.json or a folder; null: <runtime.output_root>/doctor


@dataclass
class CheckTask:
    """task=check: run the stack (TensorBoard, FiftyOne, its database and App)."""

    name: str = MISSING
    record: bool = MISSING  # true: also update specs/stack.json and README's table


@dataclass
class ReportTask:
    """task=report: the run folders under runtime.output_root -> one table."""

    name: str = MISSING
    output: str | None = place()  # folder of baselines.*; null: runtime.output_root


@dataclass
class ViewTask:
    """task=view: show one run, or two runs of the same dataset, in the FiftyOne App."""

    name: str = MISSING
    address: str = MISSING
    port: int = bounded(1024, 65535)


@dataclass
class CompareTask:
    """task=compare: compare two runs image by image."""

    name: str = MISSING
    force: bool = MISSING  # true: also compare runs of different comparability keys
    output: str | None = place()  # FILE.json or a folder; null: the terminal alone


@dataclass
class AuditTask:
    """task=audit: verify a run folder."""

    name: str = MISSING
    output: str | None = place()  # FILE.json or a folder; null: <runtime.output_root>/audit


@dataclass
class PruneTask:
    """task=prune: delete run folders and old tables after their retention time."""

    name: str = MISSING
    delete: bool = MISSING  # false: only list them
    pin: str | None = field(
        default=MISSING
    )  # reason to keep run= permanently; nothing is pruned then
    unpin: str | None = field(default=MISSING)  # reason to remove the pin


@dataclass
class PlanTask:
    """task=plan: write the plan document of an experiment; an unanswered item is a failure."""

    name: str = MISSING
    plans: str = one_of("probe", "zero_shot", "train")
    overrides: list[str] = MISSING  # of the experiment, such as task.epochs=10
    title: str | None = field(default=MISSING)  # the question; null: from the axes
    output: str | None = place()  # FILE.md or a folder; null: specs/NNN-name of the checkout


@dataclass
class ExportTask:
    """task=export: write a checkpoint with its backbone, as safetensors and as ONNX."""

    name: str = MISSING
    tolerance: float = bounded(0.0)  # largest difference of a logit between torch and ONNX
    output: str | None = place()  # a folder; null: <runtime.output_root>/export/CHECKPOINT
