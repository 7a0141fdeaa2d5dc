"""preprocess= and resolution=: a decoded image -> the square that enters the backbone.

uint8 CHW of any size -> uint8 3 x R x R; `normalize` -> float32, on the device of the batch.
B batch, C 3 channels, H height, W width, R side of the square.
"""

from __future__ import annotations

import functools
import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fgvc.config import schema
from fgvc.config.weight_files import sidecars
from fgvc.data import decode, normalize
from fgvc.data.image_input import ImageInput, pixels_of
from fgvc.data.size_limits import MAX_PIXELS_LIMIT, thin_image_message
from fgvc.types import UserError

POLICIES = ("shared", "native", "transfg")


@dataclass(frozen=True)
class Geometry:
    """mode "crop": short side to `resize` pixels; "squash": both sides. Then a centre crop."""

    mode: str
    resize: int
    interpolation: str
    antialias: bool


@dataclass(frozen=True)
class Preprocess:
    """Callable evaluation transform; equal values, equal pixels.

    policy: shared, short side to round(R * 256 / 224), bicubic; native, the preprocessing of the
    family, scaled to R; transfg, both sides to round(R * 600 / 448), bilinear. All are antialiased
    except native=siglip2. The longer side is rounded down; the crop begins at round((height - R) /
    2), round((width - R) / 2), as in torchvision; round is half to even. side: R. normalization,
    native: keys of the registries in fgvc.data.normalize.

    Raises:
        UserError: an unknown policy or key.
    """

    policy: str
    side: int
    normalization: str
    native: str

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise UserError(f"preprocess={self.policy}: one of {', '.join(POLICIES)}")
        normalize.native(self.native)
        normalize.normalization(self.normalization)

    @functools.cached_property
    def geometry(self) -> Geometry:
        """Sizes and filter of this policy, side and family."""
        if self.policy == "shared":
            return Geometry("crop", round(self.side * 256 / 224), "bicubic", True)
        if self.policy == "transfg":
            return Geometry("squash", round(self.side * 600 / 448), "bilinear", True)
        native = normalize.native(self.native)
        resize = round(self.side * native.resize / native.size)
        return Geometry(native.mode, resize, native.interpolation, native.antialias)

    def __call__(self, image: ImageInput) -> Tensor:
        """Resize and crop.

        Args:
            image: uint8 CHW of any height and width, a PIL image, an array or a path. The form does
                not change the pixels (see `pixels_of`).

        Returns:
            uint8 3 x R x R, contiguous.

        Raises:
            UserError: not an image, or an image so thin that its square would show almost nothing
                of it or that the resized image would exceed the pixel limit.
        """
        return self.resize_and_crop(pixels_of(image))

    def resize_and_crop(self, image_CHW: Tensor) -> Tensor:
        """Resize and crop pixels of any dtype to C x R x R; see `__call__`."""
        resized_CHW = self.resize(image_CHW)
        height, width = resized_CHW.shape[-2:]
        top, left = round((height - self.side) / 2), round((width - self.side) / 2)
        return resized_CHW[..., top : top + self.side, left : left + self.side].contiguous()

    def resize(self, image_CHW: Tensor) -> Tensor:
        size = self.resized_size(*image_CHW.shape[-2:])
        return resize(image_CHW, size, self.geometry.interpolation, self.geometry.antialias)

    def resized_size(self, height: int, width: int) -> list[int]:
        """Height and width after the resize; UserError if the image is too thin."""
        if (message := thin_image_message(width, height)) is not None:
            raise UserError(message)
        resize = self.geometry.resize
        if self.geometry.mode == "squash":
            return [resize, resize]
        short, long = sorted((height, width))
        if resize * (long := resize * long // short) > MAX_PIXELS_LIMIT:
            raise UserError(
                f"an image of {width} x {height} pixels is too thin: with its short side at "
                f"{resize} it has more than the {MAX_PIXELS_LIMIT} allowed"
            )
        return [resize, long] if height <= width else [long, resize]

    def normalize(self, pixels_BCHW: Tensor) -> Tensor:
        """uint8 -> float32 (x / 255 - mean) / std, on the tensor's device."""
        statistics = normalize.normalization(self.normalization)
        mean_C11 = torch.tensor(statistics.mean, device=pixels_BCHW.device).view(-1, 1, 1)
        std_C11 = torch.tensor(statistics.std, device=pixels_BCHW.device).view(-1, 1, 1)
        # in place: three copies of a batch would cost as much as decoding it
        return pixels_BCHW.float().div_(255).sub_(mean_C11).div_(std_C11)

    @property
    def identity(self) -> dict[str, Any]:
        """All settings that can change a pixel, as plain data; part of the feature cache's key."""
        statistics = normalize.normalization(self.normalization)
        return {
            "policy": self.policy,
            "side": self.side,
            **vars(self.geometry),
            "crop": "center",
            "mean": list(statistics.mean),
            "std": list(statistics.std),
            "decode": decode.RULES,
            "draft": False,
        }


def resize(image_CHW: Tensor, size: list[int], interpolation: str, antialias: bool) -> Tensor:
    """Resize an image on the CPU, bit for bit as `torchvision.transforms.v2.functional.resize`.

    Importing torchvision would load torch's compiler, which takes longer than the rest of a probe
    with cached features.

    Args:
        image_CHW: uint8 or float; may be a batch. size: height and width. interpolation: bicubic
            or bilinear.
    """
    if list(image_CHW.shape[-2:]) == size:
        return image_CHW
    options = {"mode": interpolation, "align_corners": False, "antialias": antialias}
    image_BCHW = image_CHW if image_CHW.ndim == 4 else image_CHW[None]
    # without vector instructions, torch's bilinear uint8 kernel is slower than float32
    vectorised = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or (
        platform.machine() in ("aarch64", "arm64")
    )
    if image_CHW.is_floating_point() or interpolation == "bicubic" or vectorised:
        resized_BCHW = interpolate(image_BCHW, size, **options)
    else:
        resized_BCHW = interpolate(image_BCHW.float(), size, **options).round_().to(torch.uint8)
    return resized_BCHW.reshape(*image_CHW.shape[:-2], *size)


def crop_to_box(image_CHW: Tensor, box: Sequence[float]) -> Tensor:
    """Crop an image to a box that is clamped to the image; at least one pixel remains.

    Args:
        box: x, y, width, height in pixels; pixels that the box touches are kept.
    """
    x, y, width, height = box
    top, bottom = clamped_span(y, height, image_CHW.shape[-2])
    left, right = clamped_span(x, width, image_CHW.shape[-1])
    return image_CHW[:, top:bottom, left:right]


def check_box(image_CHW: Tensor, box: Sequence[float]) -> None:
    """Raise UserError if a box is completely outside its image."""
    x, y, width, height = box
    right, bottom = image_CHW.shape[-1], image_CHW.shape[-2]
    if x >= right or y >= bottom or x + width <= 0 or y + height <= 0:
        raise UserError(
            f"dataset.box_crop=true: the box {', '.join(f'{value:g}' for value in box)} (x, y, "
            f"width, height) is outside the image of {right} x {bottom} pixels; correct it, or "
            "set dataset.box_crop=false"
        )


def clamped_span(start: float, length: float, limit: int) -> tuple[int, int]:
    first = min(max(math.floor(start), 0), limit - 1)
    return first, max(min(math.ceil(start + length), limit), first + 1)


def evaluation_transform(conf: schema.Config) -> Preprocess:
    """The evaluation transform of a config.

    preprocess=native uses sizes and filter of the family, and mean and std of the checkpoint.

    preprocess = evaluation_transform(conf)
    input_BCHW = preprocess.normalize(preprocess(Image.open("bird.jpg"))[None])

    Raises:
        UserError: preprocess=native with a normalization other than the checkpoint's, or with
            local weights that state another filter or resize mode.
    """
    backbone = conf.backbone
    row = schema.chosen_checkpoint(backbone)
    expected = row.normalization or normalize.native(backbone.native).normalization
    if conf.preprocess == "native" and backbone.normalization != expected:
        raise UserError(
            f"backbone.normalization={backbone.normalization}: preprocess=native of {row.model} "
            f"means {expected}. Leave backbone.normalization out, or set preprocess=shared."
        )
    check_geometry(conf, None if backbone.weights is None else Path(backbone.weights))
    side, normalization = conf.resolution.side, backbone.normalization
    return Preprocess(conf.preprocess, side, normalization, backbone.native)


def check_geometry(conf: schema.Config, weights: Path | None) -> None:
    """Raise UserError if preprocess=native and a file beside the weights states another filter or
    resize mode."""
    if conf.preprocess != "native" or weights is None or not weights.is_file():
        return
    native = normalize.native(conf.backbone.native)
    try:
        sidecars.check_geometry(conf.backbone, weights, native.interpolation, native.mode)
    except ValueError as error:
        raise UserError(str(error)) from error
