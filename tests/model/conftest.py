"""Shallow members of the real families, known to timm, saved as their publishers save them."""

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from fgvc.config import schema

ROWS = {  # model, patch, registers, prefix, width, native
    "vit": ("shallow_vit", 16, False, 1, 64, 224),
    "dinov2": ("shallow_dinov2", 14, False, 1, 64, 518),
    "registers": ("shallow_reg4_dinov2", 14, True, 5, 64, 518),
    "published vit": ("vit_tiny_patch16_224", 16, False, 1, 192, 224),
    "published dinov2": ("vit_small_patch14_dinov2", 14, False, 1, 384, 518),
    "published registers": ("vit_small_patch14_reg4_dinov2", 14, True, 5, 384, 518),
}
SHALLOW = {
    "shallow_vit": {"patch_size": 16, "img_size": 224},
    "shallow_dinov2": {"patch_size": 14, "img_size": 518, "init_values": 1e-5},
    "shallow_reg4_dinov2": {
        "patch_size": 14,
        "img_size": 518,
        "init_values": 1e-5,
        "reg_tokens": 4,
        "no_embed_class": True,
    },
}
default_cfgs = generate_default_cfgs(
    {
        name: {
            "input_size": (3, shape["img_size"], shape["img_size"]),
            "num_classes": 1000,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        for name, shape in SHALLOW.items()
    }
)


def _register(name, shape):
    def entry(pretrained=False, **kwargs):
        arguments = {"embed_dim": 64, "depth": 2, "num_heads": 2, **shape, **kwargs}
        return build_model_with_cfg(
            VisionTransformer,
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            **arguments,
        )

    entry.__name__ = name
    register_model(entry)


for _name, _shape in SHALLOW.items():
    _register(_name, _shape)


def _row(family):
    model, patch, registers, prefix, width, native = ROWS[family]
    return schema.Checkpoint(
        size="small",
        model=model,
        repo=f"timm/{model}",
        revision="main",
        patch=patch,
        registers=registers,
        prefix=prefix,
        width=width,
        native=native,
        license="none",
    )


@pytest.fixture(scope="session")
def conf():
    """conf(family, field=value, ...) -> schema.Backbone with one checkpoint."""

    def make(family="vit", **fields):
        row = _row(family)
        common = {
            "name": family,
            "library": "timm",
            "size": "small",
            "patch": None,
            "registers": row.registers,
            "revision": None,
            "features": "cls",
            "position_resize": "timm",
            "normalization": "half",
            "native": "vit",
            "pretrained": True,
            "weights": None,
            "weights_sha256": None,
            "contamination": "none",
            "checkpoints": {"only": row},
        }
        return schema.Backbone(**{**common, **fields})

    return make


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """saved(family, ending) -> a file with random weights and, as published, a classifier."""
    folder = tmp_path_factory.mktemp("weights")

    def save(family, ending=".pth"):
        path = folder / f"{family}{ending}"
        if path.exists():
            return path
        state = _random_state(ROWS[family][0], 1000 if family.endswith("vit") else 0)
        if ending == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        return path

    return save


def _random_state(model, classes):
    """No parameter at its initial value: LayerScale starts so small that it hides mistakes."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        state = timm.create_model(model, pretrained=False, num_classes=classes).state_dict()
        return {key: value + 0.1 * torch.randn_like(value) for key, value in state.items()}


@pytest.fixture(scope="session")
def real_weights():
    """The published ViT-Ti/16 in the folder that FGVC_REAL_DATA names."""
    root = os.environ.get("FGVC_REAL_DATA")
    if root is None:
        pytest.skip("FGVC_REAL_DATA is not set")
    return Path(root) / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth"
