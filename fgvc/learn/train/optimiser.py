"""A model and its task -> the optimiser, with groups of parameters; step -> learning rate.

The rate is a pure function of the step, so that a resumed run needs no scheduler state.
Source: layer-wise decay of BEiT (arXiv:2106.08254, appendix). L: the depth of the head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from fgvc.config import schema

# modules whose parameters of two or more dimensions are matrices
MATRIX_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, nn.MultiheadAttention)
QUERY_NAMES = ("query", "queries", "probe", "latent", "latents")  # of pooling heads


def build_optimiser(
    model: nn.Module, task: schema.TrainTask, depth_of: Callable[[str], int], device: torch.device
) -> torch.optim.Optimizer:
    """AdamW with torch's betas and epsilon, or SGD with momentum; fused on CUDA."""
    groups = parameter_groups(model, depth_of, task.layer_decay, task.weight_decay)
    fused = True if device.type == "cuda" else None
    if task.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=task.learning_rate, fused=fused)
    return torch.optim.SGD(groups, lr=task.learning_rate, momentum=task.momentum, fused=fused)


def learning_rate(step: int, total: int, peak: float, warmup: int, final: float) -> float:
    """Linear warm-up, then half a cosine.

        step < warmup:  peak (step + 1) / (warmup + 1)
        after that:     peak (final + (1 - final) (1 + cos(pi t)) / 2)
                        where t = (step - warmup) / (total - warmup)

    The rate is the peak at step = warmup and final * peak at step = total, after the last step, so
    that no step has a rate of 0.

    Args:
        step: from 0; total: optimiser steps of the whole run.
        warmup: in steps; if it is at least `total`, the run ends during warm-up.
        final: fraction of the peak.
    """
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    cosine = math.cos(math.pi * (step - warmup) / (total - warmup))
    return peak * (final + (1 - final) * (1 + cosine) / 2)


def parameter_groups(
    model: nn.Module, depth_of: Callable[[str], int], layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for torch.optim in ascending depth, each with the `lr_scale` of its depth.

    The learning rate at depth d is multiplied by layer_decay ** (L - d). Only matrices that
    multiply features have weight decay, not parameters of fewer than two dimensions and those of
    `no_decay_names`. Frozen parameters are in no group.

    depth_of: parameter name -> 0 (patches and positions) .. L (head).
    """
    depth = {name: depth_of(name) for name, _ in model.named_parameters()}
    head, exempt = max(depth.values()), no_decay_names(model)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in exempt
        group = {
            "params": [],
            "lr_scale": layer_decay ** (head - depth[name]),
            "weight_decay": weight_decay if decays else 0.0,
        }
        groups.setdefault((depth[name], decays), group)["params"].append(parameter)
    assert groups, "every parameter is frozen"
    return [groups[key] for key in sorted(groups)]


def no_decay_names(model: nn.Module) -> set[str]:
    """Full names of tokens, queries and positions, which weight decay would pull towards zero.

    These are the parameters that `no_weight_decay()` of a module lists (timm, open_clip), embedding
    tables, and direct parameters of modules other than MATRIX_LAYERS that are a single row of three
    or more dimensions (a matrix of one row may be a layer of one unit) or have one of QUERY_NAMES.
    """
    names: set[str] = set()
    for path, module in model.named_modules():
        no_weight_decay: Any = getattr(module, "no_weight_decay", None)
        own_names = set() if no_weight_decay is None else set(no_weight_decay())
        for name, parameter in module.named_parameters(recurse=False):
            token = (parameter.ndim > 2 and len(parameter) == 1) or name in QUERY_NAMES
            if isinstance(module, nn.Embedding) or (
                token and not isinstance(module, MATRIX_LAYERS)
            ):
                own_names.add(name)
        names |= {f"{path}.{name}".removeprefix(".") for name in own_names}
    return names
