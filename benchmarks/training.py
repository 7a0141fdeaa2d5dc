"""One step of finetuning against a bare loop of the same model on the same ready tensors.

B batch, C channels, H = W side.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from benchmarks import pictures
from benchmarks.side_by_side import Row, best_times
from fgvc.learn.train import LoaderBatch, Trainer
from fgvc.model import head as heads
from fgvc.model.backbone import build, weights
from fgvc.model.classifier import Classifier

CLASSES = 200


def step(places: Path, images: int, device: str) -> Row:
    """The modern recipe with random weights: groups, schedule, clipping, checks and report.

    The bare loop has none of these: forward, loss, backward, AdamW.
    """
    conf = pictures.config(
        places, "task=train", "backbone=vit_tiny", "backbone.pretrained=false",
        f"task.batch_size={images}", f"runtime.device={device}",
    )  # fmt: skip
    where = torch.device(device)
    backbone = build(conf.backbone, conf.resolution.side, weights.find(conf.backbone), 0)
    model = Classifier(backbone, heads.new_head(conf.head, backbone.feature_dim, CLASSES, 0))
    model.thaw(conf.task)
    model = model.to(where)
    bare = copy.deepcopy(model).train()
    optimiser = torch.optim.AdamW(bare.parameters(), fused=True if device == "cuda" else None)
    trainer = Trainer(model, conf.task, CLASSES, model.depth_of, 1000, where, "fp32", 0)
    pixels_BCHW = torch.randn(images, 3, 224, 224, device=where)
    label_B = torch.arange(images, device=where)
    micro = LoaderBatch(pixels_BCHW, label_B, np.arange(images), np.arange(images))

    def plain() -> None:
        optimiser.zero_grad()
        cross_entropy(bare(pixels_BCHW), label_B, label_smoothing=0.1).backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()

    ours, limit = best_times(lambda: trainer.step([micro]), plain, rounds=20)
    return Row(
        f"training step, vit tiny at 224, batch {images}, {device}",
        "a bare loop of the same model",
        ours / limit,
        1.03,
        f"{images / ours:.1f} against {images / limit:.1f} images/s",
        most=True,
    )
