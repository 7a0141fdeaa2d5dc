"""Rows that name an unsupported model: one line with the value and a fix."""

import re
from typing import Any

import open_clip
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from fgvc.config import schema
from fgvc.model import backbone
from fgvc.model.backbone import clip
from fgvc.types import UserError, WeightsSource
from tests.narrow import not_none


def make_conf(model, library="timm", features="cls", **fields):
    defaults = {
        "size": "mine",
        "repo": "",
        "revision": "main",
        "patch": 16,
        "registers": False,
        "prefix": 1,
        "width": 192,
        "native": 224,
        "license": "none",
    }
    row = schema.Checkpoint(model=model, **{**defaults, **fields})
    return schema.Backbone(
        name="vit",
        library=library,
        size="mine",
        patch=None,
        registers=row.registers,
        revision=None,
        features=features,
        position_resize="timm",
        normalization="half",
        native="vit",
        pretrained=False,
        weights=None,
        weights_sha256=None,
        contamination="none",
        checkpoints={"mine": row},
    )


def build(model, *arguments, **fields):
    conf = make_conf(model, *arguments, **fields)
    return backbone.build(conf, 224, WeightsSource("random", model), seed=0)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("resnet50", "vision transformers"),
        ("convnext_tiny", "vision transformers"),
        ("swin_tiny_patch4_window7_224", "a SwinTransformer"),
        ("hiera_tiny_224", "a Hiera"),
        ("beit_base_patch16_224", "a Beit"),
        ("naflexvit_base_patch16_gap", "a NaFlexVit"),
        ("vit_tiny_r_s16_p8_224", "HybridEmbed"),
        ("vit_small_patch16_18x2_224", "ParallelThingsBlock"),
        ("vit_pwee_patch16_reg1_gap_256", "fc_norm"),
        ("eva02_tiny_patch14_224", "fc_norm"),
        ("vit_bsae_patch16_224", "nearest: vit_base_patch16_224"),
        ("vit_tiny_patch16_224.augreg", "only augreg_in21k"),
        ("nosuch", "no such model"),
    ],
)
def test_a_model_of_timm_that_is_not_read_is_one_line(model, words):
    with pytest.raises(UserError, match=words) as error:
        build(model)
    text = str(error.value)
    assert text.startswith(f"backbone.checkpoints.mine.model={model}: ")
    assert "\n" not in text


@pytest.mark.parametrize("features", ["cls", "cls_patch_mean"])
@pytest.mark.parametrize("model", ["vit_medium_patch16_gap_256", "vit_base_patch16_siglip_224"])
def test_a_missing_class_token_is_one_line(model, features):
    with pytest.raises(UserError, match=f"backbone.features={features}: {model} has no class"):
        build(model, features=features, prefix=0, width=512)


def test_a_model_without_class_token_is_read_by_its_patches():
    small = {"architecture": {"depth": 2}, "prefix": 0, "width": 512}
    backbone_built = build("vit_medium_patch16_gap_256", features="patch_mean", **small)
    pixels_BCHW = torch.rand(1, 3, 224, 224)
    trunk = timm.create_model("vit_medium_patch16_gap_256", num_classes=0, img_size=224, depth=2)
    assert isinstance(trunk, VisionTransformer)
    trunk.load_state_dict(backbone_built.trunk.state_dict())
    with torch.inference_mode():
        token_BTD = trunk.eval().forward_features(pixels_BCHW)
        assert torch.equal(backbone_built.feature(pixels_BCHW), token_BTD.mean(1))


def test_two_prefix_tokens_are_read_when_declared():
    assert build("deit_tiny_distilled_patch16_224", prefix=2).prefix == 2
    with pytest.raises(UserError, match="prefix=2, not prefix=1"):
        build("deit_tiny_distilled_patch16_224")


@pytest.mark.parametrize(
    ("model", "prefix", "renamed"),
    [
        ("deit_tiny_distilled_patch16_224", 2, lambda key: key),
        ("deit3_small_patch16_224", 1, lambda key: re.sub(r"ls(\d)\.gamma", r"gamma_\1", key)),
    ],
)
def test_the_authors_files_of_deit_are_read_as_by_timm(tmp_path, model, prefix, renamed):
    """With the second classifier of a distilled model, and the authors' names of LayerScale."""
    shape: dict[str, Any] = {"depth": 2, "embed_dim": 64, "num_heads": 2}
    timm_model = timm.create_model(model, **shape).eval()
    assert isinstance(timm_model, VisionTransformer)
    with torch.no_grad():
        for parameter in timm_model.parameters():
            parameter += 0.1
    state = {renamed(key): value for key, value in timm_model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "w.pth")
    conf = make_conf(model, prefix=prefix, width=64, architecture=shape)
    source = WeightsSource("file", "w.pth", tmp_path / "w.pth")
    backbone_built = backbone.build(conf, 224, source, seed=0)
    with torch.inference_mode():
        pixels_BCHW = torch.randn(2, 3, 224, 224)
        assert torch.equal(
            backbone_built.feature(pixels_BCHW), timm_model.forward_features(pixels_BCHW)[:, 0]
        )


@pytest.mark.parametrize(
    "field", [{"width": 100}, {"patch": 14}, {"prefix": 5}, {"heads": 4}, {"blocks": 3}]
)
def test_a_row_that_contradicts_its_model_is_refused(field):
    ((name, value),) = field.items()
    with pytest.raises(UserError, match=f"not {name}={value}"):
        build("vit_tiny_patch16_224", **field)


def test_no_model_of_open_clip_ends_in_a_traceback():
    """Each is built on the meta device or refused, without network requests. Large variants are
    left out, because building them is slow."""
    read, lines = set(), {}
    large = ("ViT-L", "ViT-H", "ViT-g", "ViT-bigG", "ViT-SO")
    included = ("ViT-L-14", "ViT-L-14-CLIPA")
    models = open_clip.list_models()
    for model in [name for name in models if name in included or not name.startswith(large)]:
        config = not_none(open_clip.get_model_config(model))
        vision = config["vision_cfg"]
        conf = make_conf(
            model,
            "open_clip",
            width=vision.get("width", 768),
            patch=vision.get("patch_size") or 16,
            embedding=config["embed_dim"],
            activation="quick_gelu" if config.get("quick_gelu") else "gelu",
        )
        try:
            with torch.device("meta"):
                clip._build_model(
                    schema.chosen_checkpoint(conf), WeightsSource("random", model), 224
                )
            read.add(model)
        except UserError as error:
            lines[model] = str(error)
    assert all(model in line and "\n" not in line for model, line in lines.items())
    assert len(lines) > 50
    assert {"ViT-B-16", "ViT-L-14"} <= read
    assert read.isdisjoint({"coca_ViT-B-32", "ViTamin-B", "roberta-ViT-B-32", "RN50"})


def test_an_unknown_model_of_open_clip_names_the_nearest():
    with pytest.raises(UserError, match="nearest: ViT-B-16"):
        build("ViT-B-61", "open_clip", embedding=512)
