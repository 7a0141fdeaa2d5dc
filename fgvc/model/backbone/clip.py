"""CLIP from open_clip: normalised pixels -> tokens after the final norm; prompts -> text features.

B batch, C = 3 channels, H and W pixels, P = 1 class token, N patch tokens, T = P + N,
D token width, L text length, E width of the projection.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.config.schema.architecture import check_row
from fgvc.config.weight_files.layouts import detect_layout
from fgvc.config.weight_files.sidecars import OPEN_CLIP
from fgvc.model.backbone import hf_config, hf_keys, weights
from fgvc.model.backbone.base import (
    Backbone,
    TextTower,
    assemble,
    assemble_text,
    check_declared,
    patch_grid,
    similar_hint,
)
from fgvc.model.backbone.load_state import load_strict
from fgvc.store import hashing
from fgvc.types import UserError, WeightsSource
from fgvc.untrusted.escape import one_line

VISION_PREFIX = "visual."
OPENAI_KEYS = ("input_resolution", "context_length", "vocab_size")  # only in OpenAI's own files


class ClipBackbone(Backbone):
    """Features `cls` (before the projection), `patch_mean`, both, and `projected`."""

    blocks_name = "transformer.resblocks"

    def tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.trunk
        token_BTD = trunk.ln_post(trunk.transformer(trunk._embeds(pixels_BCHW)))
        return token_BTD[:, : self.prefix], token_BTD[:, self.prefix :]

    def project_image(self, prefix_BPD: Tensor, patch_BND: Tensor) -> Tensor:
        return prefix_BPD[:, 0] @ self.trunk.proj


def build(
    conf: schema.Backbone, side: int, source: WeightsSource, seed: int, stride: int | None
) -> Backbone:
    """The backbone with the weights of `source`, with positions resized to `side` as in open_clip.

    The projection is only built if `features` needs it.

    Raises:
        UserError: the weights do not fit the model, or they need another activation.
    """
    row = schema.chosen_checkpoint(conf)
    shape = patch_grid(row, side, stride)

    def create_trunk() -> Any:
        visual = _build_model(row, source, shape.nonoverlapping_side).visual
        visual.conv1.stride = (shape.stride, shape.stride)
        if conf.features != "projected":
            visual.proj = None
        return visual

    def load(visual: Any, path: Path) -> weights.SelectedState:
        convert = functools.partial(_image_tensors, visual=visual)
        selected = weights.select(path, visual.state_dict(), convert)
        _check_source_library(conf, selected.state, path, visual.transformer, "vision_config")
        if visual.proj is not None and selected.tensors and "proj" not in selected.tensors:
            raise UserError(
                f"backbone.features=projected: weights {path} hold no projection; take "
                "backbone.features=cls, or weights of a whole CLIP"
            )
        load_strict(visual, selected.tensors, path, row.model, selected.hint)
        return selected

    return assemble(ClipBackbone, conf, source, seed, create_trunk, load, shape)


def text_tower(conf: schema.Backbone, source: WeightsSource, seed: int) -> TextTower:
    """The text tower of the same weights, with open_clip's own tokenizer.

    Raises:
        UserError: the weights do not fit the model, or they need another activation.
    """
    row = schema.chosen_checkpoint(conf)

    def create_tower() -> Any:
        model = _build_model(row, source, row.native)
        del model.visual
        return model

    def convert(file_state: dict[str, Tensor]) -> dict[str, Tensor]:
        if "class_embedding" in file_state:  # a visual tower, whose blocks have the same names
            return {}
        state = _open_clip_names(file_state)
        return {key: state[key] for key in state if not key.startswith(VISION_PREFIX)}

    def load(model: Any, path: Path) -> weights.SelectedState:
        if model.attn_mask is not None:  # in no file: causal attention
            length = model.context_length
            model.attn_mask = torch.full((length, length), float("-inf")).triu_(1)
        with torch.device("meta"):
            visual = _build_model(row, source, row.native).visual
        visual.proj = None  # a separate image tower has no projection
        image_tower = visual.state_dict(), functools.partial(_image_tensors, visual=visual)
        selected = weights.select(path, model.state_dict(), convert, image_tower)
        eps = hf_config.norm_eps(conf, source)
        _check_source_library(conf, selected.state, path, model.transformer, "text_config", eps)
        if not selected.tensors:
            raise UserError(
                f"weights {path} do not fit {row.model}: the text tower is absent in the "
                "file; take weights of a whole CLIP, or a head that reads no class names"
            )
        load_strict(model, selected.tensors, path, row.model, selected.hint)
        return selected

    model, _ = assemble_text(conf, source, seed, create_tower, load)
    tokenize, identity = _tokenizer(model.context_length)
    scale = model.logit_scale.exp().item()
    return TextTower(model, model.encode_text, tokenize, scale, identity)


def _image_tensors(file_state: dict[str, Tensor], visual: Any) -> dict[str, Tensor]:
    """A file's tensors of the image tower under its names, with positions for its grid."""
    if "class_embedding" in file_state:  # a separate image tower
        file_state = {f"{VISION_PREFIX}{key}": value for key, value in file_state.items()}
    state = _resize_positions(_open_clip_names(file_state), visual)
    tensors = {
        key[len(VISION_PREFIX) :]: state[key] for key in state if key.startswith(VISION_PREFIX)
    }
    if visual.proj is None:
        tensors.pop("proj", None)
    return tensors


