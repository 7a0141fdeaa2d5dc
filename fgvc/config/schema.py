"""The shape of a config: one dataclass per node, values in conf/*.yaml, no default here.

Field metadata says what a field means to the config hash (see fgvc.config.compose):
    place   where something lies; never hashed (what stands behind it enters by digest or name)
    card    provenance for people; never hashed, as it can change no number
    choices the legal values
    legacy  the value that means "as before this field existed": left out of the hash at that value
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from fgvc.config.errors import ConfigError


def place(default: Any = MISSING) -> Any:
    """A field that says where something lies: kept out of the hash."""
    return field(default=default, metadata={"place": True})


def card(default: Any = MISSING) -> Any:
    """A field for people: kept out of the hash."""
    return field(default=default, metadata={"card": True})


def one_of(*choices: str) -> Any:
    """A field with a closed list of values."""
    return field(default=MISSING, metadata={"choices": choices})


def bounded(low: float, high: float | None = None) -> Any:
    """A number with bounds, both inclusive."""
    return field(default=MISSING, metadata={"bounds": (low, high)})


def later(legacy: Any) -> Any:
    """A field that older configs lack: `legacy` is what they mean, and is left out of the hash."""
    return field(default=legacy, metadata={"legacy": legacy})


@dataclass
class Card:
    """Provenance of a dataset, carried into every record and table."""

    source: str = MISSING
    citation: str = MISSING
    license: str = MISSING  # and the terms of use
    approval: str = MISSING
    filtering: str = MISSING
    contamination: str = MISSING  # who may have seen the test images before
    split: str = "not recorded"  # which images train, which test, and where validation comes from
    label_noise: str = "not recorded"


@dataclass
class OfficialCounts:
    """What a complete copy holds; 0 where the dataset has no official number."""

    classes: int = MISSING
    train: int = MISSING
    test: int = MISSING


@dataclass
class Generator:
    """Settings of the synthetic birds; null for datasets that lie on disk already."""

    version: int = bounded(1, 1)
    classes: int = bounded(2, 64)
    train_per_class: int = bounded(2)
    test_per_class: int = bounded(1)
    side: int = bounded(64, 1024)  # pixels of the longer side of a picture
    seed: int = MISSING


@dataclass
class Archive:
    """A file that a dataset is handed out in: a row of dataset.archives.

    url: null where no host serves it any more. bytes, md5, sha256: null where not known.
    """

    file: str = MISSING
    url: str | None = MISSING
    bytes: int | None = MISSING
    md5: str | None = MISSING
    sha256: str | None = MISSING


@dataclass
class Dataset:
    """dataset= axis."""

    name: str = MISSING
    reader: str = one_of(
        "cub", "cars", "dogs", "nabirds", "inat2017", "folder", "table", "synthetic"
    )
    root: str | None = place()  # null: reader table, the folder of the table
    table: str | None = place(None)  # reader table: the file
    partial: bool = MISSING
    subset: str | None = field(default=MISSING, metadata={"choices": (None, "tiny")})
    split_seed: int = bounded(0)
    val_fraction: float = bounded(0.0, 0.9)
    test_fraction: float = bounded(0.0, 0.9)  # folder: of one folder without train/ and test/
    on_bad_image: str = one_of("error", "skip")
    box_crop: bool = later(False)  # pictures are cut to their bounding boxes first
    official: OfficialCounts = field(default_factory=OfficialCounts)
    generator: Generator | None = MISSING
    archives: dict[str, Archive] = field(default_factory=dict, metadata={"card": True})
    download: bool = card(False)  # true: task=doctor fetches the archives first
    card: Card = card()  # noqa: RUF009 - a field, as dataclasses.field would make it


@dataclass
class Checkpoint:
    """One pretrained model of a family: a row of backbone.checkpoints."""

    size: str = MISSING
    model: str = MISSING  # the library's own name
    repo: str = MISSING
    revision: str = MISSING
    patch: int = MISSING
    registers: bool = MISSING
    prefix: int = MISSING
    width: int = MISSING
    native: int = card()  # pixels of the side it was trained at
    license: str = card()


@dataclass
class Backbone:
    """backbone= axis. size, patch and registers choose one row of checkpoints."""

    name: str = MISSING
    library: str = one_of("timm")
    size: str = MISSING
    patch: int | None = MISSING  # null: the first row of that size
    registers: bool = MISSING
    revision: str | None = MISSING  # null: the row's own
    features: str = one_of("cls", "patch_mean", "cls_patch_mean")
    position_resize: str = one_of("timm")
    normalization: str = one_of("imagenet", "half", "clip")
    native: str = one_of("vit", "dinov2", "clip", "siglip2")  # its preprocessing, by family
    pretrained: bool = MISSING
    weights: str | None = place()
    weights_sha256: str | None = MISSING
    contamination: str = card()
    checkpoints: dict[str, Checkpoint] = MISSING


@dataclass
class LinearHead:
    """head=linear: multinomial logistic regression (probe)."""

    name: str = MISSING


@dataclass
class KnnHead:
    """head=knn: weighted nearest neighbours (probe)."""

    name: str = MISSING
    k: int = bounded(1)
    temperature: float = bounded(1e-6)


@dataclass
class Resolution:
    """resolution= axis: the side of the square that reaches the backbone, in pixels."""

    name: str = MISSING
    side: int = bounded(16, 2048)


@dataclass
class NoPartAttention:
    """part_attention=off."""

    name: str = MISSING


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
class EvalTask:
    """task=eval: read a checkpoint, repeat its evaluation; the config comes from the checkpoint."""

    name: str = MISSING


@dataclass
class DoctorTask:
    """task=doctor: a dataset on disk against its definition."""

    name: str = MISSING
    output: str | None = place()  # null: <runtime.output_root>/doctor/<dataset.name>.json


@dataclass
class Runtime:
    """Where and how it runs, never what: the whole node is outside the hash."""

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
    dry_run: bool = MISSING
    stack_check: bool = MISSING


@dataclass
class Config:
    """The primary config. head, part_attention and task take the dataclass their `name` says."""

    task: Any = MISSING
    dataset: Dataset = field(default_factory=Dataset)
    backbone: Backbone = field(default_factory=Backbone)
    head: Any = MISSING
    resolution: Resolution = field(default_factory=Resolution)
    part_attention: Any = MISSING
    seed: int = bounded(0, 2**32 - 1)
    precision: str = one_of("fp32", "bf16")
    matmul_precision: str = one_of("highest", "high", "medium")
    preprocess: str = one_of("shared", "native", "transfg")
    final_fit: str = one_of("train", "trainval")
    checkpoint: str | None = place()
    run: str | None = place()
    against: str | None = place()
    image: str | None = place()
    runtime: Runtime = field(default_factory=Runtime)


# Tasks that are no experiments: no config hash, no run folder, no weights or device looked at.
OPERATIONS = ("doctor",)
# Nodes that are tables of rows with keys of their own.
TABLES = ("backbone.checkpoints.", "dataset.archives.")

# Nodes whose dataclass follows from the option that was chosen: {node: {name: dataclass}}.
VARIANTS: dict[str, dict[str, type]] = {
    "task": {"probe": ProbeTask, "eval": EvalTask, "doctor": DoctorTask},
    "head": {"linear": LinearHead, "knn": KnnHead},
    "part_attention": {"off": NoPartAttention},
}


def chosen_checkpoint(backbone: Backbone) -> Checkpoint:
    """The row that size, patch and registers choose.

    Raises:
        ConfigError: the family has no such row; names those it has.
    """
    rows = backbone.checkpoints.values()
    sizes = list(dict.fromkeys(row.size for row in rows))
    of_size = [row for row in rows if row.size == backbone.size]
    if not of_size:
        raise ConfigError(f"backbone.size={backbone.size}: {backbone.name} has {', '.join(sizes)}")
    fits = [
        row
        for row in of_size
        if row.registers == backbone.registers and backbone.patch in (None, row.patch)
    ]
    if not fits:
        have = "; ".join(
            f"patch={row.patch} registers={str(row.registers).lower()}" for row in of_size
        )
        raise ConfigError(
            f"backbone.patch={backbone.patch} "
            f"backbone.registers={str(backbone.registers).lower()}: "
            f"{backbone.name} {backbone.size} has {have}"
        )
    return fits[0]
