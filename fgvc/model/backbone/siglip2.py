"""SigLIP 2 of transformers: normalised pixels -> patch tokens; prompts -> text features.

There is no class token: an attention head pools the patches, and what it pools is the embedding.

B batch, C = 3 channels, H and W pixels, P = 0 prefix tokens, N patch tokens, D token width,
L text length, E = D width of the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.config.schema.architecture import check_row
from fgvc.model.backbone import hf_config, hf_keys, weights
from fgvc.model.backbone.base import (
    Backbone,
    TextTower,
    assemble,
    check_declared,
    init_text_tower,
    patch_grid,
)
from fgvc.model.backbone.load_state import load_strict
from fgvc.model.backbone.tokenizer import PromptTokenizer
from fgvc.types import UserError, WeightsSource

TOWERS = ("vision", "text")
OTHER_LIBRARY_KEYS = {"visual.trunk.attn_pool.latent": "open_clip", "attn_pool.latent": "timm"}
SHARED_KEYS = ("logit_scale", "logit_bias")  # tensors of the file that are in neither tower
POSITION_KEY = "embeddings.position_embedding.weight"
ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "quick_gelu": "quick_gelu"}
COMPARED_FIELDS = (  # of both towers, where they have it: what shapes alone would not betray too
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "layer_norm_eps",
    "patch_size",
    "vision_use_head",
    "vocab_size",
    "max_position_embeddings",
    "projection_size",
)


class Siglip2Backbone(Backbone):
    """Features `map` (the pooling head's output), `projected` (the same) and `patch_mean`."""

    FEATURES: ClassVar[tuple[str, ...]] = ("map", "patch_mean", "projected")

    @staticmethod
    def blocks_of(trunk: Any) -> nn.ModuleList:
        return trunk.encoder.layers

    def tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.trunk
        encoded = trunk.encoder(inputs_embeds=trunk.embeddings(pixels_BCHW))
        patch_BND = trunk.post_layernorm(encoded.last_hidden_state)
        return patch_BND[:, :0], patch_BND

    def projected(self, prefix_BPD: Tensor, patch_BND: Tensor) -> Tensor:
        return self.trunk.head(patch_BND)


class Siglip2Text(TextTower):
    """The text half: every position is looked at, padding too, as in training."""

    def project(self, token_BL: Tensor) -> Tensor:
        return self.trunk(input_ids=token_BL).pooler_output


def build(
    conf: schema.Backbone, side: int, source: WeightsSource, seed: int, stride: int | None
) -> Backbone:
    """The backbone with the weights of `source`, positions resized to `side` as transformers does.

    The pooling head is part of it only where `features` needs it.

    Raises:
        UserError: the weights, or the config.json beside them, do not fit the row.
    """
    row = schema.chosen_checkpoint(conf)
    shape = patch_grid(row, side, stride)

    def make() -> Any:
        from transformers.models.siglip.modeling_siglip import SiglipVisionModel

        config = _config(row, source).vision_config
        config.image_size = shape.abutting
        config.vision_use_head = conf.features != "patch_mean"
        trunk = SiglipVisionModel._from_config(config, attn_implementation="sdpa")
        trunk.embeddings.patch_embedding.stride = (shape.stride, shape.stride)
        hf_config.set_norm_eps(trunk, conf.norm_eps)
        return trunk

    def load(trunk: Any) -> tuple[str, ...]:
        assert source.path is not None

        def convert(given: dict[str, Tensor]) -> dict[str, Tensor]:
            held = _tower_tensors(given, "vision")
            if not trunk.use_head:
                held = {key: held[key] for key in held if not key.startswith("head.")}
            if POSITION_KEY in held:
                held[POSITION_KEY] = _resize_positions(held[POSITION_KEY], shape.grid)
            return held

        _set_position_ids(trunk)
        chosen = weights.select(source.path, trunk.state_dict(), convert)
        _check_library(conf, chosen.state, source.path)
        load_strict(trunk, chosen.tensors, source.path, row.model, chosen.hint)
        return chosen.notes

    return assemble(Siglip2Backbone, conf, source, seed, make, load, shape)


def text_tower(conf: schema.Backbone, source: WeightsSource, seed: int) -> TextTower:
    """The text tower of the same weights, with the tokenizer that lies beside them.

    Raises:
        UserError: there is no tokenizer, or the weights or their config.json do not fit the row.
    """
    row = schema.chosen_checkpoint(conf)
    file = weights.tokenizer(conf, source)

    def make() -> Any:
        from transformers.models.siglip.modeling_siglip import SiglipTextModel

        config = _config(row, source).text_config
        trunk = SiglipTextModel._from_config(config, attn_implementation="sdpa")
        hf_config.set_norm_eps(trunk, conf.norm_eps)
        return trunk

    scale = 1.0
    if source.path is None:
        trunk = init_text_tower(make, conf, seed)
    else:
        with torch.device("meta"):
            trunk = make()
            image_tower = _vision_state(row, source), lambda given: _tower_tensors(given, "vision")
        _set_position_ids(trunk)
        chosen = weights.select(
            source.path,
            trunk.state_dict(),
            lambda given: _tower_tensors(given, "text"),
            image_tower,
        )
        _check_library(conf, chosen.state, source.path)
        load_strict(trunk, chosen.tensors, source.path, row.model, chosen.hint)
        scale = _logit_scale(chosen.state, source)
    config = trunk.config
    tokenizer = PromptTokenizer(file, config.max_position_embeddings, config.vocab_size)
    return Siglip2Text(trunk, tokenizer, scale, tokenizer.identity)


def _vision_state(row: schema.Checkpoint, source: WeightsSource) -> dict[str, Tensor]:
    """The image tower's own state at its published size, without values."""
    from transformers.models.siglip.modeling_siglip import SiglipVisionModel

    trunk = SiglipVisionModel._from_config(_config(row, source).vision_config)
    return trunk.state_dict()


def _config(row: schema.Checkpoint, source: WeightsSource) -> Any:
    """The row's architecture as transformers' config, held against the row and config.json."""
    if not row.architecture:
        raise UserError(
            f"backbone.checkpoints: {row.model} has no architecture; give the row what its "
            "config.json holds under vision_config and text_config"
        )
    check_row("transformers", row, "backbone.checkpoints")
    config = _siglip_config(row.architecture)
    vision, text = config.vision_config, config.text_config
    vision.patch_size = row.patch
    check_declared(
        row,
        width=vision.hidden_size,
        embedding=text.projection_size,
        prefix=0,
        head_count=vision.num_attention_heads,
        block_count=vision.num_hidden_layers,
    )
    for tower in (vision, text):
        if ACTIVATIONS.get(tower.hidden_act) != row.activation:
            raise UserError(
                f"backbone.checkpoints: {row.model} is declared with activation={row.activation}, "
                f"but its architecture has hidden_act={tower.hidden_act}; mend one of the two"
            )
    beside = source.path and source.path.with_name("config.json")
    if beside and beside.is_file():
        _check_published(row, config, weights.read_json(beside), beside)
    return config


def _siglip_config(halves: Mapping[str, Any]) -> Any:
    from transformers import SiglipConfig

    vision, text = (dict(halves.get(f"{tower}_config") or {}) for tower in TOWERS)
    return SiglipConfig(vision_config=vision, text_config=text)


def _check_published(
    row: schema.Checkpoint, config: Any, published: Mapping[str, Any], where: Path
) -> None:
    """Refuse a config.json of another model: heads, for one, show in no tensor's shape."""
    if published.get("model_type") != "siglip":
        raise UserError(
            f"{where} has model_type={published.get('model_type')}, not siglip: {row.model} is "
            "read from a fixed-resolution checkpoint of both towers, google/siglip2-*-patch*-*"
        )
    try:
        other = _siglip_config(_compared_values(published))
    except Exception as error:  # the library checks types in its own ways
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
        raise UserError(
            f"{where}: not the config.json of a SigLIP ({reason}): fetch it again"
        ) from error
    for half in ("vision_config", "text_config"):
        for field in COMPARED_FIELDS:
            ours = getattr(getattr(config, half), field, None)
            theirs = getattr(getattr(other, half), field, None)
            if ours != theirs:
                raise UserError(
                    f"{where} has {half}.{field}={theirs}, but {row.model} of "
                    f"backbone.checkpoints has {ours}: choose the row that fits the weights"
                )


def _compared_values(published: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values of both towers that are compared; other values of the file are not read."""
    halves = {name: published.get(name) or {} for name in (f"{tower}_config" for tower in TOWERS)}
    return {
        name: {field: half[field] for field in COMPARED_FIELDS if field in half}
        for name, half in halves.items()
    }


def _check_library(conf: schema.Backbone, state: Mapping[str, Tensor], path: Path) -> None:
    """Refuse another library's SigLIP, and transformers' weights of another family."""
    kind = hf_keys.layout(state)
    if kind is not None:
        hf_config.check_library(conf, kind, path)
    saved_by = next((name for key, name in OTHER_LIBRARY_KEYS.items() if key in state), None)
    if saved_by is not None:
        repo = schema.chosen_checkpoint(conf).repo or "google/siglip2-*"
        raise UserError(
            f"backbone={conf.name}: weights {path} are a SigLIP as {saved_by} saves it, with the "
            f"activation of {saved_by}'s own model; take transformers' files of the same model, as "
            f"in {repo}"
        )


def _tower_tensors(state: Mapping[str, Tensor], tower: str) -> dict[str, Tensor]:
    """The tensors of one tower under its own names; those of neither stay, to be refused."""
    other = next(f"{name}_model." for name in TOWERS if name != tower)
    return {
        key.removeprefix(f"{tower}_model."): value
        for key, value in state.items()
        if not key.startswith(other) and key not in SHARED_KEYS
    }


def _logit_scale(state: Mapping[str, Tensor], source: WeightsSource) -> float:
    if SHARED_KEYS[0] not in state:
        raise UserError(
            f"weights {source.path} hold no {SHARED_KEYS[0]}: they are half a model; give the whole "
            "one, with both towers"
        )
    return state[SHARED_KEYS[0]].float().exp().item()


def _resize_positions(position_ND: Tensor, grid: int) -> Tensor:
    """The position table of a square grid, as transformers interpolates it at every forward."""
    side = math.isqrt(len(position_ND))
    if side == grid or side * side != len(position_ND):
        return position_ND
    old_1DHW = position_ND.float().T.reshape(1, -1, side, side)
    new_1DHW = nn.functional.interpolate(old_1DHW, size=(grid, grid), mode="bicubic")
    return new_1DHW.flatten(2)[0].T


def _set_position_ids(trunk: Any) -> None:
    """Position ids, which no file holds."""
    embeddings = trunk.embeddings
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings)[None]