def _tokenizer(length: int) -> tuple[Any, dict[str, object]]:
    with _hide_libraries("timm", "transformers"):
        from open_clip import SimpleTokenizer
        from open_clip.tokenizer import default_bpe

    identity: dict[str, object] = {
        "tokenizer": "open_clip SimpleTokenizer",
        "vocabulary_sha256": hashing.sha256_file(default_bpe()),
        "length": length,
        "clean": "lower",
        "versions": {name: version(name) for name in ("open_clip_torch", "ftfy", "regex")},
    }
    return SimpleTokenizer(context_length=length, clean="lower"), identity


def _build_model(row: schema.Checkpoint, source: WeightsSource, side: int) -> Any:
    """open_clip's model with initial values, checked against the row and the config files."""
    with _hide_libraries("timm", "transformers"):
        import open_clip
    check_row("open_clip", row, "backbone.checkpoints")
    config = row.architecture or open_clip.get_model_config(row.model)
    if config is None:
        raise UserError(
            f"backbone.checkpoints: open_clip knows no model {row.model}"
            f"{similar_hint(row.model, open_clip.list_models())}; "
            "open_clip.list_models() lists those it knows, or give the row an architecture"
        )
    vision, text = config.get("vision_cfg"), config.get("text_cfg")
    if not (
        isinstance(vision, Mapping)
        and isinstance(text, Mapping)
        and isinstance(vision.get("layers"), int)
        and "timm_model_name" not in vision
        and "hf_model_name" not in text
        and not config.get("custom_text")
    ):
        near = [name for name in open_clip.list_models() if name.startswith("ViT-")]
        raise UserError(
            f"backbone.checkpoints: {row.model} is not a plain CLIP of two transformers; "
            f"such a model cannot be read here{similar_hint(row.model, near)}"
        )
    try:
        model = open_clip.CLIP(**{**config, "vision_cfg": {**vision, "image_size": side}})
    except (TypeError, ValueError, AssertionError) as error:  # an architecture from the user
        raise UserError(
            f"backbone.checkpoints: {row.model} cannot be built ({' '.join(str(error).split())}); "
            "give the row the architecture of the open_clip_config.json beside its weights"
        ) from error
    _check_visual(row, model.visual)
    _check_activation(row, model, open_clip.get_pretrained_cfg(row.model, row.tag or ""), source)
    return model


def _check_visual(row: schema.Checkpoint, visual: Any) -> None:
    check_declared(
        row,
        width=visual.ln_post.normalized_shape[0],
        patch=visual.patch_size[0],
        embedding=visual.output_dim,
        prefix=1,
        head_count=visual.transformer.resblocks[0].attn.num_heads,
        block_count=len(visual.transformer.resblocks),
    )
    if visual.pool_type != "tok" or visual.attn_pool is not None or visual.final_ln_after_pool:
        raise UserError(
            f"backbone.checkpoints: {row.model} does not pool by its class token; "
            "such a model cannot be read here"
        )


