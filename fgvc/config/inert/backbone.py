"""Rules for the keys of backbone.* and of part_attention.*."""

from __future__ import annotations

from fgvc.config.inert.rule import Rule, fixed, part, trains
from fgvc.config.schema import Config, chosen_checkpoint, reads_text
from fgvc.config.schema.library import LIBRARIES


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


def _tokenizer_is_unused(conf: Config) -> bool:
    return not reads_text(conf) or not LIBRARIES[conf.backbone.library].reads_tokenizer


def _tokens_are_the_default(conf: Config) -> bool:
    return part(conf, "tokens") in (None, chosen_checkpoint(conf.backbone).head_count)


def _stride_is_the_default(conf: Config) -> bool:
    return part(conf, "stride") in (None, chosen_checkpoint(conf.backbone).patch)


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
    Rule(
        ("backbone.position_resize",),
        _keeps_position_grid,
        "the published positions have the grid of this resolution",
        drops=False,
        value="timm",
    ),
    Rule(
        ("backbone.weights_sha256",),
        _from_hub,
        "the repository and revision identify the weights; the run verifies the digest",
        drops=False,
    ),
    Rule(
        ("backbone.tokenizer_sha256",),
        _from_hub,
        "the repository and revision identify the tokenizer; the run verifies the digest",
    ),
    Rule(("backbone.tokenizer_sha256",), _tokenizer_is_unused, "no tokenizer file is read"),
    fixed(
        None,
        "part_attention.tokens",
        where=_tokens_are_the_default,
        reason="null means one token per head",
    ),
    fixed(
        None, "part_attention.stride", where=_stride_is_the_default, reason="null means the patch"
    ),
    fixed(
        "pretrained",
        "part_attention.last_block",
        where=lambda conf: not conf.backbone.pretrained,
        reason="random weights are drawn from the same seed again",
    ),
    Rule(
        ("part_attention.contrastive", "part_attention.margin"),
        lambda conf: not trains(conf),
        "only task=train has a loss",
    ),
    Rule(
        ("part_attention.margin",),
        lambda conf: not part(conf, "contrastive"),
        "the contrastive loss is off",
    ),
)
