"""Choices that are legal alone -> whether they fit together, said before any work starts."""

from __future__ import annotations

from pathlib import Path

from fgvc.config import image_argument
from fgvc.config.errors import ConfigError, ImpossibleError
from fgvc.config.schema import (
    Config,
    CosineHead,
    GradientFit,
    MlpHead,
    chosen_checkpoint,
    reads_text,
)

INPUTS = {  # what a task reads beside its dataset, or instead of one; others read none
    "eval": {"checkpoint"},
    "predict": {"checkpoint", "image"},
    "view": {"run"},
    "compare": {"run", "against"},
    "audit": {"run"},
    "export": {"checkpoint"},
}
OPTIONAL_INPUTS = {
    "view": {"against"},
    "export": {"image"},
    "prune": {"run"},
}  # what a task reads if it is given
FEATURES = {  # what a family's backbone can be read by
    "timm": ("cls", "patch_mean", "cls_patch_mean"),
    "open_clip": ("cls", "patch_mean", "cls_patch_mean", "projected"),
    "transformers": ("map", "patch_mean", "projected"),
}
POSITION_RESIZE = {  # methods of resizing positions per library; the first is its default
    "timm": ("timm", "zoom"),
    "open_clip": ("open_clip",),
    "transformers": ("transformers",),
}
ROTARY_FAMILY = "dinov3"  # in timm's names of models with rotary positions, which need no resizing
OWN_SPLITS = ("folder", "table")  # readers of data that may have a validation split
EXTRACTING_TASKS = (
    "probe",
    "zero_shot",
    "eval",
)  # features, on as many processes as runtime.nproc says
SIDES = (224, 256, 336, 384, 392, 448, 512, 518)  # pixels; the options of resolution=


def fill_derived(conf: Config) -> None:
    """Write what follows from the chosen row of checkpoints where the choice left it open.

    A resolution given as a token grid becomes its side in pixels, so that `t256` with patch 16 and
    `r256` are the same question and share a hash. If a recipe names a position_resize that the
    model does not support, the model's default replaces it. Without validation images, both values
    of final_fit are equivalent; task.debug=overfit trains on one batch of train, whatever final_fit
    says. The grid of a gradient fit is a set: neither order nor repetition matters.
    """
    row, resolution = chosen_checkpoint(conf.backbone), conf.resolution
    conf.backbone.size = row.size
    conf.backbone.normalization = row.normalization or conf.backbone.normalization
    resizes = position_resizes(conf)
    if conf.backbone.position_resize not in resizes:
        conf.backbone.position_resize = resizes[0]
    if conf.task.name == "probe" and _lacks_validation(conf):
        conf.final_fit = "trainval"
    if conf.task.name == "train" and conf.task.debug and not _lacks_validation(conf):
        conf.final_fit = "train"
    if isinstance(conf.head, CosineHead | MlpHead):
        _sort_grid(conf.head.fit)
    if resolution.grid is not None:
        resolution.side = resolution.grid * row.patch
        resolution.name, resolution.grid = f"r{resolution.side}", None


def _lacks_validation(conf: Config) -> bool:
    """Whether no image can be in validation. A folder or a table may bring its own split, which
    is known once it is read: `task.validation` decides there."""
    return conf.dataset.val_fraction == 0 and conf.dataset.reader not in OWN_SPLITS


def _sort_grid(fit: GradientFit) -> None:
    fit.learning_rates = sorted({rate + 0.0 for rate in fit.learning_rates})  # 0.0 of -0.0 too
    fit.weight_decays = sorted({decay + 0.0 for decay in fit.weight_decays})


def position_resizes(conf: Config) -> tuple[str, ...]:
    """The values of backbone.position_resize that the chosen model supports; its default first."""
    ways = POSITION_RESIZE[conf.backbone.library]
    return ways[:1] if ROTARY_FAMILY in chosen_checkpoint(conf.backbone).model else ways


