"""The tokens are timm's own, at every size; what does not fit is said in one line."""

import pytest
import timm
import torch
from timm.layers.config import set_fused_attn
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from fgvc.model.backbone import build, weights
from fgvc.parallel.device import autocast
from fgvc.types import UserError, WeightsSource

ROW_NAMES = {"vit": "shallow_vit", "dinov2": "shallow_dinov2", "registers": "shallow_reg4_dinov2"}
RANDOM = WeightsSource("random", "random")


def _pixels(side, batch=2):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


def _reference(row, path, side, pixels_BCHW):
    """timm's own loading, resizing and forward."""
    overlay = {"file": str(path), "hf_hub_id": None}
    model = timm.create_model(
        row.model,
        pretrained=True,
        pretrained_cfg_overlay=overlay,
        num_classes=0,
        img_size=side,
        **row.architecture,
    )
    assert isinstance(model, VisionTransformer | Eva)
    with torch.inference_mode():
        return model.eval().forward_features(pixels_BCHW)


def _check_against_timm(conf, path, side):
    backbone = build(conf, side, weights.find(conf), seed=0)
    pixels_BCHW = _pixels(side)
    with torch.inference_mode():
        tokens = backbone(pixels_BCHW)
    expected_BTD = _reference(conf.checkpoints["only"], path, side, pixels_BCHW)
    found_BTD = torch.cat([tokens.prefix_BPD, tokens.patch_BND], 1)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=0, atol=1e-5)
    assert expected_BTD.std() > 0.1
    return backbone, tokens


@pytest.mark.parametrize(
    ("family", "side", "grid"),
    [
        ("vit", 224, 14),
        ("vit", 336, 21),
        ("vit", 448, 28),
        ("dinov2", 518, 37),
        ("dinov2", 224, 16),
        ("dinov2", 336, 24),
        ("registers", 518, 37),
        ("registers", 224, 16),
        ("registers", 336, 24),
        ("dinov3", 256, 16),
        ("dinov3", 224, 14),
        ("dinov3", 448, 28),
    ],
)
def test_tokens_are_those_of_timm(conf, saved, family, side, grid):
    path = saved(family, ".safetensors" if side == 336 else ".pth")
    backbone, tokens = _check_against_timm(conf(family, weights=str(path)), path, side)
    prefix = 1 if family in ("vit", "dinov2") else 5
    assert backbone.grid == tokens.grid == (grid, grid)
    assert backbone.prefix == tokens.prefix_BPD.shape[1] == prefix
    assert tokens.patch_BND.shape[1] == grid * grid


@pytest.mark.parametrize("family", ["published vit", "published dinov2", "published registers"])
def test_tokens_of_published_shapes_are_those_of_timm(conf, saved, family):
    _check_against_timm(conf(family, weights=str(saved(family))), saved(family), 224)


@pytest.mark.real
@pytest.mark.parametrize("side", [224, 256, 448])
def test_tokens_of_the_published_weights_are_those_of_timm(conf, real_weights, side):
    _check_against_timm(conf("published vit", weights=str(real_weights)), real_weights, side)


@pytest.mark.parametrize("features", ["cls", "patch_mean", "cls_patch_mean"])
def test_the_feature_is_pooled_from_the_normed_tokens(conf, saved, features):
    backbone_conf = conf("registers", features=features, weights=str(saved("registers")))
    backbone = build(backbone_conf, 56, weights.find(backbone_conf), seed=0)
    with torch.inference_mode():
        tokens = backbone(_pixels(56))
        feature_BD = backbone.feature(_pixels(56))
    cls_BD, mean_BD = tokens.prefix_BPD[:, 0], tokens.patch_BND.mean(1)
    expected_BD = {
        "cls": cls_BD,
        "patch_mean": mean_BD,
        "cls_patch_mean": torch.cat([cls_BD, mean_BD], 1),
    }[features]
    torch.testing.assert_close(feature_BD, expected_BD)
    torch.testing.assert_close(tokens.pooled_BD, expected_BD)
    assert feature_BD.shape[1] == backbone.feature_dim


def test_what_a_record_says_of_it(conf, saved):
    backbone_conf = conf("vit", weights=str(saved("vit")))
    source = weights.find(backbone_conf)
    backbone = build(backbone_conf, 224, source, seed=0)
    depth, width, tokens = 2, 64, 197
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert backbone.macs == depth * block + 196 * 3 * 16**2 * width
    model = timm.create_model("shallow_vit", num_classes=0)
    assert backbone.parameter_count == sum(value.numel() for value in model.state_dict().values())
    assert backbone.weights == source
    assert backbone.name == "shallow_vit"
    assert isinstance(backbone.blocks, torch.nn.ModuleList)
    assert [id(block) for block in backbone.blocks] == [id(b) for b in backbone.trunk.blocks]


