"""conf/backbone: complete, consistent, and the shorthands are nothing but shorthands."""

from dataclasses import fields
from pathlib import Path

import pytest
import timm
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fgvc.config import schema

FOLDER = Path(__file__).parents[2] / "conf" / "backbone"
FAMILIES = ("vit", "dinov2")
SHORTHANDS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem not in FAMILIES)


def _composed(option, overrides=()):
    with initialize_config_dir(str(FOLDER.parent), version_base="1.3"):
        node = compose(f"backbone/{option}", overrides=list(overrides)).backbone
    return OmegaConf.merge(OmegaConf.structured(schema.Backbone), node)


def test_the_options_are_counted():
    assert len(SHORTHANDS) == 8


@pytest.mark.parametrize("short", SHORTHANDS)
def test_a_shorthand_is_the_family_spelt_out(short):
    family, size = short.split("_")
    assert _composed(short) == _composed(family, [f"backbone.size={size}"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_field_is_given(family):
    node = _composed(family)
    assert OmegaConf.missing_keys(node) == set()
    given = OmegaConf.load(FOLDER / f"{family}.yaml")
    assert set(given) == {field.name for field in fields(schema.Backbone)}
    conf = OmegaConf.to_object(node)
    assert schema.chosen_checkpoint(conf).size == conf.size == "base"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_is_a_pretrained_model_of_timm(family):
    conf = OmegaConf.to_object(_composed(family))
    assert len(conf.checkpoints) == {"vit": 4, "dinov2": 8}[family]
    for row in conf.checkpoints.values():
        official = timm.get_pretrained_cfg(row.model)
        assert official.hf_hub_id == row.repo
        assert official.input_size == (3, row.native, row.native)
        assert official.license == row.license.lower()
        assert official.mean[0] == {"half": 0.5, "imagenet": 0.485}[conf.normalization]
