"""backbone= axis: a family, its pretrained checkpoints, and the chosen checkpoint.

The checkpoints of a family are in fgvc/model/backbone/checkpoints (fgvc.config.checkpoint_rows).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from fgvc.config.errors import ConfigError, InvalidCombinationError
from fgvc.config.schema.fields import card, later, one_of, place
from fgvc.config.schema.library import FEATURES, LIBRARIES, POSITION_RESIZES


@dataclass
class Checkpoint:
    """One pretrained model of a family: a row of backbone.checkpoints."""

    size: str = MISSING
    model: str = MISSING  # name in the library
    repo: str = MISSING
    revision: str = MISSING
    patch: int = MISSING
    registers: bool = MISSING
    prefix: int = MISSING
    width: int = MISSING
    native: int = card()  # side of the training images, in pixels
    license: str = card()
    heads: int | None = card(None)  # attention heads; null: unknown, or stated by architecture
    blocks: int | None = card(None)  # transformer blocks; null: as for heads
    # fields that only some libraries need; a row without them keeps its hash
    tag: str | None = later(None)  # name of the pretrained weights in open_clip
    activation: str = field(
        default="gelu", metadata={"legacy": "gelu", "choices": ("gelu", "gelu_tanh", "quick_gelu")}
    )
    embedding: int | None = later(None)  # width after the projection; null: no text tower
    normalization: str | None = later(None)  # null: the family's
    architecture: dict[str, Any] = field(default_factory=dict, metadata={"legacy": {}})

    def fits(self, side: int) -> bool:
        """Whether `side` is a multiple of the patch, or the published side; pixels."""
        return side % self.patch == 0 or side == self.native

    @property
    def head_count(self) -> int | None:
        """Attention heads per block; `architecture` overrides `heads`. None: unknown."""
        if (tower := self.architecture.get("vision_cfg")) is not None:
            return tower.get("width", 768) // tower.get("head_width", 64)  # open_clip's defaults
        tower = self.architecture.get("vision_config", self.architecture)
        return tower.get("num_attention_heads", tower.get("num_heads", self.heads))

    @property
    def block_count(self) -> int | None:
        """Transformer blocks; `architecture` overrides `blocks`. None: unknown."""
        if (tower := self.architecture.get("vision_cfg")) is not None:
            return tower.get("layers", 12)
        tower = self.architecture.get("vision_config", self.architecture)
        return tower.get("num_hidden_layers", tower.get("depth", self.blocks))


@dataclass
class Backbone:
    """backbone= axis. size, patch and registers choose one row of checkpoints."""

    name: str = MISSING
    library: str = one_of(*LIBRARIES)
    checkpoint: str | None = later(None)  # name of a row; null: by size, patch, registers
    size: str = MISSING
    patch: int | None = MISSING  # null: the first row of that size
    registers: bool = MISSING
    revision: str | None = MISSING  # null: the row's own
    features: str = one_of(*FEATURES)
    position_resize: str = one_of(*POSITION_RESIZES)
    normalization: str = one_of("imagenet", "half", "clip")
    native: str = one_of("vit", "dinov2", "clip", "siglip2")  # family of its native preprocessing
    pretrained: bool = MISSING
    weights: str | None = place()
    weights_sha256: str | None = MISSING
    tokenizer_sha256: str | None = later(None)  # filled in if text is read
    # epsilon of the layer norms; null: the model's own. Filled in for weights saved by transformers
    norm_eps: float | None = field(default=None, metadata={"legacy": None, "bounds": (0.0, 1.0)})
    # filled in: norm_eps is the default of the layout, because no file beside the weights states it
    norm_eps_assumed: bool = card(False)
    contamination: str = card()
    # rows by name; as Hydra composes it, only the user's own rows and changes, as plain mappings
    checkpoints: dict[str, Any] = MISSING


def row_key(backbone: Backbone) -> str:
    row = chosen_checkpoint(backbone)
    name = next(name for name, other in backbone.checkpoints.items() if other is row)
    return f"backbone.checkpoints.{name}"


def chosen_checkpoint(backbone: Backbone) -> Checkpoint:
    """The row that `checkpoint` names, otherwise the row chosen by size, patch and registers.

    Raises:
        ConfigError: the family has no such row; lists its rows.
    """
    if backbone.checkpoint is not None:
        if backbone.checkpoint not in backbone.checkpoints:
            names = ", ".join(backbone.checkpoints)
            raise ConfigError(
                f"backbone.checkpoint={backbone.checkpoint}: {backbone.name} has {names}"
            )
        return backbone.checkpoints[backbone.checkpoint]
    rows = backbone.checkpoints.values()
    sizes = list(dict.fromkeys(row.size for row in rows))
    of_size = [row for row in rows if row.size == backbone.size]
    if not of_size:
        raise InvalidCombinationError(
            f"backbone.size={backbone.size}: {backbone.name} has {', '.join(sizes)}"
        )
    matches = [
        row
        for row in of_size
        if row.registers == backbone.registers and backbone.patch in (None, row.patch)
    ]
    if not matches:
        choices = "; ".join(
            f"patch={row.patch} registers={str(row.registers).lower()}" for row in of_size
        )
        raise InvalidCombinationError(
            f"backbone.patch={backbone.patch} "
            f"backbone.registers={str(backbone.registers).lower()}: "
            f"{backbone.name} {backbone.size} has {choices}"
        )
    return matches[0]
