"""An error of the disk -> one line that names the key or variable which moves it elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

HUB = "HF_HOME"
ROOTS = ("cache_root", "output_root", "multirun_root")  # of runtime: where fgvc writes


def explained(error: OSError, runtime: Mapping[str, str]) -> str:
    """The error in one line; where it lies in a folder that a key sets, with that key.

    Args:
        runtime: the node of the config.
    """
    if error.filename is None:
        return str(error)
    line = f"{error.filename}: {error.strerror}"
    key = _key_of(Path(os.fsdecode(error.filename)), runtime)
    if key is None or key in line:
        return line
    return f"{line}; {_way_out(key, runtime)}"


def no_home(error: RuntimeError, runtime: Mapping[str, str]) -> str | None:
    """The line for a `~` without a home folder; None for any other error."""
    if "home directory" not in str(error):
        return None
    places = {f"runtime.{name}": value for name, value in runtime.items() if name.endswith("_root")}
    key = next((key for key, value in places.items() if str(value).startswith("~")), None)
    if key is None:
        return f"HOME: {error} Set it, or write paths without ~"
    return f"{key}={places[key]}: no home folder is known here. Set HOME, or give {key}=PATH"


def _key_of(file: Path, runtime: Mapping[str, str]) -> str | None:
    """The key whose folder holds a file, or lies in it: a folder may fail to be made far above."""
    places = {f"runtime.{name}": runtime[name] for name in ROOTS}
    places[HUB] = os.environ.get(HUB, "~/.cache/huggingface")
    file = file.absolute()
    for holds in (lambda root: file.is_relative_to(root), lambda root: root.is_relative_to(file)):
        for key, place in places.items():
            try:
                root = Path(place).expanduser().absolute()
            except RuntimeError:  # no home folder
                continue
            if holds(root):
                return key
    return None


def _way_out(key: str, runtime: Mapping[str, str]) -> str:
    if key == HUB:
        return f"{HUB}=PATH is where weights of the hub are kept"
    usual = " (or FGVC_CACHE=PATH)" if key == "runtime.cache_root" else ""
    name = key.removeprefix("runtime.")
    return f"{key}={runtime[name]}: give another with {key}=PATH{usual}"
