"""A step of finetuning, vs. a plain loop of the same model on the same tensors.

B batch, C channels, H = W side.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks import bench_dataset
from benchmarks.side_by_side import Row, best_times
from fgvc.learn.train import LoaderBatch, Trainer
from fgvc.model.backbone import build, weights
from fgvc.model.build_head import new_head
from fgvc.model.classifier import Classifier

CLASSES = 200


def steps(folder: Path) -> Iterator[Row]:
    """A row per batch size."""
    for images in (8, 16):
        yield step(folder, images, "cpu")


def step(folder: Path, images: int, device: str) -> Row:
    """The modern recipe with random weights: groups, schedule, clipping, checks and report.

    The plain loop has none of these, only forward, loss, backward and AdamW.
    """
    conf = bench_dataset.config(
        folder, "task=train", "backbone=vit_tiny", "backbone.pretrained=false",
        f"task.batch_size={images}", f"runtime.device={device}",
    )  # fmt: skip
    torch_device = torch.device(device)
    backbone = build(conf.backbone, conf.resolution.side, weights.find(conf.backbone), 0)
    model = Classifier(backbone, new_head(conf.head, backbone.feature_dim, CLASSES, 0))
    model.thaw(conf.task)
    model = model.to(torch_device)
    plain_model = copy.deepcopy(model).train()
    optimiser = torch.optim.AdamW(
        plain_model.parameters(), fused=True if device == "cuda" else None
    )
    trainer = Trainer(model, conf.task, CLASSES, model.depth_of, 1000, torch_device, "fp32", 0)
    pixels_BCHW = torch.randn(images, 3, 224, 224, device=torch_device)
    label_B = torch.arange(images, device=torch_device)
    batch = LoaderBatch(pixels_BCHW, label_B, np.arange(images), np.arange(images))

    def plain_step() -> None:
        optimiser.zero_grad()
        cross_entropy(plain_model(pixels_BCHW), label_B, label_smoothing=0.1).backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    seconds, reference = best_times(lambda: trainer.step([batch]), plain_step, rounds=8)
    return Row(
        f"training step, vit tiny at 224, batch {images}, {device}",
        "a bare loop of the same model",
        seconds / reference,
        1.03,
        "",
        upper_bound=True,
        ours=f"{images / seconds:.1f} images/s",
        limit=f"{images / reference:.1f} images/s",
    )
