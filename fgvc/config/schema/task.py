"""task= : what is done with the axes, or with runs that exist already."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded, one_of, place


@dataclass
class ProbeTask:
    """task=probe: features once, then a head fitted to them."""

    name: str = MISSING
    c_low: float = bounded(1e-12)
    c_high: float = bounded(1e-12)
    c_count: int = bounded(1, 1000)  # log-spaced, both ends included
    gap: float = bounded(1e-12, 1.0)  # relative objective gap on the path, up to gap_until
    final_gap: float = bounded(1e-12, 1.0)  # and of the model that is reported
    gap_until: float = bounded(0.0)  # above this C the iteration cap may end the solve
    max_iterations: int = bounded(1)


@dataclass
class ZeroShotTask:
    """task=zero_shot: images against the text features of the class names; nothing is fitted."""

    name: str = MISSING


@dataclass
class TrainTask:
    """task=train: the head alone or the whole network, by gradient; a recipe= fills it in.

    Steps are counted in global batches, whatever the number of devices and of accumulated parts.
    """

    name: str = MISSING
    debug: str | None = field(default=MISSING, metadata={"choices": (None, "overfit")})
    epochs: int = bounded(1)
    batch_size: int = bounded(1)  # global: over all devices and accumulated parts
    tune: str = one_of("full", "head")
    frozen_stages: int = bounded(0)  # 1: patches and positions; 1 + n: and the first n blocks
    optimiser: str = one_of("adamw", "sgd")
    learning_rate: float = bounded(0.0)  # of the head, at the peak
    layer_decay: float = bounded(1e-3, 1.0)  # factor per block below the head; 1: none
    weight_decay: float = bounded(0.0)  # of matrices; biases, norms, positions have none
    momentum: float = bounded(0.0, 0.9999)  # sgd
    warmup_steps: int = bounded(0)
    final_rate: float = bounded(0.0, 1.0)  # share of the peak that the cosine ends at
    clip_norm: float | None = bounded(1e-12)  # null: gradients as they are
    label_smoothing: float = bounded(0.0, 0.99)
    mixup: float = bounded(0.0)  # alpha of Beta(alpha, alpha); 0: off
    cutmix: float = bounded(0.0)
    mix_probability: float = bounded(0.0, 1.0)
    crop: str = one_of("resized", "random", "centre")
    crop_scale: float = bounded(0.01, 1.0)  # resized: smallest share of the area
    flip: float = bounded(0.0, 1.0)
    auto_augment: str = one_of("none", "randaugment", "trivialaugment")
    magnitude: int = bounded(0, 30)  # randaugment, of 31 bins
    operations: int = bounded(1, 10)  # randaugment
    erasing: float = bounded(0.0, 1.0)
    drop_path: float = bounded(0.0, 0.99)  # of the last block; rises linearly from 0
    ema: float | None = bounded(0.0, 0.999999)  # decay; null: no averaged weights
    sampling: str = one_of("uniform", "class_balanced")
    select: str = one_of("top1", "loss")  # what "best on validation" means
    patience: int | None = bounded(1)  # epochs without a better one until it stops; null: never


@dataclass
class EvalTask:
    """task=eval: read a checkpoint, repeat its evaluation; the config comes from the checkpoint."""

    name: str = MISSING


@dataclass
class PredictTask:
    """task=predict: pictures without a dataset -> class names; the config is the checkpoint's."""

    name: str = MISSING
    top_k: int = bounded(1)  # classes named for each picture, at most those there are
    format: str = one_of("table", "json", "csv")
    output: str | None = place()  # PATH.txt, .json or .csv, or a folder; null: the terminal
    overlay: str | None = place()  # a folder of pictures with what part attention selected


@dataclass
class DoctorTask:
    """task=doctor: a dataset on disk against its definition."""

    name: str = MISSING
    output: str | None = place()  # FILE.json or a folder; null: <runtime.output_root>/doctor


@dataclass
class CheckTask:
    """task=check: the stack (TensorBoard, FiftyOne, its database and App) really at work."""

    name: str = MISSING
    record: bool = MISSING  # true: into specs/stack.json and README's table too


@dataclass
class ReportTask:
    """task=report: every run folder under runtime.output_root -> one table."""

    name: str = MISSING
    output: str | None = place()  # folder of baselines.*; null: runtime.output_root


@dataclass
class ViewTask:
    """task=view: a run (and a second one of the same dataset) in the FiftyOne App."""

    name: str = MISSING
    address: str = MISSING
    port: int = bounded(1024, 65535)


@dataclass
class CompareTask:
    """task=compare: two runs against each other, image by image."""

    name: str = MISSING
    force: bool = MISSING  # true: runs of different comparability keys too
    output: str | None = place()  # FILE.json or a folder; null: the terminal alone


@dataclass
class AuditTask:
    """task=audit: a run folder against everything it promises."""

    name: str = MISSING
    output: str | None = place()  # FILE.json or a folder; null: <runtime.output_root>/audit


@dataclass
class PruneTask:
    """task=prune: run folders and old tables whose time is over."""

    name: str = MISSING
    delete: bool = MISSING  # false: say what would go, and touch nothing
    pin: str | None = field(default=MISSING)  # why run= stays for good; nothing is pruned then
    unpin: str | None = field(default=MISSING)  # the reason that holds no more


@dataclass
class PlanTask:
    """task=plan: the plan document of an experiment, each item answered or named as a failure."""

    name: str = MISSING
    plans: str = one_of("probe", "zero_shot", "train")
    overrides: list[str] = MISSING  # of the experiment's own task, as task.epochs=10
    title: str | None = field(default=MISSING)  # what is asked; null: from the axes
    output: str | None = place()  # FILE.md or a folder; null: specs/NNN-name of the checkout


@dataclass
class ExportTask:
    """task=export: a checkpoint with its backbone inside, as safetensors and as ONNX."""

    name: str = MISSING
    tolerance: float = bounded(0.0)  # largest difference of a logit between torch and ONNX
    output: str | None = place()  # a folder; null: <runtime.output_root>/export/CHECKPOINT
