"""What all families share: normalised pixels -> tokens and one feature; prompts -> text features.

B batch, C = 3 channels, H and W pixels, P prefix tokens (class, registers), N patch tokens,
D token width, F feature width, L text length, E width of the projection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.config.schema import architecture
from fgvc.config.schema.backbone import row_key
from fgvc.config.weight_files import sidecars
from fgvc.model.backbone.load_state import count_macs, init_from_seed
from fgvc.types import Tokens, UserError, WeightsSource

# fields of a row that may leave them open: property that is compared -> field that declares it
OPTIONAL_COUNTS = {"head_count": "heads", "block_count": "blocks"}
MAX_GRID = 256  # patches along a side, as the bound of resolution.grid


@dataclass(frozen=True)
class PatchGrid:
    """How a square picture is cut into square patches. side, patch, stride: pixels; where stride is
    less than patch they overlap. grid: patches along a side, none of them padded; pixels to the
    right and at the bottom that make no whole patch are left out."""

    side: int
    patch: int
    stride: int

    @property
    def grid(self) -> int:
        return (self.side - self.patch) // self.stride + 1

    @property
    def abutting(self) -> int:
        """Pixels along a side of as many patches that do not overlap.

        Built for that size, a library's model has the positions of this grid.
        """
        return self.grid * self.patch


class Backbone(nn.Module):
    """A frozen transformer, and what a record says of it.

    name: the library's own. feature_dim: width of the pooled feature. grid: rows and columns of
    patches. patches: how many of them leave the last block. prefix: tokens before the patches, the
    class token first. parameter_count, macs: of what the feature needs; multiply-accumulates of one
    image. weights: where they came from. notes: which part of the weights file was read. make: the
    library's own trunk, with initial values.
    """

    FEATURES: ClassVar[tuple[str, ...]] = ("cls", "patch_mean", "cls_patch_mean")
    macs: int

    def __init__(
        self,
        make: Callable[[], Any],
        row: schema.Checkpoint,
        features: str,
        shape: PatchGrid,
        source: WeightsSource,
    ) -> None:
        super().__init__()
        self.make = make
        self.trunk = make()
        self.name = row.model
        self.features = features
        self.prefix = row.prefix
        self.side = shape.side
        self.grid: tuple[int, int] = (shape.grid, shape.grid)
        self.patches = shape.grid**2
        self.feature_dim = feature_dim(row, features)
        self.parameter_count = sum(parameter.numel() for parameter in self.trunk.parameters())
        self.weights = source
        self.notes: tuple[str, ...] = ()

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, first to last."""
        return self.blocks_of(self.trunk)

    @staticmethod
    def blocks_of(trunk: Any) -> nn.ModuleList:
        """The transformer blocks of such a trunk."""
        raise NotImplementedError

    def tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """prefix_BPD and patch_BND after the final norm."""
        raise NotImplementedError

    def projected(self, prefix_BPD: Tensor, patch_BND: Tensor) -> Tensor:
        """image_BE, in the space of the text tower."""
        raise NotImplementedError

    def forward(self, pixels_BCHW: Tensor) -> Tokens:
        """pixels_BCHW: float32, normalised as the chosen checkpoint wants -> Tokens."""
        prefix_BPD, patch_BND = self.tokens(pixels_BCHW)
        assert patch_BND.shape[1] == self.patches, "a selection was attached and did not run"
        return Tokens(prefix_BPD, patch_BND, self._pooled(prefix_BPD, patch_BND), self.grid)

    def feature(self, pixels_BCHW: Tensor) -> Tensor:
        """pooled_BF alone: what a probe reads."""
        return self(pixels_BCHW).pooled_BD

    def _pooled(self, prefix_BPD: Tensor, patch_BND: Tensor) -> Tensor:
        if self.features in ("map", "projected"):
            return self.projected(prefix_BPD, patch_BND)
        if self.features == "cls":
            return prefix_BPD[:, 0]
        mean_BD = patch_BND.mean(1)
        if self.features == "patch_mean":
            return mean_BD
        return torch.cat([prefix_BPD[:, 0], mean_BD], 1)