def test_macs_follow_the_side_where_no_parameter_does(conf):
    """dinov3 has rotary positions. The counts of a process are kept."""
    small, large, again = (build(conf("dinov3"), side, RANDOM, 0) for side in (32, 64, 32))
    assert small.parameter_count == large.parameter_count
    assert 2 * small.macs < large.macs < 4 * small.macs
    assert again.macs == small.macs


def test_it_is_frozen_and_in_evaluation_mode(conf):
    backbone = build(conf("vit"), 224, RANDOM, seed=0)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


def test_attention_is_fused_whatever_was_set_before(conf):
    set_fused_attn(False)
    backbone = build(conf("vit"), 224, RANDOM, seed=0)
    assert all(block.attn.fused_attn for block in backbone.trunk.blocks)


def test_random_weights_follow_from_the_seed_and_leave_no_trace(conf):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    same, again, other = (build(conf("vit"), 224, RANDOM, seed).state_dict() for seed in (0, 0, 1))
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)
    assert all(torch.equal(same[key], again[key]) for key in same)
    assert not torch.equal(same["trunk.pos_embed"], other["trunk.pos_embed"])


def test_loading_leaves_no_trace_either(conf, saved):
    backbone_conf = conf("vit", weights=str(saved("vit")))
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build(backbone_conf, 224, weights.find(backbone_conf), seed=0)
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("file", "family", "expected"),
    [
        ("dinov2", "vit", "patch_embed.proj.weight is (64, 3, 14, 14) in the file and (64, 3, 16"),
        ("vit", "dinov2", "1 of another shape, 4 missing, 0 unexpected"),
        ("dinov2", "registers", "pos_embed is (1, 1370, 64) in the file and (1, 256, 64)"),
        ("dinov2", "registers", "1 of another shape, 1 missing, 0 unexpected"),
        ("registers", "dinov2", "1 of another shape, 0 missing, 1 unexpected"),
    ],
)
def test_weights_of_another_model_are_refused(conf, saved, file, family, expected):
    backbone_conf = conf(family, weights=str(saved(file)))
    with pytest.raises(UserError, match="do not fit") as error:
        build(backbone_conf, 224, weights.find(backbone_conf), seed=0)
    message = str(error.value)
    assert f"weights {saved(file)} do not fit {ROW_NAMES[family]}: " in message
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda state: state.pop("blocks.1.mlp.fc1.bias"), "fc1.bias is absent in the file and"),
        (lambda state: state.update(extra=torch.zeros(2)), "extra is (2,) in the file and absent"),
        (
            lambda state: state.update({"norm.weight": torch.zeros(9)}),
            "norm.weight is (9,) in the file and (64,) in the model; 1 of another shape, 0",
        ),
        (
            lambda state: state.update({"patch_embed.proj.weight": torch.zeros(64, 3, 8, 8)}),
            "patch_embed.proj.weight is (64, 3, 8, 8) in the file and (64, 3, 16, 16)",
        ),
        (
            lambda state: state.update({"pos_embed": torch.zeros(1, 180, 64)}),
            "pos_embed is (1, 180, 64) in the file and (1, 197, 64)",
        ),
    ],
    ids=["missing", "unexpected", "shape", "patch", "no square"],
)
def test_one_wrong_tensor_is_named(conf, saved, tmp_path, change, expected):
    state = torch.load(saved("vit"), weights_only=True)
    change(state)
    torch.save(state, tmp_path / "wrong.pth")
    backbone_conf = conf("vit", weights=str(tmp_path / "wrong.pth"))
    with pytest.raises(UserError) as error:
        build(backbone_conf, 224, weights.find(backbone_conf), seed=0)
    assert expected in str(error.value)


def test_a_row_that_belies_its_model_is_refused(conf):
    backbone_conf = conf("vit")
    backbone_conf.checkpoints["only"].prefix = 5
    with pytest.raises(UserError, match="checkpoints: shallow_vit"):
        build(backbone_conf, 224, RANDOM, seed=0)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("fp16", "float16")])
def test_half_precision_runs_close_to_fp32(conf, saved, precision, dtype):
    backbone_conf = conf("vit", weights=str(saved("vit")))
    backbone = build(backbone_conf, 224, weights.find(backbone_conf), seed=0)
    with torch.inference_mode():
        full_BD = backbone.feature(_pixels(224))
        with autocast("fp32", torch.device("cpu")):
            same_BD = backbone.feature(_pixels(224))
        with autocast(precision, torch.device("cpu")):
            half_BD = backbone.feature(_pixels(224))
            product = backbone.trunk.blocks[0].attn.qkv(torch.zeros(1, 64))
    torch.testing.assert_close(same_BD, full_BD)
    assert str(product.dtype) == f"torch.{dtype}"
    assert not torch.equal(half_BD.float(), full_BD)
    assert torch.cosine_similarity(half_BD.float(), full_BD).min() > 0.99
