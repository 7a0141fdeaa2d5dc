"""Where a backbone's weights lie on this machine -> their digest, which is what the hash holds."""

from __future__ import annotations

from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.schema import Backbone, chosen_checkpoint
from fgvc.config.weight_files import sidecars
from fgvc.config.weight_files.folder import find_weights
from fgvc.config.weight_files.hub_name import HUB, hub_hint, local_path, set_repo
from fgvc.config.weight_files.shards import find_file, sha256_of

ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz")
TOKENIZER = "tokenizer.json"
TOKENIZER_LIBRARY = "transformers"  # other libraries contain their vocabulary


def fill_weights(backbone: Backbone, weights_root: str) -> None:
    """Set `backbone.weights` to the local file, if there is one, and its digest beside it.

    A name of the hub becomes the row's repository, and no local file is looked for.

    Raises:
        ConfigError: the file is missing, or its digest is not the one that was asked for.
    """
    if not backbone.pretrained:
        for name in ("weights", "weights_sha256", "revision"):
            if (value := getattr(backbone, name)) is not None:
                raise ConfigError(
                    f"backbone.pretrained=false means random weights, but backbone.{name}={value} "
                    "is given: drop one of the two"
                )
        return
    if backbone.weights is not None and backbone.weights.startswith(HUB):
        set_repo(backbone)
        return
    path = _local_file(backbone, weights_root)
    if path is None:
        return
    digest = sha256_of(path)
    if backbone.weights_sha256 not in (None, digest):
        raise ConfigError(
            f"weights {path} have sha256 {digest}, not backbone.weights_sha256="
            f"{backbone.weights_sha256}: the file changed, or it is another one"
        )
    backbone.weights, backbone.weights_sha256 = str(path), digest


def check_sidecars(backbone: Backbone, preprocess: str) -> None:
    """Check what the library wrote beside local weights, and set `backbone.norm_eps` by it.

    Raises:
        ConfigError: the weights were made for pixels of another mean and standard deviation, or for
            another epsilon than `backbone.norm_eps`.
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
    """Set the digest of the tokenizer that lies beside local weights: it can change a number.

    Raises:
        ConfigError: its digest is not the one that was asked for.
    """
    if backbone.weights is None or backbone.library != TOKENIZER_LIBRARY:
        return
    path = Path(backbone.weights).with_name(TOKENIZER)
    if not path.is_file():
        return
    digest = sha256_of(path)
    if backbone.tokenizer_sha256 not in (None, digest):
        raise ConfigError(
            f"backbone.tokenizer_sha256={backbone.tokenizer_sha256}: tokenizer {path} has sha256 "
            f"{digest}. Restore the tokenizer, or leave the digest out"
        )
    backbone.tokenizer_sha256 = digest


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