def check_text(conf: Config) -> None:
    """Refuse features that the family lacks, and class names where there is no text tower.

    Raises:
        ConfigError: names the key and what fits.
    """
    backbone, legal = conf.backbone, FEATURES[conf.backbone.library]
    if reads_text(conf) and "projected" not in legal:
        raise ImpossibleError(
            f"head={conf.head.name} reads class names: backbone={backbone.name} has no text tower, "
            "backbone=clip and backbone=siglip2 have one"
        )
    if backbone.features not in legal:
        raise ImpossibleError(
            f"backbone.features={backbone.features}: {backbone.name} has {', '.join(legal)}"
        )
    if reads_text(conf) and backbone.features != "projected":
        raise ImpossibleError(
            f"backbone.features={backbone.features}: head={conf.head.name} compares with text, "
            "which takes backbone.features=projected"
        )
    if (conf.task.name == "zero_shot") != (conf.head.name == "text"):
        raise ConfigError(
            f"task={conf.task.name} head={conf.head.name}: zero_shot goes with head=text, "
            "and nothing else does"
        )
    for prompt in conf.dataset.prompts if reads_text(conf) else ():
        if prompt.count("{}") != 1:
            raise ConfigError(
                f"dataset.prompts: {prompt!r} needs one {{}}, where the class name goes"
            )
    if reads_text(conf) and not conf.dataset.prompts:
        raise ConfigError("dataset.prompts=[]: at least one prompt, as 'a photo of a {}.'")


