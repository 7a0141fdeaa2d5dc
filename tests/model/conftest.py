"""Shallow models of the real families, saved in the formats of their publishers."""

import os
from pathlib import Path

import open_clip  # whole, before the code under test imports it without timm and transformers
import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

from fgvc.config import schema
from fgvc.config.checkpoint_rows import fill_table

CONF = Path(__file__).parents[2] / "conf" / "backbone"
ROWS = {  # model, patch, registers, prefix, width, native
    "vit": ("shallow_vit", 16, False, 1, 64, 224),
    "dinov2": ("shallow_dinov2", 14, False, 1, 64, 518),
    "registers": ("shallow_reg4_dinov2", 14, True, 5, 64, 518),
    "dinov3": ("vit_small_patch16_dinov3", 16, True, 5, 64, 256),
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


SMALLER = {"dinov3": {"embed_dim": 64, "depth": 2, "num_heads": 2}}


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
        architecture=SMALLER.get(family, {}),
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
        classes = 1000 if family.endswith("vit") else 0
        state = _random_state(ROWS[family][0], classes, SMALLER.get(family, {}))
        if ending == ".safetensors":
            save_file(state, path)
        else:
            torch.save(state, path)
        return path

    return save


def _random_state(model, classes, smaller):
    """Random values for every parameter: the small initial LayerScale would hide errors."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        timm_model = timm.create_model(model, pretrained=False, num_classes=classes, **smaller)
        state = timm_model.state_dict()
        return {key: value + 0.1 * torch.randn_like(value) for key, value in state.items()}


@pytest.fixture(scope="session")
def option():
    """option(family, field=value, ...) -> schema.Backbone of conf/backbone/<family>.yaml."""

    def make(family, **fields):
        node = OmegaConf.load(CONF / f"{family}.yaml")
        typed = OmegaConf.merge(OmegaConf.structured(schema.Backbone), node, fields)
        conf = OmegaConf.to_object(typed)
        assert isinstance(conf, schema.Backbone)
        fill_table(conf, is_recorded=False)
        return conf

    return make


@pytest.fixture(scope="session")
def mini(option):
    """mini(family, weights=None, ...) -> the small test model of the family, with weights."""

    def make(family, weights=None, **fields):
        weights = None if weights is None else str(weights)
        return option(family, size="mini", weights=weights, **fields)

    return make


def _perturbed(model):
    """Random values for every parameter, also of the norms."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(7)
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="session")
def clip_model(mini):
    """The model of the mini row built by open_clip, at its native size."""
    config = mini("clip").checkpoints["mini"].architecture
    with torch.random.fork_rng(devices=[]):
        return _perturbed(open_clip.CLIP(**config))


@pytest.fixture(scope="session")
def clip_file(clip_model, tmp_path_factory):
    """clip_file(form) -> its weights: safetensors, bin, or openai, in half precision."""
    folder = tmp_path_factory.mktemp("clip")

    def save(form="safetensors"):
        path = folder / form / f"open_clip_model.{'pt' if form == 'openai' else form}"
        if path.exists():
            return path
        path.parent.mkdir()
        state = clip_model.state_dict()
        if form == "safetensors":
            save_file(state, path)
            return path
        if form == "openai":
            numbers = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
            state = {key: value.half() for key, value in state.items()}
            state |= {key: torch.tensor(value) for key, value in numbers.items()}
        torch.save(state, path)
        return path

    return save


@pytest.fixture(scope="session")
def siglip_folder(mini, tmp_path_factory):
    """A folder of SigLIP 2 as saved by transformers: weights, config.json and a tokenizer."""
    from transformers import SiglipConfig, SiglipModel

    folder = tmp_path_factory.mktemp("siglip2")
    architecture = mini("siglip2").checkpoints["mini"].architecture
    with torch.random.fork_rng(devices=[]):
        model = _perturbed(SiglipModel(SiglipConfig(**architecture)))
    model.save_pretrained(folder)
    _save_tokenizer(folder)
    return folder


def _save_tokenizer(folder):
    """Bytes as tokens, in Gemma's format on the hub; text keeps its case."""
    from transformers import GemmaTokenizer

    names = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {name: place for place, name in enumerate(names)}
    GemmaTokenizer(vocab=vocab, mask_token="<unk>").save_pretrained(folder)


@pytest.fixture(scope="session")
def real_weights():
    """The published ViT-Ti/16 in the folder that FGVC_REAL_DATA names."""
    root = os.environ.get("FGVC_REAL_DATA")
    if root is None:
        pytest.skip("FGVC_REAL_DATA is not set")
    return Path(root) / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth"
