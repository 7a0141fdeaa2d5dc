"""bf16 with a cascade vs. timm's float32 forward pass, on a CPU with bf16 instructions.

B batch, C channels, H = W side.
"""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import timm
import torch

from benchmarks import bench_dataset
from benchmarks.side_by_side import Row, best_times
from fgvc.model.backbone import build, weights
from fgvc.parallel import bf16_cpu
from fgvc.pipeline.features import FeatureExtractor
from fgvc.pipeline.reference import ReferenceExtractor

IMAGES = 64
# 6 of the 515 test images of twenty species, with the real ViT-Ti: 1.2 %. Rounded up to 1 of 64
REPEATED = 1
CPU = torch.device("cpu")


def rows(folder: Path, rounds: int = 2) -> list[Row]:
    """One row where this CPU has bf16 instructions.

    The repeated images are forwarded in one small batch, which favours the baseline: with more
    images, such batches are full.
    """
    if not bf16_cpu.has_bf16():
        print("no bf16 instructions here: bf16 was not measured")
        return []
    conf = bench_dataset.config(
        folder,
        *("backbone=vit_base", "backbone.pretrained=false"),
        *("precision=bf16", "runtime.device=cpu"),
    )
    dataset, source = bench_dataset.load(conf), weights.find(conf.backbone)
    model = build(conf.backbone, conf.resolution.side, source, 0)
    baseline = timm.create_model("vit_base_patch16_224", num_classes=0).eval()
    batch = conf.runtime.eval_batch_size
    ready_BCHW = torch.randn(batch, 3, 224, 224)
    row_N, attempt = np.arange(IMAGES), itertools.count()

    def cascade() -> None:
        conf.runtime.cache_root = str(folder / f"cascade-{next(attempt)}")
        fast = FeatureExtractor(conf, dataset, source, CPU, _backbone=model)
        fast.extract("train", row_N)
        ReferenceExtractor(fast).select("train", row_N[:REPEATED])

    @torch.inference_mode()
    def forward() -> None:
        for start in range(0, IMAGES, batch):
            baseline(ready_BCHW[: IMAGES - start])

    @torch.inference_mode()
    def forward_bf16() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            forward()

    measured, reference, fastest = best_times(cascade, forward, forward_bf16, rounds=rounds)
    return [
        Row(
            "bf16 with cascade, vit_base at 224, cpu: JPEG to cache",
            "timm's fp32 forward on ready tensors",
            reference / measured,
            1.7,
            f"{IMAGES / measured:.1f} against {IMAGES / reference:.1f} images/s; "
            f"{REPEATED} of {IMAGES} repeated in fp32; timm in bf16: {reference / fastest:.2f}",
        )
    ]
