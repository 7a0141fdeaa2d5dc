"""Files that libraries write beside weights -> the pixels and layers the weights were made for.

open_clip_config.json (open_clip), config.json (timm, transformers), preprocessor_config.json and
processor_config.json (transformers). Only small JSON files and the head of the weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.schema.backbone import Backbone, chosen_checkpoint, row_key
from fgvc.config.schema.normalization import NORMALIZATIONS, Rgb
from fgvc.config.weight_files.shards import safetensors_header
from fgvc.config.weight_files.tensor_names import tensor_names
from fgvc.untrusted import MIB, NotRegularError, TooLargeError, parse_json

OPEN_CLIP, CONFIG = "open_clip_config.json", "config.json"
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
MOST = 64 * MIB  # of a JSON file; the index of a large model has a few
TOLERANCE = 5e-4  # statistics are published with 3 to 8 digits
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
MODES = {"shortest": "crop", "center": "crop"}  # in the words of backbone.native
# transformers' layouts that other libraries' models read: a key of the layout, its name, and the
# epsilon of its layer norms where no config.json says otherwise
LAYOUTS = (
    ("encoder.layer.0.layer_scale1.lambda1", "Dinov2Model", 1e-6),
    ("encoder.layer.0.layernorm_before.weight", "ViTModel", 1e-12),
    ("layer.0.attention.q_proj.weight", "DINOv3ViTModel", 1e-5),
    ("vision_model.pre_layrnorm.weight", "CLIPModel", 1e-5),
    ("pre_layrnorm.weight", "CLIPVisionModel", 1e-5),
)
USUAL_EPS = {title: eps for _, title, eps in LAYOUTS}
OWN_EPS = {"vit_msn": 1e-6}  # model_type in one of the layouts: its epsilon, where it differs


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing that a file states. interpolation, mode: null where it does not say."""

    file: Path
    mean: Rgb
    std: Rgb
    interpolation: str | None = None
    mode: str | None = None

    @property
    def key(self) -> str | None:
        """The key of the normalization registry with these statistics, if there is one."""
        for key, known in NORMALIZATIONS.items():
            if _close(self.mean, known.mean) and _close(self.std, known.std):
                return key
        return None


def normalization_mismatch(
    backbone: Backbone, weights: Path, preprocess: str = "shared"
) -> str | None:
    """Why these weights cannot be read with the config's normalization; None where they can.

    Args:
        preprocess: with "native", interpolation and resize mode are compared too.
    """
    try:
        stated = read_preprocessing(weights)
    except ValueError as error:
        return str(error)
    if stated is None:
        return None
    row, key = chosen_checkpoint(backbone), stated.key
    if key == backbone.normalization:
        return None
    if key is not None:
        place = "backbone.normalization"
        if row.normalization is not None or preprocess == "native":
            place = f"{row_key(backbone)}.normalization"
        remedy = f"Set {place}={key}"
    else:
        remedy = (
            f"The registry has {', '.join(NORMALIZATIONS)}; if the file is wrong, correct it or "
            "move the weights to a folder without it"
        )
    return (
        f"backbone.normalization={backbone.normalization}: {stated.file} has mean="
        f"{list(stated.mean)} std={list(stated.std)}"
        f"{f', which is {key}' if key else ', which no key has'}. {remedy}."
    )


def geometry_mismatch(
    backbone: Backbone, weights: Path, interpolation: str, mode: str
) -> str | None:
    """Why preprocess=native would resize otherwise than the file beside the weights says.

    Args:
        interpolation, mode: of the family's native preprocessing.
    """
    try:
        stated = read_preprocessing(weights)
    except ValueError as error:
        return str(error)
    if stated is None:
        return None
    pairs = (
        ("interpolation", stated.interpolation, interpolation),
        ("resize mode", stated.mode, mode),
    )
    for name, theirs, ours in pairs:
        if theirs not in (None, ours):
            return (
                f"preprocess=native: {stated.file} has {name} {theirs}, backbone.native="
                f"{backbone.native} has {ours}. Set preprocess=shared."
            )
    return None


