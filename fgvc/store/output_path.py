"""task.output= -> where an operation writes: a file by its suffix, otherwise a folder.

`X/plan.md` is that file and `X` a folder that gets a `plan.md`, whether or not either exists; a
trailing slash and an existing folder always mean a folder. Missing parents are made.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fgvc.types import UserError

# suffixes of files: a path that ends in another of them than the operation writes is a mistake
FILE_SUFFIXES = tuple(
    f".{suffix}"
    for suffix in (
        *("json", "jsonl", "csv", "tsv", "txt", "md", "html", "htm", "pdf", "yaml", "yml", "log"),
        *("xlsx", "parquet", "onnx", "bin", "pt", "pth", "safetensors", "png", "jpg", "zip"),
    )
)
JSON = (".json",)


def output_file(given: str, name: str, suffixes: Sequence[str]) -> Path:
    """The file that an operation writes.

    Args:
        given: task.output as typed.
        name: of the file in a folder.
        suffixes: of the file, lower case with their dot; the first is the usual one.

    Raises:
        UserError: the suffix is that of another kind of file, a parent is a file, or it lies in a
            run folder, which nothing is added to.
    """
    path = Path(given).expanduser()
    if _is_folder(given, path):
        target = path / name
    elif path.suffix.lower() in suffixes:
        target = path
    elif path.suffix.lower() in FILE_SUFFIXES:
        raise UserError(
            f"task.output={given}: what is written there is {suffixes[0]}; name "
            f"{path.with_suffix(suffixes[0])}, or a folder"
        )
    else:
        target = path / name
    _check_free(given, target)
    return target


def output_folder(given: str, files: Sequence[str]) -> Path:
    """The folder into which an operation writes several files; the path of one of them means it.

    Raises:
        UserError: a file of another name, a file where a folder should be, or a run folder.
    """
    path = Path(given).expanduser()
    if not _is_folder(given, path):
        if path.name in files:
            path = path.parent
        elif path.suffix.lower() in FILE_SUFFIXES:
            raise UserError(
                f"task.output={given}: it writes a folder of {', '.join(files)}; name a folder"
            )
    _check_free(given, path / files[0])
    return path


def _is_folder(given: str, path: Path) -> bool:
    return given.endswith(("/", os.sep)) or path.is_dir()


def _check_free(given: str, target: Path) -> None:
    for folder in target.absolute().parents:
        if (folder / "status.json").exists():
            raise UserError(
                f"task.output={given}: {folder} is a run, which nothing is added to; name a "
                "folder elsewhere"
            )
        if folder.is_file():
            raise UserError(f"task.output={given}: {folder} is a file; name a folder elsewhere")
