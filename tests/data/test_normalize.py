"""fgvc.data.normalize: the registry has the values of the libraries."""

from __future__ import annotations

import pytest
from timm.data import constants
from timm.models import get_pretrained_cfg

from fgvc.data.normalize import NATIVE, NORMALIZATIONS, native, normalization
from fgvc.types import UserError

THEIRS = {
    "imagenet": (constants.IMAGENET_DEFAULT_MEAN, constants.IMAGENET_DEFAULT_STD),
    "half": (constants.IMAGENET_INCEPTION_MEAN, constants.IMAGENET_INCEPTION_STD),
    "clip": (constants.OPENAI_CLIP_MEAN, constants.OPENAI_CLIP_STD),
}
CHECKPOINTS = {
    "vit": "vit_base_patch16_224.augreg_in21k_ft_in1k",
    "dinov2": "vit_base_patch14_dinov2.lvd142m",
    "clip": "vit_base_patch16_clip_224.openai",
    "siglip2": "vit_base_patch16_siglip_224.v2_webli",
}


def test_statistics_are_those_of_timm():
    assert {key: (entry.mean, entry.std) for key, entry in NORMALIZATIONS.items()} == THEIRS


def test_every_family_is_checked_against_its_checkpoint():
    assert set(CHECKPOINTS) == set(NATIVE)


@pytest.mark.parametrize("key", NATIVE)
def test_family_statistics_are_those_of_its_checkpoint(key):
    config = get_pretrained_cfg(CHECKPOINTS[key])
    assert config is not None
    own = normalization(native(key).normalization)
    assert (own.mean, own.std) == (tuple(config.mean), tuple(config.std))


@pytest.mark.parametrize("key", NATIVE)
def test_crop_is_never_larger_than_what_it_is_cut_from(key):
    entry = native(key)
    assert entry.resize >= entry.size
    assert entry.mode in ("crop", "squash")


@pytest.mark.parametrize(
    ("look_up", "typo", "near"),
    [(normalization, "imagnet", "did you mean imagenet"), (native, "dino", "did you mean dinov2")],
)
def test_unknown_key_names_the_nearest(look_up, typo, near):
    with pytest.raises(UserError, match=f"={typo}: unknown; {near}"):
        look_up(typo)
