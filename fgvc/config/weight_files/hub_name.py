"""`hf-hub:ORG/REPO@REVISION`, as in timm and open_clip -> the repository of the chosen row."""

from __future__ import annotations

import re

from fgvc.config.errors import ConfigError
from fgvc.config.schema.backbone import Backbone, chosen_checkpoint

HUB = ("hf-hub:", "hf_hub:")
MAIN = "main"  # the hub's default revision
REPO = re.compile(r"[\w.-]+(/[\w.-]+)?")


def set_repo(backbone: Backbone) -> None:
    """Move the repository in `backbone.weights` into the chosen row and `revision`.

    Both are hashed, so a repository given by name has the same hash as a row. The row's tag is
    removed, because it belongs to open_clip's own weights. Other weights are unchanged.

    Raises:
        ConfigError: not the name of a repository, or two revisions.
    """
    value = backbone.weights
    if value is None or not value.startswith(HUB):
        return
    repo, _, revision = value.partition(":")[2].partition("@")
    if not REPO.fullmatch(repo) or value.endswith("@"):
        raise ConfigError(
            f"backbone.weights={value}: not the name of a repository. Give hf-hub:ORG/REPO or "
            "hf-hub:ORG/REPO@REVISION; the file is found by its usual name."
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
