"""The files of options: one folder per group, one file per option."""

from __future__ import annotations

from pathlib import Path

from fgvc.config.errors import ConfigError

CONFIG_NAME = "config"


def conf_dir() -> Path:
    """The folder of option files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "conf", package / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigError(f"no conf/{CONFIG_NAME}.yaml beside or inside {package}: reinstall fgvc")


def options(group: str) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))
