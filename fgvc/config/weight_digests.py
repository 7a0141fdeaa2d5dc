"""The local weights of a backbone -> their digest, which the config hash contains."""

from __future__ import annotations

from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.schema import Backbone, chosen_checkpoint
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files import sidecars
from fgvc.config.weight_files.folder import local_weights
from fgvc.config.weight_files.hub_name import HUB, set_repo
from fgvc.config.weight_files.shards import check_digest, find_file

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
    if backbone.weights is not None:
        path = local_weights(backbone.weights, backbone.library)
    else:
        row, root = chosen_checkpoint(backbone), Path(weights_root).expanduser()
        name = f"{row.model}.{row.tag}" if row.tag else row.model
        files = (root / f"{name}{ending}" for ending in ENDINGS)
        in_folder = find_file(root / name, backbone.library)
        path = next((path for path in files if path.is_file()), in_folder)
    if path is not None:
        stated, backbone.weights = backbone.weights_sha256, str(path)
        backbone.weights_sha256 = check_digest("backbone.weights_sha256", stated, path)


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
    sidecars.check_normalization(backbone, path, preprocess)
    if backbone.norm_eps is None:
        backbone.norm_eps_assumed = sidecars.assumed_layout(path) is not None
    backbone.norm_eps = sidecars.checked_eps(backbone, path)


def fill_tokenizer(backbone: Backbone) -> None:
    """Set the digest of the tokenizer beside local weights, because it can change a number.

    Raises:
        ConfigError: the tokenizer has another digest than `tokenizer_sha256`.
    """
    if backbone.weights is None or not LIBRARIES[backbone.library].reads_tokenizer:
        return
    path = Path(backbone.weights).with_name(TOKENIZER)
    if path.is_file():
        key, stated = "backbone.tokenizer_sha256", backbone.tokenizer_sha256
        backbone.tokenizer_sha256 = check_digest(key, stated, path)
