"""Keys that change no number under the other choices of a config -> their fixed form in the hash.

Two configs that ask the same question must share a hash. Each rule names keys and the condition
under which their value changes no number; then they are left out of the hashed part, or replaced by
a fixed value. The config itself keeps the value. `seed` has no rule: seeds fold into one line of a
table, and a sweep over seeds may mix heads that draw random numbers with heads that do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fgvc.config.schema import Config, chosen_checkpoint, reads_text

LOGISTIC = ("linear", "text_linear")  # heads whose C is chosen on a path
CARVED = ("folder", "table")  # readers that may carve the test images with dataset.split_seed


@dataclass(frozen=True)
class Rule:
    """keys: dotted. inert: whether they change no number in a config. why: the reason, one line.

    drops: whether inert keys are left out of the hash; otherwise `value` replaces theirs.
    """

    keys: tuple[str, ...]
    inert: Callable[[Config], bool]
    why: str
    drops: bool = True
    value: object = None


def apply(conf: Config, plain: dict[str, Any]) -> dict[str, Any]:
    """Drop or fix the inert keys of a config in its hashed part, in place; returns that part."""
    for rule in RULES:
        if not rule.inert(conf):
            continue
        for key in rule.keys:
            *nodes, name = key.split(".")
            holder = plain
            for node in nodes:
                holder = holder.get(node) or {}
            if name in holder and rule.drops:
                del holder[name]
            elif name in holder:
                holder[name] = rule.value
    return plain


def _probes(conf: Config) -> bool:
    return conf.task.name == "probe"


def _trains(conf: Config) -> bool:
    return conf.task.name == "train"


def _trains_on_validation(conf: Config) -> bool:
    return _trains(conf) and conf.final_fit == "trainval" and not _overfits(conf)


def _reads_test_alone(conf: Config) -> bool:
    return conf.task.name == "zero_shot"


def _overfits(conf: Config) -> bool:
    return _trains(conf) and conf.task.debug == "overfit"


def _split_is_unused(conf: Config) -> bool:
    """A finetune of train and validation together uses it: its record states the split."""
    carves_test = conf.dataset.reader in CARVED
    return not carves_test and (_reads_test_alone(conf) or conf.dataset.val_fraction == 0)


def _val_fraction_is_unused(conf: Config) -> bool:
    """A tiny subset takes one validation image per class for any fraction above 0."""
    if conf.dataset.subset == "tiny":
        return conf.dataset.val_fraction > 0
    return _reads_test_alone(conf)


def _part(conf: Config, name: str) -> Any:
    """A setting of part attention; None where part_attention=off."""
    return getattr(conf.part_attention, name, None)


def _tokens_are_the_default(conf: Config) -> bool:
    tokens = _part(conf, "tokens")
    return tokens is not None and tokens == chosen_checkpoint(conf.backbone).heads


def _stride_is_the_default(conf: Config) -> bool:
    return _part(conf, "stride") == chosen_checkpoint(conf.backbone).patch


def _chooses_no_c(conf: Config) -> bool:
    return _probes(conf) and conf.head.name not in LOGISTIC


RULES = (
    Rule(
        ("backbone.native",),
        lambda conf: conf.preprocess != "native",
        "only preprocess=native reads it",
    ),
    Rule(
        ("backbone.position_resize",),
        lambda conf: not conf.backbone.pretrained,
        "random positions are created at the grid of this resolution",
    ),
    Rule(("dataset.prompts",), lambda conf: not reads_text(conf), "no text is read"),
    Rule(
        ("dataset.test_fraction",),
        lambda conf: conf.dataset.reader not in CARVED,
        "only folders and tables without a test split carve one",
        drops=False,
        value=0.0,
    ),
    Rule(("dataset.split_seed",), _split_is_unused, "nothing is carved with it"),
    Rule(("dataset.val_fraction",), _val_fraction_is_unused, "it changes no image that is read"),
    Rule(
        ("final_fit",),
        lambda conf: conf.task.name == "zero_shot",
        "nothing is fitted",
        drops=False,
        value="any",
    ),
    Rule(
        ("part_attention.tokens",),
        _tokens_are_the_default,
        "null means one token per head",
        drops=False,
    ),
    Rule(
        ("part_attention.stride",),
        _stride_is_the_default,
        "null means the patch",
        drops=False,
    ),
    Rule(
        ("part_attention.contrastive", "part_attention.margin"),
        lambda conf: not _trains(conf),
        "only task=train has a loss",
    ),
    Rule(
        ("part_attention.margin",),
        lambda conf: not _part(conf, "contrastive"),
        "the contrastive loss is off",
    ),
    Rule(("head.fit",), lambda conf: not _probes(conf), "task=train has its own recipe"),
    Rule(
        (
            "task.c_low",
            "task.c_high",
            "task.c_count",
            "task.gap",
            "task.final_gap",
            "task.gap_until",
            "task.max_iterations",
        ),
        _chooses_no_c,
        "only a logistic regression has a C",
    ),
    Rule(
        ("task.c_high",),
        lambda conf: _probes(conf) and conf.task.c_count == 1,
        "a path of one value is c_low",
    ),
    Rule(
        ("task.gap_until", "task.max_iterations"),
        lambda conf: _probes(conf) and _highest_c(conf) < conf.task.gap_until,
        "the gap ends the solve at every C",
    ),
    Rule(
        ("task.momentum",),
        lambda conf: _trains(conf) and conf.task.optimiser != "sgd",
        "only task.optimiser=sgd has a momentum",
    ),
    Rule(
        ("task.mix_probability",),
        lambda conf: _trains(conf) and conf.task.mixup == conf.task.cutmix == 0,
        "nothing is mixed",
    ),
    Rule(
        ("task.crop_scale",),
        lambda conf: _trains(conf) and conf.task.crop != "resized",
        "only task.crop=resized has a scale",
    ),
    Rule(
        ("task.magnitude", "task.operations"),
        lambda conf: _trains(conf) and conf.task.auto_augment != "randaugment",
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
        _overfits,
        "task.debug=overfit augments nothing",
    ),
    Rule(
        ("task.layer_decay", "task.drop_path"),
        lambda conf: _trains(conf) and conf.task.tune == "head",
        "the backbone does not learn",
    ),
    Rule(
        ("task.select",),
        _trains_on_validation,
        "the last epoch is reported",
    ),
)


def _highest_c(conf: Config) -> float:
    return conf.task.c_low if conf.task.c_count == 1 else conf.task.c_high
