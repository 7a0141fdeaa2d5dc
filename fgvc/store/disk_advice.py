"""An error of the disk -> one line that names the key or variable which moves it elsewhere."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fgvc.store.disk_errors import DISK_ERRORS

HUB, TEMPORARY = "HF_HOME", "TMPDIR"
SCRATCH = "/fgvc-"  # begins the folders of temporary.scratch
ROOTS = ("cache_root", "output_root", "multirun_root", "data_root")  # of runtime: written by fgvc


def disk_error_line(
    error: OSError, runtime: Mapping[str, str], others: Mapping[str, str | None] | None = None
) -> str:
    """The error in one line, with the key that sets the folder of its path.

    Args:
        runtime: the node of the config.
        others: more keys and the paths that they name, such as task.output.
    """
    if error.filename is None:
        if error.errno in DISK_ERRORS:
            return f"{error.strerror}: a stream without a name, such as standard output"
        return str(error)
    line = f"{os.fsdecode(error.filename)}: {error.strerror}"
    places = {key: place for key, place in (others or {}).items() if place is not None}
    places |= {f"runtime.{name}": runtime[name] for name in ROOTS}
    places[HUB] = os.environ.get(HUB, "~/.cache/huggingface")
    key = _key_of(Path(os.fsdecode(error.filename)), places)
    if key is None and SCRATCH in line and line.startswith(tempfile.gettempdir()):
        return f"{line}; {TEMPORARY}=PATH is where temporary files are kept"
    if key is None or key in line:
        return line
    return f"{line}; {_advice(key, places[key])}"


def missing_home_line(error: RuntimeError, runtime: Mapping[str, str]) -> str | None:
    """The line for a `~` without a home folder; None for any other error."""
    if "home directory" not in str(error):
        return None
    places = {f"runtime.{name}": value for name, value in runtime.items() if name.endswith("_root")}
    key = next((key for key, value in places.items() if str(value).startswith("~")), None)
    if key is None:
        return f"HOME: {error} Set it, or write paths without ~"
    return f"{key}={places[key]}: no home folder is known here. Set HOME, or give {key}=PATH"


def _key_of(file: Path, places: Mapping[str, str]) -> str | None:
    """The key whose folder holds a file, the innermost of several; else the first that lies in it:
    a folder may fail to be made far above."""
    file = file.absolute()
    roots: dict[str, Path] = {}
    for key, place in places.items():
        with suppress(RuntimeError):  # no home folder
            roots[key] = Path(place).expanduser().absolute()
    holding = [key for key, root in roots.items() if file.is_relative_to(root)]
    if holding:
        return max(holding, key=lambda key: len(roots[key].parts))
    return next((key for key, root in roots.items() if root.is_relative_to(file)), None)


def _advice(key: str, place: str) -> str:
    if key == HUB:
        return f"{HUB}=PATH is where weights of the hub are kept"
    usual = " (or FGVC_CACHE=PATH)" if key == "runtime.cache_root" else ""
    return f"{key}={place}: give another with {key}=PATH{usual}"
