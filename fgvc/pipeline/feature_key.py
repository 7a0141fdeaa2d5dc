"""A config, its dataset and its weights -> the key of the features in the cache.

The key holds everything that can change a feature. Only `runtime` and what only training reads
are left out.
"""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version

import torch

from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.config.schema.library import LIBRARIES
from fgvc.data.preprocess import Preprocess
from fgvc.model.backbone import hf_config
from fgvc.record.env_stamp import fp32_precision
from fgvc.types import Dataset, WeightsSource

VERSION = 4  # raise it when the same inputs would give other features
PACKAGES = ("torch", "torchvision", "torchcodec", "pillow")
DECLARED = (  # fields of a row of backbone.checkpoints
    "patch",
    "registers",
    "prefix",
    "width",
    "embedding",
    "heads",
    "blocks",
    "activation",
    "architecture",
)


def feature_key(
    conf: Config,
    dataset: Dataset,
    source: WeightsSource,
    preprocess: Preprocess,
    device: torch.device,
    role: str,
) -> dict[str, object]:
    """The cache key of the features of one role ("train" or "test") as plain data."""
    row, library = chosen_checkpoint(conf.backbone), conf.backbone.library
    norm_eps = hf_config.norm_eps(conf.backbone, source)
    return {
        # every field that a row declares: the model is checked against it only when it is built
        **{name: getattr(row, name) for name in DECLARED},
        # the epsilon belongs to no tensor, so the weights' digest does not cover it
        **({} if norm_eps is None else {"norm_eps": norm_eps}),
        "extractor": VERSION,
        "libraries": {name: version(name) for name in (*PACKAGES, LIBRARIES[library].package)},
        "model": row.model,
        "weights": source.sha256 or f"random seed {conf.seed}",
        "layer": "last",
        "pooling": conf.backbone.features,
        "position_resize": conf.backbone.position_resize,
        **_part_attention_key(conf),
        "preprocess": preprocess.identity,
        "side": conf.resolution.side,
        "precision": conf.precision,
        "matmul_precision": conf.matmul_precision,
        # older versions cached GPU features that TF32 convolutions had computed
        **({"fp32_precision": fp32_precision()} if device.type == "cuda" else {}),
        "device": device.type,
        "manifest": dataset.manifest.digest,
        "role": role,
    }


def _part_attention_key(conf: Config) -> dict[str, object]:
    """The options of part attention except those of training; random patches follow the seed."""
    options = asdict(conf.part_attention)
    for name in ("contrastive", "margin"):
        options.pop(name, None)
    if options["name"] != "random":
        return {"part_attention": options}
    return {"part_attention": options, "part_seed": conf.seed, "drawn_by": "path"}
