"""Rules for the keys of task=train."""

from __future__ import annotations

from fgvc.config.inert.rule import Rule, fixed, overfits, trains
from fgvc.config.schema import Config, chosen_checkpoint


def _trains_on_validation(conf: Config) -> bool:
    return trains(conf) and conf.final_fit == "trainval" and not overfits(conf)


def _mixes(conf: Config) -> bool:
    return bool(conf.task.mixup or conf.task.cutmix) and conf.task.mix_probability > 0


def _freezes_every_block(conf: Config) -> bool:
    """Whether only layers after the blocks are trained; they have the head's learning rate."""
    blocks = chosen_checkpoint(conf.backbone).block_count
    return blocks is not None and conf.task.frozen_stages > blocks


def _cannot_stop_early(conf: Config) -> bool:
    """The first epoch is always the best so far, and training ends after the last epoch anyway."""
    return conf.task.patience is None or conf.task.patience >= conf.task.epochs - 1


def _has_no_decay_of_the_rate(conf: Config) -> bool:
    """With one step per epoch: at most one step follows the warm-up, at the peak."""
    return overfits(conf) and conf.task.warmup_steps >= conf.task.epochs - 1


RULES = (
    Rule(
        ("task.momentum",),
        lambda conf: trains(conf) and conf.task.optimiser != "sgd",
        "only task.optimiser=sgd has a momentum",
    ),
    fixed(
        0.0,
        "task.mixup",
        "task.cutmix",
        where=lambda conf: trains(conf) and not _mixes(conf),
        reason="nothing is mixed",
    ),
    Rule(
        ("task.mix_probability",),
        lambda conf: trains(conf) and not _mixes(conf),
        "nothing is mixed",
    ),
    Rule(
        ("task.crop_scale",),
        lambda conf: trains(conf) and conf.task.crop != "resized",
        "only task.crop=resized has a scale",
    ),
    Rule(
        ("task.magnitude", "task.operations"),
        lambda conf: trains(conf) and conf.task.auto_augment != "randaugment",
        "only task.auto_augment=randaugment has them",
    ),
    Rule(
        (
            "task.crop",
            "task.crop_scale",
            "task.flip",
            "task.auto_augment",
            "task.magnitude",
            "task.operations",
            "task.erasing",
        ),
        overfits,
        "task.debug=overfit augments nothing",
    ),
    Rule(
        ("task.final_rate",),
        _has_no_decay_of_the_rate,
        "training ends before the learning rate falls",
    ),
    Rule(
        ("task.layer_decay", "task.drop_path"),
        lambda conf: trains(conf) and conf.task.tune == "head",
        "the backbone does not learn",
    ),
    fixed(
        1.0,
        "task.layer_decay",
        where=lambda conf: trains(conf) and _freezes_every_block(conf),
        reason="every block is frozen",
    ),
    fixed(
        None,
        "task.ema",
        where=lambda conf: trains(conf) and not conf.task.ema,
        reason="an average with decay 0 is the model itself",
    ),
    fixed(
        None,
        "task.patience",
        where=lambda conf: trains(conf) and _cannot_stop_early(conf),
        reason="task.epochs ends the training first",
    ),
    Rule(
        ("task.select",),
        _trains_on_validation,
        "the last epoch is reported",
    ),
    fixed(
        "top1",
        "task.select",
        where=lambda conf: trains(conf) and conf.task.epochs == 1,
        reason="there is a single epoch to choose",
    ),
)
