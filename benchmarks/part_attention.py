"""Part selection of a ViT-B: one row carried under fused attention, against every map in full.

The other side is what the method's authors wrote: eager attention, the maps of eleven layers kept,
their whole product, and of that one row. Random weights, in float32, on the CPU.

B batch, H heads, T tokens, K kept patches, C token width.
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

from benchmarks.side_by_side import Row, best_times
from fgvc.config.compose import composed, typed
from fgvc.model.backbone import Backbone, build
from fgvc.model.part_attention import attach_selector
from fgvc.types import WeightsSource

SIDE, SMALL = 448, 64
OURS, FULL, PLAIN = "fused attention, one row", "full maps and full product", "plain fused forward"
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
CUTS = ((None, 2, 1.8, 3.0), (12, 1, 2.7, 5.0))  # stride, images, least speed, least memory ratio


def rows() -> list[Row]:
    """Forward at 785 and at 1,370 tokens, and a training step at 1,370."""
    found = []
    for stride, batch, speed, memory in CUTS:
        found += _forward(stride, batch, speed, memory)
    return [*found, *_training(12, 1)]


def _forward(stride: int | None, batch: int, speed: float, memory: float) -> list[Row]:
    work = f"part attention, ViT-B, {_tokens(stride)} tokens, {batch} images"
    ours, full, plain = best_times(
        *(_way(name, stride, batch, False) for name in (OURS, FULL, PLAIN))
    )
    seconds = f"{ours:.2f} against {full:.2f} s"
    found = [Row(work, FULL, full / ours, speed, seconds)]
    if stride is None:
        detail = f"{ours:.2f} against {plain:.2f} s"
        found.append(Row(work, PLAIN, ours / plain, 1.30, detail, most=True))
    return [*found, _memory(work, stride, batch, False, memory)]


def _training(stride: int, batch: int) -> list[Row]:
    work = f"training step with part attention, {_tokens(stride)} tokens, {batch} images"
    ours, full = best_times(*(_way(name, stride, batch, True) for name in (OURS, FULL)))
    seconds = f"{ours:.2f} against {full:.2f} s"
    return [Row(work, FULL, full / ours, 1.9, seconds), _memory(work, stride, batch, True, 2.5)]


def _memory(work: str, stride: int | None, batch: int, learns: bool, target: float) -> Row:
    """Peak memory above that of the resting model, each side in a process of its own."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for name in (OURS, FULL):
        with context.Pool(1) as pool:
            peaks.append(pool.apply(_peak, (name, stride, batch, learns)))
    ours, full = peaks
    detail = f"{ours:.0f} against {full:.0f} MiB"
    return Row(f"{work}: peak memory", FULL, full / ours, target, detail)


def _peak(name: str, stride: int | None, batch: int, learns: bool) -> float:
    """MiB. Linux alone lets a process forget how much it once held."""
    # freed blocks go back at once: else what the allocator hoards, 90 MiB of ours, hides what lives
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20) == 1
    _way(name, None, 1, learns, SMALL)()  # code that is paged in at first use is neither side's
    way = _way(name, stride, batch, learns)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = psutil.Process().memory_info().rss
    way()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    most = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(most) / 1024 - before / 2**20


def _way(
    name: str, stride: int | None, batch: int, learns: bool, side: int = SIDE
) -> Callable[[], object]:
    chosen = ("backbone=vit", "backbone.pretrained=false", "part_attention=transfg")
    conf = typed(composed(chosen))
    backbone = build(conf.backbone, side, WeightsSource("random", "random"), 0, stride)
    if name == OURS:
        attach_selector(backbone, conf.part_attention, 0)
    if name == FULL:
        _as_published(backbone)
    pixels_BCHW = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))

    def infer() -> None:
        with torch.inference_mode():
            backbone(pixels_BCHW)

    def learn() -> None:
        backbone.zero_grad()
        backbone(pixels_BCHW).pooled_BD.square().sum().backward()

    backbone.requires_grad_(learns)
    return learn if learns else infer


def _as_published(backbone: Backbone) -> None:
    maps_LBHTT: list[Tensor] = []

    def select(block: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        (token_BTC,) = inputs
        product_BHTT = maps_LBHTT[0]  # with its gradient in training, as theirs
        for map_BHTT in maps_LBHTT[1:]:
            product_BHTT = map_BHTT @ product_BHTT
        index_BK = product_BHTT[:, :, 0, 1:].argmax(-1) + 1
        maps_LBHTT.clear()
        kept_BKC = token_BTC.take_along_dim(index_BK[..., None], 1)
        return torch.cat([token_BTC[:, :1], kept_BKC], 1)

    for block in backbone.trunk.blocks[:-1]:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(
            lambda module, inputs, output: maps_LBHTT.append(output)
        )
    backbone.blocks[-1].register_forward_pre_hook(select)
    backbone.patches = backbone.trunk.blocks[0].attn.num_heads


def _tokens(stride: int | None) -> int:
    return ((SIDE - 16) // (stride or 16) + 1) ** 2 + 1