def read_preprocessing(weights: Path) -> Preprocessing | None:
    """The preprocessing that a file beside the weights states; None where none does.

    The library that saved the weights comes first: folders of the hub hold files of several.

    Raises:
        ValueError: a file is no JSON object, or its values are no three numbers; one line.
    """
    names: tuple[str, ...] = (*PROCESSORS, CONFIG, OPEN_CLIP)
    if weights.name.startswith("open_clip"):
        names = (OPEN_CLIP, CONFIG, *PROCESSORS)
    for name in names:
        file = weights.with_name(name)
        if not file.is_file():
            continue
        try:
            stated = _stated_preprocessing(file, read_object(file))
        except (TypeError, AttributeError, ZeroDivisionError) as error:
            raise ValueError(
                f"{file} holds values of another kind ({error}): correct it"
            ) from error
        if stated is not None:
            return stated
    return None


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ValueError: it holds none; one line.
    """
    try:
        value = parse_json(untrusted.read_bytes(file, MOST))
    except (ValueError, NotRegularError, TooLargeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{file} cannot be read as JSON ({reason}): fetch it again") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{file} holds a {type(value).__name__}, not a JSON object: fetch it again"
        )
    return value


def norm_eps(weights: Path) -> float | None:
    """Epsilon of the layer norms of weights that transformers saved for a ViT, DINOv2, DINOv3 or
    CLIP: of config.json, otherwise the layout's own. A checkpoint of fgvc records it. None for
    weights of other libraries.

    Raises:
        ValueError: config.json is no JSON object, or its epsilon is no number from 0 to 1.
    """
    if (recorded := _recorded_eps(weights)) is not None:
        return recorded
    if (layout := _layout(weights)) is None:
        return None
    config = _vision_config(weights)
    usual = OWN_EPS.get(str(config.get("model_type")), layout[1])
    stated = config.get("layer_norm_eps", usual)
    if isinstance(stated, bool) or not isinstance(stated, int | float) or not 0 <= stated <= 1:
        file = weights.with_name(CONFIG)
        raise ValueError(f"{file} has layer_norm_eps={stated}, no number from 0 to 1: correct it")
    return float(stated)


def assumed_layout(weights: Path) -> str | None:
    """The layout whose usual epsilon is taken, as no file states the model that was saved; None
    where one does.

    Raises:
        ValueError: config.json is no JSON object.
    """
    config = _vision_config(weights)
    if _recorded_eps(weights) is not None or config.keys() & {"layer_norm_eps", "model_type"}:
        return None
    layout = _layout(weights)
    return None if layout is None else layout[0]


def _layout(weights: Path) -> tuple[str, float] | None:
    """transformers' layout of the tensors, and the usual epsilon of it."""
    names = tensor_names(weights)
    for marker, title, eps in LAYOUTS:
        if any(name == marker or name.endswith(f".{marker}") for name in names):
            return title, eps
    return None


def _recorded_eps(weights: Path) -> float | None:
    """What a checkpoint of fgvc says of the backbone in it."""
    try:
        header = safetensors_header(weights)
        facts = parse_json(parse_json(header or b"{}")["__metadata__"]["fgvc"])
        eps = facts["backbone"].get("norm_eps", facts["config"]["backbone"].get("norm_eps"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return float(eps) if isinstance(eps, int | float) and 0 <= eps <= 1 else None


def states_eps(weights: Path) -> bool:
    """Whether a config.json of transformers beside the weights states the epsilon."""
    return "layer_norm_eps" in _vision_config(weights)


def _vision_config(weights: Path) -> Mapping[str, Any]:
    """What transformers' config.json says of the image tower; empty without the file."""
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
    return Preprocessing(
        file,
        (mean[0] / scale, mean[1] / scale, mean[2] / scale),
        (std[0] / scale, std[1] / scale, std[2] / scale),
        FILTERS.get(config.get("resample", -1)),
        _transformers_mode(config),
    )


def _transformers_mode(config: Mapping[str, Any]) -> str | None:
    size = config.get("size")
    if not config.get("do_resize", True) or size is None:
        return None
    short = isinstance(size, Mapping) and "shortest_edge" in size
    whole = isinstance(size, int) and config.get("do_center_crop", False)
    return "crop" if short or whole else "squash"


def _parse_rgb(file: Path, name: str, values: Any) -> Rgb:
    if isinstance(values, int | float):
        values = [values] * 3
    if not isinstance(values, list) or not all(isinstance(x, int | float) for x in values):
        raise ValueError(f"{file} has {name}={values}, not three numbers: correct it")
    if len(values) != 3:
        raise ValueError(f"{file} has {name}={values}: pictures here have 3 channels, RGB")
    return (float(values[0]), float(values[1]), float(values[2]))


def _close(values: Rgb, others: Rgb) -> bool:
    return all(abs(x - y) <= TOLERANCE for x, y in zip(values, others, strict=True))
