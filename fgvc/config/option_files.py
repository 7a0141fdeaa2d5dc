"""The files of options: conf/, then a user's own folders of the same form.

`--config-dir DIR` means `hydra.searchpath=[DIR]`. As an override it reaches each job of a sweep,
and the recorded command. Hydra reads the first file of a name, thus a user's option cannot replace
an option of conf/; a folder that would need that is refused.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fgvc import untrusted
from fgvc.config.errors import ConfigError
from fgvc.config.override_grammar import parse_override
from fgvc.untrusted.shell import literal

CONFIG_NAME = "config"
KEY = "hydra.searchpath"
FILE = "file://"
MOST_FILES = 1000  # of a folder of options
HYDRA = re.compile(r"\bhydra[/.:@]|@hydra")  # in a list of defaults
PACKAGE = re.compile(r"@package\s+(\S+)")
FLAGS = ("--config-dir", "-cd")
OVERLAYS = ("experiment", "sweep", "recipe")  # optional; merged over the axes
AXES = ("task", "dataset", "backbone", "head", "resolution", "part_attention", *OVERLAYS)


def conf_dir() -> Path:
    """The folder of option files: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "conf", package / "conf"):
        if (folder / f"{CONFIG_NAME}.yaml").is_file():
            return folder
    raise ConfigError(f"no conf/{CONFIG_NAME}.yaml beside or inside {package}: reinstall fgvc")


def options(group: str, overrides: Iterable[str] = ()) -> list[str]:
    """The options of a group, sorted.

    Args:
        overrides: of the command, whose search path may add options.
    """
    return sorted({file.stem for file in _files(group, overrides)})


def option_file(group: str, name: str, overrides: Iterable[str] = ()) -> Path | None:
    """The file of an option; None if there is none."""
    return next((file for file in _files(group, overrides) if file.stem == name), None)


def search_path_override(arguments: Sequence[str]) -> list[str]:
    """The arguments with every `--config-dir` and `hydra.searchpath` as one override, checked.

    Raises:
        ConfigError: a folder is missing, holds no option, or an option that cannot be read.
    """
    rest: list[str] = []
    folders: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        flag, sign, value = argument.partition("=")
        if flag in FLAGS:
            folders.append(value if sign else next(remaining, ""))
        elif argument.lstrip("+").startswith(f"{KEY}="):
            folders += _listed(argument.lstrip("+"))
        else:
            rest.append(argument)
    if not folders:
        return rest
    paths = [str(_checked(folder)) for folder in dict.fromkeys(folders)]
    return [*rest, f"{KEY}=[{','.join(map(literal, paths))}]"]


def own_folders(overrides: Iterable[str]) -> list[Path]:
    """The user's folders in the search path of a command."""
    paths = (item for item in overrides if item.startswith(f"{KEY}="))
    names = [name for item in paths for name in _listed(item)]
    return [Path(name.removeprefix(FILE)) for name in names]


def _files(group: str, overrides: Iterable[str]) -> Iterator[Path]:
    for folder in (conf_dir(), *own_folders(overrides)):
        yield from (folder / group).glob("*.yaml")


def _listed(override: str) -> list[str]:
    """The folders in an override of the search path: a list, or one folder."""
    try:
        parsed = parse_override(override)
        value = None if parsed.is_sweep_override() else parsed.value()
    except HydraException:
        value = None
    folders = [value] if isinstance(value, str) else value
    if not isinstance(folders, list) or not all(isinstance(item, str) for item in folders):
        raise ConfigError(f"{override}: must be a list of folders, as in '{KEY}=[DIR]'")
    return [str(item) for item in folders]


def _checked(name: str) -> Path:
    """A folder of options; ConfigError unless fgvc can read every option in it."""
    if "://" in name.removeprefix(FILE):
        raise ConfigError(f"{KEY}={name}: not a folder; only folders are read")
    folder = Path(name.removeprefix(FILE)).expanduser()
    if not name or not folder.is_dir():
        raise ConfigError(f"{KEY}={name}: no such folder")
    # before the whole tree is read, which may be a home folder or a disk
    if not any(True for group in AXES for _ in (folder / group).glob("*.yaml")):
        raise ConfigError(
            f"{KEY}={name}: holds no option, as DIR/dataset/NAME.yaml ({', '.join(AXES)})"
        )
    try:
        files = list(itertools.islice(folder.rglob("*.yaml"), MOST_FILES + 1))
    except OSError as error:
        raise ConfigError(f"{KEY}={name}: {error.filename}: {error.strerror}") from error
    groups = {file: file.parent.relative_to(folder).as_posix() for file in files}
    if len(files) > MOST_FILES:
        raise ConfigError(f"{KEY}={name}: more than {MOST_FILES} files; give a folder of options")
    for file, group in sorted(groups.items()):
        try:
            if group in AXES and file.stem in options(group):
                raise ValueError(
                    "has the name of an option of fgvc, which is read instead; rename the file"
                )
            _check_file(group, untrusted.read_yaml(file))
        except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{KEY}={name}: {group}/{file.name}: {reason}") from error
    return folder


def _check_file(group: str, text: str) -> None:
    """Refuse a file that configures Hydra, whose settings can name code; a sweep names its axes.

    Raises:
        ValueError: the reason.
    """
    file = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    if not isinstance(file, dict):
        raise ValueError("not a mapping of keys to values")
    settings: Any = file.get("hydra") or {}
    if group == "sweep" and settings.keys() <= {"mode", "sweeper"}:
        settings = (settings.get("sweeper") or {}).keys() - {"params"}
    packages = set(PACKAGE.findall(text)) - {"_global_"}
    if settings or packages or HYDRA.search(str(file.get("defaults"))):
        raise ValueError("gives settings of Hydra; give hydra.* on the command line")
