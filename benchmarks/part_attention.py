"""Part selection of a ViT-B: one row propagated under fused attention, vs. full attention maps.

The baseline is the implementation of the method's authors: eager attention, maps of eleven layers,
and one row of their full product. Random weights, float32, CPU.

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
from fgvc.model.backbone import build
from fgvc.model.backbone.base import Backbone
from fgvc.model.part_attention import attach_selector
from fgvc.types import WeightsSource

SIDE, SMALL = 448, 64
ROUNDS = 2  # each takes up to half a minute
SELECTED, FULL, PLAIN = (
    "fused attention, one row",
    "full maps and full product",
    "plain fused forward",
)
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
CASES = ((None, 2, 1.8, 3.0), (12, 1, 2.7, 5.0))  # stride, images, least speed, least memory ratio


def rows() -> list[Row]:
    """A forward pass with 785 and with 1,370 tokens, and a training step with 1,370."""
    rows_found = []
    for stride, batch, speed, memory in CASES:
        rows_found += _forward(stride, batch, speed, memory)
    return [*rows_found, *_training(12, 1)]


def _forward(stride: int | None, batch: int, speed: float, memory: float) -> list[Row]:
    work = f"part attention, ViT-B, {_tokens(stride)} tokens, {batch} images"
    names = (SELECTED, FULL, *([PLAIN] if stride is None else []))
    selected, full, *plain = best_times(
        *(_make_forward(name, stride, batch, False) for name in names), rounds=ROUNDS
    )
    ours, other = f"{selected:.2f} s", f"{full:.2f} s"
    rows_found = [Row(work, FULL, full / selected, speed, "", ours=ours, limit=other)]
    for limit in plain:
        rows_found.append(
            Row(
                work,
                PLAIN,
                selected / limit,
                1.30,
                "",
                upper_bound=True,
                ours=ours,
                limit=f"{limit:.2f} s",
                other=other,
            )
        )
    return [*rows_found, _memory(work, stride, batch, False, memory)]


def _training(stride: int, batch: int) -> list[Row]:
    work = f"training step with part attention, {_tokens(stride)} tokens, {batch} images"
    seconds_selected, seconds_full = best_times(
        *(_make_forward(name, stride, batch, True) for name in (SELECTED, FULL)), rounds=1
    )
    ours, full = f"{seconds_selected:.2f} s", f"{seconds_full:.2f} s"
    return [
        Row(work, FULL, seconds_full / seconds_selected, 1.9, "", ours=ours, limit=full),
        _memory(work, stride, batch, True, 2.5),
    ]


def _memory(work: str, stride: int | None, batch: int, training: bool, target: float) -> Row:
    """Peak memory above the memory of the loaded model, each implementation in its own process."""
    context = multiprocessing.get_context("spawn")
    peaks = []
    for name in (SELECTED, FULL):
        with context.Pool(1) as pool:
            peaks.append(pool.apply(_peak, (name, stride, batch, training)))
    selected, full = peaks
    ours, limit = f"{selected:.0f} MiB", f"{full:.0f} MiB"
    return Row(f"{work}: peak memory", FULL, full / selected, target, "", ours=ours, limit=limit)


def _peak(name: str, stride: int | None, batch: int, training: bool) -> float:
    """Peak memory in MiB. Only Linux can reset the peak of a process."""
    # return freed blocks at once; otherwise, 90 MiB in the allocator hide the memory in use
    assert ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20) == 1
    _make_forward(name, None, 1, training, SMALL)()  # pages in the code before the measurement
    forward = _make_forward(name, stride, batch, training)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = psutil.Process().memory_info().rss
    forward()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return int(peak) / 1024 - before / 2**20


def _make_forward(
    name: str, stride: int | None, batch: int, training: bool, side: int = SIDE
) -> Callable[[], object]:
    overrides = ("backbone=vit", "backbone.pretrained=false", "part_attention=transfg")
    conf = typed(composed(overrides))
    backbone = build(conf.backbone, side, WeightsSource("random", "random"), 0, stride)
    if name == SELECTED:
        attach_selector(backbone, conf.part_attention, 0)
    if name == FULL:
        _use_full_maps(backbone)
    pixels_BCHW = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))

    def infer() -> None:
        with torch.inference_mode():
            backbone(pixels_BCHW)

    def learn() -> None:
        backbone.zero_grad()
        backbone(pixels_BCHW).pooled_BD.square().sum().backward()

    backbone.requires_grad_(training)
    return learn if training else infer


def _use_full_maps(backbone: Backbone) -> None:
    maps_LBHTT: list[Tensor] = []

    def select(block: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        (token_BTC,) = inputs
        product_BHTT = maps_LBHTT[0]  # with its gradient in training, as in the original
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
