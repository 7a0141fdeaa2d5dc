"""fgvc.data.preprocess, compared with Pillow's resize and torchvision's transforms of PIL images.

torchvision resizes uint8 with 16-bit weights in two passes, Pillow with 22-bit ones. Each pass
rounds differently in about one of a thousand values, so about one in a million differs by 2 of 255.
"""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from fgvc.config.compose import composed, typed
from fgvc.data.decode import decode
from fgvc.data.normalize import NATIVE, NORMALIZATIONS, native
from fgvc.data.preprocess import POLICIES, Preprocess, evaluation_transform, resize
from fgvc.types import UserError

PILLOW = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def preprocess_of(policy: str = "shared", side: int = 224, key: str = "vit") -> Preprocess:
    return Preprocess(policy, side, native(key).normalization, key)


def by_pillow(data: bytes, resize: int, side: int, squash: bool, filter_: str) -> torch.Tensor:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    size = (resize, resize) if squash else (resize * width // short, resize * height // short)
    image = image.resize(size, PILLOW[filter_])
    left, top = (round((length - side) / 2) for length in size)
    image = image.crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def assert_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    difference = (actual.int() - expected.int()).abs()
    assert difference.max() <= 2
    assert (difference > 1).float().mean() < 1e-4
    assert (difference > 0).float().mean() < 0.05


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (640, 480), (301, 301), (97, 61)])
@pytest.mark.parametrize("policy", ["shared", "transfg"])
def test_pixels_are_pillows_within_one(jpeg, size, policy):
    data = jpeg(size[0], size)
    actual = preprocess_of(policy)(decode(data, "a.jpg"))
    if policy == "shared":
        expected = by_pillow(data, 256, 224, squash=False, filter_="bicubic")
    else:
        expected = by_pillow(data, 300, 224, squash=True, filter_="bilinear")
    assert_close(actual, expected)


@pytest.mark.parametrize("size", [(500, 333), (333, 501), (447, 300)])
@pytest.mark.parametrize("side", [224, 392, 448])
def test_crop_is_torchvisions_on_pil(jpeg, size, side):
    data = jpeg(7, size)
    expected = v2.Compose(
        [
            v2.Resize(round(side * 256 / 224), interpolation=v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(side),
            v2.PILToTensor(),
        ]
    )(Image.open(io.BytesIO(data)))
    assert_close(preprocess_of(side=side)(decode(data, "a.jpg")), expected)


@pytest.mark.parametrize("capability", ["AVX512", "DEFAULT"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [[256, 384], [700, 90], [333, 500], [9, 500]])
def test_resize_is_torchvisions_bit_for_bit(
    monkeypatch, size, dtype, interpolation, antialias, capability
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    noise_HWC = np.random.default_rng(0).integers(0, 256, (333, 500, 3), np.uint8)
    interleaved_CHW = torch.from_numpy(noise_HWC).permute(2, 0, 1).to(dtype)  # as Pillow's pixels
    planar_CHW = interleaved_CHW.contiguous()
    for image_CHW in (interleaved_CHW, planar_CHW, torch.stack([planar_CHW, planar_CHW + 1])):
        mode = v2.InterpolationMode(interpolation)
        expected_CHW = v2.functional.resize(image_CHW, size, mode, antialias=antialias)
        assert torch.equal(resize(image_CHW, size, interpolation, antialias), expected_CHW)


@pytest.mark.parametrize(
    ("policy", "key", "side", "expected"),
    [
        ("shared", "clip", 224, ("crop", 256, "bicubic", True)),
        ("shared", "siglip2", 336, ("crop", 384, "bicubic", True)),
        ("shared", "vit", 256, ("crop", 293, "bicubic", True)),
        ("shared", "dinov2", 518, ("crop", 592, "bicubic", True)),
        ("transfg", "vit", 448, ("squash", 600, "bilinear", True)),
        ("transfg", "vit", 224, ("squash", 300, "bilinear", True)),
        ("native", "vit", 224, ("crop", 248, "bicubic", True)),
        ("native", "vit", 384, ("crop", 425, "bicubic", True)),
        ("native", "dinov2", 448, ("crop", 512, "bicubic", True)),
        ("native", "clip", 336, ("crop", 336, "bicubic", True)),
        ("native", "siglip2", 384, ("squash", 384, "bilinear", False)),
    ],
)
def test_geometry(policy, key, side, expected):
    assert dataclasses.astuple(preprocess_of(policy, side, key).geometry) == expected


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("key", NATIVE)
@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1), (223, 225), (2000, 30)])
def test_any_shape_gives_the_square(policy, key, size):
    square = preprocess_of(policy, 224, key)(torch.full((3, *size), 77, dtype=torch.uint8))
    assert square.shape == (3, 224, 224)
    assert square.is_contiguous()
    assert (square == 77).all()


def test_absurdly_thin_image_is_refused_in_one_line():
    thin = torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, 1, 3_000_000)
    with pytest.raises(UserError, match="3000000 x 1 pixels is too thin") as caught:
        preprocess_of()(thin)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", NORMALIZATIONS)
def test_normalize_is_the_formula(key):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2, 3, 16, 16)
    normalized = Preprocess("shared", 16, key, "vit").normalize(pixels)
    entry = NORMALIZATIONS[key]
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (entry.mean, entry.std))
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.numpy(), (pixels.numpy() / 255 - mean) / std, atol=2e-6)


def test_identity_is_plain_and_moves_with_every_choice_that_moves_pixels():
    base = preprocess_of().identity
    assert json.loads(json.dumps(base)) == base
    others = [
        preprocess_of("transfg"),
        preprocess_of("native"),
        preprocess_of(side=256),
        Preprocess("shared", 224, "clip", "vit"),
    ]
    texts = {json.dumps(other.identity, sort_keys=True) for other in [preprocess_of(), *others]}
    assert len(texts) == 5


def test_identity_under_shared_does_not_depend_on_the_family():
    first, second = (Preprocess("shared", 224, "half", key) for key in ("vit", "dinov2"))
    assert first.identity == second.identity


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("shard", 224, "half", "vit"), "preprocess=shard: one of shared, native, transfg"),
        (("shared", 224, "hlf", "vit"), "did you mean half"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Preprocess(*arguments)


def conf_of(*overrides: str):
    return typed(composed(["preprocess=native", "backbone.pretrained=false", *overrides]))


def test_evaluation_transform_of_a_config():
    conf = conf_of("backbone=clip", "resolution=r336")
    assert evaluation_transform(conf) == Preprocess("native", 336, "clip", "clip")


def test_native_takes_size_and_filter_of_the_family_and_statistics_of_the_checkpoint():
    conf = conf_of("backbone=clip", "backbone.checkpoint=laion2b_l14")
    transform = evaluation_transform(conf)
    assert transform.geometry == evaluation_transform(conf_of("backbone=clip")).geometry
    assert transform.identity["mean"] == transform.identity["std"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("overrides", "own"),
    [
        (("backbone=clip", "backbone.normalization=half"), "clip"),
        (("backbone=vit", "backbone.normalization=imagenet"), "half"),
    ],
)
def test_native_refuses_statistics_that_are_not_the_checkpoints(overrides, own):
    key = overrides[1].partition("=")[2]
    message = rf"backbone\.normalization={key}: preprocess=native .* means {own}.*preprocess=shared"
    with pytest.raises(UserError, match=message) as caught:
        evaluation_transform(conf_of(*overrides))
    assert "\n" not in str(caught.value)
