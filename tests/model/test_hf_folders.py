"""Folders of ViT, DINOv2, DINOv3 and CLIP saved by transformers give its tokens."""

import json
import re
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    ViTConfig,
    ViTMAEConfig,
    ViTMSNConfig,
)

from fgvc.model.backbone import build, text_tower, weights
from fgvc.types import UserError

SHAPE: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
DINO: dict[str, Any] = {**SHAPE, "patch_size": 14, "image_size": 518}
VIT: dict[str, Any] = {**SHAPE, "intermediate_size": 256, "image_size": 224}
MODELS = {  # class of transformers -> family, its config, side
    "ViTModel": ("vit", ViTConfig(**VIT), 224),
    "ViTForImageClassification": ("vit", ViTConfig(**VIT, layer_norm_eps=1e-6), 224),
    "ViTMSNModel": ("vit", ViTMSNConfig(**VIT), 224),
    "Dinov2Model": ("dinov2", Dinov2Config(**DINO), 518),
    "Dinov2ForImageClassification": ("dinov2", Dinov2Config(**DINO, layer_norm_eps=1e-3), 518),
    "Dinov2WithRegistersModel": ("registers", Dinov2WithRegistersConfig(**DINO), 518),
    "Dinov2WithRegistersForImageClassification": (
        "registers",
        Dinov2WithRegistersConfig(**DINO),
        518,
    ),
    "DINOv3ViTModel": (
        "dinov3",
        DINOv3ViTConfig(
            **SHAPE,
            intermediate_size=256,
            num_register_tokens=4,
            query_bias=False,
            value_bias=False,
        ),
        224,
    ),
}
CLIP = CLIPConfig(
    vision_config={**VIT, "patch_size": 16},
    text_config={**SHAPE, "intermediate_size": 256},
    projection_dim=32,
)


def _perturbed(model):
    """Random values for every parameter, also of the norms."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(7)
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="session")
def save_model(tmp_path_factory):
    """save_model(class name) -> transformers' model and its saved folder."""
    models = {}

    def make(name, config=None):
        if name not in models:
            model_config = config or MODELS[name][1]
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(3)
                model = _perturbed(getattr(transformers, name)(model_config))
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            models[name] = model, folder
        return models[name]

    return make


@pytest.fixture
def row_of(mini):
    """row_of(family, folder) -> the test row of the family, with registers if requested."""

    def make(family, folder, **fields):
        conf = mini("dinov2" if family == "registers" else family, folder, **fields)
        if family == "registers":
            conf.registers, row = True, conf.checkpoints["mini"]
            row.model, row.registers, row.prefix = "vit_small_patch14_reg4_dinov2", True, 5
        return conf

    return make


def _pixels(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _build(conf, side):
    return build(conf, side, weights.find(conf), seed=0)


def _expected(model, side):
    """transformers' tokens after its last norm."""
    trunk = model
    if "Classification" in type(model).__name__:
        trunk = getattr(model, model.base_model_prefix)
    return trunk(pixel_values=_pixels(side)).last_hidden_state


def _tokens(backbone, side):
    tokens = backbone(_pixels(side))
    return torch.cat([tokens.prefix_BPD, tokens.patch_BND], 1)


@pytest.mark.parametrize("name", MODELS)
def test_the_tokens_are_transformers_own(save_model, row_of, name):
    model, folder = save_model(name)
    family, _, side = MODELS[name]
    backbone = _build(row_of(family, folder), side)
    with torch.inference_mode():
        found_BTD, expected_BTD = _tokens(backbone, side), _expected(model, side)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=1e-6, atol=2e-6)
    assert expected_BTD.std() > 0.1


@pytest.mark.parametrize("form", ["bin", "legacy", "half", "wrapped"])
def test_other_forms_of_the_same_weights_are_read(save_model, row_of, tmp_path, form):
    model, folder = save_model("ViTModel")
    state = load_file(folder / "model.safetensors")
    prefix = "module.vit." if form == "wrapped" else ""
    state = {f"{prefix}{key}": v.half() if form == "half" else v for key, v in state.items()}
    torch.save(state, tmp_path / "w.bin", _use_new_zipfile_serialization=form != "legacy")
    with torch.inference_mode():
        found_BTD = _tokens(_build(row_of("vit", tmp_path / "w.bin"), 224), 224)
        expected_BTD = _expected(model, 224)
    atol = 2e-6 if form != "half" else 0.05
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=1e-6, atol=atol)


