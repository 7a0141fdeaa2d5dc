"""Base classes of all families: normalised pixels -> tokens and feature; prompts -> text features.

B batch, C = 3 channels, H and W pixels, P prefix tokens (class, registers), N patch tokens,
D token width, F feature width, L text length, E width of the projection.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.config.schema import architecture
from fgvc.config.schema.backbone import row_key
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files import sidecars
from fgvc.model.backbone import hf_config, weights
from fgvc.model.backbone.load_state import SkipInitialValues, count_macs, init_from_seed
from fgvc.types import Tokens, UserError, WeightsSource

# property of a row -> the field that declares it, which may be left open
OPTIONAL_COUNTS = {"head_count": "heads", "block_count": "blocks"}
MAX_GRID = 256  # patches along a side, as the bound of resolution.grid
_macs: dict[Hashable, int] = {}  # of models built before: counting takes longer than building


@dataclass(frozen=True)
class PatchGrid:
    """How a square image is divided into square patches.

    side, patch, stride: pixels; patches overlap if stride is less than patch. grid: patches along a
    side, without padding; pixels at the right and at the bottom that fill no whole patch are left
    out.
    """

    side: int
    patch: int
    stride: int

    @property
    def grid(self) -> int:
        return (self.side - self.patch) // self.stride + 1

    @property
    def nonoverlapping_side(self) -> int:
        """Side in pixels of an image with the same number of patches, none overlapping.

        A library's model that is built for this side has the positions of this grid.
        """
        return self.grid * self.patch


class Backbone(nn.Module):
    """A frozen transformer, and the facts that a record reports about it.

    name: the library's name of the model. feature_dim: width of the pooled feature. grid: rows and
    columns of patches. patches: number of patches that leave the last block. prefix: tokens before
    the patches, the class token first. parameter_count: parameters that the feature needs. macs:
    multiply-accumulates per image. weights: their source. notes: which part of the weights file was
    read. create_trunk: makes the library's model with initial values.
    """

    blocks_name: str  # of the blocks in the trunk
    macs: int

    def __init__(
        self,
        create_trunk: Callable[[], Any],
        row: schema.Checkpoint,
        features: str,
        shape: PatchGrid,
        source: WeightsSource,
    ) -> None:
        super().__init__()
        self.create_trunk = create_trunk
        self.trunk = create_trunk()
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
        return nn.ModuleList(self.trunk.get_submodule(self.blocks_name))

    def tokens(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """prefix_BPD and patch_BND after the final norm."""
        raise NotImplementedError

    def project_image(self, prefix_BPD: Tensor, patch_BND: Tensor) -> Tensor:
        """image_BE, in the space of the text tower."""
        raise NotImplementedError

    def forward(self, pixels_BCHW: Tensor) -> Tokens:
        """pixels_BCHW: float32, normalised with the statistics of the checkpoint -> Tokens."""
        prefix_BPD, patch_BND = self.tokens(pixels_BCHW)
        assert patch_BND.shape[1] == self.patches, "a selection was attached and did not run"
        if self.features in ("map", "projected"):
            pooled_BF = self.project_image(prefix_BPD, patch_BND)
        elif self.features == "cls":
            pooled_BF = prefix_BPD[:, 0]
        else:
            pooled_BF = patch_BND.mean(1)
            if self.features == "cls_patch_mean":
                pooled_BF = torch.cat([prefix_BPD[:, 0], pooled_BF], 1)
        return Tokens(prefix_BPD, patch_BND, pooled_BF, self.grid)

    def feature(self, pixels_BCHW: Tensor) -> Tensor:
        """pooled_BF, the input of a probe."""
        return self(pixels_BCHW).pooled_BD


class TextTower(nn.Module):
    """A frozen text tower: prompts -> features in the space of `projected` image features.

    project: token ids -> text_BE, after the projection. scale: factor of a cosine before the
    softmax over classes. identity: everything besides the weights that can change a text feature.
    """

    def __init__(
        self,
        trunk: Any,
        project: Callable[[Tensor], Tensor],
        tokenize: Callable[[Sequence[str]], Tensor],
        scale: float,
        identity: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.trunk, self.project, self.tokenize = trunk, project, tokenize
        self.scale, self.identity = scale, dict(identity)
        self.requires_grad_(False).eval()

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
    backbone_class: type[Backbone],
    conf: schema.Backbone,
    source: WeightsSource,
    seed: int,
    create_trunk: Callable[[], Any],
    load: Callable[[Any, Path], weights.SelectedState],
    shape: PatchGrid,
) -> Backbone:
    """A frozen backbone with the weights of `source`, or random ones from `seed`.

    Args:
        create_trunk: makes the library's model, on the device of the context, with initial values.
        load: fills a model on the meta device from a weights file.

    Raises:
        UserError: the family has no such `features`, the weights do not fit the model, or they
            were made for pixels of another mean and standard deviation.
    """
    row = schema.chosen_checkpoint(conf)
    if source.path is not None:
        with weights.as_user_errors():
            sidecars.check_normalization(conf, source.path, "native")
    if conf.features not in (features := LIBRARIES[conf.library].features):
        raise UserError(f"backbone.features={conf.features}: {conf.name} has {', '.join(features)}")
    create = functools.partial(_create_with_eps, create_trunk, hf_config.norm_eps(conf, source))
    with torch.device("meta"):  # shapes only
        with SkipInitialValues():
            backbone = backbone_class(create, row, conf.features, shape, source).eval()
        _check_size(backbone.trunk, conf, source)
        model_key = (backbone_class, repr(row), conf.features, shape, backbone.parameter_count)
        if model_key not in _macs:
            pixels_BCHW = torch.empty(1, 3, shape.side, shape.side)
            _macs[model_key] = count_macs(backbone, pixels_BCHW)
        backbone.macs = _macs[model_key]
    if source.path is None:
        backbone.trunk = init_from_seed(create, seed)
    else:
        backbone.notes = load(backbone.trunk, source.path).notes
    return backbone.requires_grad_(False).eval()


def assemble_text(
    conf: schema.Backbone,
    source: WeightsSource,
    seed: int,
    create_tower: Callable[[], Any],
    load: Callable[[Any, Path], weights.SelectedState],
) -> tuple[Any, weights.SelectedState | None]:
    """A library's text tower, and the tensors of `source` that fill it; None if they are random.

    Args, Raises: as `assemble`.
    """
    create = functools.partial(_create_with_eps, create_tower, hf_config.norm_eps(conf, source))
    with torch.device("meta"), SkipInitialValues():
        tower = create()
    if source.path is not None:
        return tower, load(tower, source.path)
    _check_size(tower, conf, source)
    return init_from_seed(create, seed), None


def _create_with_eps(create: Callable[[], Any], eps: float | None) -> Any:
    """A model with the epsilon of its weights; None: with the library's default."""
    model = create()
    for norm in model.modules():
        if eps is not None and isinstance(norm, nn.LayerNorm):
            norm.eps = eps
    return model


