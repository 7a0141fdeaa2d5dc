"""The version of the running code: of the checkout if there is one, otherwise of the package."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
UNKNOWN = "(version not recorded: no pyproject.toml and no installed package)"


def version(package: Path = PACKAGE) -> str:
    """The version in pyproject.toml: the installed fgvc may differ from the checkout that runs.

    Args:
        package: the folder of the package; in a checkout, pyproject.toml is beside it.
    """
    try:
        project = tomllib.loads((package.parent / "pyproject.toml").read_text("utf-8"))["project"]
        if project["name"] == "fgvc":
            return str(project["version"])
    except (OSError, KeyError, ValueError):
        pass
    try:
        return importlib.metadata.version("fgvc")
    except importlib.metadata.PackageNotFoundError:
        return UNKNOWN
