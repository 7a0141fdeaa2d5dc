"""SigLIP 2 from transformers: normalised pixels -> patch tokens; prompts -> text features.

There is no class token. An attention head pools the patches, and its output is the embedding.

B batch, C = 3 channels, H and W pixels, P = 0 prefix tokens, N patch tokens, D token width,
L text length, E = D width of the embedding.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.config.schema.architecture import check_row
from fgvc.config.weight_files.sidecars import CONFIG
from fgvc.model.backbone import hf_config, weights
from fgvc.model.backbone.base import (
    Backbone,
    TextTower,
    assemble,
    assemble_text,
    check_declared,
    patch_grid,
)
from fgvc.model.backbone.load_state import load_strict
from fgvc.model.backbone.tokenizer import PromptTokenizer
from fgvc.types import UserError, WeightsSource

TOWERS = ("vision", "text")
OTHER_LIBRARY_KEYS = {"visual.trunk.attn_pool.latent": "open_clip", "attn_pool.latent": "timm"}
LOGIT_SCALE, LOGIT_BIAS = "logit_scale", "logit_bias"  # tensors in neither tower
POSITION_KEY = "embeddings.position_embedding.weight"
COMPARED_FIELDS = (  # of both towers; some of them do not show in the shape of any tensor
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

    blocks_name = "encoder.layers"

    def tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        trunk = self.trunk
        encoded = trunk.encoder(inputs_embeds=trunk.embeddings(pixels_BCHW))
        patch_BND = trunk.post_layernorm(encoded.last_hidden_state)
        return patch_BND[:, :0], patch_BND

    def project_image(self, prefix_BPD: Tensor, patch_BND: Tensor) -> Tensor:
        return self.trunk.head(patch_BND)


def build(
    conf: schema.Backbone, side: int, source: WeightsSource, seed: int, stride: int | None
) -> Backbone:
    """The backbone with the weights of `source`, positions resized to `side` as in transformers.

    The pooling head is only built if `features` needs it.

    Raises:
        UserError: the weights, or the config.json beside them, do not fit the row.
    """
    row = schema.chosen_checkpoint(conf)
    shape = patch_grid(row, side, stride)

    def create_trunk() -> Any:
        from transformers.models.siglip.modeling_siglip import SiglipVisionModel

        config = _config(row, source).vision_config
        config.image_size = shape.nonoverlapping_side
        config.vision_use_head = conf.features != "patch_mean"
        trunk = SiglipVisionModel._from_config(config, attn_implementation="sdpa")
        trunk.embeddings.patch_embedding.stride = (shape.stride, shape.stride)
        return trunk

    def load(trunk: Any, path: Path) -> weights.SelectedState:
        def convert(file_state: dict[str, Tensor]) -> dict[str, Tensor]:
            tensors = _tower_tensors(file_state, "vision")
            if not trunk.use_head:
                tensors = {key: tensors[key] for key in tensors if not key.startswith("head.")}
            if POSITION_KEY in tensors:
                tensors[POSITION_KEY] = _resize_positions(tensors[POSITION_KEY], shape.grid)
            return tensors

        return _load(trunk, conf, path, convert)

    return assemble(Siglip2Backbone, conf, source, seed, create_trunk, load, shape)


def text_tower(conf: schema.Backbone, source: WeightsSource, seed: int) -> TextTower:
    """The text tower of the same weights, with the tokenizer beside them.

    Raises:
        UserError: there is no tokenizer, or the weights or their config.json do not fit the row.
    """
    row = schema.chosen_checkpoint(conf)
    file = weights.tokenizer(conf, source)

    def create_tower() -> Any:
        from transformers.models.siglip.modeling_siglip import SiglipTextModel

        config = _config(row, source).text_config
        return SiglipTextModel._from_config(config, attn_implementation="sdpa")

    def load(trunk: Any, path: Path) -> weights.SelectedState:
        from transformers.models.siglip.modeling_siglip import SiglipVisionModel

        with torch.device("meta"):  # at its published size
            image_trunk = SiglipVisionModel._from_config(_config(row, source).vision_config)
        image_tower = image_trunk.state_dict(), lambda state: _tower_tensors(state, "vision")
        return _load(trunk, conf, path, lambda state: _tower_tensors(state, "text"), image_tower)

    trunk, selected = assemble_text(conf, source, seed, create_tower, load)
    scale = 1.0
    if selected is not None:
        if LOGIT_SCALE not in selected.state:
            raise UserError(
                f"weights {source.path} hold no {LOGIT_SCALE}: they are half a model; give the "
                "whole model, with both towers"
            )
        scale = selected.state[LOGIT_SCALE].float().exp().item()
    config = trunk.config
    tokenizer = PromptTokenizer(file, config.max_position_embeddings, config.vocab_size)

    def project(token_BL: Tensor) -> Tensor:
        # padding is attended to as well, as in training
        return trunk(input_ids=token_BL).pooler_output

    return TextTower(trunk, project, tokenizer, scale, tokenizer.identity)


def _load(
    trunk: Any,
    conf: schema.Backbone,
    path: Path,
    convert: weights.Convert,
    image_tower: weights.Tower | None = None,
) -> weights.SelectedState:
    """Fill a tower on the meta device from a weights file."""
    embeddings = trunk.embeddings  # no file holds the position ids
    embeddings.position_ids = torch.arange(embeddings.position_embedding.num_embeddings)[None]
    selected = weights.select(path, trunk.state_dict(), convert, image_tower)
    hf_config.check_layout(conf, selected.state, path)
    row = schema.chosen_checkpoint(conf)
    libraries = (name for key, name in OTHER_LIBRARY_KEYS.items() if key in selected.state)
    if (saved_by := next(libraries, None)) is not None:
        raise UserError(
            f"backbone={conf.name}: weights {path} are a SigLIP as {saved_by} saves it, with the "
            f"activation of {saved_by}'s own model; take transformers' files of the same model, as "
            f"in {row.repo or 'google/siglip2-*'}"
        )
    load_strict(trunk, selected.tensors, path, row.model, selected.hint)
    return selected


def _config(row: schema.Checkpoint, source: WeightsSource) -> Any:
    """The row's architecture as transformers' config, checked against the row and config.json."""
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
        if hf_config.ACTIVATIONS.get(tower.hidden_act) != row.activation:
            raise UserError(
                f"backbone.checkpoints: {row.model} is declared with activation={row.activation}, "
                f"but its architecture has hidden_act={tower.hidden_act}: correct one of the two"
            )
    if source.path and (published := hf_config.read_beside(source.path, CONFIG)):
        _check_published(row, config, published, source.path.with_name(CONFIG))
    return config


def _siglip_config(tower_configs: Mapping[str, Any]) -> Any:
    from transformers import SiglipConfig

    vision, text = (dict(tower_configs.get(f"{tower}_config") or {}) for tower in TOWERS)
    return SiglipConfig(vision_config=vision, text_config=text)


def _check_published(
    row: schema.Checkpoint, config: Any, published: Mapping[str, Any], file: Path
) -> None:
    """Refuse a config.json of another model; the number of heads, e.g., shows in no tensor."""
    if published.get("model_type") != "siglip":
        raise UserError(
            f"{file} has model_type={published.get('model_type')}, not siglip: {row.model} is "
            "read from a fixed-resolution checkpoint of both towers, google/siglip2-*-patch*-*"
        )
    towers = {name: published.get(name) or {} for name in ("vision_config", "text_config")}
    try:
        published_config = _siglip_config(
            {
                name: {field: tower[field] for field in COMPARED_FIELDS if field in tower}
                for name, tower in towers.items()
            }
        )
    except Exception as error:  # the library checks types in its own ways
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
        raise UserError(
            f"{file}: not the config.json of a SigLIP ({reason}): fetch it again"
        ) from error
    for name in towers:
        values, built = (
            {f"{name}.{field}": getattr(tower, field, None) for field in COMPARED_FIELDS}
            for tower in (getattr(published_config, name), getattr(config, name))
        )
        hf_config.check_values(row, file, values, {**built, f"{name}.hidden_act": row.activation})


def _tower_tensors(state: Mapping[str, Tensor], tower: str) -> dict[str, Tensor]:
    """The tensors of a tower under its own names; those of neither tower stay, to be refused."""
    other = next(f"{name}_model." for name in TOWERS if name != tower)
    return {
        key.removeprefix(f"{tower}_model."): value
        for key, value in state.items()
        if not key.startswith(other) and key not in (LOGIT_SCALE, LOGIT_BIAS)
    }


def _resize_positions(position_ND: Tensor, grid: int) -> Tensor:
    """Resize the table of a square grid, as transformers does in every forward pass."""
    side = math.isqrt(len(position_ND))
    if side == grid or side * side != len(position_ND):
        return position_ND
    old_1DHW = position_ND.float().T.reshape(1, -1, side, side)
    new_1DHW = nn.functional.interpolate(old_1DHW, size=(grid, grid), mode="bicubic")
    return new_1DHW.flatten(2)[0].T