def test_a_sharded_folder_is_read(save_model, row_of, tmp_path):
    model, _ = save_model("ViTModel")
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    with torch.inference_mode():
        found_BTD = _tokens(_build(row_of("vit", tmp_path), 224), 224)
    torch.testing.assert_close(found_BTD, _expected(model, 224), rtol=1e-6, atol=2e-6)


def test_an_autoencoder_is_read_as_the_vit_that_transformers_reads_in_it(save_model, row_of):
    _, folder = save_model("ViTMAEForPreTraining", ViTMAEConfig(**VIT, decoder_num_hidden_layers=1))
    model = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.inference_mode():
        found_BTD = _tokens(_build(row_of("vit", folder), 224), 224)
        expected_BTD = _expected(model, 224)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=1e-6, atol=2e-6)


def test_swiglu_of_the_giant_is_read(save_model, row_of):
    config = Dinov2Config(**{**DINO, "hidden_size": 96, "image_size": 56}, use_swiglu_ffn=True)
    model, folder = save_model("Dinov2Backbone", config)
    conf = row_of("dinov2", folder)
    row = conf.checkpoints["mini"]
    row.model, row.width = "vit_giant_patch14_dinov2", 96
    row.architecture = {"depth": 2, "embed_dim": 96, "num_heads": 2}
    with torch.inference_mode():
        hidden_BTD = model(pixel_values=_pixels(56), output_hidden_states=True).hidden_states[-1]
        expected_BTD = model.layernorm(hidden_BTD)
        found_BTD = _tokens(_build(conf, 56), 56)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=1e-6, atol=2e-6)


# --- CLIP ---


@pytest.mark.parametrize("name", ["CLIPModel", "CLIPVisionModelWithProjection"])
def test_clips_image_feature_is_transformers_own(save_model, mini, name):
    config = CLIP if name == "CLIPModel" else CLIP.vision_config
    assert isinstance(config, CLIPConfig | CLIPVisionConfig)
    config.projection_dim = 32
    model, folder = save_model(name, config)
    backbone = _build(mini("clip", folder, features="projected"), 224)
    with torch.inference_mode():
        if name == "CLIPModel":
            expected = model.get_image_features(pixel_values=_pixels(224))
            expected_BE = getattr(expected, "pooler_output", expected)
        else:
            expected_BE = model(pixel_values=_pixels(224)).image_embeds
        found_BE = backbone.feature(_pixels(224))
    torch.testing.assert_close(found_BE, expected_BE, rtol=1e-6, atol=2e-6)
    assert expected_BE.std() > 0.1


def test_clips_text_feature_is_transformers_own(save_model, mini):
    model, folder = save_model("CLIPModel", CLIP)
    conf = mini("clip", folder)
    tower = text_tower(conf, weights.find(conf), seed=0)
    token_PL = tower.tokenize(["a photo of a Black-footed Albatross.", "Möwe"])
    with torch.inference_mode():
        expected = model.get_text_features(input_ids=token_PL)
        found_PE = tower.project(token_PL)
    torch.testing.assert_close(
        found_PE, getattr(expected, "pooler_output", expected), rtol=1e-6, atol=2e-6
    )
    assert tower.scale == pytest.approx(model.logit_scale.exp().item(), rel=1e-6)


def test_an_image_tower_alone_gives_tokens_and_no_text(save_model, mini):
    model, folder = save_model("CLIPVisionModel", CLIP.vision_config)
    conf = mini("clip", folder)
    with torch.inference_mode():
        expected = model(pixel_values=_pixels(224))
        tokens = _build(conf, 224)(_pixels(224))
    torch.testing.assert_close(tokens.pooled_BD, expected.pooler_output, rtol=1e-6, atol=2e-6)
    with pytest.raises(UserError, match="text tower is absent in the file") as error:
        text_tower(conf, weights.find(conf), seed=0)
    assert "\n" not in str(error.value)
    conf.features = "projected"
    with pytest.raises(UserError, match=r"backbone.features=projected: .* hold no projection"):
        _build(conf, 224)


