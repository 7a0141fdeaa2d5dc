"""config.json beside weights -> a check that the weights belong to the built model.

The number of heads, the activation and the rotary base do not show in the shape of any tensor.
transformers writes them to config.json; timm writes the name of its architecture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fgvc.config import schema
from fgvc.config.weight_files import sidecars
from fgvc.config.weight_files.layouts import Layout, detect_layout
from fgvc.model.backbone import weights
from fgvc.types import UserError, WeightsSource
from fgvc.untrusted.escape import one_line

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
    with weights.as_user_errors():
        return sidecars.checked_eps(conf, source.path)


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


def check_layout(
    conf: schema.Backbone,
    state: Mapping[str, Tensor],
    path: Path,
    tower: str | None = None,
    **built: object,
) -> Layout | None:
    """Check a file that transformers saved: its names and the config.json beside it.

    Args:
        state: the tensors as the file names them.
        tower: "vision_config" or "text_config" if config.json has both; None: config.json itself.
        built: values of the model by transformers' names; hidden_act by fgvc's name, None if the
            model has another kind of activation.

    Returns:
        the layout; None if another library saved the file.

    Raises:
        UserError: another family reads this layout; its epsilon is unknown, because only the
            tensors show that transformers saved the weights; config.json is of another kind of
            model, or has another value.
    """
    if (layout := detect_layout(state)) is None:
        return None
    if layout.library != conf.library:
        raise UserError(
            f"backbone={conf.name}: weights {path} are of transformers' {layout.title}, which "
            f"backbone={layout.backbone} reads"
        )
    if layout.eps is not None and conf.norm_eps is None and sidecars.norm_eps(path) is None:
        raise UserError(
            f"backbone.norm_eps=null: weights {path} are of transformers' {layout.title}, in a "
            "form that does not state the epsilon of its layer norms. Set backbone.norm_eps, which "
            f"is usually {layout.eps}"
        )
    file, published = path.with_name(sidecars.CONFIG), read_beside(path, sidecars.CONFIG)
    if "model_type" not in published:
        return layout
    if published["model_type"] not in layout.model_types:
        raise UserError(
            f"{file} has model_type={published['model_type']}, but the weights beside it are laid "
            f"out as {layout.title}; fgvc reads {', '.join(layout.model_types)} of this "
            f"layout. {MOVE_HINT}"
        )
    values = published.get(tower, published) if tower else published
    if not isinstance(values, Mapping):
        raise UserError(f"{file} has {tower}={one_line(values, 60)}, not a mapping: fetch it again")
    check_values(schema.chosen_checkpoint(conf), file, values, built)
    return layout


def gelu_name(layer: object) -> str | None:
    """fgvc's name of an activation; None if it is no GELU."""
    if not isinstance(layer, nn.GELU):
        return None
    return "gelu" if layer.approximate == "none" else "gelu_tanh"


def check_values(
    row: schema.Checkpoint, file: Path, published: Mapping[str, Any], built: Mapping[str, object]
) -> None:
    """Refuse a file with another value than the model built for the row; None is not compared.

    Args:
        built: a name that ends in hidden_act has fgvc's name of the activation.
    """
    for name, built_value in built.items():
        value = published.get(name)
        is_activation = name.endswith("hidden_act")
        translated = ACTIVATIONS.get(str(value), value) if is_activation else value
        if value is not None and built_value is not None and translated != built_value:
            raise UserError(
                f"{file} has {name}={value}, but {row.model} of backbone.checkpoints has "
                f"{built_value}: choose the row that fits the weights, or give the row an "
                "architecture that does"
            )


def check_timm(row: schema.Checkpoint, path: Path) -> None:
    """Refuse a config.json of timm that names another architecture than the row.

    The image size at the end of a name makes no difference, because positions are resized.

    Raises:
        UserError: names both architectures.
    """
    published_name = read_beside(path, sidecars.CONFIG).get("architecture")
    names = (str(published_name), row.model.partition(".")[0])
    if published_name is None or len({_SIZE_SUFFIX.sub("", name) for name in names}) == 1:
        return
    raise UserError(
        f"{path.with_name(sidecars.CONFIG)} has architecture={published_name}, but the row of "
        f"backbone.checkpoints has model={names[1]}: choose the row of that model "
        "(backbone.size, backbone.registers, backbone.checkpoint), or set its model to "
        f"{published_name}. {MOVE_HINT}"
    )


def read_beside(path: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file beside weights; empty without the file."""
    file = path.with_name(name)
    with weights.as_user_errors():
        return sidecars.read_object(file) if file.is_file() else {}
