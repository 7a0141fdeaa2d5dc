"""Rules for the keys of task.* and head.*."""

from __future__ import annotations

from fgvc.config.inert.rule import dropped, fixed, of_task
from fgvc.config.schema import Config, chosen_checkpoint, is_exact
from fgvc.config.schema.head import heads
from fgvc.config.schema.task import FEW_VALUES

ROUNDING = 1e-9  # relative; the values of C are computed from logarithms


def _highest_c(conf: Config) -> float:
    return conf.task.c_low if conf.task.c_count == 1 else conf.task.c_high


def _overfits(conf: Config) -> bool:
    """Whether it trains on one batch, to show that the loss can reach zero."""
    return conf.task.debug == "overfit"


def _mixes_nothing(conf: Config) -> bool:
    return not (conf.task.mixup or conf.task.cutmix) or conf.task.mix_probability <= 0


def _freezes_every_block(conf: Config) -> bool:
    """Whether only layers after the blocks are trained; they have the head's learning rate."""
    blocks = chosen_checkpoint(conf.backbone).block_count
    return blocks is not None and conf.task.frozen_stages > blocks


def _cannot_stop_early(conf: Config) -> bool:
    """The first epoch is always the best so far, and training ends after the last epoch anyway."""
    return conf.task.patience is None or conf.task.patience >= conf.task.epochs - 1


RULES = (
    dropped("head.fit", lambda conf: conf.task.name != "probe", "task=train has its own recipe"),
    fixed(
        0.07,
        "head.temperature",
        lambda conf: conf.head.name == "knn" and conf.head.k == 1,
        "a single neighbour has the whole vote",
    ),
    *of_task(
        "probe",
        fixed(None, "task.cascade task.certify", is_exact, "every image is computed in fp32"),
        dropped(
            "task.c_low task.c_high task.c_count task.c_search task.gap task.final_gap "
            "task.gap_until task.max_iterations",
            lambda conf: heads()[conf.head.name].fit != "logistic",
            "only a logistic regression has a C",
        ),
        dropped(
            "task.c_search",
            lambda conf: conf.task.c_count <= FEW_VALUES,
            "so few values of C are all solved",
        ),
        dropped("task.c_high", lambda conf: conf.task.c_count == 1, "a path of one value is c_low"),
        fixed(
            1,
            "task.c_count",
            lambda conf: conf.task.c_low == conf.task.c_high,
            "the lowest and the highest C are one value",
        ),
        dropped(
            "task.gap_until task.max_iterations",
            lambda conf: _highest_c(conf) < conf.task.gap_until,
            "the gap ends the solve at every C",
        ),
        fixed(
            0.0,
            "task.gap_until",
            lambda conf: conf.task.gap_until < conf.task.c_low * (1 - ROUNDING),
            "max_iterations may end the solve at every C",
        ),
    ),
    *of_task(
        "zero_shot",
        fixed(None, "task.certify", is_exact, "every image is computed in fp32"),
    ),
    *of_task(
        "train",
        dropped(
            "task.momentum",
            lambda conf: conf.task.optimiser != "sgd",
            "only task.optimiser=sgd has a momentum",
        ),
        fixed(0.0, "task.mixup task.cutmix", _mixes_nothing, "nothing is mixed"),
        dropped("task.mix_probability", _mixes_nothing, "nothing is mixed"),
        dropped(
            "task.crop_scale",
            lambda conf: conf.task.crop != "resized",
            "only task.crop=resized has a scale",
        ),
        dropped(
            "task.magnitude task.operations",
            lambda conf: conf.task.auto_augment != "randaugment",
            "only task.auto_augment=randaugment has them",
        ),
        dropped(
            "task.crop task.crop_scale task.flip task.auto_augment task.magnitude task.operations "
            "task.erasing",
            _overfits,
            "task.debug=overfit augments nothing",
        ),
        # with one step per epoch: at most one step follows the warm-up, at the peak
        dropped(
            "task.final_rate",
            lambda conf: _overfits(conf) and conf.task.warmup_steps >= conf.task.epochs - 1,
            "training ends before the learning rate falls",
        ),
        dropped(
            "task.layer_decay task.drop_path",
            lambda conf: conf.task.tune == "head",
            "the backbone does not learn",
        ),
        fixed(1.0, "task.layer_decay", _freezes_every_block, "every block is frozen"),
        fixed(
            None,
            "task.ema",
            lambda conf: not conf.task.ema,
            "an average with decay 0 is the model itself",
        ),
        fixed(None, "task.patience", _cannot_stop_early, "task.epochs ends the training first"),
        dropped(
            "task.select",
            lambda conf: conf.final_fit == "trainval" and not _overfits(conf),
            "the last epoch is reported",
        ),
        fixed(
            "top1",
            "task.select",
            lambda conf: conf.task.epochs == 1,
            "there is a single epoch to choose",
        ),
    ),
)
