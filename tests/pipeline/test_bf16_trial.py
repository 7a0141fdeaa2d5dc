"""What bf16 would give is measured once, on one batch, and changes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from fgvc.config.compose import composed, typed
from fgvc.pipeline import bf16_trial
from fgvc.pipeline import features as extraction
from fgvc.pipeline.features import FeatureExtractor
from fgvc.types import Batch, WeightsSource
from tests.jobs import MINI

CPU = torch.device("cpu")
LINE = re.compile(r"precision=bf16 would run the backbone [\d.]+ times as fast here, with features")


class Extraction:
    """Six batches of two random images in one shard, without files; counts forwarded batches."""

    def __init__(self, monkeypatch, tmp_path: Path, *overrides: str) -> None:
        conf = typed(composed([*MINI, "resolution.side=64", "resolution.name=r64", *overrides]))
        conf.runtime.cache_root = str(tmp_path)
        manifest = SimpleNamespace(digest="0" * 64, key_N=np.arange(12, dtype=np.uint64))
        dataset = cast(Any, SimpleNamespace(manifest=manifest))
        self.lines: list[str] = []
        self.precisions: list[bool] = []  # of every forward pass: whether it was in bf16
        pixels = torch.Generator().manual_seed(0)

        def batches(manifest, row_N, *_, sections, pin):
            assert sections == [len(row_N)]
            assert not pin
            for row_B in row_N.reshape(-1, 2):
                images = torch.randint(0, 256, (2, 3, 64, 64), generator=pixels)
                yield Batch(images.to(torch.uint8), row_B)

        monkeypatch.setattr(extraction.loader, "batches", batches)
        monkeypatch.setattr(extraction.console, "say", self.lines.append)
        self.extractor = FeatureExtractor(conf, dataset, WeightsSource("random", "r"), CPU)
        backbone = self.extractor.backbone()
        backbone.register_forward_hook(
            lambda *_: self.precisions.append(torch.is_autocast_enabled("cpu"))
        )

    def features(self) -> np.ndarray:
        return self.extractor.extract("train", np.arange(12)).x_ND


@pytest.fixture
def tried(monkeypatch):
    """A CPU and 12 images are enough for a trial."""
    monkeypatch.setattr(bf16_trial, "DEVICES", ("cuda", "cpu"))
    monkeypatch.setattr(bf16_trial, "MIN_IMAGES", 12)


def test_one_batch_is_forwarded_three_more_times_and_the_features_stay(
    monkeypatch, tmp_path, request
):
    expected_ND = Extraction(monkeypatch, tmp_path / "without").features()
    request.getfixturevalue("tried")
    run = Extraction(monkeypatch, tmp_path / "with")
    np.testing.assert_array_equal(run.features(), expected_ND)
    (line,) = [line for line in run.lines if LINE.search(line)]
    percent = float(re.findall(r"differ by ([\d.]+)%", line)[0])
    assert 0 < percent < 5
    assert "measured on 2 images" in line
    # the third batch: itself, fp32 again, bf16 to warm up, bf16
    assert run.precisions == [False] * 4 + [True] * 2 + [False] * 3
    run.extractor.extract("test", np.arange(12))
    assert sum(bool(LINE.search(line)) for line in run.lines) == 1


@pytest.mark.parametrize("overrides", [["precision=bf16"], ["part_attention=transfg"]])
def test_no_trial_in_bf16_or_with_part_attention(monkeypatch, tmp_path, tried, overrides):
    run = Extraction(monkeypatch, tmp_path, *overrides)
    run.features()
    assert len(run.precisions) == 6
    assert not any(LINE.search(line) for line in run.lines)


def test_a_trial_needs_a_gpu_and_many_images():
    gpu = torch.device("cuda:1")
    assert bf16_trial.is_worthwhile("fp32", gpu, 10_000)
    assert not bf16_trial.is_worthwhile("fp32", gpu, 9_999)
    assert not bf16_trial.is_worthwhile("fp32", CPU, 10_000)
    assert not bf16_trial.is_worthwhile("fp16", gpu, 10_000)
