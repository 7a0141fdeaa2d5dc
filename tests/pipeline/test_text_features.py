"""Class names: zero-shot, the head regularized towards them, and heads fitted by gradient."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import normalize

from fgvc.config.compose import composed, typed
from fgvc.config.schema.head import heads
from fgvc.data import prompts
from fgvc.model.backbone import text_tower, weights
from fgvc.record import checkpoint
from fgvc.report.audit import run_audit

MINI = ("backbone.size=mini", "runtime.stack_check=false")


def head_of(ran):
    tensors, facts, _ = checkpoint.read(ran.folder)
    return {name.removeprefix("head."): tensor for name, tensor in tensors.items()}, facts


def logits_of(ran):
    table = pq.read_table(ran.folder / "predictions.parquet").to_pydict()
    rows = [row for row, split in enumerate(table["split"]) if split == "test"]
    return np.array([table["logits"][row] for row in rows]), table


@pytest.mark.parametrize("family", ["clip", "siglip2"])
def test_zero_shot_is_a_cosine_with_the_mean_of_the_prompts(run, family):
    ran = run(
        *MINI,
        f"backbone={family}",
        "task=zero_shot",
        "dataset.prompts=['a photo of a {}.','the {}.']",
    )
    assert ran.code == 0, ran.err
    head, _ = head_of(ran)
    names = [row["name"] for row in ran.json("labelmap.json")["classes"]]
    conf = typed(composed([f"backbone={family}", *MINI, "backbone.pretrained=false"]))
    tower = text_tower(conf.backbone, weights.find(conf.backbone), 0)
    expected = []
    for name in names:
        both = [f"a photo of a {prompts.clean(name)}.", f"the {prompts.clean(name)}."]
        expected.append(normalize(normalize(tower.encode(both), dim=1).mean(0), dim=0))
    torch.testing.assert_close(head["weight_CD"], torch.stack(expected), atol=1e-6, rtol=0)
    metrics = ran.json("metrics.json")
    assert "val" not in metrics
    assert metrics["fitted_on"] == 0
    assert metrics["cost"]["prompts"] == 2 * len(names)
    assert metrics["test_reads"] == 1


def test_text_features_are_computed_once_for_every_run_that_shares_them(run):
    first = run(*MINI, "backbone=clip", "task=zero_shot", "dataset.prompts=['one {}']")
    again = run(*MINI, "backbone=clip", "head=text_linear", "dataset.prompts=['one {}']")
    other = run(*MINI, "backbone=clip", "task=zero_shot", "dataset.prompts=['two {}']")
    counts = [ran.json("metrics.json")["cost"]["prompts"] for ran in (first, again, other)]
    assert counts == [6, 0, 6]


def test_zero_shot_matches_any_final_fit_and_a_probe_one(run):
    keys = {}
    for fit in ("train", "trainval"):
        zero = run(*MINI, "backbone=clip", "task=zero_shot", f"final_fit={fit}")
        probe = run(*MINI, "backbone=clip", "task.c_count=3", f"final_fit={fit}")
        keys[fit] = zero.json("metrics.json"), probe.json("metrics.json")
    zeros = {pair[0]["comparability_key"] for pair in keys.values()}
    probes = {pair[1]["comparability_key"] for pair in keys.values()}
    bases = {metrics["comparability_base"] for pair in keys.values() for metrics in pair}
    assert (len(zeros), len(probes), len(bases)) == (1, 2, 1)


def test_a_tiny_c_leaves_the_text_classifier_and_a_large_one_forgets_it(run):
    both = ("backbone=clip", "task.c_count=1")
    zero = run(*MINI, "backbone=clip", "task=zero_shot")
    near = run(*MINI, *both, "head=text_linear", "task.c_low=1e-9", "task.c_high=1e-9")
    weight = head_of(near)[0]["weight_CD"]
    text, scale = head_of(zero)[0]["weight_CD"], zero.json("metrics.json")["prompts"]["scale"]
    drawn = normalize(weight - weight.mean(0), dim=1)
    expected = normalize(text * scale - (text * scale).mean(0), dim=1)
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=0)
    far = run(*MINI, *both, "head=text_linear", "task.c_low=1e3", "task.c_high=1e3")
    moved = head_of(far)[0]["weight_CD"]
    assert (normalize(moved - moved.mean(0), dim=1) * expected).sum(1).mean() < 0.9


@pytest.mark.parametrize("head", [name for name in heads() if name not in ("linear", "knn")])
def test_eval_repeats_the_numbers_of_every_head_and_both_pass_the_audit(
    run, head, monkeypatch, tmp_path
):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "no-git"))
    fit = ("head.fit.epochs=3", "head.fit.learning_rates=[1e-3,1e-2]")
    task = ("task=zero_shot",) if head == "text" else (f"head={head}",)
    ran = run(*MINI, "backbone=clip", *task, *(fit if heads()[head].fit == "gradient" else ()))
    assert ran.code == 0, ran.err
    again = run("task=eval", f'checkpoint="{ran.folder}"', "runtime.stack_check=false", bare=True)
    assert again.code == 0, again.err
    np.testing.assert_array_equal(logits_of(ran)[0], logits_of(again)[0])
    assert ran.json("metrics.json")["test"] == again.json("metrics.json")["test"]
    for each_run in (ran, again):  # both say runtime.stack_check=false
        failed = [check.id for check in run_audit(each_run.folder)[1] if check.state == "FAIL"]
        assert failed == ["stack-validated"]


@pytest.mark.slow
def test_a_head_fitted_by_gradient_says_how_it_was_chosen(run):
    ran = run("head=mlp", "head.hidden=16", "head.fit.epochs=4", "head.fit.learning_rates=[1e-3]")
    assert ran.code == 0, ran.err
    selection = ran.json("metrics.json")["selection"]
    losses = {
        (trial["learning_rate"], trial["weight_decay"]): min(e["val_loss"] for e in trial["curve"])
        for trial in selection["trials"]
    }
    chosen = selection["chosen"]
    assert len(losses) == 2
    assert losses[chosen["learning_rate"], chosen["weight_decay"]] == min(losses.values())
    assert 1 <= chosen["epochs"] <= 4
    with safe_open(ran.folder / "ckpt.bin", framework="pt") as file:
        assert "head.hidden_HD" in file.keys()  # noqa: SIM118


@pytest.mark.parametrize(
    ("rates", "decays", "keys"),
    [
        ("[1e-7,1e-6]", "[0.0]", ["head.fit.learning_rates"]),  # learns next to nothing
        ("[1e-7]", "[0.0,1e-2]", []),  # no decay at all has nothing below it; one rate no end
    ],
)
def test_a_rate_or_decay_at_an_end_of_its_list_is_noted(run, rates, decays, keys):
    fit = (f"head.fit.learning_rates={rates}", f"head.fit.weight_decays={decays}")
    ran = run(*MINI[:1], "backbone=vit", "head=cosine", "head.fit.epochs=2", *fit)
    notes = [note for note in ran.json("metrics.json")["notes"] if note.startswith("head.fit.")]
    assert [note.partition("=")[0] for note in notes] == keys
    assert all(note in ran.out for note in notes)
    ends = ran.json("metrics.json")["selection"]["ends"]
    assert [f"head.fit.{name}s" for name, end in ends.items() if end] == keys


# --- the gate, the device, the precision ---


@pytest.mark.parametrize("family", ["clip", "siglip2", "dinov2"])
def test_a_modern_family_waits_for_a_validated_stack(run, family, tmp_path):
    overrides = (f"backbone={family}", "backbone.size=mini", "head=knn", "head.k=3")
    fresh = f"runtime.cache_root={tmp_path / 'empty'}"
    ran = run(*overrides, fresh)
    assert ran.code == 1
    assert f"backbone={family}: the recording stack has not been checked" in ran.err
    assert "python -m fgvc.run task=check" in ran.err
    assert ran.err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()
    forced = run(*overrides, fresh, "runtime.stack_check=false")
    assert forced.code == 0, forced.err
    assert forced.json("env_stamp.json")["stack_check"] == "skipped"
    assert "this stack was not validated" in forced.out


@pytest.mark.fault(41)
def test_vit_needs_no_validated_stack_and_the_device_taken_is_stamped(finished):
    stamp = finished("head=knn", "head.k=3", "runtime.device=auto").json("env_stamp.json")
    assert stamp["stack_check"] == "not needed"
    assert stamp["device_requested"] == "auto"
    assert stamp["device"] in ("cpu", "cuda", "mps")


def test_fp16_is_refused_where_the_device_has_none(run):
    ran = run("precision=fp16", "runtime.device=cpu")
    assert ran.code == 1
    assert "precision=fp16: runtime.device=cpu has fp32 and bf16" in ran.err
