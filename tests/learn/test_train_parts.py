"""Groups, schedule, mixing and selection: each compared with a library or an explicit rule."""

import math
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from fgvc.config.compose import composed, typed
from fgvc.learn.train import BestEpoch
from fgvc.learn.train.mixup import Mixer
from fgvc.learn.train.optimiser import learning_rate, no_decay_names, parameter_groups
from fgvc.model.head_layers import MlpHead

DEPTH = 3


def vit():
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=16,
        patch_size=8,
        embed_dim=24,
        depth=DEPTH,
        num_heads=2,
        num_classes=5,
        reg_tokens=2,
    )
    assert isinstance(model, VisionTransformer)
    return model


def depth_of(name):
    """The depths of timm: the final norm belongs to the last block."""
    name = name.removeprefix("backbone.")
    if name.startswith(("cls_token", "reg_token", "pos_embed", "patch_embed")):
        return 0
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return DEPTH if name.startswith("norm.") else DEPTH + 1


def settings_by_name(groups, model):
    """Parameter name -> (share of the rate, weight decay)."""
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        name_of[id(parameter)]: (round(group["lr_scale"], 12), group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def test_groups_are_timms():
    model = vit()
    own_groups = parameter_groups(model, depth_of, 0.7, 0.05)
    timm_groups = param_groups_layer_decay(
        model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.7
    )
    assert settings_by_name(own_groups, model) == settings_by_name(timm_groups, model)


def test_groups_by_hand():
    model = nn.ModuleDict({"backbone": vit(), "head": nn.Linear(24, 5)})
    groups = parameter_groups(model, depth_of, 0.5, 0.1)
    settings = settings_by_name(groups, model)
    assert settings["backbone.pos_embed"] == (0.5**4, 0.0)  # the module inside says so itself
    assert settings["backbone.patch_embed.proj.weight"] == (0.5**4, 0.1)
    assert settings["backbone.blocks.2.attn.qkv.weight"] == (0.5, 0.1)
    assert settings["backbone.blocks.2.norm1.weight"] == (0.5, 0.0)
    assert settings["head.weight"] == (1.0, 0.1)
    assert settings["head.bias"] == (1.0, 0.0)
    assert len(settings) == len(list(model.parameters()))
    assert len(groups) == 2 * (DEPTH + 2)


def test_frozen_parameters_are_in_no_group_but_count_for_depth():
    model = vit()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("blocks.1."))
    settings = settings_by_name(parameter_groups(model, depth_of, 0.5, 0.1), model)
    assert settings.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert {scale for scale, _ in settings.values()} == {0.5**2}


def test_a_layer_of_one_unit_decays():
    """Its matrix has one row, like a class token."""
    head = MlpHead(8, 1, 3, 0.0, torch.Generator())
    assert no_decay_names(head) == set()


def test_exemptions_carry_the_path_of_their_module():
    nested = nn.Sequential(nn.Identity(), vit())
    assert {"1.pos_embed", "1.cls_token", "1.reg_token"} <= no_decay_names(nested)
    assert "pos_embed" in no_decay_names(vit())


@pytest.mark.parametrize(("warmup", "final"), [(0, 0.0), (4, 0.0), (7, 0.01), (1, 1.0)])
def test_schedule_is_torchs(warmup, final):
    total, peak = 25, 0.3
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    cosine = CosineAnnealingLR(optimiser, total - warmup, eta_min=peak * final)
    chain = cosine
    if warmup:
        up = LinearLR(optimiser, start_factor=1 / (warmup + 1), total_iters=warmup)
        chain = SequentialLR(optimiser, [up, cosine], [warmup])
    for step in range(total):
        rate = optimiser.param_groups[0]["lr"]
        assert learning_rate(step, total, peak, warmup, final) == pytest.approx(rate, rel=1e-9)
        optimiser.step()
        chain.step()
    assert learning_rate(warmup, total, peak, warmup, final) == peak


def test_a_run_shorter_than_its_warmup_ends_on_its_way_up():
    rates = [learning_rate(step, 3, 1.0, 9, 0.0) for step in range(3)]
    assert rates == pytest.approx([0.1, 0.2, 0.3])


CLASSES = 4


@pytest.fixture(scope="module")
def mixer():
    """`mixer(seed=0, **changes of the task)` -> Mixer."""
    task = typed(composed(["task=train"])).task
    defaults = {"mixup": 0.8, "cutmix": 1.0, "mix_probability": 0.7}
    return lambda seed=0, **changes: Mixer(replace(task, **defaults | changes), CLASSES, seed)


def images(count=16):
    pixels_BCHW = torch.arange(count).float()[:, None, None, None].expand(-1, 3, 12, 12).clone()
    return pixels_BCHW, torch.arange(count) % CLASSES, np.arange(count)


