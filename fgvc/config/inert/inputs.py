"""Rules for the keys of dataset.*, backbone.* and part_attention.*, and for final_fit."""

from __future__ import annotations

from typing import Any

from fgvc.config.inert.rule import dropped, fixed, replaced
from fgvc.config.schema import Config, chosen_checkpoint, reads_text
from fgvc.config.schema.dataset import USER_READERS
from fgvc.config.schema.library import LIBRARIES


def _zero_shot(conf: Config) -> bool:
    """Whether only test images are read."""
    return conf.task.name == "zero_shot"


def _part(conf: Config, name: str) -> Any:
    """A setting of part attention; None for part_attention=off."""
    return getattr(conf.part_attention, name, None)


def _split_is_unused(conf: Config) -> bool:
    """A finetune on train and validation together uses the split: its record states it."""
    dataset = conf.dataset
    carves_test = dataset.reader in USER_READERS and dataset.test_fraction > 0
    return not carves_test and (_zero_shot(conf) or dataset.val_fraction == 0)


def _val_fraction_is_unused(conf: Config) -> bool:
    """A tiny subset takes one validation image per class for any fraction above 0."""
    tiny = conf.dataset.subset == "tiny" and conf.dataset.val_fraction > 0
    return tiny or _zero_shot(conf)


def _is_random(conf: Config) -> bool:
    return not conf.backbone.pretrained


def _from_hub(conf: Config) -> bool:
    return conf.backbone.pretrained and conf.backbone.weights is None


def _keeps_position_grid(conf: Config) -> bool:
    """Whether positions keep the grid of the published weights.

    For a local file, another revision or a custom architecture, the grid is only known after
    loading.
    """
    row = chosen_checkpoint(conf.backbone)
    published = _from_hub(conf) and conf.backbone.revision is None and not row.architecture
    same = conf.resolution.side == row.native and _stride_is_the_default(conf)
    return conf.backbone.library == "timm" and published and same


def _stride_is_the_default(conf: Config) -> bool:
    return _part(conf, "stride") in (None, chosen_checkpoint(conf.backbone).patch)


RULES = (
    dropped("dataset.prompts", lambda conf: not reads_text(conf), "no text is read"),
    replaced(
        None,
        "dataset.generator",
        lambda conf: conf.dataset.reader != "synthetic",
        "only dataset.reader=synthetic draws images",
    ),
    fixed(
        0,
        "dataset.official.classes dataset.official.train dataset.official.test",
        lambda conf: conf.dataset.reader == "synthetic",
        "the generator determines the counts",
    ),
    fixed(
        0.0,
        "dataset.test_fraction",
        lambda conf: conf.dataset.reader not in USER_READERS,
        "only folders and tables without a test split carve one",
    ),
    dropped("dataset.split_seed", _split_is_unused, "nothing is carved with it"),
    dropped("dataset.val_fraction", _val_fraction_is_unused, "it changes no image that is read"),
    replaced("any", "final_fit", _zero_shot, "nothing is fitted"),
    dropped(
        "backbone.native",
        lambda conf: conf.preprocess != "native",
        "only preprocess=native reads it",
    ),
    dropped(
        "backbone.position_resize",
        _is_random,
        "random positions are created at the grid of this resolution",
    ),
    replaced(
        "timm",
        "backbone.position_resize",
        _keeps_position_grid,
        "the published positions have the grid of this resolution",
    ),
    replaced(
        None,
        "backbone.weights_sha256",
        _from_hub,
        "the repository and revision identify the weights; the run verifies the digest",
    ),
    dropped(
        "backbone.tokenizer_sha256",
        _from_hub,
        "the repository and revision identify the tokenizer; the run verifies the digest",
    ),
    dropped(
        "backbone.tokenizer_sha256",
        lambda conf: not reads_text(conf) or not LIBRARIES[conf.backbone.library].reads_tokenizer,
        "no tokenizer file is read",
    ),
    fixed(
        None,
        "part_attention.tokens",
        lambda conf: _part(conf, "tokens") in (None, chosen_checkpoint(conf.backbone).head_count),
        "null means one token per head",
    ),
    fixed(None, "part_attention.stride", _stride_is_the_default, "null means the patch"),
    fixed(
        "pretrained",
        "part_attention.last_block",
        _is_random,
        "random weights are drawn from the same seed again",
    ),
    dropped(
        "part_attention.contrastive part_attention.margin",
        lambda conf: conf.task.name != "train",
        "only task=train has a loss",
    ),
    dropped(
        "part_attention.margin",
        lambda conf: not _part(conf, "contrastive"),
        "the contrastive loss is off",
    ),
)
