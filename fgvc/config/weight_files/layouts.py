"""Names of tensors -> the layout of Hugging Face transformers that they show, without torch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Layout:
    """A layout of transformers.

    marker: the end of a name that only this layout has. backbone: the option of backbone= that
    reads it. title: its name in messages. library: what fgvc builds the model with. model_types:
    the model_type that its config.json may state. eps: default epsilon of its layer norms; None
    where no other library loads it. prefix: before every name of the model.
    """

    marker: str
    backbone: str
    title: str
    library: str
    model_types: tuple[str, ...]
    eps: float | None = None
    prefix: str = ""


_VIT = ("vit", "vit_mae", "vit_msn")
_DINOV2 = ("dinov2", "dinov2_with_registers")
_CLIP = ("clip", "clip_vision_model", "clip_text_model")
LAYOUTS = (  # the first match wins
    Layout("vision_model.head.probe", "siglip2", "SiglipModel", "transformers", ("siglip",)),
    Layout("encoder.layer.0.layer_scale1.lambda1", "dinov2", "Dinov2Model", "timm", _DINOV2, 1e-6),
    Layout("encoder.layer.0.layernorm_before.weight", "vit", "ViTModel", "timm", _VIT, 1e-12),
    Layout(
        "layer.0.attention.q_proj.weight", "dinov3", "DINOv3ViTModel", "timm", ("dinov3_vit",), 1e-5
    ),
    Layout("vision_model.pre_layrnorm.weight", "clip", "CLIPModel", "open_clip", _CLIP, 1e-5),
    Layout("pre_layrnorm.weight", "clip", "CLIPVisionModel", "open_clip", _CLIP, 1e-5),
    Layout("text_model.final_layer_norm.bias", "clip", "CLIPTextModel", "open_clip", _CLIP),
)


def detect_layout(names: Collection[str]) -> Layout | None:
    """The layout of transformers that the names show; None for the names of other libraries."""
    for layout in LAYOUTS:
        for name in names:
            if name == layout.marker or name.endswith(f".{layout.marker}"):
                prefix = name[: -len(layout.marker)].removesuffix("model.")
                return replace(layout, prefix=prefix)
    return None
