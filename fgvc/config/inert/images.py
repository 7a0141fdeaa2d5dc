"""Rules for keys that choose images: dataset.* and final_fit."""

from __future__ import annotations

from fgvc.config.inert.rule import Rule, fixed, zero_shot
from fgvc.config.schema import Config, reads_text
from fgvc.config.schema.dataset import USER_READERS


def _generates(conf: Config) -> bool:
    return conf.dataset.reader == "synthetic"


def _split_is_unused(conf: Config) -> bool:
    """A finetune on train and validation together uses the split: its record states it."""
    dataset = conf.dataset
    carves_test = dataset.reader in USER_READERS and dataset.test_fraction > 0
    return not carves_test and (zero_shot(conf) or dataset.val_fraction == 0)


def _val_fraction_is_unused(conf: Config) -> bool:
    """A tiny subset takes one validation image per class for any fraction above 0."""
    tiny = conf.dataset.subset == "tiny" and conf.dataset.val_fraction > 0
    return tiny or zero_shot(conf)


RULES = (
    Rule(("dataset.prompts",), lambda conf: not reads_text(conf), "no text is read"),
    Rule(
        ("dataset.generator",),
        lambda conf: not _generates(conf),
        "only dataset.reader=synthetic draws images",
        drops=False,
    ),
    fixed(
        0,
        "dataset.official.classes",
        "dataset.official.train",
        "dataset.official.test",
        where=_generates,
        reason="the generator determines the counts",
    ),
    fixed(
        0.0,
        "dataset.test_fraction",
        where=lambda conf: conf.dataset.reader not in USER_READERS,
        reason="only folders and tables without a test split carve one",
    ),
    Rule(("dataset.split_seed",), _split_is_unused, "nothing is carved with it"),
    Rule(("dataset.val_fraction",), _val_fraction_is_unused, "it changes no image that is read"),
    Rule(("final_fit",), zero_shot, "nothing is fitted", drops=False, value="any"),
)
