"""Selected tokens equal an oracle's, which has full maps of the library's eager attention."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fgvc.config import schema
from fgvc.model.backbone import build
from fgvc.model.part_attention import TokenSelector, attach_selector, rollout
from fgvc.parallel.device import autocast
from fgvc.types import UserError, WeightsSource
from tests.narrow import not_none

RANDOM = WeightsSource("random", "random")
DEEP: dict[str, dict[str, Any]] = {  # four blocks of three heads
    "vit": {"depth": 4, "embed_dim": 48, "num_heads": 3},
    "dinov2": {"depth": 4, "embed_dim": 48, "num_heads": 3},
    "registers": {"depth": 4, "embed_dim": 48, "num_heads": 3},
    "dinov3": {"depth": 4, "embed_dim": 48, "num_heads": 3},
    "clip": {"layers": 4, "width": 48, "head_width": 16},
    "siglip2": {"num_hidden_layers": 4, "hidden_size": 48, "num_attention_heads": 3},
}
ATTENDING = ("transfg", "rollout", "cls_topk")
every_family = pytest.mark.parametrize("family", DEEP)


@pytest.fixture(scope="session")
def deep(option):
    """deep(family, ...) -> schema.Backbone of four blocks."""

    def make(family, **fields):
        plain = "dinov2" if family == "registers" else family
        conf = option(plain, size="mini", pretrained=False, **fields)
        row_of = conf.checkpoints["mini"]
        row_of.width = 48
        if family == "registers":
            row_of.model, row_of.prefix = "vit_small_patch14_reg4_dinov2", 5
        if family in ("clip", "siglip2"):
            vision = "vision_cfg" if family == "clip" else "vision_config"
            row_of.architecture[vision].update(DEEP[family])
        else:
            row_of.architecture = DEEP[family]
        if family == "siglip2":
            row_of.architecture["text_config"]["projection_size"] = row_of.embedding = 48
        return conf

    return make


@pytest.fixture(scope="session")
def make_backbone(deep):
    """made(family, side, stride) -> a backbone with uneven attention."""

    def make(family, side=224, stride=None, **fields):
        backbone = build(deep(family, **fields), side, RANDOM, 0, stride)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter += 0.15 * torch.randn(parameter.shape, generator=generator)
        return backbone

    return make


def _conf(name, tokens=None):
    return schema.PartAttention(name, tokens, None, "pretrained", 0.0, 0.4)


def _attach(backbone, name, tokens=None, seed=0) -> TokenSelector:
    return not_none(attach_selector(backbone, _conf(name, tokens), seed))


def _pixels(side, batch=2):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))


class Oracle:
    """The plain forward pass of a copy: attention maps of all blocks, and input of the last block.

    maps_LBHTT; token_BTC; rope_ND, None without rotary positions; row_BHN: of the pooling head.
    """

    row_BHN: torch.Tensor  # of families without prefix tokens alone

    def __init__(self, backbone, pixels_BCHW):
        self.backbone, self.maps = copy.deepcopy(backbone), []
        blocks = self.backbone.blocks
        self.handles = [self._eager(block) for block in blocks]
        self.handles.append(blocks[-1].register_forward_pre_hook(self._enter, with_kwargs=True))
        with torch.no_grad():
            self.backbone(pixels_BCHW)
            if self.backbone.prefix == 0:
                trunk = self.backbone.trunk
                patch_BND = trunk.post_layernorm(self.token_BTC)
                probe_B1D = trunk.head.probe.repeat(len(patch_BND), 1, 1)
                self.row_BHN = trunk.head.attention(
                    probe_B1D, patch_BND, patch_BND, average_attn_weights=False
                )[1][:, :, 0]
        for handle in self.handles:
            handle.remove()

    def _enter(self, block, args, kwargs):
        self.token_BTC, self.rope_ND = args[0], kwargs.get("rope")

    def _eager(self, block):
        if hasattr(block, "self_attn"):
            block.self_attn.config._attn_implementation = "eager"
            return block.self_attn.register_forward_hook(
                lambda module, args, output: self.maps.append(output[1])
            )
        if isinstance(block.attn, nn.MultiheadAttention):
            return block.attn.register_forward_pre_hook(self._weigh)
        block.attn.fused_attn = False
        return block.attn.attn_drop.register_forward_hook(
            lambda module, args, output: self.maps.append(output)
        )

    def _weigh(self, module, args):
        forward = nn.MultiheadAttention.forward
        self.maps.append(forward(module, *args, need_weights=True, average_attn_weights=False)[1])

    def score(self, name):
        """The product of the full maps, restricted to the reader's row and the patches."""
        prefix, (*maps, last_BHTT) = self.backbone.prefix, self.maps
        assert len(maps) == len(self.backbone.blocks) - 1
        if name == "cls_topk":
            row_BHT = last_BHTT[:, :, 0] if prefix else self.row_BHN
            return row_BHT[..., prefix:].mean(1)
        if name == "rollout":
            maps = [
                0.5 * attention.mean(1) + 0.5 * torch.eye(attention.shape[-1]) for attention in maps
            ]
        product = maps[0]
        for attention in maps[1:]:
            product = attention @ product
        if prefix:
            return product[..., 0, prefix:]
        reader = self.row_BHN.mean(1) if name == "rollout" else self.row_BHN
        return (reader[..., None, :] @ product)[..., 0, :]

    def rest(self, index_BK):
        """The rest of the forward pass from the last block's new input, image by image."""
        prefix, result = self.backbone.prefix, []
        for token_TC, index_K in zip(self.token_BTC, index_BK, strict=True):
            kept_1TC = torch.cat([token_TC[:prefix], token_TC[prefix:][index_K]])[None]
            rope = {} if self.rope_ND is None else {"rope": self.rope_ND[index_K]}
            last, trunk = self.backbone.blocks[-1], self.backbone.trunk
            if prefix == 0:
                result.append(trunk.post_layernorm(last(kept_1TC, None)))
            else:
                norm = trunk.ln_post if hasattr(trunk, "ln_post") else trunk.norm
                result.append(norm(last(kept_1TC, **rope)))
        return torch.cat(result)


