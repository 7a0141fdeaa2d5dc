"""Vision transformers of timm: normalised pixels -> tokens after the final norm.

B batch, C = 3 channels, H and W pixels, P prefix tokens (class, registers), N patch tokens,
T = P + N, D token width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fgvc.config import schema
from fgvc.model.backbone import weights
from fgvc.types import Tokens, UserError, WeightsSource


class Backbone(nn.Module):
    """A frozen transformer, and what a record says of it.

    name: timm's own. feature_dim: width of the pooled feature. grid: rows and columns of patches.
    prefix: tokens before the patches, the class token first. parameter_count, macs: of the trunk
    without a classifier; multiply-accumulates of one image. weights: where they came from.
    """

    def __init__(
        self, trunk: Any, row: schema.Checkpoint, features: str, source: WeightsSource, macs: int
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.name = row.model
        self.features = features
        self.prefix = row.prefix
        self.grid: tuple[int, int] = trunk.patch_embed.grid_size
        self.feature_dim = row.width * (2 if features == "cls_patch_mean" else 1)
        self.parameter_count = sum(parameter.numel() for parameter in trunk.parameters())
        self.macs = macs
        self.weights = source
        self.requires_grad_(False).eval()

    def forward(self, pixels_BCHW: Tensor) -> Tokens:
        """pixels_BCHW: float32, normalised as `backbone.normalization` says -> Tokens."""
        token_BTD = self.trunk.forward_features(pixels_BCHW)
        prefix_BPD, patch_BND = token_BTD[:, : self.prefix], token_BTD[:, self.prefix :]
        return Tokens(prefix_BPD, patch_BND, self._pooled(prefix_BPD, patch_BND), self.grid)

    def feature(self, pixels_BCHW: Tensor) -> Tensor:
        """pooled_BD alone: what a probe reads."""
        return self(pixels_BCHW).pooled_BD

    def _pooled(self, prefix_BPD: Tensor, patch_BND: Tensor) -> Tensor:
        cls_BD = prefix_BPD[:, 0]
        if self.features == "cls":
            return cls_BD
        mean_BD = patch_BND.mean(1)
        return mean_BD if self.features == "patch_mean" else torch.cat([cls_BD, mean_BD], 1)


def build(conf: schema.Backbone, side: int, source: WeightsSource, seed: int) -> Backbone:
    """The backbone with the weights of `source`, its position grid resized to `side` as timm does.

    Random weights follow from `seed`; the process's own random state is not touched.

    Raises:
        UserError: the weights do not fit the model.
    """
    row = schema.chosen_checkpoint(conf)
    assert side % row.patch == 0, "config.fit refuses it before any work"
    with torch.device("meta"):  # shapes alone: nothing is spent on initial values
        trunk = _trunk(row, side)
        macs = _macs(trunk, side)
    if source.path is None:
        trunk = _random(row, side, seed)
    else:
        trunk.to_empty(device="cpu")
        _load(trunk, row, source)
    return Backbone(trunk, row, conf.features, source, macs)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context a forward runs in: bfloat16 where `precision` is bf16, else as it is."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def _trunk(row: schema.Checkpoint, side: int) -> Any:
    import timm
    from timm.layers.config import set_fused_attn

    set_fused_attn(True)  # an environment variable can have turned it off
    trunk: Any = timm.create_model(row.model, pretrained=False, num_classes=0, img_size=side)
    found = (trunk.num_prefix_tokens, trunk.num_features, trunk.patch_embed.patch_size[0])
    declared = (row.prefix, row.width, row.patch)
    if found != declared:
        raise UserError(
            f"backbone.checkpoints: {row.model} has (prefix, width, patch) {found}, not {declared}"
        )
    return trunk


def _random(row: schema.Checkpoint, side: int, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _trunk(row, side)


@torch.no_grad()
def _macs(trunk: Any, side: int) -> int:
    """Multiply-accumulates of one image, counted on shapes alone: two FLOPs each."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        trunk.forward_features(torch.empty(1, 3, side, side))
    return counter.get_total_flops() // 2


def _load(trunk: Any, row: schema.Checkpoint, source: WeightsSource) -> None:
    """Fill every tensor of the trunk from the file; the file's classifier is left aside."""
    assert source.path is not None
    given = weights.read(source.path)
    try:
        state = _resized(given, trunk)
    except (RuntimeError, ValueError):  # a position grid that is not the model's own
        state = given
    wanted = {key: tuple(value.shape) for key, value in trunk.state_dict().items()}
    held = {key: tuple(value.shape) for key, value in state.items() if not key.startswith("head.")}
    differing = _first_difference(held, wanted)
    if differing is not None:
        raise UserError(f"weights {source.path} do not fit {row.model}: {differing}")
    trunk.load_state_dict({key: state[key] for key in wanted})


def _resized(given: dict[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """The state as timm loads it: other layouts converted, positions resampled to the new grid.

    Kernels of another patch stay as they are, and so do not fit: timm would resample them too.
    """
    from timm.models.vision_transformer import checkpoint_filter_fn

    state = checkpoint_filter_fn(dict(given), trunk)
    kernel = given.get("patch_embed.proj.weight")
    if kernel is not None and kernel.shape[-2:] != trunk.patch_embed.proj.weight.shape[-2:]:
        state["patch_embed.proj.weight"] = kernel
    return state


def _first_difference(
    held: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> str | None:
    reshaped = [key for key in wanted if key in held and held[key] != wanted[key]]
    missing = [key for key in wanted if key not in held]
    unexpected = [key for key in held if key not in wanted]
    if not reshaped + missing + unexpected:
        return None
    key = (reshaped + missing + unexpected)[0]
    return (
        f"{key} is {held.get(key, 'absent')} in the file and {wanted.get(key, 'absent')} in the "
        f"model; {len(reshaped)} of another shape, {len(missing)} missing, "
        f"{len(unexpected)} unexpected"
    )
