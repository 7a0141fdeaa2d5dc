"""The table of a machine with a GPU, in at most 8 minutes: random weights, JPEGs made here.

python -m benchmarks gpu                        one CUDA device
python -m benchmarks.gpu --device cpu --tiny    every row at a toy size: does the script run?

Each group of rows has its own process and seconds. A group that fails or takes too long leaves a
row that says so, and the next group runs. No number of this file was measured on a GPU yet.
B batch, C channels, H = W side, N rows, D width.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image

from benchmarks.side_by_side import Row, best_times
from fgvc.config.compose import composed, typed
from fgvc.config.schema import Config
from fgvc.data import dataset as datasets
from fgvc.learn import logistic
from fgvc.learn.train import LoaderBatch, Trainer
from fgvc.model.backbone import build, weights
from fgvc.model.backbone.base import Backbone
from fgvc.model.build_head import new_head
from fgvc.model.classifier import Classifier
from fgvc.model.head_layers import KnnHead
from fgvc.model.part_attention import attach_selector
from fgvc.parallel.device import autocast
from fgvc.pipeline.features import FeatureExtractor
from fgvc.pipeline.inference import CHUNK
from fgvc.types import WeightsSource

RANDOM = "backbone.pretrained=false"
MINI = ("backbone=vit", "backbone.size=mini", RANDOM)
SIDES = "resolution.side={0} resolution.name=r{0}"


@dataclass(frozen=True)
class Scale:
    """The device, and whether every size is a toy size."""

    device: str
    tiny: bool

    def pick(self, usual: int, tiny: int) -> int:
        return tiny if self.tiny else usual

    def timed(self, work: Callable[[], object]) -> Callable[[], None]:
        """The work and the wait for its end."""

        def run() -> None:
            work()
            if self.device == "cuda":
                torch.cuda.synchronize()

        return run


def rows(device: str = "cuda", tiny: bool = False) -> list[Row]:
    """The rows of all groups, each within its seconds.

    Raises:
        SystemExit: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "benchmarks gpu: no CUDA device here; python -m benchmarks.gpu --device cpu --tiny "
            "runs every row at a toy size"
        )
    return [
        row
        for name, (measure, seconds) in GROUPS.items()
        for row in run_group(name, measure, Scale(device, tiny), seconds)
    ]


def run_group(
    name: str, measure: Callable[[Scale], list[Row]], scale: Scale, seconds: float
) -> list[Row]:
    """The rows of one group, measured in a process of their own; or a row with the error."""
    # the server of processes imports the libraries once and never touches the device
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(sender, measure, scale))
    start = time.monotonic()
    process.start()
    sender.close()
    reason = f"not ended after {seconds:.0f} s"
    try:
        if receiver.poll(seconds):
            result = receiver.recv()
            if isinstance(result, list):
                spent = f"; group of {time.monotonic() - start:.0f} s"
                return [replace(row, detail=row.detail + spent) for row in result]
            reason = result
    except EOFError:
        process.join()
        reason = f"its process ended with {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return [Row(name, "–", float("nan"), 0.0, f"not measured: {reason}")]


def _send_rows(sender: Connection, measure: Callable[[Scale], list[Row]], scale: Scale) -> None:
    try:
        result: object = measure(scale)
    except Exception as error:  # the other groups are still measured
        result = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    sender.send(result)


def matrix_rate(scale: Scale, dtype: torch.dtype = torch.bfloat16) -> float:
    """Floating-point operations per second of a square product."""
    side = scale.pick(8192, 256)
    left, right = (torch.randn(side, side, device=scale.device).to(dtype) for _ in range(2))
    (seconds,) = best_times(scale.timed(lambda: left @ right), rounds=10)
    return 2 * side**3 / seconds


def matrices(scale: Scale) -> list[Row]:
    """Products of each type, as a share of those in bf16."""
    reference, found = matrix_rate(scale), []
    for name, precision in (("float32", "highest"), ("TF32", "high")):
        torch.set_float32_matmul_precision(precision)
        rate = matrix_rate(scale, torch.float32)
        detail = f"{rate / 1e12:.1f} against {reference / 1e12:.1f} TFLOP/s"
        found.append(Row(f"products in {name}", "products in bf16", rate / reference, 0, detail))
    return found


def _config(scale: Scale, backbone: tuple[str, ...], side: int, *more: str) -> Config:
    sides = SIDES.format(scale.pick(side, 64)).split()
    chosen = MINI if scale.tiny else (*backbone, RANDOM)
    return typed(composed([*chosen, *sides, f"runtime.device={scale.device}", *more]))


def _backbone(scale: Scale, conf: Config, stride: int | None = None) -> Backbone:
    source = WeightsSource("random", "random")
    return build(conf.backbone, conf.resolution.side, source, 0, stride).to(scale.device)