# --- values of config.json that no tensor shape shows ---


def _copy_with(folder, tmp_path, **values):
    """A copy of the folder whose config.json has other values."""
    target = tmp_path / "changed"
    target.mkdir()
    save_file(load_file(folder / "model.safetensors"), target / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    for name, value in values.items():
        holder, _, key = name.rpartition("__")
        (config[holder] if holder else config)[key] = value
    (target / "config.json").write_text(json.dumps(config))
    return target


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("ViTModel", {"num_attention_heads": 4}, "num_attention_heads=4, but .* has 2"),
        ("ViTModel", {"hidden_act": "relu"}, "hidden_act=relu, but .* has gelu"),
        ("ViTModel", {"hidden_act": "gelu_new"}, "hidden_act=gelu_new, but .* has gelu"),
        ("ViTModel", {"model_type": "deit"}, "model_type=deit"),
        ("Dinov2Model", {"num_attention_heads": 8}, "num_attention_heads=8, but .* has 2"),
        ("DINOv3ViTModel", {"rope_theta": 10.0}, "rope_theta=10.0, but .* has 100"),
        ("CLIPModel", {"vision_config__num_attention_heads": 4}, "num_attention_heads=4, but"),
        ("CLIPModel", {"vision_config__hidden_act": "gelu"}, "hidden_act=gelu, but .* quick_gelu"),
    ],
)
def test_a_config_json_of_another_model_is_refused(
    save_model, row_of, tmp_path, name, values, message
):
    family, side = ("clip", 224) if name == "CLIPModel" else MODELS[name][::2]
    _, folder = save_model(name, CLIP if family == "clip" else None)
    with pytest.raises(UserError, match=message) as error:
        _build(row_of(family, _copy_with(folder, tmp_path, **values)), side)
    assert str(error.value).startswith(f"{tmp_path}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [None, "1e-6", [1], -1.0, float("nan"), True])
def test_an_epsilon_that_is_no_number_is_refused(save_model, mini, tmp_path, value):
    folder = _copy_with(save_model("ViTModel")[1], tmp_path, layer_norm_eps=value)
    message = "has layer_norm_eps=.*: correct it"
    if value != value:
        message = "cannot be read as JSON"
    with pytest.raises(UserError, match=f"config.json {message}"):
        _build(mini("vit", folder), 224)


def test_a_form_whose_layout_shows_only_when_it_is_loaded_needs_the_epsilon(
    save_model, row_of, tmp_path
):
    model, folder = save_model("ViTModel")
    state: dict[str, Any] = load_file(folder / "model.safetensors")
    np.savez(tmp_path / "vit.npz", **state)
    with torch.inference_mode():
        expected_BTD = _expected(model, 224)
    conf = row_of("vit", tmp_path / "vit.npz")
    with pytest.raises(UserError, match=r"backbone.norm_eps=null: .*which is usually 1e-12"):
        _build(conf, 224)
    conf.norm_eps = 1e-12
    with torch.inference_mode():
        found_BTD = _tokens(_build(conf, 224), 224)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=1e-6, atol=2e-6)


def test_clips_text_half_is_checked_too(save_model, mini, tmp_path):
    _, folder = save_model("CLIPModel", CLIP)
    conf = mini("clip", _copy_with(folder, tmp_path, text_config__num_attention_heads=4))
    _build(conf, 224)
    with pytest.raises(UserError, match="num_attention_heads=4, but"):
        text_tower(conf, weights.find(conf), seed=0)


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("CLIPModel", "vit", "CLIPModel, which backbone=clip reads"),
        ("ViTModel", "clip", "ViTModel, which backbone=vit reads"),
    ],
)
def test_weights_of_another_family_are_named(save_model, mini, name, family, message):
    _, folder = save_model(name, CLIP if name == "CLIPModel" else None)
    with pytest.raises(UserError, match=f"backbone={family}: .*{message}"):
        _build(mini(family, folder), 224)


