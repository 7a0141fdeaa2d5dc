"""Trainable parameters, their depths and drop path, in every family."""

import functools

import pytest
import timm
import torch
from open_clip.transformer import AttentionalPooler
from torch import nn

from fgvc.config.compose import composed, typed
from fgvc.config.schema.head import heads
from fgvc.learn.train.optimiser import parameter_groups
from fgvc.model.backbone import build
from fgvc.model.build_head import new_head
from fgvc.model.classifier import Classifier, checkpoint_blocks
from fgvc.types import UserError, WeightsSource

FAMILIES = ("vit", "dinov2", "clip", "siglip2")
VISUAL_HEADS = [name for name, spec in heads().items() if spec.learns and not spec.reads_text]
RANDOM = WeightsSource("random", "random")
SIDE, CLASSES = 112, 5
BEFORE = ("cls_token", "pos_embed", "patch_embed", "embeddings", "class_embedding", "ln_pre")
BEFORE += ("positional_embedding", "conv1", "reg_token")
AFTER = ("trunk.norm.", "ln_post", "post_layernorm", "trunk.head.", "trunk.proj", "head.")


@functools.cache
def make_conf(family, *words, head="linear", features=None):
    overrides = [f"backbone={family}", "backbone.size=mini", "backbone.pretrained=false"]
    overrides += [f"head={head}", *([f"backbone.features={features}"] if features else [])]
    return typed(composed(["task=train", *overrides, *(f"task.{word}" for word in words)]))


def classifier(family, *words, **choices):
    conf = make_conf(family, *words, **choices)
    backbone = build(conf.backbone, SIDE, RANDOM, seed=0)
    model = Classifier(backbone, new_head(conf.head, backbone.feature_dim, CLASSES, 0))
    model.thaw(conf.task)
    return model, conf.task


