"""config.json beside weights -> a check that the weights belong to the built model.

The number of heads, the activation and the rotary base do not show in the shape of any tensor.
transformers writes them to config.json; timm writes the name of its architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fgvc.config import schema
from fgvc.config.weight_files import sidecars
from fgvc.model.backbone.hf_keys import Layout
from fgvc.model.backbone.weights import read_json
from fgvc.types import UserError, WeightsSource
from fgvc.untrusted.escape import one_line

MODEL_TYPES: Mapping[str, tuple[str, ...]] = {  # family of a layout: model_type of its config.json
    "vit": ("vit", "vit_mae", "vit_msn"),
    "dinov2": ("dinov2", "dinov2_with_registers"),
    "dinov3": ("dinov3_vit",),
    "clip": ("clip", "clip_vision_model", "clip_text_model"),
}
BACKBONES = {**{family: family for family in MODEL_TYPES}, "siglip": "siglip2"}  # family: backbone=
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
MOVE_HINT = "If it belongs to other weights, move these to a folder without it"
_SIZE_SUFFIX = re.compile(r"_\d{3}$")  # side of the images, at the end of timm's names


def norm_eps(conf: schema.Backbone, source: WeightsSource) -> float | None:
    """Epsilon of every layer norm: from the config, or from the config.json of transformers.

    None: the library's default.

    Raises:
        UserError: config.json is no JSON object, or states another epsilon than the config.
    """
    if source.path is None or (conf.norm_eps is not None and source.kind != "hub"):
        return conf.norm_eps  # the config.json of a local file was checked with the config
    try:
        eps = sidecars.norm_eps(source.path)
        stated = eps is not None and sidecars.states_eps(source.path)
    except ValueError as error:
        raise UserError(str(error)) from error
    if stated and conf.norm_eps not in (None, eps):
        raise UserError(
            f"backbone.norm_eps={conf.norm_eps}: {sidecars.CONFIG} of {source.name} has "
            f"layer_norm_eps={eps}. Leave backbone.norm_eps out."
        )
    return eps if conf.norm_eps is None else conf.norm_eps


def assumed_eps_note(conf: schema.Backbone, source: WeightsSource) -> tuple[str, ...]:
    """A note if the epsilon of the layer norms is assumed because no config.json states it."""
    assumed = conf.norm_eps is None if source.kind == "hub" else conf.norm_eps_assumed
    if source.path is None or not assumed:
        return ()
    layout = sidecars.assumed_layout(source.path)
    if layout is None:
        return ()
    return (
        f"weights {source.name}: no {sidecars.CONFIG} beside them states the epsilon of their "
        f"layer norms, which is taken as {norm_eps(conf, source)}, as in transformers' {layout}; "
        "backbone.norm_eps=... sets another",
    )


def set_norm_eps(model: nn.Module, eps: float | None) -> None:
    """Set the epsilon of every layer norm; None: keep the library's default."""
    if eps is None:
        return
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps


def check_library(conf: schema.Backbone, layout: Layout, path: Path) -> None:
    """Refuse weights of transformers that another family reads, or whose epsilon is unknown.

    The epsilon is unknown if only the tensors show that transformers saved the weights.

    Raises:
        UserError: names the layout and the backbone that reads it, or the epsilon to set.
    """
    if layout.library != conf.library:
        raise UserError(
            f"backbone={conf.name}: weights {path} are of transformers' {layout.title}, which "
            f"backbone={BACKBONES[layout.family]} reads"
        )
    usual_eps = sidecars.USUAL_EPS.get(layout.title)
    if usual_eps is not None and conf.norm_eps is None and sidecars.norm_eps(path) is None:
        raise UserError(
            f"backbone.norm_eps=null: weights {path} are of transformers' {layout.title}, in a "
            "form that does not state the epsilon of its layer norms. Set backbone.norm_eps, which "
            f"is usually {usual_eps}"
        )


def check_transformers(
    row: schema.Checkpoint, layout: Layout, path: Path, tower: str | None, **built: object
) -> None:
    """Refuse a config.json of transformers that contradicts the model built for the row.

    Args:
        tower: "vision_config" or "text_config" if the config has both; None: the config itself.
        built: values of the model by transformers' names; hidden_act by fgvc's name, None if the
            model has another kind of activation.

    Raises:
        UserError: another kind of model, or another value; one line.
    """
    file = path.with_name(sidecars.CONFIG)
    published = _read_if_there(file)
    if "model_type" not in published:
        return
    if published["model_type"] not in MODEL_TYPES[layout.family]:
        raise UserError(
            f"{file} has model_type={published['model_type']}, but the weights beside it are laid "
            f"out as {layout.title}; fgvc reads {', '.join(MODEL_TYPES[layout.family])} of this "
            f"layout. {MOVE_HINT}"
        )
    values = published.get(tower, published) if tower else published
    if not isinstance(values, Mapping):
        raise UserError(f"{file} has {tower}={one_line(values, 60)}, no mapping: fetch it again")
    for name, built_value in built.items():
        published_value = values.get(name)
        translated = (
            ACTIVATIONS.get(str(published_value), published_value)
            if name == "hidden_act"
            else published_value
        )
        if published_value is not None and built_value is not None and translated != built_value:
            raise UserError(
                f"{file} has {name}={published_value}, but {row.model} of backbone.checkpoints has "
                f"{built_value}: choose the row that fits the weights, or give the row an "
                "architecture that does"
            )


def check_timm(row: schema.Checkpoint, path: Path) -> None:
    """Refuse a config.json of timm that names another architecture than the row.

    The image size at the end of a name makes no difference, because positions are resized.

    Raises:
        UserError: names both architectures.
    """
    file = path.with_name(sidecars.CONFIG)
    published_name = _read_if_there(file).get("architecture")
    model_name = row.model.partition(".")[0]
    if published_name is None or _SIZE_SUFFIX.sub("", str(published_name)) == _SIZE_SUFFIX.sub(
        "", model_name
    ):
        return
    raise UserError(
        f"{file} has architecture={published_name}, but the row of backbone.checkpoints has "
        f"model={model_name}: choose the row of that model (backbone.size, backbone.registers, "
        f"backbone.checkpoint), or set its model to {published_name}. {MOVE_HINT}"
    )


def _read_if_there(file: Path) -> dict[str, Any]:
    return read_json(file) if file.is_file() else {}
