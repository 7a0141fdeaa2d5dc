"""A disk error -> one line that names the config key or variable of the path's folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from fgvc.store.disk_errors import DISK_ERRORS

HUB, TEMPORARY = "HF_HOME", "TMPDIR"
SCRATCH = "/fgvc-"  # prefix of the folders of temporary_files.scratch
ROOTS = ("cache_root", "output_root", "multirun_root", "data_root")  # keys of `runtime`


def disk_error_line(
    error: OSError, runtime: Mapping[str, str], others: Mapping[str, str | None] | None = None
) -> str:
    """The error in one line, with the key that sets the folder of its path.

    Args:
        runtime: the `runtime` node of the config.
        others: other keys with their paths, such as task.output.
    """
    if error.filename is None:
        if error.errno in DISK_ERRORS:
            return f"{error.strerror}: a stream without a name, such as standard output"
        return str(error)
    line = f"{os.fsdecode(error.filename)}: {error.strerror}"
    paths = {key: path for key, path in (others or {}).items() if path is not None}
    paths |= {f"runtime.{name}": runtime[name] for name in ROOTS}
    paths[HUB] = os.environ.get(HUB, "~/.cache/huggingface")
    file = Path(os.fsdecode(error.filename)).absolute()
    roots: dict[str, Path] = {}
    for key, path in paths.items():
        with suppress(RuntimeError):  # no home folder
            roots[key] = Path(path).expanduser().absolute()
    # the innermost folder that contains the file; otherwise the first folder below it, because
    # creating a parent folder may fail
    containing = [key for key, root in roots.items() if file.is_relative_to(root)]
    below = [key for key, root in roots.items() if root.is_relative_to(file)]
    key = max(containing, key=lambda key: len(roots[key].parts), default=next(iter(below), None))
    if key is None and SCRATCH in line and line.startswith(tempfile.gettempdir()):
        return f"{line}; {TEMPORARY}=PATH is where temporary files are kept"
    if key is None or key in line:
        return line
    if key == HUB:
        return f"{line}; {HUB}=PATH is where weights of the hub are kept"
    alternative = " (or FGVC_CACHE=PATH)" if key == "runtime.cache_root" else ""
    return f"{line}; {key}={paths[key]}: give another with {key}=PATH{alternative}"


def missing_home_line(error: RuntimeError, runtime: Mapping[str, str]) -> str | None:
    """The line for a `~` without a home folder; None for any other error."""
    if "home directory" not in str(error):
        return None
    paths = {f"runtime.{name}": value for name, value in runtime.items() if name.endswith("_root")}
    key = next((key for key, value in paths.items() if str(value).startswith("~")), None)
    if key is None:
        return f"HOME: {error} Set it, or write paths without ~"
    return f"{key}={paths[key]}: no home folder is known here. Set HOME, or give {key}=PATH"
