"""The local weights of a backbone -> their digest, which the config hash contains."""

from __future__ import annotations

from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.schema import Backbone, chosen_checkpoint
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files import sidecars
from fgvc.config.weight_files.folder import find_weights
from fgvc.config.weight_files.hub_name import HUB, hub_hint, local_path, set_repo
from fgvc.config.weight_files.shards import find_file, sha256_of

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz")
TOKENIZER = "tokenizer.json"


def fill_weights(backbone: Backbone, weights_root: str) -> None:
    """Set `backbone.weights` to the local file, if any, and `weights_sha256` to its digest.

    A hub name replaces the repository of the row; no local file is searched then.

    Raises:
        ConfigError: the file is missing, or has another digest than `weights_sha256`.
    """
    if not backbone.pretrained:
        for name in ("weights", "weights_sha256", "revision"):
            if (value := getattr(backbone, name)) is not None:
                raise ConfigError(
                    f"backbone.{name}={value}: backbone.pretrained=false means random weights. "
                    "Leave one of the two out"
                )
        return
    if backbone.weights is not None and backbone.weights.startswith(HUB):
        set_repo(backbone)
        return
    path = _local_file(backbone, weights_root)
    if path is not None:
        backbone.weights = str(path)
        backbone.weights_sha256 = _checked_digest("weights_sha256", backbone.weights_sha256, path)


def _checked_digest(name: str, stated: str | None, path: Path) -> str:
    """The digest of a file; ConfigError unless it is the stated one."""
    digest = sha256_of(path)
    if stated not in (None, digest):
        raise ConfigError(
            f"backbone.{name}={stated}: {path} has sha256 {digest}. Restore the file, or leave the "
            "digest out"
        )
    return digest


def check_sidecars(backbone: Backbone, preprocess: str) -> None:
    """Check the files that the library wrote beside local weights, and set `backbone.norm_eps`.

    Raises:
        ConfigError: the weights were made for another mean and standard deviation, or for another
            epsilon than `backbone.norm_eps`.
    """
    backbone.norm_eps_assumed = False
    if backbone.weights is None:
        return
    path = Path(backbone.weights)
    reason = sidecars.normalization_mismatch(backbone, path, preprocess)
    if reason is not None:
        raise ConfigError(reason)
    try:
        eps = sidecars.norm_eps(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if eps is not None and backbone.norm_eps not in (None, eps) and sidecars.states_eps(path):
        raise ConfigError(
            f"backbone.norm_eps={backbone.norm_eps}: {path.with_name(sidecars.CONFIG)} has "
            f"layer_norm_eps={eps}. Leave backbone.norm_eps out."
        )
    if backbone.norm_eps is None:
        backbone.norm_eps = eps
        backbone.norm_eps_assumed = sidecars.assumed_layout(path) is not None


def fill_tokenizer(backbone: Backbone) -> None:
    """Set the digest of the tokenizer beside local weights, because it can change a number.

    Raises:
        ConfigError: the tokenizer has another digest than `tokenizer_sha256`.
    """
    if backbone.weights is None or not LIBRARIES[backbone.library].reads_tokenizer:
        return
    path = Path(backbone.weights).with_name(TOKENIZER)
    if path.is_file():
        stated = backbone.tokenizer_sha256
        backbone.tokenizer_sha256 = _checked_digest("tokenizer_sha256", stated, path)


def _local_file(backbone: Backbone, weights_root: str) -> Path | None:
    if backbone.weights is not None:
        path = local_path(backbone.weights)
        if path.is_dir():
            return find_weights(backbone.weights, path, backbone.library)
        if not path.is_file():
            hint = hub_hint(backbone.weights)
            raise ConfigError(f"backbone.weights={backbone.weights}: no such file{hint}")
        return path
    row = chosen_checkpoint(backbone)
    name = f"{row.model}.{row.tag}" if row.tag else row.model
    root = Path(weights_root).expanduser()
    files = [root / f"{name}{ending}" for ending in ENDINGS]
    return next(
        (path for path in files if path.is_file()), find_file(root / name, backbone.library)
    )
