"""Properties of every family: the same interface, one library, the same errors."""

import json
import subprocess
import sys

import pytest
import torch

from fgvc.config.schema.library import LIBRARIES
from fgvc.model.backbone import build, text_tower, weights
from fgvc.model.backbone.base import Backbone, TextTower
from fgvc.types import UserError, WeightsSource

LIBRARY = {
    "vit": "timm",
    "dinov2": "timm",
    "dinov3": "timm",
    "clip": "open_clip",
    "siglip2": "transformers",
}
READERS = ("clip", "siglip2")
RANDOM = WeightsSource("random", "random")

every_family = pytest.mark.parametrize("family", LIBRARY)


def _pixels():
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))


@every_family
def test_every_family_has_the_same_interface(mini, family):
    conf = mini(family, pretrained=False)
    row = conf.checkpoints["mini"]
    backbone = build(conf, 224, weights.find(conf), seed=0)
    with torch.inference_mode():
        tokens = backbone(_pixels())
        feature_BD = backbone.feature(_pixels())
    side = 224 // row.patch
    assert isinstance(backbone, Backbone)
    assert backbone.grid == tokens.grid == (side, side)
    assert tokens.prefix_BPD.shape == (2, row.prefix, row.width)
    assert tokens.patch_BND.shape == (2, side * side, row.width)
    assert tokens.pooled_BD.shape == (2, backbone.feature_dim)
    torch.testing.assert_close(feature_BD, tokens.pooled_BD)
    assert (backbone.name, backbone.prefix) == (row.model, row.prefix)
    assert backbone.weights.kind == "random"
    assert backbone.macs > 1e7
    assert len(backbone.blocks) == 2


@every_family
def test_random_weights_follow_from_the_seed_and_leave_no_trace(mini, family):
    conf = mini(family, pretrained=False)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    same, again, other = (build(conf, 224, RANDOM, seed).state_dict() for seed in (0, 0, 1))
    if family in READERS:
        text = [text_tower(conf, RANDOM, seed).encode(["a", "b"]) for seed in (0, 0, 1)]
        torch.testing.assert_close(text[0], text[1], rtol=0, atol=0)
        assert not torch.allclose(text[0], text[2])
    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)
    assert all(torch.equal(same[key], again[key]) for key in same)
    assert any(not torch.equal(same[key], other[key]) for key in same)


@every_family
def test_it_is_frozen_and_can_be_unfrozen(mini, family):
    backbone = build(mini(family, pretrained=False), 224, RANDOM, seed=0)
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    backbone.requires_grad_(True)
    backbone.feature(_pixels()).square().sum().backward()
    idle = [name for name, value in backbone.named_parameters() if value.grad is None]
    assert idle == []  # none that a feature does not need: distributed training refuses those
    assert backbone.blocks[0] in list(backbone.modules())


@every_family
def test_features_that_the_family_lacks_are_refused_naming_those_it_has(mini, family):
    lacking = "cls" if family == "siglip2" else "map"
    with pytest.raises(UserError, match=f"backbone.features={lacking}: {family} has .*patch_mean"):
        build(mini(family, pretrained=False, features=lacking), 224, RANDOM, seed=0)


@every_family
def test_every_feature_that_the_config_lists_can_be_computed(mini, family):
    for features in LIBRARIES[LIBRARY[family]].features:
        backbone = build(mini(family, pretrained=False, features=features), 224, RANDOM, seed=0)
        with torch.inference_mode():
            assert backbone.feature(_pixels()).shape == (2, backbone.feature_dim)


@every_family
def test_a_made_up_model_has_no_published_weights(mini, family):
    with pytest.raises(
        UserError, match="backbone.size=mini: .* backbone.pretrained=false"
    ) as error:
        weights.find(mini(family))
    assert "\n" not in str(error.value)


@every_family
def test_only_some_families_read_text(mini, family):
    conf = mini(family, pretrained=False)
    if family in READERS:
        assert isinstance(text_tower(conf, RANDOM, seed=0), TextTower)
    else:
        with pytest.raises(UserError, match=f"backbone={family} has no text tower"):
            text_tower(conf, RANDOM, seed=0)


@pytest.mark.parametrize("family", READERS)
def test_text_and_image_meet_in_one_space(mini, family):
    conf = mini(family, pretrained=False, features="projected")
    backbone, tower = build(conf, 224, RANDOM, seed=0), text_tower(conf, RANDOM, seed=0)
    text_PE = tower.encode([f"bird {number}" for number in range(5)], batch=2)
    assert text_PE.shape == (5, backbone.feature_dim)
    torch.testing.assert_close(text_PE[3:], tower.encode(["bird 3", "bird 4"]), atol=1e-5, rtol=0)
    assert not text_PE.is_inference()  # a head may be trained from it
    assert not any(parameter.requires_grad for parameter in tower.parameters())


@pytest.mark.parametrize("family", READERS)
def test_a_row_that_contradicts_its_model_is_refused(mini, family):
    conf = mini(family, pretrained=False)
    conf.checkpoints["mini"].embedding = 9
    for build_tower in (
        lambda: build(conf, 224, RANDOM, seed=0),
        lambda: text_tower(conf, RANDOM, 0),
    ):
        with pytest.raises(UserError, match="has embedding=.*, not embedding=9"):
            build_tower()


IMPORTS = """
import json, sys
from fgvc.model.backbone import build, text_tower, weights
from omegaconf import OmegaConf
from fgvc.config import checkpoint_rows, schema
given = OmegaConf.load(sys.argv[1])
typed = OmegaConf.merge(OmegaConf.structured(schema.Backbone), given)
conf = OmegaConf.to_object(OmegaConf.merge(typed, {"size": "mini", "pretrained": False}))
checkpoint_rows.fill_table(conf, is_recorded=False)
source = weights.find(conf)
cheap = [name for name in ("torch", "timm", "open_clip", "transformers") if name in sys.modules]
build(conf, 224, source, 0)
if schema.chosen_checkpoint(conf).embedding is not None:
    text_tower(conf, source, 0)
dear = [name for name in ("timm", "open_clip", "transformers") if name in sys.modules]
print(json.dumps([cheap, dear]))
"""


@pytest.mark.parametrize(
    "family",
    [
        "vit",
        pytest.param("clip", marks=pytest.mark.slow),
        pytest.param("siglip2", marks=pytest.mark.slow),
    ],
)
def test_only_the_chosen_familys_library_is_imported(request, family):
    file = request.config.rootpath / "conf" / "backbone" / f"{family}.yaml"
    out = subprocess.run(
        [sys.executable, "-c", IMPORTS, str(file)], check=True, capture_output=True, text=True
    )
    assert json.loads(out.stdout) == [[], [LIBRARY[family]]]