def _write_jpegs(root: Path, images: int) -> None:
    """Smooth noise of 500 x 375 pixels, a file of about 40 kB, in two classes and two splits."""
    rng = np.random.default_rng(0)
    for number in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8))
        folder = root / ("test" if number % 8 == 0 else "train") / f"class_{number // 8 % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


def extraction(
    scale: Scale, backbone: tuple[str, ...], side: int, images: int, batch: int, *more: str
) -> list[Row]:
    """JPEG to cache in bf16, vs. the raw forward, which itself is compared with the products.

    more: overrides, which the raw forward does not read.
    """
    images, batch = scale.pick(images, 24), scale.pick(batch, 8)
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_jpegs(folder / "images", images)
        conf = _config(
            scale, backbone, side, "dataset=folder", f"dataset.root={folder / 'images'}",
            "dataset.name=noise", "precision=bf16", f"runtime.eval_batch_size={batch}",
            f"runtime.cache_root={folder / 'cache'}",
            *(["runtime.num_workers=0"] if scale.tiny else []), *more,
        )  # fmt: skip
        dataset = datasets.load(conf.dataset, folder / "cache")
        model, device = _backbone(scale, conf), torch.device(scale.device)
        row_N = np.flatnonzero(dataset.manifest.split_N == 0)
        pixels_BCHW = torch.randn(batch, 3, conf.resolution.side, conf.resolution.side).to(device)

        def extract(row_N: np.ndarray, name: str) -> float:
            conf.runtime.cache_root = str(folder / name)
            source = weights.find(conf.backbone)
            extractor = FeatureExtractor(conf, dataset, source, device, _backbone=model)
            start = time.perf_counter()
            extractor.extract("train", row_N)
            return time.perf_counter() - start

        @torch.inference_mode()
        def forward() -> None:
            with autocast("bf16", device):
                model.feature(pixels_BCHW)

        (seconds,) = best_times(scale.timed(forward), rounds=scale.pick(10, 1))
        extract(row_N[:batch], "warm-up")
        measured = min(extract(row_N, f"cache-{attempt}") for attempt in range(2))
    raw, rate = batch / seconds, len(row_N) / measured
    work, flops = f"{' '.join((*backbone, *more))} at {side}", 2 * model.macs * raw
    share, rate_text = flops / matrix_rate(scale), f"{flops / 1e12:.1f} TFLOP/s"
    return [
        Row(f"extraction, {work}: JPEG to cache", "raw forward in bf16", rate / raw, 0.9,
            f"{rate:.0f} against {raw:.0f} images/s; {len(row_N)} images"),
        Row(f"raw forward in bf16, {work}", "bf16 products", share, 0.0, rate_text),
    ]  # fmt: skip


def vit_extraction(scale: Scale) -> list[Row]:
    return extraction(scale, ("backbone=vit_base",), 224, 8192, 256)


def compiled_extraction(scale: Scale) -> list[Row]:
    more = [] if scale.tiny else ["runtime.compile=true"]
    return extraction(scale, ("backbone=vit_base",), 224, 8192, 256, *more)[:1]


def dinov2_extraction(scale: Scale) -> list[Row]:
    return extraction(scale, ("backbone=dinov2_large",), 518, 1536, 64)


def finetune(scale: Scale) -> list[Row]:
    """Training steps of ViT-B at 224 in bf16: 3 x forward operations, vs. the products."""
    images, classes = scale.pick(256, 8), 200
    conf = _config(scale, ("backbone=vit_base",), 224, "task=train", f"task.batch_size={images}")
    device, side, found = torch.device(scale.device), conf.resolution.side, []
    reference = matrix_rate(scale)
    for compiled in (False, *([] if scale.tiny else [True])):
        backbone = _backbone(scale, conf)
        head = new_head(conf.head, backbone.feature_dim, classes, 0)
        model = Classifier(backbone, head).to(device)
        model.thaw(conf.task)
        wrapped = torch.compile(model) if compiled else model
        trainer = Trainer(
            wrapped,  # pyright: ignore[reportArgumentType] as in fgvc/pipeline/finetune.py
            *(conf.task, classes, model.depth_of, 1000, device, "bf16", 0),
        )
        pixels_BCHW = torch.randn(images, 3, side, side, device=device)
        label_B = torch.arange(images, device=device) % classes
        batch = LoaderBatch(pixels_BCHW, label_B, np.arange(images), np.arange(images))
        step = scale.timed(lambda trainer=trainer, batch=batch: trainer.step([batch]))
        (seconds,) = best_times(step, rounds=scale.pick(8, 1))
        flops = 6 * backbone.macs * images / seconds
        name = "finetune step, ViT-B at 224" + (", runtime.compile=true" if compiled else "")
        detail = f"{images / seconds:.0f} images/s, {flops / 1e12:.1f} TFLOP/s, batch {images}"
        found.append(Row(name, "bf16 products", flops / reference, 0.0, detail))
    return found


