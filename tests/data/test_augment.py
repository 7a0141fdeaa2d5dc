"""fgvc.data.augment, compared with torchvision called directly with the same seed."""

from __future__ import annotations

import dataclasses
import pickle
import random
from typing import Any, cast

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transform

from fgvc.config.compose import composed, typed
from fgvc.data.augment import stream, training_transform
from fgvc.data.decode import decode
from fgvc.data.preprocess import evaluation_transform
from fgvc.types import UserError

PLAIN = {"crop": "centre", "flip": 0.0, "auto_augment": "none", "erasing": 0.0}
SIDE = 64
MEAN = [124, 116, 104]  # 255 times ImageNet's


@pytest.fixture(scope="module")
def train():
    """A config of task=train, with ImageNet's normalization."""
    return typed(composed(["task=train", "backbone=dinov2", "backbone.pretrained=false"]))


@pytest.fixture
def conf(train):
    """`conf(preprocess, **task)`: only a centre crop by default."""

    def make(preprocess: str = "shared", **fields: object):
        task = dataclasses.replace(train.task, **{**PLAIN, **fields})
        resolution = dataclasses.replace(train.resolution, side=SIDE)
        return dataclasses.replace(
            train, task=task, resolution=resolution, preprocess=preprocess, seed=7
        )

    return make


@pytest.fixture(name="image_CHW")
def image(jpeg) -> torch.Tensor:
    return decode(jpeg(5, (300, 200)), "")


def by_hand(row: int, *steps, image_CHW: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(stream(7, 2, row, 0))
    for step in steps:
        image_CHW = step(image_CHW)
    return image_CHW


def test_with_nothing_on_it_is_the_evaluation_transform(conf, image_CHW):
    for policy in ("shared", "native", "transfg"):
        dataset_conf = conf(policy)
        augmented = training_transform(dataset_conf)(image_CHW, 2, 0, 0)
        assert torch.equal(augmented, evaluation_transform(dataset_conf)(image_CHW))


def test_resized_crop_and_flip(conf, image_CHW):
    augment = training_transform(conf(crop="resized", crop_scale=0.3, flip=0.5))
    steps = (
        v2.RandomResizedCrop(
            SIDE, scale=(0.3, 1.0), interpolation=v2.InterpolationMode.BICUBIC, antialias=True
        ),
        v2.RandomHorizontalFlip(0.5),
    )
    for row in range(8):
        expected = by_hand(row, *steps, image_CHW=image_CHW)
        assert torch.equal(augment(image_CHW, 2, row, 0), expected)


@pytest.mark.parametrize(
    ("policy", "size", "mode"),
    [
        ("transfg", [round(SIDE * 600 / 448)] * 2, v2.InterpolationMode.BILINEAR),
        ("shared", [73, 109], v2.InterpolationMode.BICUBIC),
    ],
)
def test_random_crop_of_the_policys_own_resize(conf, image_CHW, policy, size, mode):
    augment = training_transform(conf(policy, crop="random", flip=0.5))
    steps = (v2.Resize(size, interpolation=mode), v2.RandomCrop(SIDE), v2.RandomHorizontalFlip(0.5))
    for row in range(8):
        expected = by_hand(row, *steps, image_CHW=image_CHW)
        assert torch.equal(augment(image_CHW, 2, row, 0), expected)


@pytest.mark.parametrize(
    ("fields", "by_torchvision"),
    [
        (
            {"auto_augment": "randaugment", "magnitude": 12, "operations": 3},
            v2.RandAugment(3, 12, interpolation=v2.InterpolationMode.BILINEAR, fill=MEAN),
        ),
        (
            {"auto_augment": "trivialaugment"},
            v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR, fill=MEAN),
        ),
        ({"erasing": 0.7}, v2.RandomErasing(0.7, value=cast(Any, MEAN))),
    ],
)
def test_what_comes_after_the_crop(conf, image_CHW, fields, by_torchvision):
    augment = training_transform(conf(**fields))
    steps = (evaluation_transform(conf()), v2.RandomHorizontalFlip(0.0), by_torchvision)
    for row in range(20):
        expected = by_hand(row, *steps, image_CHW=image_CHW)
        assert torch.equal(augment(image_CHW, 2, row, 0), expected)