class TextTower(nn.Module):
    """A frozen text tower: prompts -> features in the space of `projected` image features.

    scale: what a cosine is multiplied by before the softmax over classes. identity: all that can
    change a text feature beside the weights.
    """

    def __init__(
        self,
        trunk: Any,
        tokenize: Callable[[Sequence[str]], Tensor],
        scale: float,
        identity: Mapping[str, object],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.tokenize = tokenize
        self.scale = scale
        self.identity = dict(identity)
        self.requires_grad_(False).eval()

    def project(self, token_BL: Tensor) -> Tensor:
        """Token ids -> text_BE, after the projection."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, prompts: Sequence[str], batch: int = 64) -> Tensor:
        """text_PE of P prompts: float32, not normalised, on the tower's device."""
        device = next(self.parameters()).device
        parts = [
            self.project(self.tokenize(prompts[start : start + batch]).to(device))
            for start in range(0, len(prompts), batch)
        ]
        return torch.cat(parts).float()


def assemble(
    kind: type[Backbone],
    conf: schema.Backbone,
    source: WeightsSource,
    seed: int,
    make: Callable[[], Any],
    load: Callable[[Any], tuple[str, ...]],
    shape: PatchGrid,
) -> Backbone:
    """A frozen backbone of `kind` with the weights of `source`, or random ones from `seed`.

    Args:
        make: the library's model, on the device of the context and with its initial values.
        load: fills such a model, made on the meta device, from the weights file; returns notes.

    Raises:
        UserError: the family has no such `features`, the weights do not fit the model, or they
            were made for pixels of another mean and standard deviation.
    """
    row = schema.chosen_checkpoint(conf)
    if source.path is not None and (
        reason := sidecars.normalization_mismatch(conf, source.path, "native")
    ):
        raise UserError(reason)
    if conf.features not in kind.FEATURES:
        raise UserError(
            f"backbone.features={conf.features}: {conf.name} has {', '.join(kind.FEATURES)}"
        )
    with torch.device("meta"):  # shapes alone: nothing is spent on initial values
        backbone = kind(make, row, conf.features, shape, source).eval()
        _check_size(backbone, conf, source)
        pixels_BCHW = torch.empty(1, 3, shape.side, shape.side)
        backbone.macs = count_macs(backbone, pixels_BCHW)
    if source.path is None:
        backbone.trunk = init_from_seed(make, seed)
    else:
        backbone.notes = load(backbone.trunk)
    return backbone.requires_grad_(False).eval()


def init_text_tower(make: Callable[[], Any], conf: schema.Backbone, seed: int) -> Any:
    """A library's text tower with random values from `seed`.

    Raises:
        ConfigError: the architecture of the row makes it larger than any published model.
    """
    if schema.chosen_checkpoint(conf).architecture:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in make().parameters())
        architecture.check_size(count, f"{row_key(conf)}.architecture")
    return init_from_seed(make, seed)


def _check_size(backbone: Backbone, conf: schema.Backbone, source: WeightsSource) -> None:
    """Refuse a model of excessive size, from a damaged or hostile row, before it is allocated.

    Raises:
        ConfigError: the architecture of the row makes it larger than any published model.
        UserError: it has more parameters than the checkpoint holds numbers.
    """
    count, key = backbone.parameter_count, row_key(conf)
    if schema.chosen_checkpoint(conf).architecture:
        architecture.check_size(count, f"{key}.architecture")
    if source.held is not None and count > source.held:
        raise UserError(
            f"{key}={backbone.name}: has {count:,} parameters, but the checkpoint holds "
            f"{source.held:,} numbers: it is not of this model. Restore it, or repeat the run"
        )


def patch_grid(row: schema.Checkpoint, side: int, stride: int | None) -> PatchGrid:
    """The patches of a square of `side` pixels, `stride` apart; None: they abut.

    Raises:
        UserError: pixels between the patches would be seen by none.
    """
    assert row.fits(side), "config.fit refuses it before any work"
    if stride is not None and not 1 <= stride <= row.patch:
        raise UserError(
            f"part_attention.stride={stride}: must be at least 1 and at most {row.patch}, the "
            f"patch of {row.model}"
        )
    shape = PatchGrid(side, row.patch, row.patch if stride is None else stride)
    if shape.grid > MAX_GRID:
        raise UserError(
            f"resolution.side={side}: {shape.grid} x {shape.grid} patches of {row.patch} pixels, "
            f"{shape.stride} apart, more than {MAX_GRID} x {MAX_GRID}. Give a smaller side or a "
            "larger part_attention.stride"
        )
    return shape


def check_declared(row: schema.Checkpoint, **found: int) -> None:
    """Refuse a row of backbone.checkpoints that belies the library's model."""
    for field, value in found.items():
        declared, name = getattr(row, field), OPTIONAL_COUNTS.get(field, field)
        if value != declared and not (declared is None and field in OPTIONAL_COUNTS):
            raise UserError(
                f"backbone.checkpoints: {row.model} has {name}={value}, not {name}={declared}"
            )


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context a forward runs in: half precision where `precision` is bf16 or fp16."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype, enabled=precision != "fp32")


def feature_dim(row: schema.Checkpoint, features: str) -> int:
    """Width of a feature, known without building the backbone."""
    if features == "projected":
        assert row.embedding is not None, row.model
        return row.embedding
    return row.width * (2 if features == "cls_patch_mean" else 1)
