"""part_attention= in a run: cached with the features, repeated by eval, trained in a finetune."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from fgvc.config.compose import composed, config_hash, resolved, typed
from fgvc.config.errors import ConfigError
from fgvc.model.backbone import build
from fgvc.types import WeightsSource

MINI = ("backbone.size=mini", "runtime.stack_check=false")
CHOICES = ("transfg", "rollout", "cls_topk", "random", "centre")


def logits_of(ran):
    table = pq.read_table(ran.folder / "predictions.parquet").to_pydict()
    rows = [row for row, split in enumerate(table["split"]) if split == "test"]
    return np.array([table["logits"][row] for row in rows])


@pytest.mark.parametrize(
    "family",
    [
        "vit",
        "dinov2",
        pytest.param("clip", marks=pytest.mark.slow),
        pytest.param("siglip2", marks=pytest.mark.slow),
    ],
)
def test_a_probe_of_kept_tokens_is_repeated_by_eval_and_differs_from_all_of_them(run, family):
    chosen = [*MINI, f"backbone={family}", "head=knn", "head.k=3"]
    if family == "dinov2":  # its untrained class token hardly attends to any patch
        chosen.append("backbone.features=patch_mean")
    unselected, selected = run(*chosen), run(*chosen, "part_attention=transfg")
    assert selected.code == 0, selected.err
    assert np.abs(logits_of(unselected) - logits_of(selected)).max() > 1e-6
    again = run(
        "task=eval", f'checkpoint="{selected.folder}"', "runtime.stack_check=false", bare=True
    )
    assert again.code == 0, again.err
    np.testing.assert_array_equal(logits_of(selected), logits_of(again))


@pytest.mark.parametrize(
    "choice",
    [CHOICES[0], *(pytest.param(choice, marks=pytest.mark.slow) for choice in CHOICES[1:])],
)
def test_a_second_head_reads_the_kept_tokens_features_from_the_cache(run, choice):
    first = run("backbone=vit", *MINI, f"part_attention={choice}", "part_attention.tokens=4")
    second = run(
        "backbone=vit",
        *MINI,
        f"part_attention={choice}",
        "part_attention.tokens=4",
        "head=knn",
        "head.k=3",
    )
    cost = [ran.json("metrics.json")["cost"]["forwarded"] for ran in (first, second)]
    assert (cost[0] > 0, cost[1]) == (True, 0)


@pytest.mark.slow
def test_random_patches_depend_on_the_seed_and_nothing_else_does(run):
    def forwarded(choice, seed):
        ran = run("backbone=vit", *MINI, f"part_attention={choice}", f"seed={seed}", weights)
        return ran.json("metrics.json")["cost"]["forwarded"]

    weights = "dataset.split_seed=5"
    random = [forwarded("random", 11), forwarded("random", 11), forwarded("random", 12)]
    assert [count > 0 for count in random] == [True, False, True]


def test_a_published_side_that_is_no_multiple_of_the_patch_is_run_and_recorded(run):
    """72 px in patches of 16, as SigLIP 2 so400m's 384 in patches of 14: a grid of 4 x 4."""
    side = ("resolution.side=72", "resolution.name=r72", "backbone.checkpoints.mini.native=72")
    ran = run(*MINI, "backbone=siglip2", *side, "part_attention=transfg", "head=knn", "head.k=3")
    assert ran.code == 0, ran.err
    assert ran.json("env_stamp.json")["token_grid"] == [4, 4]
    assert 0 < ran.json("metrics.json")["parts"]["transfg"]["in_box"]["value"] <= 1
    assert len(list((ran.folder / "overlays").glob("*.png"))) == 8
    page = (ran.folder / "report.html").read_text()
    assert "72 px, 4×4 tokens" in page


def test_overlapping_patches_are_a_finer_grid_in_the_record(run):
    ran = run("backbone=vit", *MINI, "part_attention=centre", "part_attention.stride=12")
    assert ran.json("env_stamp.json")["token_grid"] == [(224 - 16) // 12 + 1] * 2


def _weights(folder):
    conf = typed(composed(["backbone=vit", "backbone.size=mini", "backbone.pretrained=false"]))
    trunk = build(conf.backbone, 64, WeightsSource("random", "random"), seed=1).trunk
    torch.save(trunk.state_dict(), folder / "vit.pth")
    return folder / "vit.pth"


@pytest.mark.parametrize("choice", ["transfg", "random"])
def test_a_finetune_learns_through_the_kept_tokens(run, tmp_path, choice):
    """With weights from a file, because the last block of random weights is random anyway."""
    ran = run(
        f"backbone.weights={_weights(tmp_path)}",
        "backbone.pretrained=true",
        "backbone=vit",
        *MINI,
        "task=train",
        "task.epochs=1",
        "task.batch_size=8",
        f"part_attention={choice}",
        "part_attention.contrastive=1",
        "part_attention.last_block=random",
    )
    assert ran.code == 0, ran.err
    again = run("task=eval", f'checkpoint="{ran.folder}"', "runtime.stack_check=false", bare=True)
    assert again.code == 0, again.err
    np.testing.assert_array_equal(logits_of(ran), logits_of(again))


@pytest.mark.slow
def test_random_patches_do_not_depend_on_the_micro_batch(run):
    """Micro-batches are prefetched, and each passes through the model twice: patches must be drawn
    for the images in the model."""
    chosen = (
        "backbone=vit",
        *MINI,
        "task=train",
        "task.epochs=1",
        "task.batch_size=12",
        "task.drop_path=0.2",
        "part_attention=random",
        "part_attention.contrastive=1",
    )
    uncut, cut = (run(*chosen, f"runtime.micro_batch={size}") for size in ("null", "5"))
    np.testing.assert_allclose(logits_of(uncut), logits_of(cut), atol=2e-5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["part_attention.last_block=random"], "a frozen backbone"),
        (["part_attention.contrastive=1"], "it trains the features"),
        (["part_attention.stride=17"], "at most 16"),
        (["task=train", "part_attention.contrastive=1", "task.mixup=1"], "mixed images"),
        (["task=train", "task.tune=head", "part_attention.last_block=random"], "tune=full"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(overrides, message):
    with pytest.raises(ConfigError) as caught:
        typed(composed(["backbone=vit", "part_attention=transfg", *overrides]))
    assert message in str(caught.value)


def test_the_contrastive_loss_is_hashed_in_training_only():
    def hashed(*overrides):
        return config_hash(
            resolved(composed(["backbone=vit", "part_attention=transfg", *overrides]))
        )

    margin, weight = "part_attention.margin=0.3", "part_attention.contrastive=1"
    assert hashed(margin) == hashed()
    assert hashed("task=train", margin) == hashed("task=train")  # the loss is off
    assert hashed("task=train", weight, margin) != hashed("task=train", weight)


@pytest.mark.parametrize("tokens", [3, 0, 1000])
def test_a_number_of_tokens_that_cannot_be_is_refused_naming_the_bound(run, tokens):
    ran = run("backbone=vit", *MINI, "part_attention=transfg", f"part_attention.tokens={tokens}")
    assert ran.code in (1, 2)
    assert f"part_attention.tokens={tokens}" in ran.err
    assert ran.err.count("\n") == 1
