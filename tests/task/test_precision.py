"""precision=bf16 with task.cascade and task.certify, against float32 features of the same images.

bf16 changes no prediction of thirty pictures. Here the fast features therefore get additional
noise, as of a much coarser precision.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from scipy import stats

import fgvc
from fgvc.config.compose import composed, config_hash, resolved
from fgvc.pipeline import cascade, inference
from fgvc.pipeline.features import FeatureExtractor
from fgvc.report.audit import run_audit
from fgvc.types import UserError
from tests.jobs import RunResult
from tests.narrow import not_none

SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")
FIT = (*SMALL, "task.c_low=1", "task.c_high=2", "task.c_count=2")
FAST = (*FIT, "precision=bf16")
CASCADE, CERTIFY = "task.cascade=1000", "task.certify=12"
NOISE = 0.02  # of the length of a feature


@pytest.fixture
def noisy(finished, shared_places, monkeypatch) -> Callable[..., RunResult]:
    """`finished` with a noisy bf16, and a cache of its own: no other test reads those features."""
    honest = FeatureExtractor._forward

    def forward(self, batch, scores):
        feature_BD = honest(self, batch, scores).numpy()
        if self.conf.precision == "bf16":
            for place, row in enumerate(batch.row_B.tolist()):
                noise_D = np.random.default_rng(row).normal(size=feature_BD.shape[1])
                length = np.linalg.norm(feature_BD[place]) / np.linalg.norm(noise_D)
                feature_BD[place] += NOISE * length * noise_D
        return torch.from_numpy(feature_BD)

    monkeypatch.setattr(FeatureExtractor, "_forward", forward)
    cache = shared_places["cache"] / "noisy"
    return lambda *overrides: finished(*overrides, f"runtime.cache_root={cache}")


def logits_of(run: RunResult) -> np.ndarray:
    """The recorded logits of the test images."""
    rows = pq.read_table(not_none(run.folder) / "predictions.parquet").to_pylist()
    return np.array([row["logits"] for row in rows if row["split"] == "test"])


def head_of(run: RunResult) -> Callable[[np.ndarray], np.ndarray]:
    with safe_open(not_none(run.folder) / "ckpt.bin", "np") as file:
        weight_CD, bias_C = (file.get_tensor(f"head.{name}") for name in ("weight_CD", "bias_C"))
    return lambda x_ND: x_ND @ weight_CD.T + bias_C


def exact_logits(run: RunResult, split: str = "test") -> np.ndarray:
    """The logits of the run's head on float32 features, by the functions for notebooks."""
    folder, conf = not_none(run.folder), fgvc.load_config(*FIT, "backbone.pretrained=false")
    root = Path(OmegaConf.load(folder / "config.yaml").dataset.root)
    paths = (folder / f"splits/{split}.txt").read_text().split()
    return head_of(run)(fgvc.extract_features(conf, [root / path for path in paths]))


def margin(logits_NC: np.ndarray, index_N: np.ndarray) -> np.ndarray:
    own_N1 = np.take_along_axis(logits_NC, index_N[:, None], 1)
    others_NC = np.where(np.arange(logits_NC.shape[1]) == index_N[:, None], -np.inf, logits_NC)
    return own_N1[:, 0] - others_NC.max(1)


def test_the_cascade_repeats_every_small_margin_in_fp32(noisy):
    plain, ran = noisy(*FAST), noisy(*FAST, CASCADE, CERTIFY)
    facts, fast_NC, exact_NC = (
        ran.json("metrics.json")["cascade"],
        logits_of(plain),
        exact_logits(ran),
    )
    small_N = margin(fast_NC, fast_NC.argmax(1)) <= facts["bound"]
    expected_NC = np.where(small_N[:, None], exact_NC, fast_NC)
    np.testing.assert_allclose(logits_of(ran), expected_NC, atol=1e-4)
    changed_N = fast_NC.argmax(1) != exact_NC.argmax(1)
    assert changed_N.any(), "the test cannot fail: no fast prediction differs"
    assert (logits_of(ran).argmax(1) == exact_NC.argmax(1)).all()
    assert (facts["repeated"], facts["images"]) == (small_N.sum(), len(small_N))
    assert 0 < facts["repeated"] < facts["images"]
    assert ran.json("metrics.json")["test_reads"] == 1
    assert f"cascade: {facts['repeated']} of 30 test images" in ran.out
    assert f"{facts['repeated']} of 30 test images" in (ran.folder / "report.html").read_text()


def test_the_bound_is_learnt_on_all_images_but_test(noisy, shared_places):
    ran = noisy(*FAST, CASCADE, CERTIFY)
    facts, losses = ran.json("metrics.json")["cascade"], []
    fast_NC = head_of(ran)(cached(shared_places["cache"] / "noisy", "train", "bf16"))
    paths = [(ran.folder / f"splits/{split}.txt").read_text().split() for split in ("train", "val")]
    order = np.argsort([path for part in paths for path in part])
    exact_NC = np.concatenate([exact_logits(ran, split) for split in ("train", "val")])[order]
    index_N = fast_NC.argmax(1)
    losses = margin(fast_NC, index_N) - margin(exact_NC, index_N)
    assert facts["sample"] == 60
    assert facts["largest_loss"] == pytest.approx(losses.max(), rel=0.01)
    assert facts["bound"] == 2 * facts["largest_loss"] >= 2 * losses.max() - 1e-4


