"""Choices that are legal alone -> an error if they are invalid together, before any work starts."""

from __future__ import annotations

from pathlib import Path

from fgvc.config import image_argument
from fgvc.config.errors import ConfigError, InvalidCombinationError
from fgvc.config.schema import TASKS, Config, chosen_checkpoint, reads_text
from fgvc.config.schema.dataset import lacks_validation
from fgvc.config.schema.head import heads
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files.run_folder import CHECKPOINT, SEALED, locate_run

ROTARY_FAMILY = "dinov3"  # in timm's model names; rotary positions need no resizing
SIDES = (224, 256, 336, 384, 392, 448, 512, 518)  # pixels; the options of resolution=


def fill_derived(conf: Config) -> None:
    """Set values that follow from other choices, so that equivalent configs share a hash.

    The size and normalization come from the chosen row. A token grid becomes its side in pixels:
    `t256` with patch 16 is `r256`. A position_resize of a recipe that the model does not support
    becomes the model's default. final_fit gets one value where both are equivalent: without
    validation images, and for task.debug=overfit, which trains on one batch of train. The grid of a
    gradient fit is sorted, without repetitions.
    """
    row, resolution = chosen_checkpoint(conf.backbone), conf.resolution
    conf.backbone.size = row.size
    conf.backbone.normalization = row.normalization or conf.backbone.normalization
    resizes = position_resizes(conf)
    if conf.backbone.position_resize not in resizes:
        conf.backbone.position_resize = resizes[0]
    if conf.task.name == "probe" and lacks_validation(conf.dataset):
        conf.final_fit = "trainval"
    if conf.task.name == "train" and conf.task.debug and not lacks_validation(conf.dataset):
        conf.final_fit = "train"
    if (fit := getattr(conf.head, "fit", None)) is not None:  # + 0.0 makes -0.0 equal to 0.0
        fit.learning_rates = sorted({rate + 0.0 for rate in fit.learning_rates})
        fit.weight_decays = sorted({decay + 0.0 for decay in fit.weight_decays})
    if resolution.grid is not None:
        resolution.side = resolution.grid * row.patch
        resolution.name, resolution.grid = f"r{resolution.side}", None


def position_resizes(conf: Config) -> tuple[str, ...]:
    """The values of backbone.position_resize that the chosen model supports; the default first."""
    methods = LIBRARIES[conf.backbone.library].position_resizes
    return methods[:1] if ROTARY_FAMILY in chosen_checkpoint(conf.backbone).model else methods


def check_text(conf: Config) -> None:
    """Refuse features that the family lacks, and heads that read text without a text tower.

    Raises:
        ConfigError: names the key and the legal values.
    """
    backbone, legal = conf.backbone, LIBRARIES[conf.backbone.library].features
    if reads_text(conf) and "projected" not in legal:
        raise InvalidCombinationError(
            f"head={conf.head.name} reads class names: backbone={backbone.name} has no text tower, "
            "backbone=clip and backbone=siglip2 have one"
        )
    if backbone.features not in legal:
        raise InvalidCombinationError(
            f"backbone.features={backbone.features}: {backbone.name} has {', '.join(legal)}"
        )
    if reads_text(conf) and backbone.features != "projected":
        raise InvalidCombinationError(
            f"backbone.features={backbone.features}: head={conf.head.name} compares with text, "
            "which takes backbone.features=projected"
        )
    if (conf.task.name == "zero_shot") != (heads()[conf.head.name].fit is None):
        raise ConfigError(
            f"task={conf.task.name} head={conf.head.name}: zero_shot requires head=text, "
            "and head=text requires task=zero_shot"
        )
    for prompt in conf.dataset.prompts if reads_text(conf) else ():
        if prompt.count("{}") != 1:
            raise ConfigError(f"dataset.prompts: {prompt!r} needs one {{}} for the class name")
    if reads_text(conf) and not conf.dataset.prompts:
        raise ConfigError("dataset.prompts=[]: at least one prompt, as 'a photo of a {}.'")


def check_resolution(conf: Config) -> None:
    """Refuse a side in pixels that disagrees with its name or is no multiple of the patch.

    The published side of a checkpoint is always legal: the library uses as many whole patches as
    fit and ignores the remaining pixels (27 x 27 patches of 14 in 384 px).

    Raises:
        ConfigError: names the side, the patch and the nearest legal resolutions.
    """
    side, name = conf.resolution.side, conf.resolution.name
    if side < 16:
        raise ConfigError(f"resolution.side={side}: must be at least 16 and at most 2048")
    if name != f"r{side}":
        raise ConfigError(
            f"resolution.side={side} but resolution.name={name}: choose a resolution=, or set "
            f"resolution.name=r{side} too"
        )
    row = chosen_checkpoint(conf.backbone)
    if row.fits(side):
        return
    fitting = [option for option in SIDES if row.fits(option)]
    closest = sorted(sorted(fitting, key=lambda option: abs(option - side))[:3])
    raise InvalidCombinationError(
        f"resolution={side} px is not a multiple of {row.patch}, the patch of {row.model}; "
        f"nearest that fit: {', '.join(f'resolution=r{option}' for option in closest)}"
    )


