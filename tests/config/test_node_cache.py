"""Merged options and cached nodes give the same configs as Hydra alone."""

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

NEEDED = {"baseline_zero_shot": ["backbone=clip"]}
SETTINGS = (
    ("dataset.split_seed=2", "seed=3", "runtime.data_root=/d", "part_attention=centre",
     "part_attention.tokens=4"),
    ("resolution=r448", "precision=bf16", "dataset.val_fraction=0.2", "backbone.checkpoint=null"),
)  # fmt: skip


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def compose_by_hydra(overrides):
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose(CONFIG_NAME, overrides=list(overrides))


@pytest.fixture(scope="module")
def nodes():
    return NodeCache()


@pytest.mark.parametrize("index", range(len(options("experiment"))))
def test_every_experiment_equals_the_config_of_hydra(index, nodes):
    experiment = options("experiment")[index]
    needed = NEEDED.get(experiment, ())
    commands = [[f"experiment={experiment}", *needed, *settings] for settings in SETTINGS]
    for overrides in commands:
        nodes.conf(overrides)
    overrides = commands[index % len(commands)]
    expected = compose_by_hydra(overrides)
    cfg = composed(overrides)
    assert OmegaConf.to_container(cfg) == OmegaConf.to_container(expected)
    assert OmegaConf.is_struct(cfg)
    conf = nodes.conf(overrides)
    assert dataclasses.asdict(conf) == dataclasses.asdict(typed(expected))
    assert canonical(hashed(conf)) == canonical(resolved(expected))


def test_cached_nodes_give_the_config_of_hydra():
    """The last job of a cross reuses every node of the jobs before it."""
    cache, kinds = NodeCache(), ("baseline_zero_shot", "finetune")
    cross = [
        (f"experiment={kind}", f"backbone={family}", f"backbone.size={size}", f"resolution={side}")
        for kind in kinds
        for family in ("clip", "siglip2")
        for size in ("base", "mini")
        for side in ("r224", "t256")
    ]
    confs = [cache.conf([*overrides, "backbone.pretrained=false", "seed=1"]) for overrides in cross]
    for index in (5, 15):
        expected = typed(compose_by_hydra([*cross[index], "backbone.pretrained=false", "seed=1"]))
        assert dataclasses.asdict(confs[index]) == dataclasses.asdict(expected)
    assert confs[0].backbone is not confs[1].backbone


def test_an_axis_with_an_interpolation_is_not_cached():
    """A node with an interpolation depends on more than its own settings."""
    cache = NodeCache()
    pointing = ["dataset=folder", "dataset.root=/x", "dataset.split_seed=${seed}"]
    assert [cache.conf([*pointing, f"seed={n}"]).dataset.split_seed for n in (1, 2)] == [1, 2]
    later = [*pointing[:2], "dataset.split_seed=5"]
    assert cache.conf([*later, "seed=3"]).dataset.split_seed == 5
