"""Frozen features: extraction against bare forward, loading against bare decoding, a second run.

B batch, C channels, H = W side.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import pictures
from benchmarks.side_by_side import Row, best_times
from fgvc.data.decode import decode
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.model.backbone import build, weights
from fgvc.pipeline.features import FeatureExtractor
from fgvc.types import Dataset

BICUBIC = Image.Resampling.BICUBIC


def extraction(places: Path, backbone: str, images: int, target: float, device: str) -> Row:
    """JPEG files -> cached features, against the same backbone's forward on ready tensors."""
    conf = pictures.config(
        places, f"backbone={backbone}", "backbone.pretrained=false", f"runtime.device={device}"
    )
    dataset, where = pictures.load(conf), torch.device(device)
    source = weights.find(conf.backbone)
    row_N = np.arange(images)
    model = build(conf.backbone, conf.resolution.side, source, 0).to(where)
    ready_BCHW = torch.randn(conf.runtime.eval_batch_size, 3, 224, 224, device=where)
    attempt = itertools.count()

    def whole() -> None:
        conf.runtime.cache_root = str(places / f"{backbone}-{next(attempt)}")
        extractor = FeatureExtractor(conf, dataset, source, where)
        extractor.use_backbone(model)
        extractor.extract("train", row_N)

    @torch.inference_mode()
    def forward() -> None:
        for start in range(0, images, len(ready_BCHW)):
            model.feature(ready_BCHW[: images - start])
        if device == "cuda":
            torch.cuda.synchronize()

    ours, limit = best_times(whole, forward)
    return Row(
        f"extraction, {backbone} at 224, {device}: JPEG to cache",
        "forward on ready tensors",
        limit / ours,
        target,
        f"{images / ours:.1f} against {images / limit:.1f} images/s",
    )


def loading(places: Path, images: int = 200) -> list[Row]:
    """Decode + resize + normalise on one core, against libjpeg-turbo alone and against Pillow."""
    from torchcodec.decoders import decode_jpeg

    conf = pictures.config(places, "backbone=vit_tiny")
    dataset, transform = pictures.load(conf), evaluation_transform(conf)
    files = _bytes(dataset, images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ours, bare, pillow = best_times(
            lambda: [transform.normalize(transform(decode(data, "x"))[None]) for data in files],
            lambda: [decode_jpeg(data) for data in files],
            lambda: [_pillow(data, transform) for data in files],
        )
    finally:
        torch.set_num_threads(threads)
    rate = f"{images / ours:.0f} images/s on one core, {pictures.described()}"
    return [
        Row(
            "loading: decode, resize, normalise", "libjpeg-turbo decoding", bare / ours, 0.45, rate
        ),
        Row(
            "loading", "the same through Pillow", pillow / ours, 1.8, f"{images / pillow:.0f} there"
        ),
    ]


def second_run(places: Path) -> Row:
    """Features of a second probe, against reading the cache's bytes."""
    conf = pictures.config(places, "backbone=vit_tiny", "backbone.pretrained=false")
    dataset, source = pictures.load(conf), weights.find(conf.backbone)
    row_N = np.arange(min(256, len(dataset.manifest)))
    FeatureExtractor(conf, dataset, source, torch.device("cpu")).extract("train", row_N)
    second = FeatureExtractor(conf, dataset, source, torch.device("cpu"))
    shards = list((Path(conf.runtime.cache_root) / "features").rglob("*.safetensors"))
    ours, limit = best_times(
        lambda: second.extract("train", row_N), lambda: [shard.read_bytes() for shard in shards]
    )
    done = second.counters
    return Row(
        "second probe on the same features: forwards and decodes",
        "none",
        float(done.forwarded + done.decoded),
        0.0,
        f"{ours * 1e3:.0f} ms, {limit * 1e3:.1f} ms to read the bytes",
        most=True,
    )


def _bytes(dataset: Dataset, images: int) -> list[bytes]:
    paths = dataset.manifest.path[:images]
    return [(dataset.manifest.root / path).read_bytes() for path in paths]


def _pillow(data: bytes, transform: Preprocess) -> torch.Tensor:
    """What a torchvision pipeline on Pillow images does."""
    geometry = transform.geometry
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = geometry.resize / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), BICUBIC)
    left, top = (image.width - transform.side) // 2, (image.height - transform.side) // 2
    image = image.crop((left, top, left + transform.side, top + transform.side))
    return transform.normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
