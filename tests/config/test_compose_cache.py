"""Files parsed once and nodes composed once give what Hydra gives when it does all of it anew."""

from __future__ import annotations

import dataclasses

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fgvc.config.compose import (
    CONFIG_NAME,
    canonical,
    composed,
    conf_dir,
    hashed,
    register_schema,
    resolved,
    typed,
)
from fgvc.config.node_cache import NodeCache
from fgvc.config.overrides import options

BESIDE = {"baseline_zero_shot": ["backbone=clip"]}
HANDFUL = (
    ("dataset.split_seed=2", "seed=3", "runtime.data_root=/d", "part_attention=centre",
     "part_attention.tokens=4"),
    ("resolution=r448", "precision=bf16", "dataset.val_fraction=0.2", "backbone.checkpoint=null"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def by_hydra(overrides):
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(CONFIG_NAME, overrides=list(overrides))


@pytest.fixture(scope="module")
def nodes():
    return NodeCache()


@pytest.mark.parametrize("place", range(len(options("experiment"))))
def test_every_experiment_is_what_hydra_makes_of_it(place, nodes):
    experiment = options("experiment")[place]
    sets = [[f"experiment={experiment}", *BESIDE.get(experiment, ()), *more] for more in HANDFUL]
    for overrides in sets:
        nodes.conf(overrides)
    overrides = sets[place % len(sets)]
    theirs = by_hydra(overrides)
    mine = composed(overrides)
    assert OmegaConf.to_container(mine) == OmegaConf.to_container(theirs)
    assert OmegaConf.is_struct(mine)
    conf = nodes.conf(overrides)
    assert dataclasses.asdict(conf) == dataclasses.asdict(typed(theirs))
    assert canonical(hashed(conf)) == canonical(resolved(theirs))


def test_nodes_that_others_composed_make_the_config_of_a_job():
    """The last job of a cross takes every node from the jobs before it."""
    memo, kinds = NodeCache(), ("baseline_zero_shot", "finetune")
    cross = [
        (f"experiment={kind}", f"backbone={family}", f"backbone.size={size}", f"resolution={side}")
        for kind in kinds
        for family in ("clip", "siglip2")
        for size in ("base", "mini")
        for side in ("r224", "t256")
    ]
    confs = [memo.conf([*one, "backbone.pretrained=false", "seed=1"]) for one in cross]
    for place in (5, 15):
        theirs = typed(by_hydra([*cross[place], "backbone.pretrained=false", "seed=1"]))
        assert dataclasses.asdict(confs[place]) == dataclasses.asdict(theirs)
    assert confs[0].backbone is not confs[1].backbone


def test_an_axis_that_points_at_another_key_is_composed_anew():
    """A node with a pointer depends on more than its own settings."""
    memo = NodeCache()
    pointing = ["dataset=folder", "dataset.root=/x", "dataset.split_seed=${seed}"]
    assert [memo.conf([*pointing, f"seed={n}"]).dataset.split_seed for n in (1, 2)] == [1, 2]
    later = [*pointing[:2], "dataset.split_seed=5"]
    assert memo.conf([*later, "seed=3"]).dataset.split_seed == 5
