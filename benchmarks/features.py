"""Frozen features: extraction vs. the forward pass, loading vs. decoding, and a second run.

B batch, C channels, H = W side.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks import bench_dataset
from benchmarks.side_by_side import Row, best_times
from fgvc.data.decode import decode
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.model.backbone import build, weights
from fgvc.pipeline.features import FeatureExtractor
from fgvc.types import Dataset

BICUBIC = Image.Resampling.BICUBIC


def extractions(folder: Path) -> Iterator[Row]:
    """A row per backbone and device."""
    yield extraction(folder, "vit_base", 64, 0.95, "cpu")
    yield extraction(folder, "vit_tiny", 256, 0.93, "cpu")
    if torch.cuda.is_available():
        yield extraction(folder, "vit_base", 512, 0.90, "cuda")


def extraction(folder: Path, backbone: str, images: int, target: float, device: str) -> Row:
    """JPEG files -> cached features, vs. the forward pass of the backbone on random tensors."""
    conf = bench_dataset.config(
        folder, f"backbone={backbone}", "backbone.pretrained=false", f"runtime.device={device}"
    )
    dataset, torch_device = bench_dataset.load(conf), torch.device(device)
    source = weights.find(conf.backbone)
    row_N = np.arange(images)
    model = build(conf.backbone, conf.resolution.side, source, 0).to(torch_device)
    ready_BCHW = torch.randn(conf.runtime.eval_batch_size, 3, 224, 224, device=torch_device)
    attempt = itertools.count()

    def extract() -> None:
        conf.runtime.cache_root = str(folder / f"{backbone}-{next(attempt)}")
        extractor = FeatureExtractor(conf, dataset, source, torch_device, _backbone=model)
        extractor.extract("train", row_N)

    @torch.inference_mode()
    def forward() -> None:
        for start in range(0, images, len(ready_BCHW)):
            model.feature(ready_BCHW[: images - start])
        if device == "cuda":
            torch.cuda.synchronize()

    measured, reference = best_times(extract, forward, rounds=2)
    return Row(
        f"extraction, {backbone} at 224, {device}: JPEG to cache",
        "forward on ready tensors",
        reference / measured,
        target,
        f"{images} images",
        ours=f"{images / measured:.1f} images/s",
        limit=f"{images / reference:.1f} images/s",
    )


def loading(folder: Path, images: int = 200) -> list[Row]:
    """Decode, resize and normalise on one core, vs. decoding with libjpeg-turbo and vs. Pillow."""
    from torchcodec.decoders import decode_jpeg  # pyright: ignore[reportPrivateImportUsage]

    conf = bench_dataset.config(folder, "backbone=vit_tiny")
    dataset, transform = bench_dataset.load(conf), evaluation_transform(conf)
    files = _bytes(dataset, images)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured, decoding, pillow = best_times(
            lambda: [transform.normalize(transform(decode(data, "x"))[None]) for data in files],
            lambda: [decode_jpeg(data) for data in files],
            lambda: [_pillow(data, transform) for data in files],
        )
    finally:
        torch.set_num_threads(threads)
    rate = f"{images / measured:.0f} images/s"
    detail = f"on one core, {bench_dataset.describe()}"
    return [
        Row(
            "loading: decode, resize, normalise",
            "libjpeg-turbo decoding",
            decoding / measured,
            0.45,
            detail,
            ours=rate,
            limit=f"{images / decoding:.0f} images/s",
            other=f"Pillow {images / pillow:.0f} images/s",
        ),
        Row(
            "loading",
            "the same through Pillow",
            pillow / measured,
            1.8,
            detail,
            ours=rate,
            limit=f"{images / pillow:.0f} images/s",
        ),
    ]


def second_run(folder: Path) -> Row:
    """Features of a second probe, vs. reading the bytes of the cache."""
    conf = bench_dataset.config(folder, "backbone=vit_tiny", "backbone.pretrained=false")
    dataset, source = bench_dataset.load(conf), weights.find(conf.backbone)
    row_N = np.arange(min(256, len(dataset.manifest)))
    FeatureExtractor(conf, dataset, source, torch.device("cpu")).extract("train", row_N)
    second = FeatureExtractor(conf, dataset, source, torch.device("cpu"))
    shards = list((Path(conf.runtime.cache_root) / "features").rglob("*.safetensors"))
    measured, reference = best_times(
        lambda: second.extract("train", row_N), lambda: [shard.read_bytes() for shard in shards]
    )
    counters = second.counters
    return Row(
        "second probe on the same features: forwards and decodes",
        "none",
        float(counters.forwarded + counters.decoded),
        0.0,
        "the limit is reading the bytes",
        upper_bound=True,
        ours=f"{measured * 1e3:.0f} ms",
        limit=f"{reference * 1e3:.1f} ms",
    )


def _bytes(dataset: Dataset, images: int) -> list[bytes]:
    paths = dataset.manifest.path[:images]
    return [(dataset.manifest.root / path).read_bytes() for path in paths]


def _pillow(data: bytes, transform: Preprocess) -> torch.Tensor:
    """The same as in a torchvision pipeline on Pillow images."""
    geometry = transform.geometry
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = geometry.resize / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), BICUBIC)
    left, top = (image.width - transform.side) // 2, (image.height - transform.side) // 2
    image = image.crop((left, top, left + transform.side, top + transform.side))
    return transform.normalize(torch.from_numpy(np.array(image)).permute(2, 0, 1)[None])
