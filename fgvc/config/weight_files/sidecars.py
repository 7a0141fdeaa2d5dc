"""Files that libraries write beside weights -> the preprocessing and norm epsilon of the weights.

open_clip_config.json (open_clip), config.json (timm, transformers), preprocessor_config.json and
processor_config.json (transformers). Only small JSON files and the header of the weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.errors import ConfigError
from fgvc.config.schema.backbone import Backbone, chosen_checkpoint, row_key
from fgvc.config.schema.normalization import NORMALIZATIONS, Rgb
from fgvc.config.weight_files.checkpoint_metadata import read_facts
from fgvc.config.weight_files.layouts import detect_layout
from fgvc.config.weight_files.tensor_names import tensor_names
from fgvc.untrusted import MIB, NotRegularError, TooLargeError, parse_json

OPEN_CLIP, CONFIG = "open_clip_config.json", "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
MOST = 64 * MIB  # of a JSON file; the index of a large model takes a few MiB
TOLERANCE = 5e-4  # statistics are published with 3 to 8 digits
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
MODES = {"shortest": "crop", "center": "crop"}  # as backbone.native names them
OWN_EPS = {"vit_msn": 1e-6}  # model_type -> default epsilon, where it differs from the layout


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing stated in a file. interpolation, mode: None if not stated."""

    file: Path
    mean: Rgb
    std: Rgb
    interpolation: str | None = None
    mode: str | None = None

    @property
    def key(self) -> str | None:
        """The key of the normalization registry with these statistics; None if there is none."""
        stated = (*self.mean, *self.std)
        for key, registered in NORMALIZATIONS.items():
            pairs = zip(stated, (*registered.mean, *registered.std), strict=True)
            if all(abs(value - other) <= TOLERANCE for value, other in pairs):
                return key
        return None


def check_normalization(backbone: Backbone, weights: Path, preprocess: str = "shared") -> None:
    """Check that the statistics beside the weights, if any, are those of the config.

    Args:
        preprocess: with "native", the row has its own statistics.

    Raises:
        ConfigError: the weights were made for another mean and standard deviation.
    """
    stated = read_preprocessing(weights)
    if stated is None or stated.key == backbone.normalization:
        return
    target = "backbone.normalization"
    if chosen_checkpoint(backbone).normalization is not None or preprocess == "native":
        target = f"{row_key(backbone)}.normalization"
    which, remedy = f"which is {stated.key}", f"Set {target}={stated.key}"
    if stated.key is None:
        which, registered = "which no key has", ", ".join(NORMALIZATIONS)
        remedy = (
            f"The registry has {registered}; if the file is wrong, correct it or move the weights "
            "to a folder without it"
        )
    raise ConfigError(
        f"backbone.normalization={backbone.normalization}: {stated.file} has mean="
        f"{list(stated.mean)} std={list(stated.std)}, {which}. {remedy}."
    )


def check_geometry(backbone: Backbone, weights: Path, interpolation: str, mode: str) -> None:
    """Check that the file beside the weights resizes as preprocess=native does.

    Args:
        interpolation, mode: of the family's native preprocessing.

    Raises:
        ConfigError: the file states another interpolation or resize mode.
    """
    if (stated := read_preprocessing(weights)) is None:
        return
    for name, stated_value, value in (
        ("interpolation", stated.interpolation, interpolation),
        ("resize mode", stated.mode, mode),
    ):
        if stated_value not in (None, value):
            raise ConfigError(
                f"preprocess=native: {stated.file} has {name} {stated_value}, "
                f"backbone.native={backbone.native} has {value}. Set preprocess=shared."
            )