def missing_inputs(conf: Config) -> list[str]:
    """The keys that the task requires and the command does not give."""
    keys = [name for name in TASKS[conf.task.name].inputs if getattr(conf, name) is None]
    needs_table = conf.dataset.reader == "table" and conf.task.name != "eval"
    return [*keys, *(["dataset.table"] if needs_table and conf.dataset.table is None else [])]


def check_inputs(conf: Config, will_run: bool = True) -> None:
    """Refuse a missing input of the task, and an input that the task would ignore.

    Args:
        will_run: whether the job will run; a config that is only printed may lack inputs.
    """
    task, trains = TASKS[conf.task.name], conf.task.name == "train"
    if conf.runtime.nproc != 1 and not task.experiment:
        raise ConfigError(
            f"runtime.nproc={conf.runtime.nproc}: task={conf.task.name} runs as 1 process"
        )
    if conf.runtime.resume is not None and not trains:
        raise ConfigError(
            f"runtime.resume={conf.runtime.resume}: task={conf.task.name} has no state to resume "
            "from a path; give the same runtime.run_id to reuse its features"
        )
    for name in ("checkpoint", "run", "against", "image"):
        value = getattr(conf, name)
        if value is None and name in task.inputs and will_run:
            raise ConfigError(f"task={conf.task.name} needs {name}=PATH")
        if value is not None and name not in task.inputs + task.optional_inputs:
            raise ConfigError(f"{name}={value}: task={conf.task.name} reads no {name}")
        if value is not None and name != "image" and not Path(value).expanduser().exists():
            raise ConfigError(f"{name}={value}: no such file or folder")
        if value is not None and name != "image":
            marks = (SEALED, CHECKPOINT) if name == "checkpoint" else (SEALED,)
            locate_run(Path(value).expanduser(), name, marks)
    _check_table(conf, will_run)
    lacks_run = conf.run is None and "run" in task.optional_inputs
    if task.check is not None and (will_run or not lacks_run):
        task.check(conf)
    if conf.runtime.stop_before_test and not trains:
        raise ConfigError(
            f"runtime.stop_before_test=true: task={conf.task.name} has no validation to stop at, "
            "only task=train has"
        )
    if conf.image is not None and not image_argument.reads_stdin(conf.image):
        image_argument.find_sources(conf.image)
    for name in ("root", "table"):
        value = getattr(conf.dataset, name)
        if value is not None and "://" in value:
            raise ConfigError(
                f"dataset.{name}={value}: an address is not read; download it, and give its path"
            )
    if conf.dataset.download and conf.task.name != "doctor":
        raise ConfigError(
            f"dataset.download=true: task={conf.task.name} downloads nothing; "
            "fetch the dataset first with task=doctor dataset.download=true"
        )


def check_part_attention(conf: Config) -> None:
    """Refuse settings of part attention that are invalid with this task or backbone.

    Raises:
        ConfigError: names the key and the legal choices.
    """
    chosen = conf.part_attention
    if chosen.name == "off":
        return
    patch, trains = chosen_checkpoint(conf.backbone).patch, conf.task.name == "train"
    frozen = not trains or conf.task.tune == "head"
    if chosen.last_block == "random" and frozen:
        raise InvalidCombinationError(
            "part_attention.last_block=random: a frozen backbone never trains the block; "
            "it requires task=train task.tune=full"
        )
    if chosen.contrastive and frozen:
        raise ConfigError(
            f"part_attention.contrastive={chosen.contrastive:g}: it trains the features, and a "
            "frozen backbone does not change; it requires task=train task.tune=full"
        )
    if trains and chosen.contrastive and (conf.task.mixup or conf.task.cutmix):
        raise ConfigError(
            f"part_attention.contrastive={chosen.contrastive:g}: mixed images have no "
            "single class; set task.mixup=0 and task.cutmix=0"
        )
    if chosen.stride is not None and chosen.stride > patch:
        raise ConfigError(
            f"part_attention.stride={chosen.stride}: patches of {patch} px would leave gaps; "
            f"at most {patch}"
        )


def _check_table(conf: Config, will_run: bool) -> None:
    dataset = conf.dataset
    if conf.task.name == "eval":
        return  # the reader is the checkpoint's
    if dataset.reader == "table" and dataset.table is None and will_run:
        raise ConfigError(
            "dataset=table needs dataset.table=FILE, a CSV, TSV or Parquet of path, label, split"
        )
    for name in ("table", "path_column", "label_column", "split_column"):
        value = getattr(dataset, name)
        what = "reads one" if name == "table" else "has columns"
        if dataset.reader != "table" and value is not None:
            raise ConfigError(
                f"dataset.{name}={value}: only dataset=table {what}, not dataset={dataset.name}"
            )
