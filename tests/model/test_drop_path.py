"""Random layers draw per image: the same mask in every batch, dtype and compiled graph."""

import pytest
import timm
import torch
from torch import nn

from fgvc.config.compose import composed, typed
from fgvc.model.backbone import build
from fgvc.model.build_head import new_head
from fgvc.model.classifier import Classifier
from fgvc.model.drop_path import ImageDrop, RandomLayers, draws, replace_dropout
from fgvc.model.head_layers import LinearHead, MlpHead
from fgvc.types import UserError, WeightsSource

FAMILIES, SIDE, CLASSES = ("vit", "dinov2", "clip", "siglip2"), 112, 5
KEYS = torch.tensor([3, 2**62 + 1, 0, 12345678901234567])
MASK64 = (1 << 64) - 1


def classifier(family, head):
    overrides = [f"backbone={family}", "backbone.size=mini", "backbone.pretrained=false"]
    conf = typed(composed(["task=train", *overrides, f"head={head}"]))
    backbone = build(conf.backbone, SIDE, WeightsSource("random", "random"), seed=0)
    model = Classifier(backbone, new_head(conf.head, backbone.feature_dim, CLASSES, 0))
    model.thaw(conf.task)
    return model


def pixels(images):
    return torch.randn(images, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def splitmix64(seed, count):
    """The published algorithm, in Python integers."""
    state, numbers = seed, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK64
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK64
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & MASK64
        numbers.append((mixed ^ (mixed >> 31)) >> 11)
    return numbers


def test_draws_are_those_of_the_published_generator():
    assert draws(KEYS, 0, 6).tolist() == [splitmix64(key, 6) for key in KEYS.tolist()]


def test_masks_have_their_rate_and_differ_between_images_and_layers():
    layers = RandomLayers()
    layers.set_keys(KEYS)
    image_BE = torch.ones(4, 20_000)
    first, second = (layers.mask(image_BE, index, 0.3, per_image=False) for index in (1, 2))
    for mask_BE in (first, second):
        assert set(mask_BE.unique().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
        # 20,000 draws of 0.3: a standard deviation of 0.0032
        for share in (mask_BE == 0).double().mean(1).tolist():
            assert share == pytest.approx(0.3, abs=0.016)
    flat = torch.cat([first, second]).double()
    correlation = torch.corrcoef(flat) - torch.eye(8)
    assert correlation.abs().max() < 0.035  # five standard deviations


def test_what_is_kept_in_bfloat16_is_scaled_in_float32():
    """1 / 0.9 in bfloat16 is 1.1094, which makes 0.996 of 0.9."""
    layers = RandomLayers()
    layers.set_keys(KEYS)
    output = ImageDrop(layers, 0.1, per_image=False)(
        torch.full((4, 100), 0.9, dtype=torch.bfloat16)
    )
    assert set(output.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_mask_is_of_the_dtype_and_drops_the_same_for_every_dtype(dtype):
    layers = RandomLayers()
    drop = ImageDrop(layers, 0.5, per_image=False)
    layers.set_keys(KEYS)
    output = drop(torch.ones(4, 3, 5, dtype=dtype))
    assert output.dtype == dtype
    assert torch.equal(output.double(), drop(torch.ones(4, 3, 5, dtype=torch.float64)))
    layers.set_keys(KEYS[[2]])
    assert torch.equal(drop(torch.ones(1, 3, 5, dtype=dtype)), output[[2]])
    layers.set_keys(KEYS[:0])
    assert drop(torch.ones(0, 3, 5)).shape == (0, 3, 5)


@pytest.mark.parametrize("head", ["mlp", "linear"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_is_dropped_equally_in_every_batch(family, head):
    model = classifier(family, head)
    if head == "mlp":
        assert isinstance(model.head, MlpHead)
        model.head.dropout.p = 0.5
    else:  # a linear head starts from zeros
        assert isinstance(model.head, LinearHead)
        nn.init.normal_(model.head.weight_CD, generator=torch.Generator().manual_seed(0))
    for name, part in model.backbone.named_modules():
        if type(part) is nn.Dropout and not name.endswith("attn_drop"):
            part.p = 0.2
    model.randomize(0.5)
    model.double().train()
    pixels_BCHW = pixels(7).double()
    key_B = torch.arange(7) * 1001 + 5
    output = []
    for sizes in ((7,), (1, 2, 4)):
        parts = []
        for some in torch.arange(7).split(sizes):
            model.random_layers.set_keys(key_B[some])
            parts.append(model(pixels_BCHW[some]).detach())
        output.append(torch.cat(parts))
    torch.testing.assert_close(output[1], output[0], rtol=1e-9, atol=1e-12)
    model.random_layers.set_keys(key_B + 1)
    assert not torch.allclose(model(pixels_BCHW), output[0], rtol=1e-3)


def test_the_librarys_own_drop_path_draws_per_image():
    trunk = timm.create_model(
        "vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=2,
        drop_path_rate=0.5, proj_drop_rate=0.3, num_classes=5,
    )  # fmt: skip
    layers = RandomLayers()
    replace_dropout(trunk, layers)
    trunk.train()
    before = torch.get_rng_state()
    layers.set_keys(KEYS)
    first = trunk(torch.ones(4, 3, 16, 16))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(trunk(torch.ones(4, 3, 16, 16)), first)
    assert len({tuple(row) for row in first.tolist()}) == 4


def test_a_layer_that_sees_no_images_is_refused():
    layers = RandomLayers()
    layers.set_keys(KEYS)
    with pytest.raises(UserError, match=r"backbone.checkpoints: .* 8 rows for 4 images") as error:
        ImageDrop(layers, 0.5, per_image=False)(torch.ones(8, 3))
    assert "\n" not in str(error.value)


def test_a_compiled_model_sees_the_keys_of_each_batch():
    """A key compiled in as a constant would drop the same images in every batch."""
    model = classifier("vit", "mlp")
    model.randomize(0.5)
    compiled = torch.compile(model, backend="aot_eager")
    model.train()
    with torch.no_grad():
        for first in range(3):
            model.random_layers.set_keys(torch.arange(4) * 31 + first)
            torch.testing.assert_close(compiled(pixels(4)), model(pixels(4)))