def read_preprocessing(weights: Path) -> Preprocessing | None:
    """The preprocessing stated in a file beside the weights; None if there is none.

    Folders of the hub hold files of several libraries; those of the library that saved the weights
    come first.

    Raises:
        ConfigError: a file is no JSON object, or a value is not three numbers; one line.
    """
    names: tuple[str, ...] = (*PROCESSORS, CONFIG, OPEN_CLIP)
    if weights.name.startswith("open_clip"):
        names = (OPEN_CLIP, CONFIG, *PROCESSORS)
    for file in filter(Path.is_file, map(weights.with_name, names)):
        try:
            stated = _stated_preprocessing(file, read_object(file))
        except (TypeError, AttributeError, ZeroDivisionError) as error:
            raise ConfigError(
                f"{file} holds values of another type ({error}): correct it"
            ) from error
        if stated is not None:
            return stated
    return None


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: not a JSON object; one line.
    """
    try:
        value = parse_json(untrusted.read_bytes(file, MOST))
    except (ValueError, NotRegularError, TooLargeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file} cannot be read as JSON ({reason}): fetch it again") from error
    if not isinstance(value, dict):
        raise ConfigError(
            f"{file} holds a {type(value).__name__}, not a JSON object: fetch it again"
        )
    return value


def norm_eps(weights: Path) -> float | None:
    """Epsilon of the layer norms of weights that transformers saved for a ViT, DINOv2, DINOv3 or
    CLIP: from config.json, otherwise the default of the layout. A checkpoint of fgvc records it.
    None for weights of other libraries.

    Raises:
        ConfigError: config.json is no JSON object, or its epsilon is no number from 0 to 1.
    """
    if (recorded := _recorded_eps(weights)) is not None:
        return recorded
    layout = detect_layout(tensor_names(weights))
    if layout is None or layout.eps is None:
        return None
    config = _vision_config(weights)
    usual = OWN_EPS.get(str(config.get("model_type")), layout.eps)
    stated = config.get("layer_norm_eps", usual)
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated <= 1:
        file = weights.with_name(CONFIG)
        raise ConfigError(
            f"{file} has layer_norm_eps={stated}, not a number from 0 to 1: correct it"
        )
    return float(stated)


def checked_eps(backbone: Backbone, weights: Path) -> float | None:
    """`backbone.norm_eps`, otherwise `norm_eps` of the weights.

    Raises:
        ConfigError: config.json states another epsilon than the config, or as `norm_eps`.
    """
    eps = norm_eps(weights)
    if backbone.norm_eps is None:
        return eps
    if eps not in (None, backbone.norm_eps) and "layer_norm_eps" in _vision_config(weights):
        raise ConfigError(
            f"backbone.norm_eps={backbone.norm_eps}: {weights.with_name(CONFIG)} has "
            f"layer_norm_eps={eps}. Leave backbone.norm_eps out."
        )
    return backbone.norm_eps


def assumed_layout(weights: Path) -> str | None:
    """The layout whose default epsilon is used; None if a file states the model or the epsilon.

    Raises:
        ConfigError: config.json is no JSON object.
    """
    config = _vision_config(weights)
    if _recorded_eps(weights) is not None or config.keys() & {"layer_norm_eps", "model_type"}:
        return None
    layout = detect_layout(tensor_names(weights))
    return None if layout is None or layout.eps is None else layout.title


def _recorded_eps(weights: Path) -> float | None:
    """The epsilon in the metadata of a checkpoint of fgvc."""
    if (facts := read_facts(weights)) is None:
        return None
    eps = facts["backbone"].get("norm_eps", facts["config"]["backbone"].get("norm_eps"))
    return None if eps is None else float(eps)


def _vision_config(weights: Path) -> Mapping[str, Any]:
    """The vision config in config.json of transformers; empty without the file."""
    file = weights.with_name(CONFIG)
    config = read_object(file) if file.is_file() else {}
    tower = config.get("vision_config")
    return tower if isinstance(tower, Mapping) else config


def _stated_preprocessing(file: Path, config: Mapping[str, Any]) -> Preprocessing | None:
    if file.name in PROCESSORS:
        return _transformers_preprocessing(file, config.get("image_processor") or config)
    if file.name == OPEN_CLIP:
        stated, mode = config.get("preprocess_cfg") or {}, "resize_mode"
    else:
        stated, mode = config.get("pretrained_cfg") or {}, "crop_mode"
        if not stated and "architecture" in config:  # timm's older files are flat
            stated = config
    if "mean" not in stated or "std" not in stated:
        return None
    return Preprocessing(
        file,
        _parse_rgb(file, "mean", stated["mean"]),
        _parse_rgb(file, "std", stated["std"]),
        stated.get("interpolation"),
        MODES.get(str(stated.get(mode)), stated.get(mode)),
    )


def _transformers_preprocessing(file: Path, config: Mapping[str, Any]) -> Preprocessing | None:
    """An image processor: (x * rescale_factor - image_mean) / image_std."""
    if not {"image_mean", "do_normalize"} & config.keys():
        return None
    scale = 255 * config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 255.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if config.get("do_normalize", True):
        if config.get("image_mean") is None or config.get("image_std") is None:
            return None
        mean = _parse_rgb(file, "image_mean", config["image_mean"])
        std = _parse_rgb(file, "image_std", config["image_std"])
    size, mode = config.get("size"), None
    if config.get("do_resize", True) and size is not None:
        is_short = isinstance(size, Mapping) and "shortest_edge" in size
        is_cropped = isinstance(size, int) and config.get("do_center_crop", False)
        mode = "crop" if is_short or is_cropped else "squash"
    return Preprocessing(
        file,
        (mean[0] / scale, mean[1] / scale, mean[2] / scale),
        (std[0] / scale, std[1] / scale, std[2] / scale),
        FILTERS.get(config.get("resample", -1)),
        mode,
    )


def _parse_rgb(file: Path, name: str, values: Any) -> Rgb:
    if isinstance(values, int | float):
        values = [values] * 3
    if not isinstance(values, list) or not all(isinstance(x, int | float) for x in values):
        raise ConfigError(f"{file} has {name}={values}, not three numbers: correct it")
    if len(values) != 3:
        raise ConfigError(f"{file} has {name}={values}: must have 3 channels, RGB")
    return (float(values[0]), float(values[1]), float(values[2]))