def _check_activation(
    row: schema.Checkpoint, model: nn.Module, pretrained: Mapping[str, Any], source: WeightsSource
) -> None:
    """Refuse another activation than the weights were trained with; open_clip only warns."""
    from open_clip.transformer import QuickGELU

    names = {hf_config.gelu_name(part) for part in model.modules()}
    activations = {name for name in names if name}
    if any(isinstance(part, QuickGELU) for part in model.modules()):
        activations.add("quick_gelu")
    if activations != {row.activation}:
        raise _activation_error(row, f"the model {row.model}", " and ".join(sorted(activations)))
    if pretrained:
        _check_quick_gelu(row, pretrained, f"open_clip's pretrained tag {row.tag}")
    if source.path and (published := hf_config.read_beside(source.path, OPEN_CLIP)):
        file, model_config = source.path.with_name(OPEN_CLIP), published.get("model_cfg", {})
        if not isinstance(model_config, Mapping):
            raise UserError(
                f"{file} has model_cfg={one_line(model_config, 60)}, which is not a mapping: "
                "fetch it again"
            )
        _check_quick_gelu(row, model_config, str(file))


def _check_quick_gelu(row: schema.Checkpoint, config: Mapping[str, Any], origin: str) -> None:
    is_quick_gelu = bool(config.get("quick_gelu", False))
    if is_quick_gelu != (row.activation == "quick_gelu"):
        raise _activation_error(row, origin, "quick_gelu" if is_quick_gelu else "plain GELU")


def _activation_error(row: schema.Checkpoint, origin: str, activation: str) -> UserError:
    return UserError(
        f"backbone.checkpoints: {row.model} is declared with activation={row.activation}, but "
        f"{origin} has {activation}: its features would be wrong; take the row, or the model name "
        "with or without -quickgelu, that fits the weights"
    )


def _check_source_library(
    conf: schema.Backbone,
    state: Mapping[str, Tensor],
    path: Path,
    transformer: Any,
    tower: str,
    eps: float | None = None,
) -> None:
    """Refuse weights that OpenAI or transformers saved of another model than the built one.

    Args:
        transformer: the built blocks of `tower`.
        tower: "vision_config" or "text_config", as in transformers' config.json.
        eps: of the tower's layer norms; None: not checked.
    """
    row = schema.chosen_checkpoint(conf)
    hf_config.check_layout(
        conf,
        state,
        path,
        tower,
        num_attention_heads=transformer.resblocks[0].attn.num_heads,
        hidden_act=row.activation,
        layer_norm_eps=eps,
    )
    if OPENAI_KEYS[0] in state and row.activation != "quick_gelu":
        raise _activation_error(row, f"OpenAI's own file {path}", "quick_gelu")


def _open_clip_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of both towers under open_clip's names; positions in float32, to be resized."""
    layout = detect_layout(state)
    if layout is not None and layout.library == "open_clip":
        state = hf_keys.to_open_clip(state, layout)
    return {
        key: value.float() if key.endswith("positional_embedding") else value
        for key, value in state.items()
        if key not in OPENAI_KEYS
    }


def _resize_positions(state: dict[str, Tensor], visual: Any) -> dict[str, Tensor]:
    """Resize the positions to the grid of `visual`; a table that is no square is unchanged."""
    from open_clip.model import resize_pos_embed

    resized, holder = dict(state), nn.Module()
    holder.visual = visual
    try:
        resize_pos_embed(resized, holder)
    except RuntimeError:
        return state
    return resized


@contextmanager
def _hide_libraries(*libraries: str) -> Iterator[None]:
    """Import open_clip without optional libraries, which take seconds and which no CLIP needs.

    A library whose entry in sys.modules is None cannot be imported, as if it were missing.
    """
    hidden = [name for name in libraries if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # pyright: ignore[reportCallIssue, reportArgumentType]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