def cached(cache: Path, role: str, precision: str) -> np.ndarray:
    for file in (cache / "features").glob("*/key.json"):
        key = json.loads(file.read_text())["value"]["key"]
        if (key["role"], key["precision"], "rows" in key) == (role, precision, False):
            with safe_open(file.parent / "00000.safetensors", "np") as shard:
                return shard.get_tensor("x")
    raise AssertionError(f"no features of {role} in {precision}")


@pytest.mark.parametrize("count", [12, 1000])
def test_the_certificate_lists_the_differences_of_the_drawn_images(noisy, count):
    ran = noisy(*FAST, f"task.certify={count}")
    facts, pred_N = ran.json("metrics.json")["certificate"], logits_of(ran).argmax(1)
    exact_N, paths = (
        exact_logits(ran).argmax(1),
        (ran.folder / "splits/test.txt").read_text().split(),
    )
    differing = {paths[i]: exact_N[i] for i in np.flatnonzero(pred_N != exact_N)}
    listed = {row["path"]: row["fp32"] for row in facts["differing"]}
    assert listed.items() <= differing.items()
    assert (facts["images"], facts["of"]) == (min(count, 30), 30)
    if count == 1000:
        assert listed == differing != {}
        assert facts["limit"] == len(differing) / 30
        assert f"certificate: {len(differing)} of all 30 test images" in ran.out
    else:
        one_sided = stats.binomtest(len(listed), 12, alternative="less")
        limit = one_sided.proportion_ci(0.95, "exact").high
        assert facts["limit"] == pytest.approx(limit, rel=1e-12)


def test_the_audit_draws_again_and_finds_a_changed_certificate(noisy, tmp_path):
    ran = noisy(*FAST, CASCADE, CERTIFY)
    assert failures(ran.folder) == {}
    plain = json.loads((ran.folder / "metrics.json").read_text())
    folder = tmp_path.joinpath(*ran.folder.parts[-3:])
    folder.mkdir(parents=True)
    for path in ran.folder.iterdir():
        (folder / path.name).symlink_to(path)
    (folder / "metrics.json").unlink()

    def evidence(part: str, **values: object) -> str:
        changed = {**plain, part: {**plain[part], **values}}
        (folder / "metrics.json").write_text(json.dumps(changed))
        return failures(folder).get(f"{part}-follows", "")

    paths = (ran.folder / "splits/test.txt").read_text().split()
    row = {"path": paths[0], "pred": int(logits_of(ran)[0].argmax()), "fp32": 7}
    assert evidence("certificate") == evidence("cascade") == ""
    assert "limit" in evidence("certificate", limit=0.001)
    assert "images of the certificate" in evidence("certificate", images=13)
    assert "images of the certificate" in evidence("certificate", drawn="0" * 64)
    assert "seed" in evidence("certificate", seed="0" * 64)
    assert "cannot differ" in evidence("certificate", differing=[row])
    assert "of" in evidence("certificate", of=31)
    assert "bound" in evidence("cascade", bound=0.1)
    assert "largest_loss" in evidence("cascade", largest_loss=0.1)
    assert "more images" in evidence("cascade", repeated=31)
    assert "at most the bound" in evidence("cascade", repeated=0)
    assert "repeated" in evidence("cascade", repeated=plain["cascade"]["repeated"] + 0.5)


def failures(folder: Path) -> dict[str, str]:
    results = run_audit(folder)[1]
    return {result.id: result.evidence for result in results if result.state == "FAIL"}


def test_an_evaluation_repeats_the_cascade_and_certifies_more_images(noisy, run, shared_places):
    ran = noisy(*FAST, CASCADE, CERTIFY)
    cache = f"runtime.cache_root={shared_places['cache'] / 'noisy'}"
    again = run("task=eval", f"checkpoint={ran.folder}", "task.certify=30", cache, bare=True)
    assert again.code == 0, again.err
    np.testing.assert_allclose(logits_of(again), logits_of(ran), atol=1e-5)
    facts, first = again.json("metrics.json"), ran.json("metrics.json")
    assert facts["cascade"] == first["cascade"]
    assert facts["certificate"]["differing"] == []
    assert (facts["certificate"]["images"], facts["certificate"]["limit"]) == (30, 0.0)
    assert failures(not_none(again.folder)) == {}


