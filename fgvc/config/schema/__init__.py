"""The shape of a config: one dataclass per node. Values are in conf/*.yaml, not here.

The metadata of a field states how the config hash treats it (fields.py, fgvc.config.config_hash).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from fgvc.config.schema.backbone import Backbone, Checkpoint, chosen_checkpoint
from fgvc.config.schema.dataset import Archive, Card, Dataset, Generator, OfficialCounts
from fgvc.config.schema.fields import NoOptions, bounded, one_of, place
from fgvc.config.schema.head import GradientFit, heads
from fgvc.config.schema.task import TASKS, TrainTask

__all__ = [
    "TABLES",
    "TASKS",
    "Archive",
    "Backbone",
    "Card",
    "Checkpoint",
    "Config",
    "Dataset",
    "Generator",
    "GradientFit",
    "NoOptions",
    "OfficialCounts",
    "PartAttention",
    "Resolution",
    "Runtime",
    "TrainTask",
    "chosen_checkpoint",
    "is_exact",
    "reads_text",
    "variants",
]


@dataclass
class Resolution:
    """resolution= axis: the side of the square input of the backbone, in pixels.

    grid: patches per side, instead of a side; the side then follows from the backbone's patch.
    """

    name: str = MISSING
    side: int = bounded(0, 2048)  # 0: from the grid
    grid: int | None = field(default=None, metadata={"legacy": None, "bounds": (1, 256)})


@dataclass
class PartAttention:
    """part_attention= of every choice that selects patch tokens for the last block."""

    name: str = MISSING
    tokens: int | None = bounded(1)  # selected patches; null: one per head
    stride: int | None = bounded(1)  # pixels between patches; null: the patch size, no overlap
    last_block: str = one_of("pretrained", "random")
    contrastive: float = bounded(0.0)  # weight of the contrastive loss, task=train
    margin: float = bounded(-1.0, 1.0)  # of the negative pairs


@dataclass
class Runtime:
    """Where and how a command runs; the whole node is outside the hash."""

    output_root: str = MISSING
    cache_root: str = MISSING
    data_root: str = MISSING
    weights_root: str = MISSING
    multirun_root: str = MISSING
    run_id: str | None = MISSING
    resume: str | None = MISSING
    device: str = one_of("auto", "cpu", "cuda", "mps")
    num_workers: int | None = bounded(0)  # null: from the number of cores
    threads: int | None = bounded(1)  # null: torch's own choice
    nproc: int = bounded(1)
    eval_batch_size: int = bounded(1)
    micro_batch: int | None = bounded(1)  # images per device and pass in training; null: all
    grad_checkpointing: bool = MISSING
    compile: bool = MISSING
    save_every: int | None = bounded(1)  # steps between resume states; null: at each epoch's end
    keep_states: int = bounded(1)  # number of resume states kept
    resume_force: bool = MISSING
    retention_days: int = bounded(90)  # minimum for run folders and tables
    dry_run: bool = MISSING
    dry_run_jobs: str = one_of("auto", "all")
    stack_check: bool = MISSING
    stop_before_test: bool = MISSING
    stop_grace: float = bounded(0.1)  # seconds that ranks may take to respond to a stop signal


@dataclass
class Config:
    """The primary config. The dataclass of head, part_attention and task follows from `name`."""

    task: Any = MISSING
    dataset: Dataset = field(default_factory=Dataset)
    backbone: Backbone = field(default_factory=Backbone)
    head: Any = MISSING
    resolution: Resolution = field(default_factory=Resolution)
    part_attention: Any = MISSING
    seed: int = bounded(0, 2**32 - 1)
    precision: str = one_of("fp32", "bf16", "fp16")
    matmul_precision: str = one_of("highest", "high", "medium")
    preprocess: str = one_of("shared", "native", "transfg")
    final_fit: str = one_of("train", "trainval")
    checkpoint: str | None = place()
    run: str | None = place()
    against: str | None = place()
    # a file, folder or pattern, a list of them, or - (fgvc.config.image_argument)
    image: Any = field(default=MISSING, metadata={"place": True})
    runtime: Runtime = field(default_factory=Runtime)


# Prefixes of tables of rows with their own keys.
TABLES = ("backbone.checkpoints.", "dataset.archives.")


@functools.cache
def variants() -> Mapping[str, Mapping[str, type]]:
    """The nodes whose dataclass follows from the option: {node: {name of the option: class}}."""
    selections = ("transfg", "rollout", "cls_topk", "random", "centre")
    return {
        "task": {name: spec.options for name, spec in TASKS.items()},
        "head": {name: spec.options for name, spec in heads().items()},
        "part_attention": {"off": NoOptions, **dict.fromkeys(selections, PartAttention)},
    }


def is_exact(conf: Config) -> bool:
    """Whether features are IEEE float32, with which task.cascade and task.certify compare."""
    return conf.precision == "fp32" and conf.matmul_precision == "highest"


def reads_text(conf: Config) -> bool:
    """Whether the head reads the class names, as text features."""
    return heads()[conf.head.name].reads_text