def _check_size(model: nn.Module, conf: schema.Backbone, source: WeightsSource) -> None:
    """Refuse a model that a damaged or hostile row makes too large, before it is allocated."""
    count, key = sum(parameter.numel() for parameter in model.parameters()), row_key(conf)
    if schema.chosen_checkpoint(conf).architecture:
        architecture.check_size(count, f"{key}.architecture")
    if source.value_count is not None and count > source.value_count:
        raise UserError(
            f"{key}={schema.chosen_checkpoint(conf).model}: has {count:,} parameters, but the "
            f"checkpoint holds {source.value_count:,} numbers, so it is of another model. Restore "
            "it, or repeat the run"
        )


def patch_grid(row: schema.Checkpoint, side: int, stride: int | None) -> PatchGrid:
    """The patches of a square image of `side` pixels; stride None: they do not overlap.

    Raises:
        UserError: the stride leaves pixels between the patches out, or there are too many patches.
    """
    assert row.fits(side), "fgvc.config.constraints refuses this side"
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


def check_declared(row: schema.Checkpoint, **actual: int) -> None:
    """Refuse a row of backbone.checkpoints that contradicts the library's model."""
    for field, value in actual.items():
        declared, name = getattr(row, field), OPTIONAL_COUNTS.get(field, field)
        if value != declared and not (declared is None and field in OPTIONAL_COUNTS):
            raise UserError(
                f"backbone.checkpoints: {row.model} has {name}={value}, not {name}={declared}"
            )


def feature_dim(row: schema.Checkpoint, features: str) -> int:
    """Width of a feature, computed without building the backbone."""
    if features == "projected":
        assert row.embedding is not None, row.model
        return row.embedding
    return row.width * (2 if features == "cls_patch_mean" else 1)


def similar_hint(
    name: str, names: Sequence[str], cutoff: float = 0.4, before: str = "; nearest: "
) -> str:
    """Up to three similar names after the words `before`; empty if no name is similar."""
    similar = difflib.get_close_matches(name, names, n=3, cutoff=cutoff)
    return f"{before}{', '.join(similar)}" if similar else ""