def _clear_ranks(score, count):
    """The oracle's first `count` ranks, and which are separated from their neighbours by 1e-5."""
    best, index = score.sort(-1, descending=True)
    apart = (best[..., :-1] - best[..., 1:]) > 1e-5 * best[..., :-1]
    above = torch.cat([torch.ones_like(apart[..., :1]), apart], -1)[..., :count]
    return index[..., :count], above & apart[..., :count]


def _check_against_oracle(backbone, name, pixels_BCHW, tokens=None):
    """Compare indices, scores and all later tokens; returns the number of clear ranks."""
    oracle = Oracle(backbone, pixels_BCHW)
    selector = _attach(backbone, name, tokens)
    with torch.inference_mode():
        result = backbone(pixels_BCHW)
    score, selection = oracle.score(name), not_none(selector.last)
    torch.testing.assert_close(selection.score, score, rtol=0, atol=1e-6)
    heads = selection.heads
    expected, clear = _clear_ranks(score, backbone.patches // heads)
    is_clear = clear.flatten(1)
    assert torch.equal(selection.index_BK[is_clear], expected.flatten(1)[is_clear])
    with torch.no_grad():
        rest_BTC = oracle.rest(selection.index_BK)
    tokens_BTC = torch.cat([result.prefix_BPD, result.patch_BND], 1)
    torch.testing.assert_close(tokens_BTC, rest_BTC, rtol=1e-4, atol=1e-4)
    assert score.std() > 1e-4  # no even attention, whose choice would mean nothing
    return clear.float().mean().item()


@every_family
@pytest.mark.parametrize("name", ATTENDING)
def test_the_oracle_selects_the_same(make_backbone, family, name):
    assert _check_against_oracle(make_backbone(family), name, _pixels(224)) > 0.8


@every_family
def test_several_tokens_a_head_are_its_best(make_backbone, family):
    assert _check_against_oracle(make_backbone(family), "transfg", _pixels(224), tokens=12) > 0.8


@every_family
def test_the_oracle_selects_the_same_among_784_patches_and_more(make_backbone, family):
    assert _check_against_oracle(make_backbone(family, 448), "transfg", _pixels(448, 1)) > 0.8


@every_family
def test_the_oracle_selects_the_same_on_a_grid_of_37(make_backbone, family):
    patch = 14 if family in ("dinov2", "registers") else 16
    side, stride = (518, None) if patch == 14 else (448, 12)
    backbone = make_backbone(family, side, stride)
    assert backbone.grid == (37, 37)
    assert _check_against_oracle(backbone, "transfg", _pixels(side, 1)) > 0.8


def test_bf16_selects_nearly_the_same(make_backbone):
    pixels_BCHW, same = _pixels(112, 12), []
    for family in DEEP:
        backbone = make_backbone(family, 112)
        selector = _attach(backbone, "transfg")
        selections = []
        with torch.inference_mode():
            for precision in ("fp32", "bf16"):
                with autocast(precision, torch.device("cpu")):
                    backbone(pixels_BCHW)
                selections.append(not_none(selector.last))
        exact, half_precision = selections
        assert half_precision.score.dtype == torch.float32
        assert not torch.equal(half_precision.score, exact.score)  # it did run in half precision
        same.append(half_precision.index_BK == exact.index_BK)
    assert torch.stack(same).float().mean() >= 0.95


@every_family
@pytest.mark.parametrize("name", ["random", "centre"])
def test_controls_keep_the_stated_patches(make_backbone, family, name):
    backbone = make_backbone(family)
    oracle = Oracle(backbone, _pixels(224))
    selector = _attach(backbone, name, 5, seed=3)
    selector.set_images(np.array([7, 8]))
    with torch.no_grad():
        result = backbone(_pixels(224))
        selection = not_none(selector.last)
        rest_BTC = oracle.rest(selection.index_BK)
    assert selection.score is None
    assert result.patch_BND.shape[1] == 5
    assert all(len(set(row_K)) == 5 for row_K in selection.index_BK.tolist())
    tokens_BTC = torch.cat([result.prefix_BPD, result.patch_BND], 1)
    torch.testing.assert_close(tokens_BTC, rest_BTC, rtol=1e-4, atol=1e-4)


def test_random_patches_follow_from_seed_and_image_alone(make_backbone):
    untouched = make_backbone("vit", 64)

    def draw(seed, rows, tokens=6):
        backbone = copy.deepcopy(untouched)
        selector = _attach(backbone, "random", tokens, seed)
        selector.set_images(np.array(rows))
        with torch.no_grad():
            backbone(_pixels(64, len(rows)))
        return not_none(selector.last).index_BK.tolist()

    assert draw(0, [4, 9]) == [*draw(0, [4]), *draw(0, [9])]
    assert draw(0, [4])[0][:3] == draw(0, [4], 3)[0]
    assert draw(0, [4]) != draw(1, [4])
    assert draw(0, [4]) != draw(0, [9])
    patches = np.concatenate(draw(0, list(range(200))))
    counts = np.bincount(patches, minlength=16)
    assert counts.min() > 50  # 75 each, if each patch is as likely as the others
    assert counts.max() < 100


def test_random_needs_the_images_of_each_forward_pass(make_backbone):
    backbone = make_backbone("vit", 64)
    selector = _attach(backbone, "random")
    with pytest.raises(AssertionError, match="images"):
        backbone(_pixels(64))
    selector.set_images(np.arange(2))
    backbone(_pixels(64))
    with pytest.raises(AssertionError, match="images"):
        backbone(_pixels(64))


@pytest.mark.parametrize(
    ("side", "tokens", "expected"),
    [(64, 4, [5, 6, 9, 10]), (80, 5, [12, 7, 11, 13, 17]), (64, 6, [5, 6, 9, 10, 1, 2])],
)
def test_the_centre_is_the_middle_of_the_image(make_backbone, side, tokens, expected):
    backbone = make_backbone("vit", side)
    selector = _attach(backbone, "centre", tokens)
    backbone(_pixels(side, 1))
    assert not_none(selector.last).index_BK.tolist() == [expected]


def test_off_changes_nothing(make_backbone):
    backbone = make_backbone("vit")
    with torch.no_grad():
        expected = backbone(_pixels(224))
        assert attach_selector(backbone, schema.NoOptions("off"), seed=0) is None
        result = backbone(_pixels(224))
    torch.testing.assert_close(result.patch_BND, expected.patch_BND, rtol=0, atol=0)
    assert result.patch_BND.shape[1] == 196


@pytest.mark.parametrize(
    ("name", "tokens", "message"),
    [
        ("centre", 0, "part_attention.tokens=0: must be at least 1 and at most 16"),
        ("rollout", 17, "part_attention.tokens=17: must be at least 1 and at most 16"),
        ("transfg", 4, "part_attention.tokens=4: .* the 3 heads .*: 3 or 6"),
        ("transfg", 2, "nearest: 3$"),
        ("transfg", 16, "nearest: 15$"),
    ],
)
def test_impossible_numbers_of_tokens_are_refused(make_backbone, name, tokens, message):
    with pytest.raises(UserError, match=message) as error:
        attach_selector(make_backbone("vit", 64), _conf(name, tokens), seed=0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ATTENDING)
def test_without_a_pooling_head_there_is_no_reader(make_backbone, name):
    backbone = make_backbone("siglip2", features="patch_mean")
    with pytest.raises(UserError, match="backbone.features=patch_mean.*take features=map"):
        attach_selector(backbone, _conf(name), seed=0)
    assert attach_selector(make_backbone("siglip2", features="patch_mean"), _conf("centre"), seed=0)


def test_one_block_cannot_both_score_and_select(deep):
    conf = deep("vit")
    conf.checkpoints["mini"].architecture = {"depth": 1, "embed_dim": 48, "num_heads": 3}
    with pytest.raises(UserError, match="has 1 block, and at least 2"):
        attach_selector(build(conf, 64, RANDOM, 0), _conf("transfg"), seed=0)


def test_a_row_is_the_same_in_chunks_of_any_size(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 2, 3, 50, 8, generator=generator)
    weights_BHM = torch.rand(2, 3, 50, generator=generator).softmax(-1)
    product_BHM = weights_BHM[:, :, None] @ (query @ key.mT * 8**-0.5).softmax(-1)
    for chunk in (1, 60, 4000, 2**20):
        monkeypatch.setitem(rollout.CHUNK, "cpu", chunk)
        result = rollout.attention_row(weights_BHM, query, key)
        torch.testing.assert_close(result, product_BHM[:, :, 0], rtol=1e-5, atol=1e-7)


def test_a_row_keeps_full_precision_under_autocast_and_low_matmul_precision():
    query, key = torch.randn(2, 1, 2, 40, 8, generator=torch.Generator().manual_seed(0)) * 3
    weights_BHM = torch.full((1, 2, 40), 1 / 40)
    expected = rollout.attention_row(weights_BHM, query, key)
    previous = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with autocast("bf16", torch.device("cpu")):
            result = rollout.attention_row(weights_BHM, query, key)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(previous)
    assert torch.equal(result, expected)
    assert result.dtype == torch.float32


@pytest.mark.real
@pytest.mark.parametrize("side", [224, 448])
def test_the_published_vit_selects_as_the_oracle_in_real_photographs(conf, real_weights, side):
    from PIL import Image

    from fgvc.model.backbone import weights

    folder = real_weights.parents[1] / "data" / "cub20" / "CUB_200_2011" / "images"
    paths = sorted(folder.glob("*/*.jpg"))[::150][:4]
    assert len(paths) == 4
    images = [Image.open(path).convert("RGB").resize((side, side)) for path in paths]
    pixels_BCHW = torch.stack([torch.from_numpy(np.array(image)) for image in images])
    pixels_BCHW = pixels_BCHW.permute(0, 3, 1, 2) / 127.5 - 1
    selections = conf("published vit", weights=str(real_weights))
    for name in ATTENDING:
        backbone = build(selections, side, weights.find(selections), 0)
        assert _check_against_oracle(backbone, name, pixels_BCHW) > 0.9