def parts(scale: Scale) -> list[Row]:
    """Part attention on, vs. off, with 785 and 1,370 tokens."""
    found = []
    for stride, tokens, images in ((None, 785, 64), (12, 1370, 32)):
        conf = _config(scale, ("backbone=vit_base",), 448, "part_attention=transfg")
        plain, selected = (_backbone(scale, conf, stride) for _ in range(2))
        attach_selector(selected, conf.part_attention, 0)
        side, images = conf.resolution.side, scale.pick(images, 2)
        pixels_BCHW = torch.randn(images, 3, side, side, device=scale.device)

        @torch.inference_mode()
        def forward(model: Backbone, pixels_BCHW: torch.Tensor = pixels_BCHW) -> None:
            with autocast("bf16", pixels_BCHW.device):
                model(pixels_BCHW)

        works = [scale.timed(lambda model=model: forward(model)) for model in (selected, plain)]
        seconds, reference = best_times(*works, rounds=scale.pick(8, 1))
        detail = f"{images / seconds:.0f} against {images / reference:.0f} images/s"
        work = f"part attention on, ViT-B at 448, {tokens} tokens"
        found.append(Row(work, "off", seconds / reference, 1.3, detail, upper_bound=True))
    return found


def regression(scale: Scale) -> list[Row]:
    """One value of C of iNaturalist 2017's size, to a relative gap of 1e-2: minutes."""
    rows, width, classes = scale.pick(579_184, 500), scale.pick(768, 8), scale.pick(5_089, 5)
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, classes, rows)
    centre_CD = rng.normal(size=(classes, width)).astype(np.float32)
    x_ND = centre_CD[label_N]
    for first in range(0, rows, CHUNK):
        block_ND = x_ND[first : first + CHUNK]
        block_ND += 2 * rng.standard_normal(block_ND.shape, np.float32)
    start = time.perf_counter()
    solver = logistic.Solver(x_ND, label_N, classes, 10.0, 1000, device=scale.device)
    solution = solver.solve(1e-4, 1e-2)  # a larger C converges slowly from a cold start
    minutes = (time.perf_counter() - start) / 60
    detail = f"{solution.units:.0f} units, gap {solution.gap:.0e}"
    work = f"logistic regression, {rows} x {width} x {classes}, C = 1e-4: minutes"
    return [Row(work, "–", minutes, 10.0, detail, upper_bound=True)]


def knn(scale: Scale) -> list[Row]:
    """All test images of iNaturalist 2017 against all its training images."""
    rows, queries = scale.pick(579_184, 20_000), scale.pick(95_986, 16)
    width, classes = scale.pick(768, 8), scale.pick(5_089, 5)
    label_N = torch.arange(rows) % classes
    head = KnnHead(torch.randn(rows, width), label_N, classes, 20, 0.07, overwrite=True)
    head = head.to(scale.device)
    chunks = torch.randn(queries, width, device=scale.device).split(CHUNK)

    def product() -> None:
        for chunk_BD in chunks:
            for block_MD in head.bank_ND.split(65_536):
                torch.mm(chunk_BD, block_MD.T)

    def votes() -> None:
        for chunk_BD in chunks:
            head(chunk_BD)

    with torch.inference_mode():
        works = scale.timed(votes), scale.timed(product)
        seconds, reference = best_times(*works, rounds=1)
    work, detail = f"kNN, {queries} x {rows} x {width}", f"{seconds:.1f} against {reference:.1f} s"
    return [Row(work, "the similarity product", seconds / reference, 1.3, detail, upper_bound=True)]


# seconds, 480 together; matrix products of a few seconds are in most of them
PRELOADED = ["timm", "fgvc.pipeline.features", "fgvc.learn.logistic", "benchmarks.side_by_side"]
GROUPS: dict[str, tuple[Callable[[Scale], list[Row]], float]] = {
    "products": (matrices, 20),
    "extraction, ViT-B": (vit_extraction, 60),
    "extraction, ViT-B, compiled": (compiled_extraction, 75),
    "extraction, DINOv2-L": (dinov2_extraction, 75),
    "finetune": (finetune, 95),
    "part attention": (parts, 35),
    "kNN": (knn, 50),
    "logistic regression": (regression, 70),
}


def main() -> None:
    """Print the rows; for the table, `python -m benchmarks gpu`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="toy sizes")
    options = parser.parse_args()
    for row in rows(options.device, options.tiny):
        print(f"{row.work} | {row.baseline} | {row.value:.3g} | {row.detail}", flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
