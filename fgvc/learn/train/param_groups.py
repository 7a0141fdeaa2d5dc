"""Named parameters -> optimiser groups with a scale of the learning rate and a weight decay.

Source: layer-wise decay of BEiT (arXiv:2106.08254, appendix). L: the depth of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

# modules whose parameters of two or more dimensions are matrices
MATRIX_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, nn.MultiheadAttention)
QUERY_NAMES = ("query", "queries", "probe", "latent", "latents")  # of pooling heads


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