def test_predict_repeats_small_margins_too(noisy, run, monkeypatch):
    ran = noisy(*FAST, CASCADE, CERTIFY)
    root = Path(OmegaConf.load(ran.folder / "config.yaml").dataset.root)
    outputs = []
    honest = cascade.repeat_batch

    def remembered(model, conf, manifest, output, bound):
        logits_BC, count = honest(model, conf, manifest, output, bound)
        outputs.append((output.logits_BK.numpy(), logits_BC, bound["bound"], output.batch.row_B))
        return logits_BC, count

    monkeypatch.setattr(cascade, "repeat_batch", remembered)
    answer = run("task=predict", f"checkpoint={ran.folder}", f'image="{root}/images"', bare=True)
    assert answer.code == 0, answer.err
    fast_NC, logits_NC = (np.concatenate([output[place] for output in outputs]) for place in (0, 1))
    files = sorted((root / "images").glob("*/*.*"), key=Path.as_posix)
    conf = fgvc.load_config(*FIT, "backbone.pretrained=false")
    exact_NC = head_of(ran)(fgvc.extract_features(conf, files))
    small_N = margin(fast_NC, fast_NC.argmax(1)) <= outputs[0][2]
    assert 0 < small_N.sum() < len(small_N)
    np.testing.assert_allclose(logits_NC[small_N], exact_NC[small_N], atol=1e-4)
    np.testing.assert_array_equal(logits_NC[~small_N], fast_NC[~small_N])
    assert np.abs(fast_NC - exact_NC).max(1).min() > 1e-4, "bf16 and fp32 cannot be told apart"
    assert f"{small_N.sum()} repeated in fp32" in answer.err


def test_fp32_features_of_an_earlier_run_are_not_computed_again(noisy, shared_places):
    alone = noisy(*FAST, CASCADE, CERTIFY)
    costs = alone.json("metrics.json")["cost"]
    repeated, seed = alone.json("metrics.json")["cascade"]["repeated"], "seed=1"
    assert costs["forwarded"] == costs["decoded"] == 60 + repeated + 12  # fast features: cached
    for precision in ("fp32", "bf16"):
        noisy(*FIT, f"precision={precision}", seed)
    again = noisy(*FAST, CASCADE, CERTIFY, seed)
    assert again.json("metrics.json")["cost"]["forwarded"] == 0
    assert again.json("metrics.json")["cascade"]["sample"] == 60


def hash_of(*overrides: str) -> str:
    return config_hash(resolved(composed(["backbone.pretrained=false", *overrides])))


def test_the_hash_covers_the_cascade_but_no_certificate():
    fast = hash_of("precision=bf16")
    assert hash_of("precision=bf16", "task.cascade=null") == fast
    assert hash_of("precision=bf16", "task.certify=299") == fast
    assert len({fast, *(hash_of("precision=bf16", f"task.cascade={n}") for n in (20, 30))}) == 3
    exact = ("task.cascade=512", "task.certify=299")
    assert hash_of() == hash_of(*exact) != hash_of(*exact, "matmul_precision=high")
    assert fgvc.load_config(*exact).task.certify is None


@pytest.mark.parametrize("value", ["task.cascade=19", "task.certify=0", "task.cascade=-1"])
def test_too_few_images_are_refused(run, value):
    ran = run(*FAST, value)
    assert ran.code == 2
    assert value in ran.err
    assert "must be at least" in ran.err


def test_zero_shot_is_certified(noisy):
    choices = ("backbone=clip", "backbone.size=mini", "task=zero_shot", "precision=bf16")
    ran = noisy(*choices, "runtime.stack_check=false", "task.certify=30")
    facts = ran.json("metrics.json")["certificate"]
    assert (facts["images"], facts["of"], facts["limit"]) == (30, 30, len(facts["differing"]) / 30)
    assert ran.json("metrics.json")["cost"]["forwarded"] == 60
    assert "certificate-follows" not in failures(not_none(ran.folder))


def test_a_finetuned_backbone_is_certified_by_its_evaluation(finetune, run, monkeypatch):
    trained = finetune("task.epochs=1", "precision=bf16")
    precisions = []
    honest = inference.autocast

    def remembered(precision, device):
        precisions.append(precision)
        return honest(precision, device)

    monkeypatch.setattr(inference, "autocast", remembered)
    ran = run("task=eval", f"checkpoint={trained.folder}", "task.certify=5", bare=True)
    assert ran.code == 0, ran.err
    facts = ran.json("metrics.json")["certificate"]
    assert (facts["images"], facts["of"]) == (5, 12)
    assert precisions == ["bf16", "fp32"]
    assert ran.json("metrics.json")["cost"]["forwarded"] == 12 + 5
    assert "certificate-follows" not in failures(not_none(ran.folder))


def test_an_evaluation_in_fp32_has_nothing_to_certify(finished, run):
    ran = finished(*FIT)
    again = run("task=eval", f"checkpoint={ran.folder}", "task.certify=5", bare=True)
    assert "certificate" not in again.json("metrics.json")
    assert "note: task.certify=5: the checkpoint computes every image in fp32" in again.out


@pytest.mark.parametrize("facts", [{"bound": -1.0}, {"bound": float("nan")}, {"bound": "1"}, 3])
def test_a_damaged_bound_is_refused(facts):
    stored: Any = SimpleNamespace(file="ckpt.bin", metadata={"cascade": facts})
    with pytest.raises(UserError, match=r"ckpt.bin: the bound of its cascade"):
        cascade.stored_bound(stored)
    stored.metadata.clear()
    assert cascade.stored_bound(stored) is None