def test_biases_that_timms_dinov3_lacks_are_not_dropped_unless_zero(save_model, row_of, tmp_path):
    _, folder = save_model("DINOv3ViTModel")
    state = load_file(folder / "model.safetensors")
    for name in "qv":
        state[f"layer.0.attention.{name}_proj.bias"] = torch.zeros(64)
        state[f"layer.1.attention.{name}_proj.bias"] = torch.zeros(64)
    save_file(state, tmp_path / "model.safetensors")
    _build(row_of("dinov3", tmp_path), 224)
    state["layer.1.attention.v_proj.bias"][5] = 0.5
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"blocks.1.attn.v_bias is \(64,\) in the file"):
        _build(row_of("dinov3", tmp_path), 224)


def _as_the_authors(state, registers):
    """DINOv2 or DINOv3 of transformers with the tensor names of its authors."""
    names = ("query", "key", "value")
    if registers == "storage_tokens":
        names = ("q_proj", "k_proj", "v_proj")
    swaps = (
        ("embeddings.cls_token", "cls_token"),
        ("embeddings.mask_token", "mask_token"),
        ("embeddings.register_tokens", registers),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("embeddings.patch_embeddings", "patch_embed.proj"),
        ("encoder.layer.", "blocks."),
        ("attention.output.dense", "attn.proj"),
        ("attention.o_proj", "attn.proj"),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("layernorm.", "norm."),
        ("mlp.up_proj", "mlp.fc1"),
        ("mlp.down_proj", "mlp.fc2"),
    )
    renamed = {}
    for key, value in state.items():
        for old, new in swaps:
            key = key.replace(old, new)
        key = re.sub(r"^layer\.", "blocks.", key)
        renamed[key] = value
    for key in [key for key in renamed if f".{names[0]}." in key]:
        keys = [key.replace(f".{names[0]}.", f".{name}.") for name in names]
        zero = torch.zeros(len(renamed[key]))
        block, parameter_name = key.split(".attention.")[0], key.rpartition(".")[2]
        renamed[f"{block}.attn.qkv.{parameter_name}"] = torch.cat(
            [renamed.pop(k, zero) for k in keys]
        )
    return renamed


@pytest.mark.parametrize(
    ("name", "registers"),
    [
        ("Dinov2Model", "-"),
        ("Dinov2WithRegistersModel", "register_tokens"),
        ("DINOv3ViTModel", "storage_tokens"),
    ],
)
def test_the_authors_own_file_gives_the_same_tokens(save_model, row_of, tmp_path, name, registers):
    model, folder = save_model(name)
    family, _, side = MODELS[name]
    state = _as_the_authors(load_file(folder / "model.safetensors"), registers)
    torch.save(state, tmp_path / "own.pth")
    with torch.inference_mode():
        found_BTD = _tokens(_build(row_of(family, tmp_path / "own.pth"), side), side)
        expected_BTD = _expected(model, side)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=1e-6, atol=2e-6)
    if family == "dinov3":
        state["blocks.0.attn.qkv.bias"] = torch.ones(3 * 64)
        torch.save(state, tmp_path / "own.pth")
        with pytest.raises(UserError, match="q_bias"):
            _build(row_of(family, tmp_path / "own.pth"), side)


# --- timm's config.json ---


def test_the_architecture_that_timm_names_is_that_of_the_row(mini, saved_vit):
    folder, config = saved_vit
    for name in ("vit_small_patch16_224", "vit_small_patch16_384"):
        config.write_text(json.dumps({"architecture": name}))
        _build(mini("vit", folder), 224)
    config.write_text(json.dumps({"architecture": "vit_small_patch16_clip_quickgelu_224"}))
    with pytest.raises(UserError) as error:
        _build(mini("vit", folder), 224)
    text = str(error.value)
    assert "\n" not in text
    assert f"{config} has architecture=vit_small_patch16_clip_quickgelu_224" in text
    assert "model=vit_small_patch16_224" in text


@pytest.fixture
def saved_vit(mini, tmp_path):
    """A folder of the test ViT as saved by timm, and its config.json."""
    import timm

    row = mini("vit").checkpoints["mini"]
    model = timm.create_model(row.model, num_classes=3, **row.architecture)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    return tmp_path, tmp_path / "config.json"
