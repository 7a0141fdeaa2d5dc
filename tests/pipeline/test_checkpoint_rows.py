"""A user's row of backbone.checkpoints, through a whole run and its evaluation."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

from fgvc.run import main
from tests.jobs import BIRDS

MINI = ("backbone=vit", "backbone.size=mini", "dataset.subset=tiny", "head=knn", "head.k=3")
OWN = """\
# @package _global_
defaults:
  - override /backbone: vit
  - override /head: knn
backbone:
  checkpoint: own
  checkpoints:
    own:
      model: vit_small_patch16_224
      patch: 16
      width: 64
      heads: 2
      native: 224
      architecture: {depth: 2, embed_dim: 64, num_heads: 2}
head:
  k: 3
"""


@pytest.mark.parametrize(("field", "value"), [("width", 100), ("patch", 14), ("prefix", 2)])
def test_a_row_that_contradicts_its_model_is_refused_with_a_warm_cache(run, finished, field, value):
    finished(*MINI)
    overrides = (*MINI, f"backbone.checkpoints.mini.{field}={value}")
    refused = run(*overrides)
    assert refused.code != 0
    assert f"{field}=" in refused.err
    assert len(refused.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_record_of_own_options_needs_no_folder_of_options(run, places, tmp_path):
    """A sweep of the user's own folder, which Hydra composes; then an evaluation without it."""
    own = tmp_path / "own"
    files = {
        "dataset/pond.yaml": "defaults: [synthetic, _self_]\nname: pond\n",
        "experiment/near.yaml": OWN.replace("vit\n", "vit\n  - override /dataset: pond\n", 1),
        "sweep/seeds.yaml": (
            "# @package _global_\nhydra:\n  mode: MULTIRUN\n"
            "  sweeper: {params: {experiment: near, seed: 3}}\n"
        ),
    }
    for name, text in files.items():
        (own / name).parent.mkdir(parents=True)
        (own / name).write_text(text)
    settings = (*BIRDS, "backbone.pretrained=false", "dataset.subset=tiny", "runtime.num_workers=0")
    assert main(["sweep=seeds", "--config-dir", str(own), *settings, *places]) == 0
    (folder,) = (tmp_path / "outputs").glob("*/*/*/ckpt.bin")
    shown = yaml.safe_load((folder.parent / "config.yaml").read_text())
    assert (shown["dataset"]["name"], shown["seed"], shown["head"]["k"]) == ("pond", 3, 3)
    assert shown["backbone"]["checkpoints"]["own"]["size"] == "own"
    assert str(own) in (folder.parent / "command.txt").read_text()
    shutil.rmtree(own)
    again = run("task=eval", f"checkpoint={folder}", bare=True)
    assert again.code == 0, again.err
    metrics = json.loads((folder.parent / "metrics.json").read_text())
    assert again.json("metrics.json")["test"] == metrics["test"]


def test_an_experiment_file_of_the_user(run, tmp_path):
    file = tmp_path / "own experiment.yaml"
    file.write_text(OWN)
    ran = run(
        f"experiment='{file}'",
        "backbone.pretrained=false",
        "dataset.subset=tiny",
        *BIRDS,
        "runtime.num_workers=0",
        "runtime.stack_check=false",
        bare=True,
    )
    assert ran.code == 0, ran.err
    again = run("task=eval", f"checkpoint={ran.folder}", bare=True)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["test"] == ran.json("metrics.json")["test"]
    assert again.json("env_stamp.json")["config_hash"] == ran.json("env_stamp.json")["config_hash"]
