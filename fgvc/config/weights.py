"""Where a backbone's weights lie on this machine -> their digest, which is what the hash holds."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.own_weights import checkpoint_in
from fgvc.config.schema import Backbone, chosen_checkpoint

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
INSIDE = (  # names under which the libraries save weights in a folder
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
TOKENIZER = "tokenizer.json"
TOKENIZER_LIBRARY = "transformers"  # other libraries contain their vocabulary


def fill_weights(backbone: Backbone, weights_root: str) -> None:
    """Set `backbone.weights` to the local file, if there is one, and its digest beside it.

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
    path = _local_file(backbone, weights_root)
    if path is None:
        return
    digest = _sha256(path)
    if backbone.weights_sha256 not in (None, digest):
        raise ConfigError(
            f"weights {path} have sha256 {digest}, not backbone.weights_sha256="
            f"{backbone.weights_sha256}: the file changed, or it is another one"
        )
    backbone.weights, backbone.weights_sha256 = str(path), digest


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
    digest = _sha256(path)
    if backbone.tokenizer_sha256 not in (None, digest):
        raise ConfigError(
            f"backbone.tokenizer_sha256={backbone.tokenizer_sha256}: tokenizer {path} has sha256 "
            f"{digest}. Restore the tokenizer, or leave the digest out"
        )
    backbone.tokenizer_sha256 = digest


def _local_file(backbone: Backbone, weights_root: str) -> Path | None:
    if backbone.weights is not None:
        path = Path(backbone.weights).expanduser()
        found = (_in_folder(path) or checkpoint_in(path)) if path.is_dir() else path
        if found is None:
            raise ConfigError(
                f"backbone.weights={backbone.weights}: the folder holds none of {', '.join(INSIDE)}"
            )
        if not found.is_file():
            raise ConfigError(f"backbone.weights={backbone.weights}: no such file")
        return found
    row = chosen_checkpoint(backbone)
    name = f"{row.model}.{row.tag}" if row.tag else row.model
    root = Path(weights_root).expanduser()
    files = [root / f"{name}{ending}" for ending in ENDINGS]
    return next((path for path in files if path.is_file()), _in_folder(root / name))


def _in_folder(folder: Path) -> Path | None:
    """The weights in a folder as the libraries save it, with its config and tokenizer beside."""
    return next((folder / name for name in INSIDE if (folder / name).is_file()), None)


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of_version(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256_of_version(path: Path, size: int, mtime_ns: int) -> str:
    """Gigabytes are read once a process, not once a look at the config."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