def test_a_flip_is_a_flip(conf, image_CHW):
    flipped = training_transform(conf(flip=1.0))(image_CHW, 0, 0, 0)
    expected = transform.horizontal_flip(evaluation_transform(conf())(image_CHW))
    assert torch.equal(flipped, expected)


def test_what_is_erased_is_about_zero_to_the_backbone(conf, image_CHW):
    augment = training_transform(conf(erasing=1.0))
    plain, erased = augment.preprocess(image_CHW), augment(image_CHW, 0, 0, 0)
    gone_HW = (plain != erased).any(dim=0)
    assert 0.02 * SIDE**2 < gone_HW.sum() < 0.34 * SIDE**2
    seen_CHW = augment.preprocess.normalize(erased[None])[0]
    assert seen_CHW[:, gone_HW].abs().max() < 0.5 / 255 / 0.22


@pytest.mark.parametrize("recipe", ["modern", "transfg"])
def test_recipes_give_contiguous_squares_that_follow_from_the_arguments(recipe, image_CHW):
    conf_of_recipe = typed(
        composed(["task=train", f"recipe={recipe}", "backbone=vit", "backbone.pretrained=false"])
    )
    augment = training_transform(conf_of_recipe)
    first = augment(image_CHW, 1, 2, 0)
    assert first.shape == (3, 224, 224)
    assert first.dtype == torch.uint8
    assert first.is_contiguous()
    assert torch.equal(first, pickle.loads(pickle.dumps(augment))(image_CHW, 1, 2, 0))
    others = [
        augment(image_CHW, 2, 2, 0),
        augment(image_CHW, 1, 3, 0),
        augment(image_CHW, 1, 2, 1),
        training_transform(dataclasses.replace(conf_of_recipe, seed=1))(image_CHW, 1, 2, 0),
    ]
    assert not any(torch.equal(first, other) for other in others)


def test_no_generator_is_left_in_another_state_or_asked(conf, image_CHW):
    augment = training_transform(
        conf(crop="resized", flip=0.5, auto_augment="trivialaugment", erasing=0.5)
    )
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    states = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002
    first = [augment(image_CHW, 0, row, 0) for row in range(30)]
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (random.getstate(), str(np.random.get_state())) == states[1:]  # noqa: NPY002
    torch.manual_seed(2)
    again = [augment(image_CHW, 0, row, 0) for row in range(30)]
    assert all(
        torch.equal(first_CHW, again_CHW) for first_CHW, again_CHW in zip(first, again, strict=True)
    )


@pytest.mark.parametrize("crop", ["resized", "random", "centre"])
def test_images_too_thin_for_evaluation_are_refused(conf, crop):
    augment = training_transform(conf(crop=crop))
    with pytest.raises(UserError, match="an image of 400000 x 1 pixels is too thin"):
        augment(torch.zeros(3, 1, 400_000, dtype=torch.uint8), 0, 0, 0)
    for height, width in ((1, 400), (400, 1), (1, 1)):
        thin = torch.full((3, height, width), 9, dtype=torch.uint8)
        assert torch.equal(augment(thin, 0, 0, 0), torch.full((3, SIDE, SIDE), 9).byte())


def test_streams_do_not_collide():
    keys = [
        (seed, epoch, row, occurrence)
        for seed in (0, 1)
        for epoch in range(10)
        for row in range(2500)
        for occurrence in (0, 1)
    ]
    streams = [stream(*key) for key in keys]
    assert len(set(streams)) == len(keys) == 100_000
    # what torch's generator keeps of them: 1.2 pairs are to be expected of random numbers
    assert len({number & 0xFFFFFFFF for number in streams}) >= len(keys) - 5


def test_a_stream_never_changes():
    assert stream(0, 1, 2, 3) == 16958249009808338657
