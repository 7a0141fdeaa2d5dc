"""The same selection in every mode: compiled, checkpointed, on ranks, in micro-batches."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from fgvc.config import schema
from fgvc.model.backbone import build
from fgvc.model.classifier import Classifier, checkpoint_blocks
from fgvc.model.part_attention import TokenSelector, attach_selector, reset_last_block
from fgvc.types import UserError, WeightsSource
from tests.narrow import not_none

RANDOM = WeightsSource("random", "random")
FAMILIES = ("vit", "dinov3", "clip", "siglip2")
every_family = pytest.mark.parametrize("family", FAMILIES)
every_library = pytest.mark.parametrize("family", ["vit", "clip", "siglip2"])


@pytest.fixture
def make_backbone(mini):
    """made(family, side, stride) -> a backbone of three blocks, with uneven attention."""

    def make(family, side=64, stride=None):
        conf = mini(family, pretrained=False)
        shape = conf.checkpoints["mini"].architecture
        name = {"clip": "layers", "siglip2": "num_hidden_layers"}.get(family, "depth")
        node = {"clip": "vision_cfg", "siglip2": "vision_config"}.get(family)
        if not shape:
            shape.update({"embed_dim": 64, "num_heads": 2})
        (shape[node] if node else shape)[name] = 3
        backbone = build(conf, side, RANDOM, 0, stride)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        return backbone

    return make


def _conf(name="transfg", tokens=None):
    return schema.PartAttention(name, tokens, None, "pretrained", 0.0, 0.4)


def _selector(backbone, name="transfg") -> TokenSelector:
    return not_none(attach_selector(backbone, _conf(name), seed=0))


def _pixels(batch=2, side=64, seed=0):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(seed))


def _gradients(backbone, forward, *batches):
    """Gradients of the sum of squared features, by name; all forward passes come first."""
    backbone.requires_grad_(True).train()
    backbone.zero_grad()
    losses = [forward(pixels_BCHW).pooled_BD.square().sum() for pixels_BCHW in batches]
    for loss in losses:
        loss.backward()
    return {name: value.grad.clone() for name, value in backbone.named_parameters()}


def _assert_close(gradients, expected):
    assert gradients.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(gradients[name], value, rtol=1e-3, atol=1e-4, msg=name)


@every_family
def test_gradients_flow_through_the_kept_tokens_alone(make_backbone, family):
    backbone = make_backbone(family)
    selector = _selector(backbone)
    entered = []
    backbone.blocks[-2].register_forward_hook(
        lambda module, args, output: _retain_gradient(output, entered)
    )
    gradients = _gradients(backbone, backbone, _pixels())
    assert all(value.isfinite().all() for value in gradients.values())
    nonzero = [name for name, value in gradients.items() if value.abs().sum() > 0]
    assert len(nonzero) >= len(gradients) - 3  # biases of keys move nothing
    reached_BT = entered[0].grad.abs().sum(-1) > 0
    selection = not_none(selector.last)
    for reached_T, index_K in zip(reached_BT, selection.index_BK, strict=True):
        patches = reached_T[backbone.prefix :].nonzero()[:, 0].tolist()
        assert patches == sorted(set(index_K.tolist()))
        assert reached_T[: backbone.prefix].all()
    assert not not_none(selection.score).requires_grad


def _retain_gradient(output, entered):
    output.retain_grad()
    entered.append(output)


@every_family
def test_checkpointing_changes_no_selection_and_no_gradient(make_backbone, family):
    plain, checkpointed = make_backbone(family), make_backbone(family)
    first, second = _selector(plain), _selector(checkpointed)
    checkpoint_blocks(checkpointed)
    batches = _pixels(seed=0), _pixels(seed=1)
    expected = _gradients(plain, plain, *batches)
    gradients = _gradients(checkpointed, checkpointed, *batches)
    assert torch.equal(not_none(first.last).index_BK, not_none(second.last).index_BK)
    _assert_close(gradients, expected)


def test_a_block_run_again_with_its_hooks_keeps_what_it_kept(make_backbone):
    plain, checkpointed = make_backbone("vit"), make_backbone("vit")
    expected = _gradients(plain, _attach(plain, "random"), _pixels())
    frugal_forward = _attach(checkpointed, "random")
    checkpointed.trunk.set_grad_checkpointing(
        True
    )  # timm's own, which runs blocks with their hooks
    _assert_close(_gradients(checkpointed, frugal_forward, _pixels()), expected)


def _attach(backbone, name):
    selector = _selector(backbone, name)

    def forward(pixels_BCHW):
        selector.set_images(np.arange(len(pixels_BCHW)))
        return backbone(pixels_BCHW)

    return forward


@pytest.mark.parametrize(
    ("family", "name"),
    [
        *((family, "transfg") for family in FAMILIES),
        ("vit", "rollout"),
        ("vit", "cls_topk"),
        ("vit", "random"),
    ],
)
def test_compiled_it_selects_the_same(make_backbone, family, name):
    backbone = make_backbone(family)
    selector = _selector(backbone, name)
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
    for seed in range(2):  # the second call runs what the first compiled
        results = []
        for forward in (backbone, compiled):
            selector.set_images(np.arange(2) + seed)
            with torch.no_grad():
                gradients = forward(_pixels(seed=seed))
            results.append((not_none(selector.last).index_BK, gradients.pooled_BD))
        assert torch.equal(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "checkpointed"), [("vit", False), ("clip", True), ("siglip2", True)]
)
def test_compiled_it_learns_the_same(make_backbone, family, checkpointed):
    plain, other = make_backbone(family), make_backbone(family)
    for backbone in (plain, other):
        attach_selector(backbone, _conf(), seed=0)
    if checkpointed:
        checkpoint_blocks(other)
    torch._dynamo.reset()
    compiled = torch.compile(other, backend="aot_eager")
    _assert_close(_gradients(other, compiled, _pixels()), _gradients(plain, plain, _pixels()))


def test_attached_to_a_compiled_model_it_runs_too(make_backbone):
    backbone = make_backbone("vit")
    torch._dynamo.reset()
    compiled = torch.compile(backbone, backend="aot_eager")
    with torch.no_grad():
        assert compiled(_pixels()).patch_BND.shape[1] == 16
        attach_selector(backbone, _conf(), seed=0)
        assert compiled(_pixels()).patch_BND.shape[1] == 2


@pytest.mark.slow
def test_compiled_to_machine_code_it_selects_the_same(make_backbone):
    backbone = make_backbone("vit")
    selector = _selector(backbone)
    torch._dynamo.reset()
    with torch.no_grad():
        backbone(_pixels())
        expected = not_none(selector.last)
        torch.compile(backbone)(_pixels())
    selection = not_none(selector.last)
    assert torch.equal(selection.index_BK, expected.index_BK)
    torch.testing.assert_close(selection.score, expected.score, rtol=0, atol=1e-6)


def test_ranks_learn_the_same(make_backbone, tmp_path):
    plain, ranked = make_backbone("vit"), make_backbone("vit")
    for backbone in (plain, ranked):
        attach_selector(backbone, _conf(), seed=0)
        backbone.requires_grad_(True)
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("gloo", store, rank=0, world_size=1)
    try:
        gradients = _gradients(ranked, DistributedDataParallel(ranked), _pixels())
    finally:
        torch.distributed.destroy_process_group()
    _assert_close(gradients, _gradients(plain, plain, _pixels()))


@every_family
def test_layers_that_were_not_seen_are_missed_in_every_forward(make_backbone, family):
    backbone = make_backbone(family)
    attach_selector(backbone, _conf(), seed=0)
    with torch.no_grad():
        backbone(_pixels())
        for module in backbone.blocks[1].modules():
            module._forward_hooks.clear()
        with pytest.raises(AssertionError, match="seen, not"):
            backbone(_pixels())


@every_family
def test_nothing_of_the_forward_stays_behind(make_backbone, family):
    backbone = make_backbone(family)
    selector = _selector(backbone)
    backbone(_pixels())
    assert not selector._query
    assert not selector._key
    twin = copy.deepcopy(backbone)
    torch.testing.assert_close(twin(_pixels()).pooled_BD, backbone(_pixels()).pooled_BD)


@every_family
def test_parameters_keep_their_names_and_their_order(make_backbone, family):
    plain, parts = make_backbone(family), make_backbone(family)
    attach_selector(parts, _conf(), seed=0)
    names = [name for name, _ in plain.named_parameters()]
    assert [name for name, _ in parts.named_parameters()] == names
    parts.load_state_dict(plain.state_dict())
    model = Classifier(parts, nn.Linear(64, 3))
    depths = [model.depth_of(f"backbone.{name}") for name in names if "blocks.1." in name]
    assert set(depths) <= {2}


@every_family
def test_a_random_last_block_is_initialised_as_by_the_library_and_the_others_stay(
    make_backbone, family
):
    backbone, fresh = make_backbone(family), make_backbone(family)
    before = copy.deepcopy(backbone.state_dict())
    attach_selector(backbone, _conf(), seed=0)
    reset_last_block(backbone, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        fresh.trunk = fresh.create_trunk()
    last_block = {id(parameter) for parameter in backbone.blocks[-1].parameters()}
    expected = dict(fresh.named_parameters())
    for name, parameter in backbone.named_parameters():
        value_expected = expected[name] if id(parameter) in last_block else before[name]
        assert torch.equal(parameter, value_expected), name
    reset_last_block(backbone, seed=6)
    assert any(
        not torch.equal(value, expected[name])
        for name, value in backbone.named_parameters()
        if id(value) in last_block
    )


@every_family
def test_overlapping_patches_are_cut_as_a_window_cuts_them(make_backbone, family):
    backbone = make_backbone(family, side=64, stride=12)
    assert backbone.grid == (5, 5)
    convolution = next(part for part in backbone.modules() if isinstance(part, nn.Conv2d))
    outputs = []
    convolution.register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        tokens = backbone(_pixels())
    assert tokens.patch_BND.shape[1] == 25
    windows = nn.functional.unfold(_pixels(), 16, stride=12)
    expected = torch.einsum("dk,bkn->bdn", convolution.weight.flatten(1), windows)
    bias = 0 if convolution.bias is None else convolution.bias[None, :, None]
    torch.testing.assert_close(outputs[0].flatten(2), expected + bias, rtol=1e-4, atol=1e-4)


@every_family
def test_a_stride_of_one_patch_is_no_overlap(make_backbone, family):
    with torch.no_grad():
        gradients = make_backbone(family, stride=16)(_pixels())
        expected = make_backbone(family)(_pixels())
    assert torch.equal(gradients.pooled_BD, expected.pooled_BD)


@pytest.mark.parametrize("stride", [0, 17])
def test_gaps_between_patches_are_refused(make_backbone, stride):
    with pytest.raises(UserError, match=f"stride={stride}: must be at least 1 and at most 16"):
        make_backbone("vit", stride=stride)


def test_positions_of_overlapping_patches_are_resized_as_each_library_does(
    mini, clip_file, siglip_folder, conf, saved
):
    """From a 14 x 14 to an 18 x 18 grid: bicubic, antialiased in timm and open_clip."""
    from fgvc.model.backbone import weights

    cases = [
        (conf("vit", weights=str(saved("vit"))), "pos_embed", 1, True),
        (mini("clip", clip_file()), "positional_embedding", 1, True),
        (mini("siglip2", siglip_folder), "embeddings.position_embedding.weight", 0, False),
    ]
    for family_conf, name, prefix, antialias in cases:
        source = weights.find(family_conf)
        table = weights.read(not_none(source.path))
        key = next(key for key in table if key.endswith(name) and "text" not in key)
        if "visual." + name in table:
            key = "visual." + name
        if "vision_model." + name in table:
            key = "vision_model." + name
        old_1DHW = table[key].squeeze(0)[prefix:].T.reshape(1, 64, 14, 14)
        new_1DHW = nn.functional.interpolate(
            old_1DHW, size=(18, 18), mode="bicubic", antialias=antialias
        )
        backbone = build(family_conf, 224, source, 0, stride=12)
        found_ND = dict(backbone.trunk.named_parameters())[name].squeeze(0)[prefix:]
        torch.testing.assert_close(found_ND, new_1DHW.flatten(2)[0].T, rtol=1e-4, atol=1e-5)
        assert backbone.grid == (18, 18)


@every_library
def test_macs_count_what_runs(make_backbone, family):
    plain, parts, control = make_backbone(family), make_backbone(family), make_backbone(family)
    attach_selector(parts, _conf(), seed=0)
    attach_selector(control, _conf("centre", 2), seed=0)
    width, tokens, results = 64, 16 + plain.prefix, 2 + plain.prefix

    def block(count):
        return count * 12 * width**2 + 2 * count**2 * width

    pooled = 0
    if family == "siglip2":  # keys and values of the pooling head
        pooled = 2 * (tokens - results) * width**2 + 2 * (tokens - results) * width
    assert plain.macs - control.macs == block(tokens) - block(results) + pooled
    assert control.macs < parts.macs < plain.macs
    overlapping = make_backbone(family, stride=12)
    assert overlapping.macs > 1.5 * plain.macs


def test_the_largest_tensor_is_one_chunk_of_one_map(make_backbone, monkeypatch):
    """By torch's profiler; full maps have 2 layers x 2 images x 2 heads x 785 x 785 values."""
    from fgvc.model.part_attention import rollout

    monkeypatch.setitem(rollout.CHUNK, "cpu", 2**16)
    backbone = make_backbone("vit", side=448)
    attach_selector(backbone, _conf(), seed=0)
    pixels_BCHW = _pixels(2, 448)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        backbone(pixels_BCHW)
    largest = max(event.cpu_memory_usage for event in not_none(profile.events()))
    assert largest <= 4 * 2 * 785 * 4 * 64  # bytes of an MLP's hidden layer: four times the tokens
    assert largest < 4 * 785 * 785  # less than a single map


def test_an_attention_run_again_is_not_seen_twice(make_backbone):
    """A hook inside a checkpoint runs again in the backward pass, when capturing is off."""
    backbone = make_backbone("vit")
    selector = _selector(backbone)
    for block in backbone.blocks:
        block.attn.forward = functools.partial(checkpoint, block.attn.forward, use_reentrant=False)
    plain = make_backbone("vit")
    attach_selector(plain, _conf(), seed=0)
    gradients = _gradients(backbone, backbone, _pixels())
    _assert_close(gradients, _gradients(plain, plain, _pixels()))
    assert not selector._query