def pixels(images=4, seed=0):
    return torch.randn(images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def train_steps(model, steps=2):
    """Take a few steps on the trainable parameters; returns the model before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.5)
    model.train()
    for step in range(steps):
        optimiser.zero_grad()
        label_B = torch.arange(4) % CLASSES
        nn.functional.cross_entropy(model(pixels(seed=step)), label_B).backward()
        optimiser.step()
    return before


def expected_depth(name):
    """The depth by parameter name, not by identity or order."""
    if any(part in name for part in AFTER):
        return 3
    parts = name.split(".")
    for group in ("blocks", "resblocks", "layers"):
        if group in parts:
            return 1 + int(parts[parts.index(group) + 1])
    assert any(part in name for part in BEFORE), name
    return 0


# --- depth ---


@pytest.mark.parametrize("features", ["usual", "other"])
@pytest.mark.parametrize("family", FAMILIES)
def test_depth_follows_the_way_of_an_image(family, features):
    other = {"clip": "projected", "siglip2": "patch_mean"}.get(family, "cls_patch_mean")
    model, _ = classifier(family, features=other if features == "other" else None)
    names = [name for name, _ in model.named_parameters()]
    assert model.depth == 3
    assert {name: model.depth_of(name) for name in names} == {
        name: expected_depth(name) for name in names
    }
    assert {model.depth_of(name) for name in names} == {0, 1, 2, 3}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_projection_made_of_the_output_is_as_deep_as_the_head(family):
    if family == "clip":
        model, _ = classifier("clip", features="projected")
        assert model.depth_of("backbone.trunk.proj") == 3
    model, _ = classifier(family)
    assert model.depth_of("head.weight_CD") == 3


@pytest.mark.parametrize("head", VISUAL_HEADS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_is_in_one_group_at_the_rate_of_its_depth(family, head):
    model, task = classifier(family, "layer_decay=0.6", head=head)
    groups = parameter_groups(model, model.depth_of, task.layer_decay, task.weight_decay)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())
    share = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        assert share[id(parameter)] == pytest.approx(
            task.layer_decay ** (3 - expected_depth(name))
        ), name


TOKENS = {  # (family, features): what all images share, and no matrix multiplies
    ("vit", "cls"): ("cls_token", "pos_embed"),
    ("dinov2", "cls"): ("cls_token", "pos_embed"),
    ("dinov3", "cls"): ("cls_token", "reg_token"),
    ("clip", "cls"): ("class_embedding", "positional_embedding"),
    ("clip", "projected"): ("class_embedding", "positional_embedding"),
    ("siglip2", "map"): ("embeddings.position_embedding.weight", "head.probe"),
    ("siglip2", "patch_mean"): ("embeddings.position_embedding.weight",),
}


def decaying_names(model):
    groups = parameter_groups(model, lambda name: 0, 1.0, 0.1)
    decayed = [
        id(parameter) for group in groups if group["weight_decay"] for parameter in group["params"]
    ]
    return {name for name, parameter in model.named_parameters() if id(parameter) in decayed}


@pytest.mark.parametrize(("family", "features"), TOKENS)
def test_tokens_queries_and_positions_of_every_family_do_not_decay(family, features):
    """All other matrices decay, and only those: every parameter is counted."""
    model, _ = classifier(family, head="mlp", features=features)
    names = {name for name, parameter in model.named_parameters() if parameter.ndim > 1}
    tokens = {f"backbone.trunk.{name}" for name in TOKENS[family, features]}
    assert tokens <= {name for name, _ in model.named_parameters()}
    assert decaying_names(model) == names - tokens
    for name in tokens:  # and this is all of their kind
        names.discard(name)
    matrices = (
        "weight",
        "proj",
        "weight_CH",
        "hidden_HD",
    )  # of layers, CLIP's projection, the head
    assert {name.rpartition(".")[2] for name in names} <= {*matrices, "in_proj_weight"}


def test_queries_of_other_pooling_heads_do_not_decay():
    timm_model = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, depth=1, num_heads=2,
        global_pool="map", class_token=False,
    )  # fmt: skip
    assert "attn_pool.latent" in dict(timm_model.named_parameters())
    assert not {"attn_pool.latent", "pos_embed"} & decaying_names(timm_model)
    assert "attn_pool.q.weight" in decaying_names(timm_model)
    pooler = AttentionalPooler(24, 24, n_head=2, n_queries=3)
    assert decaying_names(pooler) == {"attn.in_proj_weight", "attn.out_proj.weight"}


# --- what learns ---


@pytest.mark.parametrize("family", FAMILIES)
def test_all_of_it_gets_a_gradient(family):
    """DistributedDataParallel would wait for a parameter without a gradient."""
    model, _ = classifier(family, head="mlp")
    model.train()
    model(pixels()).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_stages_stay_and_all_else_moves(family, stages):
    model, _ = classifier(family, f"frozen_stages={stages}", "drop_path=0", head="cosine")
    before = train_steps(model)
    for name, value in model.named_parameters():
        same = torch.equal(value, before[name])
        assert same == (expected_depth(name) < stages), name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_head_alone_leaves_the_backbone_bit_for_bit(family):
    model, _ = classifier(family, "tune=head", head="cosine")
    model.randomize(0.9)
    before = train_steps(model)
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {name for name in before if name.startswith("head.")}
    assert not model.backbone.training
    assert model.head.training
    torch.testing.assert_close(model(pixels()), model(pixels()), rtol=0, atol=0)  # none dropped


def test_more_stages_than_there_are_are_refused():
    with pytest.raises(UserError, match=r"frozen_stages=4: vit.* has 3") as error:
        classifier("vit", "frozen_stages=4")
    assert "\n" not in str(error.value)


def test_the_head_computes_in_float32_for_any_precision_of_the_backbone():
    model, _ = classifier("vit", head="cosine")
    with torch.autocast("cpu", torch.bfloat16):
        assert model.backbone.feature(pixels()).dtype in (torch.float32, torch.bfloat16)
        logits_BK = model(pixels())
        feature_BD = model.backbone.feature(pixels()).float()
    assert logits_BK.dtype == torch.float32
    torch.testing.assert_close(logits_BK, model.head(feature_BD), rtol=0, atol=0)


# --- drop path ---


def set_keys(model, images, first=0):
    """Set distinct random keys for the next images."""
    model.random_layers.set_keys(torch.arange(first, first + images) * 7919 + 3)


def record_branches(model):
    """Outputs of the residual branches of the last block, recorded in every forward pass."""
    block, outputs = model.backbone.blocks[-1], []
    names = next(
        pair
        for pair in (("drop_path1", "drop_path2"), ("ls_1", "ls_2"), ("self_attn", "mlp"))
        if all(hasattr(block, name) for name in pair)
    )
    for name in names:
        getattr(block, name).register_forward_hook(
            lambda module, inputs, output: outputs.append(
                output[0] if isinstance(output, tuple) else output
            )
        )
    return outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_drop_path_drops_whole_branches_of_single_images_at_its_rate(family):
    rate = 0.4
    model, _ = classifier(family)
    model.randomize(rate)
    outputs = record_branches(model)
    image_1CHW = pixels(1)
    model.train()
    set_keys(model, 128)
    with torch.no_grad():
        model(image_1CHW.expand(128, -1, -1, -1))
    assert len(outputs) == 2
    first_BTD = outputs[0]
    size_B = first_BTD.flatten(1).abs().amax(1)
    dropped_B = size_B == 0
    # 128 draws of 0.4: a standard deviation of 0.043
    assert dropped_B.float().mean().item() == pytest.approx(rate, abs=0.13)
    other_B = outputs[1].flatten(1).abs().amax(1) == 0
    assert not torch.equal(dropped_B, other_B)  # each branch has its own draws
    assert (~dropped_B).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_is_scaled_so_that_the_mean_stays(family):
    plain, _ = classifier(family)
    plain_outputs = record_branches(plain)
    plain.eval()
    with torch.no_grad():
        plain(pixels(1))
    model, _ = classifier(family)
    model.randomize(0.5)
    outputs = record_branches(model)
    model.train()
    set_keys(model, 16)
    with torch.no_grad():
        model(pixels(1).expand(16, -1, -1, -1))
    # the first block is never dropped, so the first branch of the last sees the same input
    kept_BTD = outputs[0][outputs[0].flatten(1).abs().amax(1) > 0]
    assert 0 < len(kept_BTD) < 16
    torch.testing.assert_close(
        kept_BTD, (plain_outputs[0] / 0.5).expand_as(kept_BTD), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_drop_path_does_nothing_in_evaluation(family):
    plain, _ = classifier(family, head="mlp")
    model, _ = classifier(family, head="mlp")
    model.randomize(0.9)
    with torch.no_grad():
        expected_BK, logits_BK = plain.eval()(pixels()), model.eval()(pixels())
    torch.testing.assert_close(logits_BK, expected_BK, rtol=0, atol=0)
    set_keys(model, 4)
    assert not torch.equal(model.train()(pixels()), expected_BK)


# --- recomputed blocks ---


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_blocks_give_the_same_gradients(family):
    """Including dropped branches: recomputation must drop the same branches."""
    gradients, calls = [], []
    for recompute in (False, True):
        model, _ = classifier(family, head="mlp")
        model.randomize(0.5)
        if recompute:
            checkpoint_blocks(model.backbone)
        branch = record_branches(model)
        model.train()
        set_keys(model, 8)
        model(pixels(8)).square().sum().backward()
        calls.append(len(branch))
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert calls[1] > calls[0]  # branches of the last block are computed once more
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-5, atol=1e-6)
