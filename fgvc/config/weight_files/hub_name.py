"""`hf-hub:ORG/REPO@REVISION` and `local-dir:PATH`, as in timm and open_clip -> repo or path."""

from __future__ import annotations

import re
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.schema.backbone import Backbone, chosen_checkpoint
from fgvc.config.weight_files.shards import ENDINGS

HUB = ("hf-hub:", "hf_hub:")
LOCAL = ("local-dir:", "local_dir:")
FILES = (*ENDINGS, ".h5", ".keras", ".msgpack", ".onnx", ".gguf", ".gz", ".zip", ".tgz")
MAIN = "main"  # the hub's default revision
_REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")
_ADDRESS = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)")


def set_repo(backbone: Backbone) -> None:
    """Move the repository that `backbone.weights` names into the chosen row and `revision`.

    Both are hashed, so a repository given by its name is the same question as one of a row. The
    row's tag is of open_clip's own weights, which these are not. No effect on other weights.

    Raises:
        ConfigError: no name of a repository, or two revisions.
    """
    value = backbone.weights
    if value is None or not value.startswith(HUB):
        return
    repo, _, revision = value.partition(":")[2].partition("@")
    if not _REPO.fullmatch(repo) or value.endswith("@"):
        raise ConfigError(
            f"backbone.weights={value}: no name of a repository. Give hf-hub:ORG/REPO or "
            "hf-hub:ORG/REPO@REVISION; the file in it is found by its usual name."
        )
    if revision and backbone.revision not in (None, revision):
        raise ConfigError(
            f"backbone.revision={backbone.revision}: backbone.weights={value} names another "
            "revision. Leave one of the two out."
        )
    row = chosen_checkpoint(backbone)
    row.repo, row.tag = repo, None
    backbone.revision = revision or backbone.revision or MAIN
    backbone.weights = None


def local_path(value: str) -> Path:
    """The path that `backbone.weights` names, which need not exist.

    Raises:
        ConfigError: it is an address.
    """
    for prefix in LOCAL:
        value = value.removeprefix(prefix)
    if value.startswith(("http://", "https://")):
        on_hub = _ADDRESS.match(value)
        way_out = f"give hf-hub:{on_hub[1]}" if on_hub else "download it, and give its path"
        raise ConfigError(f"backbone.weights={value}: an address is not read; {way_out}")
    return Path(value).expanduser()


def hub_hint(value: str) -> str:
    """What to add to "no such file" where the path reads like a repository of the hub."""
    return f"; for a repository of the hub give hf-hub:{value}" if _looks_like_repo(value) else ""


def _looks_like_repo(value: str) -> bool:
    named = _REPO.fullmatch(value) is not None and value.count("/") == 1
    return named and not value.startswith(".") and Path(value).suffix.lower() not in FILES
