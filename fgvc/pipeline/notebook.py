"""A config from a notebook -> its backbone, and features of images without a dataset.

    import fgvc

    config = fgvc.load_config("backbone=dinov2", "resolution=r448")
    features_ND = fgvc.extract_features(config, ["bird.jpg", "other.png"])

The features are those of `task=probe`: same weights, transform, precision and part attention.
N images, D feature width, B batch, C 3 channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import torch

from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.overrides import jobs_of
from fgvc.config.schema import Config
from fgvc.data.image_input import ImageInput
from fgvc.data.preprocess import evaluation_transform
from fgvc.model.backbone import weights
from fgvc.model.backbone.base import Backbone
from fgvc.parallel.device import autocast, check_precision, choose_device
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.determinism import set_fp32_precision


def load_config(*overrides: str) -> Config:
    """The checked config of a command, from the same overrides.

    Args:
        overrides: as on the command line: `load_config("backbone=clip", "dataset=cub")`.

    Raises:
        ConfigError: an unknown key, a value out of bounds, a combination that is not possible, or
            a sweep (several values for one key).
    """
    expanded = expand_experiment(overrides)
    if any(item.startswith("sweep=") for item in expanded):
        raise ConfigError("sweep=: a sweep is many configs; give the overrides of one job")
    (job,) = jobs_of(expanded, multirun=False)
    return job.conf


def build_backbone(config: Config) -> Backbone:
    """The frozen backbone of a config, in evaluation mode, on the CPU.

    Its input, from `evaluation_transform(config)`, is normalized pixels, float32 B x 3 x R x R.
    With `part_attention=`, only the selected patches reach the last block.

    Raises:
        UserError: the weights are not found, or do not fit the model.
    """
    backbone, _ = build_model(config, weights.find(config.backbone))
    return backbone.eval()


@torch.inference_mode()
def extract_features(
    config: Config, images: Iterable[ImageInput], backbone: Backbone | None = None
) -> np.ndarray:
    """Features of images, in their order.

    Args:
        images: paths, PIL images, uint8 arrays (H x W x 3) or uint8 tensors (3 x H x W). They are
            read in batches of `runtime.eval_batch_size`.
        backbone: of `build_backbone(config)`, for several calls; built when absent.

    Returns:
        feature_ND: float32; `runtime.device` computes them in `precision`.

    Raises:
        ConfigError: part_attention=random, whose draws depend on the paths in a dataset.
        UserError: an image that cannot be decoded, weights that are not found, or a device that
            this machine does not have.
    """
    if config.part_attention.name == "random":
        raise ConfigError(
            "part_attention=random: its draws depend on the paths of a dataset; run task=probe"
        )
    device = choose_device(config.runtime.device)
    check_precision(config.precision, device)
    set_fp32_precision(config.matmul_precision)
    transform = evaluation_transform(config)
    backbone = (build_backbone(config) if backbone is None else backbone).to(device)
    remaining, feature_BDs = iter(images), []
    while batch := list(itertools.islice(remaining, config.runtime.eval_batch_size)):
        pixels_BCHW = torch.stack([transform(image) for image in batch]).to(device)
        with autocast(config.precision, device):
            feature_BDs.append(backbone.feature(transform.normalize(pixels_BCHW)).float().cpu())
    if not feature_BDs:
        return np.empty((0, 0), np.float32)
    return torch.cat(feature_BDs).numpy()