def check_resolution(conf: Config) -> None:
    """Refuse a side, in pixels, that its name belies or that is not a whole number of patches.

    The side at which a checkpoint was published is always legal: its library cuts as many whole
    patches as fit and ignores the remaining pixels (27 x 27 patches of 14 in 384 px).

    Raises:
        ConfigError: names the side, the patch and the nearest resolutions that fit.
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
    raise ImpossibleError(
        f"resolution={side} px is not a multiple of {row.patch}, the patch of {row.model}; "
        f"nearest that fit: {', '.join(f'resolution=r{option}' for option in closest)}"
    )


def check_inputs(conf: Config) -> None:
    """Refuse a missing input of the task, and one that it would silently ignore."""
    if conf.task.name != "train":
        _check_single_process(conf)
    wanted = INPUTS.get(conf.task.name, set())
    for name in ("checkpoint", "run", "against", "image"):
        value = getattr(conf, name)
        if value is None and name in wanted:
            raise ConfigError(f"task={conf.task.name} needs {name}=PATH")
        if value is not None and name not in wanted | OPTIONAL_INPUTS.get(conf.task.name, set()):
            raise ConfigError(f"{name}={value}: task={conf.task.name} reads no {name}")
    _check_table(conf)
    if conf.task.name == "prune" and (conf.run is None) != (
        conf.task.pin is None and conf.task.unpin is None
    ):
        raise ConfigError("task=prune: run=PATH goes with task.pin=WHY or task.unpin=WHY")
    if conf.task.name == "probe":
        _check_probe(conf)
    if conf.task.name == "train":
        _check_train(conf)
    elif conf.runtime.stop_before_test:
        raise ConfigError(
            f"runtime.stop_before_test=true: task={conf.task.name} has no validation to stop at, "
            "only task=train has"
        )
    if conf.image is not None:
        image_argument.check(conf.image)
    for name in ("root", "table"):
        value = getattr(conf.dataset, name)
        if value is not None and "://" in value:
            raise ConfigError(
                f"dataset.{name}={value}: an address is not read; download it, and give its path"
            )
    for name in ("checkpoint", "run", "against"):
        value = getattr(conf, name)
        if value is not None and not Path(value).expanduser().exists():
            raise ConfigError(f"{name}={value}: no such file or folder")
    if conf.dataset.download and conf.task.name != "doctor":
        raise ConfigError(
            f"dataset.download=true: task={conf.task.name} downloads nothing; "
            "fetch the dataset first with task=doctor dataset.download=true"
        )


def _check_single_process(conf: Config) -> None:
    """Tasks that have no features to extract by several, or no state that a path could name."""
    if conf.runtime.nproc != 1 and conf.task.name not in EXTRACTING_TASKS:
        raise ConfigError(f"runtime.nproc={conf.runtime.nproc}: task={conf.task.name} runs as 1")
    if conf.runtime.resume is not None:
        raise ConfigError(
            f"runtime.resume={conf.runtime.resume}: task={conf.task.name} has no state to resume "
            "from a path; the same runtime.run_id goes on where its features stopped"
        )


def _check_train(conf: Config) -> None:
    """What a finetune could find out only after its data was loaded."""
    task, head = conf.task, conf.head.name
    if head in ("knn", "text"):
        raise ConfigError(
            f"head={head}: task=train needs one with weights to learn, as head=linear"
        )
    if conf.final_fit == "train" and _lacks_validation(conf):
        raise ConfigError(
            "dataset.val_fraction=0 leaves no image to choose the best epoch on: 0.1 is usual, or "
            "final_fit=trainval, which reports the last"
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
            f"shared among so many{' in pairs, which mixup and cutmix need' if mixes else ''}"
        )


def check_part_attention(conf: Config) -> None:
    """Refuse a choice of part attention that this task or this backbone cannot have.

    Raises:
        ConfigError: names the key and what fits.
    """
    chosen = conf.part_attention
    if chosen.name == "off":
        return
    patch, learns = chosen_checkpoint(conf.backbone).patch, conf.task.name == "train"
    frozen = not learns or conf.task.tune == "head"
    if chosen.last_block == "random" and frozen:
        raise ImpossibleError(
            "part_attention.last_block=random: a frozen backbone would read nothing through it; "
            "it goes with task=train task.tune=full"
        )
    if chosen.contrastive and frozen:
        raise ConfigError(
            f"part_attention.contrastive={chosen.contrastive:g}: it moves the features, which a "
            "frozen backbone keeps; it goes with task=train task.tune=full"
        )
    if learns and chosen.contrastive and (conf.task.mixup or conf.task.cutmix):
        raise ConfigError(
            f"part_attention.contrastive={chosen.contrastive:g}: pairs of mixed images have no one "
            "class; set task.mixup=0 and task.cutmix=0"
        )
    if chosen.stride is not None and chosen.stride > patch:
        raise ConfigError(
            f"part_attention.stride={chosen.stride}: patches of {patch} px would leave gaps; "
            f"at most {patch}"
        )


def _check_probe(conf: Config) -> None:
    """What a probe could find out only after its features were extracted."""
    task = conf.task
    if conf.head.name != "knn" and _lacks_validation(conf):
        raise ConfigError(
            f"dataset.val_fraction=0 leaves no image to choose head={conf.head.name} on: "
            "0.1 is usual"
        )
    if task.c_count > 1 and not task.c_low < task.c_high:
        raise ConfigError(
            f"task.c_low={task.c_low:g} task.c_high={task.c_high:g}: {task.c_count} values need a "
            "low that is below the high"
        )


def _check_table(conf: Config) -> None:
    dataset = conf.dataset
    if conf.task.name == "eval":
        return  # the reader is the checkpoint's
    if dataset.reader == "table" and dataset.table is None:
        raise ConfigError(
            "dataset=table needs dataset.table=FILE, a CSV, TSV or Parquet of path, label, split"
        )
    if dataset.reader != "table" and dataset.table is not None:
        raise ConfigError(
            f"dataset.table={dataset.table}: only dataset=table reads one, not "
            f"dataset={dataset.name}"
        )
    for name in ("path_column", "label_column", "split_column"):
        if dataset.reader != "table" and getattr(dataset, name) is not None:
            raise ConfigError(
                f"dataset.{name}={getattr(dataset, name)}: only dataset=table has columns, not "
                f"dataset={dataset.name}"
            )