def test_targets_say_how_much_of_each_image_is_there(mixer):
    """All pixels of image p are p, so the pixels of a mixed pair give the shares exactly."""
    pixels_BCHW, label_B, place_B = images(64)
    mixed_BCHW, target_BC = mixer()(pixels_BCHW, label_B, place_B, 3)
    assert torch.allclose(target_BC.sum(1), torch.ones(64), atol=1e-6)
    kinds = set()
    for place in range(64):
        other = place ^ 1
        share = (mixed_BCHW[place].mean().item() - other) / (place - other)
        assert target_BC[place, label_B[place]].item() == pytest.approx(share, abs=1e-4)
        assert target_BC[place, label_B[other]].item() == pytest.approx(1 - share, abs=1e-4)
        unblended = bool(((mixed_BCHW[place] == place) | (mixed_BCHW[place] == other)).all())
        kinds.add("alone" if share == 1 else "cutmix" if unblended else "mixup")
    assert kinds == {"alone", "cutmix", "mixup"}
    assert torch.equal(pixels_BCHW, images(64)[0])  # the caller's own are left alone


@pytest.mark.parametrize("sizes", [(2,) * 8, (4, 6, 6), (10, 6)])
def test_cuts_between_pairs_change_nothing(mixer, sizes):
    uncut = mixer()(*images(), 5)
    parts, start = [], 0
    for size in sizes:
        span = slice(start, start := start + size)
        torch.manual_seed(start)
        parts.append(mixer()(*(column[span] for column in images()), 5))
    for column, expected in enumerate(uncut):
        assert torch.equal(torch.cat([part[column] for part in parts]), expected)


def test_an_image_without_its_partner_stays_alone(mixer):
    columns = images()
    keep = np.array([0, 3, 4, 5, 7])
    mixed_BCHW, target_BC = mixer(mix_probability=1.0)(*(column[keep] for column in columns), 0)
    whole_BCHW, whole_BC = mixer(mix_probability=1.0)(*columns, 0)
    for index in (0, 1, 4):
        assert torch.equal(mixed_BCHW[index], columns[0][keep[index]])
        assert target_BC[index].max() == 1
    for index in (2, 3):
        assert torch.equal(mixed_BCHW[index], whole_BCHW[keep[index]])
        assert torch.equal(target_BC[index], whole_BC[keep[index]])
        assert target_BC[index].max() < 1


def test_mixing_follows_from_seed_and_step_and_leaves_the_generator(mixer):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = mixer()(*images(), 5)[0]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(first, mixer()(*images(), 5)[0])
    assert not torch.equal(first, mixer()(*images(), 6)[0])
    assert not torch.equal(first, mixer(seed=1)(*images(), 5)[0])


def test_without_mixing_labels_are_one_hot_and_pixels_the_same(mixer):
    pixels_BCHW, label_B, place_B = images()
    same_BCHW, target_BC = mixer(mixup=0.0, cutmix=0.0)(pixels_BCHW, label_B, place_B, 0)
    assert same_BCHW is pixels_BCHW
    assert torch.equal(target_BC.argmax(1), label_B)
    assert target_BC.sum() == len(label_B)


def select_epochs(select, numbers, patience=None):
    """The epochs that were the best so far, and the last state."""
    best, new = BestEpoch(select, patience), []
    for epoch, (top1, loss) in enumerate(numbers):
        best = best.after(epoch, top1, loss)
        new += [epoch] if best.is_new else []
    return new, best


def test_best_by_accuracy_then_loss_then_the_earlier():
    new, best = select_epochs("top1", [(0.5, 2.0), (0.4, 0.1), (0.5, 1.9), (0.5, 1.9), (0.6, 9.0)])
    assert new == [0, 2, 4]
    assert (best.epoch, best.top1, best.loss, best.last) == (4, 0.6, 9.0, 4)


def test_best_by_loss_then_the_earlier():
    new, best = select_epochs("loss", [(0.5, 2.0), (0.1, 1.0), (0.9, 1.0), (0.9, 1.5)])
    assert new == [0, 1]
    assert (best.epoch, best.last) == (1, 3)


@pytest.mark.parametrize("select", ["top1", "loss"])
def test_a_loss_that_is_no_number_is_the_worst(select):
    new, best = select_epochs(select, [(0.5, math.nan), (0.5, 3.0), (0.5, math.nan)])
    assert new == [0, 1]
    assert best.loss == 3.0


def test_patience_counts_epochs_without_a_better_one():
    numbers = [(0.5, 1.0), (0.4, 1.0), (0.6, 1.0), (0.6, 1.0), (0.1, 1.0)]
    assert [select_epochs("top1", numbers[: n + 1], 2)[1].exhausted for n in range(5)] == [
        *[False] * 4,
        True,
    ]
    assert not select_epochs("top1", numbers)[1].exhausted
    assert not BestEpoch("top1", 1).exhausted
