"""The command of the probe that a finetune is compared with: composed, its keys are the same."""

from __future__ import annotations

import pytest

from fgvc.config.compose import composed, hashed, typed
from fgvc.record import comparability
from fgvc.record.comparable_probe import advice, probe_command
from fgvc.report.run_rows import _join_key
from fgvc.untrusted import shell

VIT = ("backbone=vit_tiny", "backbone.pretrained=false")
DIGEST = "a" * 64


def config_of(*overrides):
    return hashed(typed(composed(overrides)))


def keys_of(config):
    """Comparability and join key of a run of this config on equal data and weights."""
    parts = comparability.describe(
        config,
        fitted_on=(DIGEST, DIGEST),
        evaluated_on=(DIGEST, DIGEST),
        labelmap=DIGEST,
        metrics="1",
        forced=False,
    )
    random = not config["backbone"]["pretrained"]
    stamp = {
        "weights_digest": None if random else DIGEST,
        "resolution": config["resolution"]["side"],
    }
    return parts.key, _join_key(parts, config, stamp, config["seed"])


def probe_of(config, command, **more):
    """The hashed config of the printed probe."""
    line = probe_command(config, command, **more)
    assert line is not None
    words = shell.split(line)
    assert tuple(words[:3]) == shell.PROGRAM
    return config_of(*words[3:])


@pytest.mark.parametrize(
    "overrides",
    [
        VIT,
        (*VIT, "dataset=cub", "dataset.root=/data/a b", "dataset.partial=true", "resolution=r448"),
        (*VIT, "recipe=transfg", "resolution=r448", "part_attention.tokens=12"),
        (*VIT, "part_attention=transfg_random_block", "seed=3", "precision=bf16"),
        (*VIT, "part_attention=rollout", "part_attention.tokens=9", "preprocess=native"),
        (*VIT, "head=mlp", "final_fit=trainval", "task.epochs=2", "runtime.nproc=2"),
        (*VIT, "experiment=cub_vit_finetune", "dataset.val_fraction=0.2"),
    ],
)
def test_the_probe_of_a_finetune_has_its_keys(overrides):
    words = ("task=train", *overrides)
    config = config_of(*words)
    probe = probe_of(config, shell.fgvc(*words, "runtime.run_id=r"))
    assert probe["dataset"] == config["dataset"]
    assert (probe["task"]["name"], probe["head"]) == ("probe", {"name": "linear"})
    assert keys_of(probe) == keys_of(config)


def test_each_job_of_a_sweep_has_its_own_probe():
    """The recorded command of a job may be that of its whole sweep."""
    swept = (
        *("backbone=vit_tiny,vit_small", "backbone.pretrained=false", "resolution=r224,r448"),
        *("dataset.split_seed=0,1", "seed=0,1", "part_attention=off,transfg"),
    )
    words = ("task=train", *swept)
    seen = set()
    for which in (0, 1):
        choices = (word.partition("=") for word in words)
        config = config_of(*(f"{key}={value.split(',')[-which]}" for key, _, value in choices))
        probe = probe_of(config, shell.fgvc("-m", *words))
        assert keys_of(probe) == keys_of(config)
        seen.add(probe_command(config, shell.fgvc("-m", *words)))
    assert len(seen) == 2


def test_random_weights_of_several_seeds_take_a_probe_per_seed():
    words = ("task=train", *VIT)
    line = probe_command(config_of(*words), shell.fgvc(*words, "seed=1"), seeds=(1, 4))
    assert line is not None
    assert line.startswith("python -m fgvc.run -m task=probe head=linear ")
    assert line.endswith(" seed=1,4")


def test_a_probe_on_trainval_names_the_same_probe_on_train():
    config = config_of(*VIT)
    text, line = advice(config, shell.fgvc(*VIT), "probe") or ("", "")
    assert "fitted on train and validation" in text
    assert line == shell.fgvc("task=probe", "head=linear", *VIT, "final_fit=train")
    finetune = config_of("task=train", *VIT)
    assert keys_of(config_of(*shell.split(line)[3:])) == keys_of(finetune)


@pytest.mark.parametrize(
    "overrides",
    [("final_fit=train",), ("head=knn",), ("dataset.val_fraction=0",)],
)
def test_other_probes_need_no_command(overrides):
    assert advice(config_of(*VIT, *overrides), shell.fgvc(*VIT, *overrides), "probe") is None


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /",
        "python -m fgvc.run backbone=vit_tiny; rm -rf /",
        "python -m fgvc.run ~backbone backbone=vit_tiny",
        "python -m fgvc.run -m dataset.root=a,b",
        "python -m fgvc.run 'backbone=vit_tiny",
        "python -m fgvc.run experiment=synthetic_finetune",  # changes the rows of checkpoints
        "",
    ],
)
def test_a_command_that_cannot_be_derived_is_not_guessed(command):
    own = command.split()[3:] if "synthetic_finetune" in command else VIT
    line = probe_command(config_of("task=train", *own), command)
    # a separator of the shell is part of a word, so it is quoted
    assert line is None or "'backbone=vit_tiny;'" in line
