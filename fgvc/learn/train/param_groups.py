"""Named parameters -> optimiser groups: a share of the learning rate, and weight decay or none.

Source: layer-wise decay of BEiT (arXiv:2106.08254, appendix). L: the depth of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

# modules whose parameters of two and more dimensions are matrices, whatever their shape
MATRIX_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, nn.MultiheadAttention)
QUERY_NAMES = ("query", "queries", "probe", "latent", "latents")  # of pooling heads


def parameter_groups(
    model: nn.Module, depth_of: Callable[[str], int], layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for torch.optim in ascending depth, each with the `lr_scale` of its depth.

    A parameter at depth d takes layer_decay ** (L - d) of the learning rate. Weight decay is for
    matrices that multiply features: parameters of fewer than two dimensions and the `exempted` ones
    have none; frozen ones are in no group.

    Args:
        depth_of: parameter name -> 0 (patches and positions) .. L (head).
    """
    depth = {name: depth_of(name) for name, _ in model.named_parameters()}
    head, exempt = max(depth.values()), no_decay_names(model)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name not in exempt
        made = {
            "params": [],
            "lr_scale": layer_decay ** (head - depth[name]),
            "weight_decay": weight_decay if decays else 0.0,
        }
        groups.setdefault((depth[name], decays), made)["params"].append(parameter)
    assert groups, "every parameter is frozen"
    return [groups[key] for key in sorted(groups)]


def no_decay_names(model: nn.Module) -> set[str]:
    """Full names of tokens, queries and positions, which weight decay would pull towards zero.

    These are the parameters that a module's own `no_weight_decay()` names (timm, open_clip), tables
    of embeddings, and direct parameters of modules other than LAYERS that are a single row of three
    or more dimensions (a matrix of one row may be a layer of one unit) or have a name in QUERIES.
    """
    names: set[str] = set()
    for path, module in model.named_modules():
        said: Any = getattr(module, "no_weight_decay", None)
        own = set() if said is None else set(said())
        for name, parameter in module.named_parameters(recurse=False):
            token = (parameter.ndim > 2 and len(parameter) == 1) or name in QUERY_NAMES
            if isinstance(module, nn.Embedding) or (
                token and not isinstance(module, MATRIX_LAYERS)
            ):
                own.add(name)
        names |= {f"{path}.{name}".removeprefix(".") for name in own}
    return names
