"""Keys that are left out of the hash do not change a single bit of the result."""

from __future__ import annotations

import pytest
import torch

from fgvc.record import checkpoint

SIDE = ("resolution.side=64", "resolution.name=r64")
MINI = ("backbone.size=mini", "runtime.stack_check=false", *SIDE)
TRAIN = (
    "task=train",
    *MINI,
    "backbone=vit",
    "dataset.subset=tiny",
    "task.batch_size=6",
    "runtime.device=cpu",
)
GRID = "head.fit.learning_rates=[1e-3,1e-2]"
CASES = {
    "a finetune of train and val together": (
        (*TRAIN, "task.epochs=2", "final_fit=trainval", "task.crop=random"),
        (
            "task.momentum=0.1",
            "task.mix_probability=1",
            "task.crop_scale=0.1",
            "task.magnitude=30",
            "task.operations=5",
            "task.select=loss",
        ),
    ),
    "a head alone, on a frozen backbone": (
        (*TRAIN, "task.epochs=1", "task.tune=head", "part_attention=transfg"),
        (
            "task.layer_decay=0.5",
            "task.drop_path=0.5",
            "part_attention.margin=0.9",
            "part_attention.tokens=2",
            "part_attention.stride=16",
        ),
    ),
    "one batch, again and again": (
        (*TRAIN, "task.epochs=1", "task.debug=overfit", "task.drop_path=0"),
        (
            "task.crop=centre",
            "task.flip=1",
            "task.auto_augment=randaugment",
            "task.erasing=1",
            "task.final_rate=0.5",
            "final_fit=trainval",
        ),
    ),
    "two epochs of random weights": (
        (*TRAIN, "task.epochs=2", "part_attention=transfg"),
        (
            "task.patience=1",
            "task.ema=0",
            "task.mixup=0.8",
            "task.cutmix=1",
            "task.mix_probability=0",
            "part_attention.last_block=random",
        ),
    ),
    "one epoch of what follows the blocks": (
        (*TRAIN, "task.epochs=1", "task.frozen_stages=3", "task.weight_decay=0"),
        ("task.layer_decay=0.5", "task.select=loss", "task.weight_decay=-0.0"),
    ),
    "a grid of rates": (
        (*MINI, "backbone=vit", "dataset.subset=tiny", "head=mlp", "head.fit.epochs=2", GRID),
        ("head.fit.learning_rates=[1e-2,1e-3,0.01]", "head.fit.weight_decays=[1e-2,0,-0.0]"),
    ),
    "the nearest neighbour": (
        (*MINI, "backbone=vit", "dataset.subset=tiny", "head=knn", "head.k=1"),
        ("head.temperature=0.5", "dataset.official.test=3"),
    ),
    "a cap at every C": (
        (*MINI, "backbone=vit", "dataset.subset=tiny", "task.c_count=2", "task.gap_until=0"),
        ("task.gap_until=1e-7",),
    ),
    "nearest neighbours": (
        (*MINI, "backbone=vit", "head=knn", "head.k=3", "dataset.val_fraction=0"),
        ("task.c_count=3", "task.c_high=1", "task.gap=0.5", "final_fit=train"),
    ),
    "a path of one C": (
        (*MINI, "backbone=vit", "task.c_low=1", "task.c_count=1"),
        ("task.c_high=10", "task.gap_until=20", "task.max_iterations=3"),
    ),
    "zero-shot": (
        (*MINI, "backbone=clip", "task=zero_shot"),
        ("final_fit=train", "dataset.split_seed=3", "dataset.val_fraction=0.4"),
    ),
    "zero-shot on a tiny subset": (
        (*MINI, "backbone=clip", "task=zero_shot", "dataset.subset=tiny"),
        ("dataset.val_fraction=0",),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_hashes_give_equal_predictions(run, monkeypatch, name):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shared, inert = CASES[name]
    plain, other = run(*shared, "runtime.threads=1"), run(*shared, *inert, "runtime.threads=1")
    assert plain.code == other.code == 0, (plain.err, other.err)
    assert plain.folder.parts[-2] == other.folder.parts[-2]  # the config hash
    tensors_a, tensors_b = (checkpoint.read(ran.folder)[0] for ran in (plain, other))
    assert tensors_a.keys() == tensors_b.keys()
    assert all(torch.equal(tensors_a[key], tensors_b[key]) for key in tensors_a)
    assert plain.json("metrics.json")["test"] == other.json("metrics.json")["test"]


def test_a_zero_shot_run_of_another_split_is_complete_already(run):
    arguments = (*MINI, "backbone=clip", "task=zero_shot", "runtime.run_id=words")
    first, again = run(*arguments), run(*arguments, "dataset.split_seed=3")
    assert first.code == again.code == 0, (first.err, again.err)
    assert "complete already" in again.out + again.err
