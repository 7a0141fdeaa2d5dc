"""CLIP's tokens, features and text equal open_clip's; a wrong activation is always refused."""

import json
from typing import Any

import open_clip
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from fgvc.model.backbone import build, text_tower, weights
from fgvc.types import UserError, WeightsSource

SIDES = (224, 336, 160)
PROMPTS = ["a photo of a Black-footed Albatross.", "Möwe", " ".join(["long"] * 100)]
RANDOM = WeightsSource("random", "random")


def _pixels(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _build(conf, side=224):
    return build(conf, side, weights.find(conf), seed=0)


def _reference(conf, path, side) -> Any:
    """Model, loading and resizing by open_clip."""
    config = conf.checkpoints["mini"].architecture
    sized_config = {**config, "vision_cfg": {**config["vision_cfg"], "image_size": side}}
    model = open_clip.CLIP(**sized_config).eval()
    open_clip.load_checkpoint(model, str(path), weights_only=True)
    return model


@pytest.mark.parametrize("side", SIDES)
def test_the_projected_feature_is_open_clips(mini, clip_file, side):
    conf = mini("clip", clip_file(), features="projected")
    backbone = _build(conf, side)
    with torch.inference_mode():
        found_BE = backbone.feature(_pixels(side))
        expected_BE = _reference(conf, clip_file(), side).encode_image(_pixels(side))
    torch.testing.assert_close(found_BE, expected_BE, rtol=0, atol=1e-5)
    assert expected_BE.std() > 0.1
    assert backbone.feature_dim == found_BE.shape[1] == 32


@pytest.mark.parametrize("side", SIDES)
def test_the_tokens_and_the_feature_before_the_projection_are_too(mini, clip_file, side):
    conf = mini("clip", clip_file())
    backbone, visual = _build(conf, side), _reference(conf, clip_file(), side).visual
    visual.output_tokens, visual.proj, visual.ln_post = True, None, torch.nn.Identity()
    with torch.inference_mode():
        tokens = backbone(_pixels(side))
        cls_BD, patch_BND = visual(_pixels(side))
        norm = _reference(conf, clip_file(), side).visual.ln_post
        torch.testing.assert_close(tokens.pooled_BD, norm(cls_BD), rtol=0, atol=1e-5)
        torch.testing.assert_close(tokens.patch_BND, norm(patch_BND), rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.prefix_BPD[:, 0], tokens.pooled_BD)
    assert tokens.grid == backbone.grid == (side // 16, side // 16)
    assert backbone.feature_dim == tokens.pooled_BD.shape[1] == 64


@pytest.mark.parametrize("features", ["patch_mean", "cls_patch_mean"])
def test_the_other_features_are_pooled_from_the_tokens(mini, clip_file, features):
    backbone = _build(mini("clip", clip_file(), features=features))
    with torch.inference_mode():
        tokens = backbone(_pixels(224))
    mean_BD = tokens.patch_BND.mean(1)
    both_BD = torch.cat([tokens.prefix_BPD[:, 0], mean_BD], 1)
    expected_BD = mean_BD if features == "patch_mean" else both_BD
    torch.testing.assert_close(tokens.pooled_BD, expected_BD)
    assert backbone.feature_dim == expected_BD.shape[1]


@pytest.mark.parametrize("side", SIDES)
def test_timm_sees_the_same_in_the_same_file(mini, clip_file, side):
    overlay = {"file": str(clip_file("bin")), "hf_hub_id": None, "num_classes": 32}
    other = timm.create_model(
        "vit_base_patch16_clip_quickgelu_224",
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        img_size=side,
        num_classes=32,
        depth=2,
        embed_dim=64,
        num_heads=2,
    ).eval()
    assert isinstance(other, VisionTransformer)
    backbone = _build(mini("clip", clip_file("bin"), features="projected"), side)
    with torch.inference_mode():
        tokens = backbone(_pixels(side))
        expected_BTD = other.forward_features(_pixels(side))
        expected_BE = other.forward_head(expected_BTD)
    found_BTD = torch.cat([tokens.prefix_BPD, tokens.patch_BND], 1)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.pooled_BD, expected_BE, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["safetensors", "bin", "openai"])
def test_text_is_open_clips_in_every_form_of_file(mini, clip_model, clip_file, form):
    conf = mini("clip", clip_file(form))
    tower = text_tower(conf, weights.find(conf), seed=0)
    token_PL = open_clip.get_tokenizer("ViT-B-16-quickgelu")(PROMPTS)
    with torch.inference_mode():
        expected_PE = clip_model.encode_text(token_PL)
    found_PE = tower.encode(PROMPTS, batch=2)
    atol = 1e-5 if form != "openai" else 2e-2  # its numbers are rounded to half precision
    torch.testing.assert_close(found_PE, expected_PE, rtol=0, atol=atol)
    assert found_PE.dtype == torch.float32
    assert tower.scale == pytest.approx(clip_model.logit_scale.exp().item(), rel=1e-3)


@pytest.mark.parametrize("form", ["safetensors", "bin", "openai"])
def test_the_tower_is_the_same_in_every_form_of_file(mini, clip_model, clip_file, form):
    backbone = _build(mini("clip", clip_file(form)))
    trunk_state, expected = backbone.trunk.state_dict(), clip_model.visual.state_dict()
    assert trunk_state.keys() == expected.keys() - {"proj"}
    for key, value in trunk_state.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prefix", ["", "image_encoder."])
def test_an_image_tower_by_itself_is_read(mini, clip_model, clip_file, tmp_path, prefix):
    tower = {f"{prefix}{key}": value for key, value in clip_model.visual.state_dict().items()}
    torch.save(tower, tmp_path / "tower.pt")
    pair = [_build(mini("clip", path)) for path in (tmp_path / "tower.pt", clip_file())]
    with torch.inference_mode():
        found_BD, expected_BD = (backbone.feature(_pixels(224)) for backbone in pair)
    assert torch.equal(found_BD, expected_BD)


def test_what_a_record_states_of_it(mini, clip_file):
    macs = {}
    for features in ("cls", "projected"):
        backbone = _build(mini("clip", clip_file(), features=features))
        macs[features] = backbone.macs
        parameters = sum(value.numel() for value in backbone.trunk.state_dict().values())
        assert backbone.parameter_count == parameters
    depth, width, tokens = 2, 64, 197
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert macs["cls"] == depth * block + 196 * 3 * 16**2 * width
    assert macs["projected"] == macs["cls"] + width * 32
    assert [type(block).__name__ for block in backbone.blocks] == ["ResidualAttentionBlock"] * 2


def test_the_text_identity_holds_what_can_change_a_text_feature(mini):
    identity = text_tower(mini("clip", pretrained=False), RANDOM, seed=0).identity
    assert json.loads(json.dumps(identity)) == identity
    assert len(identity["vocabulary_sha256"]) == 64
    assert (identity["length"], identity["clean"]) == (77, "lower")


# --- QuickGELU ---


def _refusal(conf):
    with pytest.raises(UserError, match="activation=") as error:
        _build(conf)
    with pytest.raises(UserError, match="activation="):
        text_tower(conf, weights.find(conf), seed=0)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_row_that_contradicts_the_activation_of_its_model_is_refused(mini, clip_file):
    conf = mini("clip", clip_file())
    conf.checkpoints["mini"].activation = "gelu"
    assert "the model CLIP-mini has quick_gelu" in _refusal(conf)
    conf.checkpoints["mini"].architecture["quick_gelu"] = False
    _build(conf)
    conf.checkpoints["mini"].activation = "quick_gelu"
    assert "the model CLIP-mini has gelu" in _refusal(conf)


def test_a_pretrained_tag_of_another_activation_is_refused(option, clip_file):
    conf = option("clip", weights=str(clip_file()))
    row = conf.checkpoints["base"]
    row.model, row.activation = "ViT-B-16", "gelu"  # OpenAI's weights, without their QuickGELU
    assert "open_clip's pretrained tag openai has quick_gelu" in _refusal(conf)


def test_a_config_beside_the_weights_with_another_activation_is_refused(mini, clip_file, tmp_path):
    path = tmp_path / "open_clip_model.safetensors"
    path.write_bytes(clip_file().read_bytes())
    config_file = tmp_path / "open_clip_config.json"
    config_file.write_text(json.dumps({"model_cfg": {"quick_gelu": True}}))
    _build(mini("clip", path))
    config_file.write_text(json.dumps({"model_cfg": {"embed_dim": 32}}))
    assert f"{config_file} has plain GELU" in _refusal(mini("clip", path))
    config_file.write_text("[]")
    with pytest.raises(UserError, match="not a JSON object"):
        _build(mini("clip", path))


def test_openais_own_file_needs_quick_gelu(mini, clip_file):
    conf = mini("clip", clip_file("openai"))
    row = conf.checkpoints["mini"]
    row.activation, row.architecture["quick_gelu"] = "gelu", False
    assert "OpenAI's own file" in _refusal(conf)


# --- what does not fit ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("visual.ln_post.bias"), "ln_post.bias is absent in the file and"),
        (lambda state: state.update({"visual.x": torch.zeros(2)}), "x is (2,) in the file and abs"),
        (
            lambda state: state.update({"visual.positional_embedding": torch.zeros(180, 64)}),
            "positional_embedding is (180, 64) in the file and (197, 64)",
        ),
    ],
    ids=["missing", "unexpected", "no square"],
)
def test_one_wrong_tensor_is_named(mini, clip_model, tmp_path, change, message):
    state = clip_model.state_dict()
    change(state)
    torch.save(state, tmp_path / "wrong.pt")
    with pytest.raises(UserError, match="do not fit CLIP-mini") as error:
        _build(mini("clip", tmp_path / "wrong.pt"))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_half_a_model_has_no_text(mini, clip_model, tmp_path):
    visual = {key: v for key, v in clip_model.state_dict().items() if key.startswith("visual.")}
    torch.save(visual, tmp_path / "half.pt")
    conf = mini("clip", tmp_path / "half.pt")
    _build(conf)
    with pytest.raises(UserError, match="absent in the file"):
        text_tower(conf, weights.find(conf), seed=0)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("ViT-B-99", "open_clip knows no model ViT-B-99"),
        ("ViT-B-16-SigLIP2", "not a plain CLIP"),
        ("RN50", "not a plain CLIP"),
        ("ViT-B-16-plus-240", "has width=896, not width=768"),
    ],
)
def test_a_model_that_is_no_plain_clip_is_refused(option, model, message):
    conf = option("clip", pretrained=False)
    row = conf.checkpoints["base"]
    row.model, row.tag, row.activation = model, None, "gelu"
    with pytest.raises(UserError, match=message) as error:
        build(conf, 224, RANDOM, seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_of_another_model_is_refused(mini, tmp_path):
    program = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    torch.jit.save(program, tmp_path / "ViT-B-16.pt")
    with pytest.raises(UserError, match="do not fit CLIP-mini: class_embedding is absent"):
        _build(mini("clip", tmp_path / "ViT-B-16.pt"))
