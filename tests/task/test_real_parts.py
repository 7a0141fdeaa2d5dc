"""Part attention on real photographs: rollout finds the bird, and so does the image centre.

FGVC_REAL_DATA as in test_real.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from fgvc.config.compose import composed, typed
from fgvc.data import dataset as datasets
from fgvc.model.backbone import weights
from fgvc.pipeline.features import FeatureExtractor
from fgvc.pipeline.localization import localization_metrics

REAL = Path(os.environ.get("FGVC_REAL_DATA", "/nonexistent"))
CUB = REAL / "data" / "cub20" / "CUB_200_2011"
WEIGHTS = REAL / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not CUB.is_dir(), reason="FGVC_REAL_DATA names no folder with cub20")
def test_shares_of_patches_in_the_box_match_known_values(tmp_path):
    conf = typed(
        composed(
            [
                "dataset=cub",
                f"dataset.root={CUB}",
                "dataset.partial=true",
                "backbone=vit_tiny",
                f"backbone.weights={WEIGHTS}",
                "part_attention=rollout",
                f"runtime.cache_root={tmp_path}",
                "runtime.num_workers=0",
            ]
        )
    )
    dataset = datasets.load(conf.dataset, tmp_path, None)
    extractor = FeatureExtractor(conf, dataset, weights.find(conf.backbone), torch.device("cpu"))
    extractor.extract("test", dataset.split.test_N[::4])  # 129 photographs
    metrics = localization_metrics(conf, dataset, extractor.attention_maps)["parts"]
    share = {name: metrics[name]["in_box"]["value"] for name in ("rollout", "random", "centre")}
    assert 0.95 < share["rollout"] < 0.99  # of all 515: .972
    assert 0.90 < share["centre"] < 0.97  # .937
    assert 0.44 < share["random"] < 0.56  # .502 of the middle that preprocess=shared cuts out
    assert metrics["tokens"] == 3
