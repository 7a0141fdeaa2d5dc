"""task.output= -> the file or folder that an operation writes: a file by its suffix, or a folder.

`X/plan.md` is a file, and `X` is a folder for `plan.md`, whether or not they exist. A trailing
slash or an existing folder always means a folder. Missing parents are created.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fgvc.types import UserError

# suffixes of files: a path with one that the operation does not write is an error
FILE_SUFFIXES = tuple(
    f".{suffix}"
    for suffix in (
        *("json", "jsonl", "csv", "tsv", "txt", "md", "html", "htm", "pdf", "yaml", "yml", "log"),
        *("xlsx", "parquet", "onnx", "bin", "pt", "pth", "safetensors", "png", "jpg", "zip"),
    )
)
JSON = (".json",)


def output_file(output: str, name: str, suffixes: Sequence[str]) -> Path:
    """The file that an operation writes.

    Args:
        output: task.output as typed.
        name: of the file in a folder.
        suffixes: of the file, lower case with their dot; the first is the usual one.

    Raises:
        UserError: the suffix means another kind of file, a parent is a file, or the path is in a
            run folder, which must not change.
    """
    path = Path(output).expanduser()
    suffix = "" if _is_folder(output, path) else path.suffix.lower()
    target = path if suffix in suffixes else path / name
    if suffix in FILE_SUFFIXES and suffix not in suffixes:
        raise UserError(
            f"task.output={output}: the output is {' or '.join(suffixes)}; name "
            f"{path.with_suffix(suffixes[0])}, or a folder"
        )
    _check_free(output, target)
    return target


def output_folder(output: str, files: Sequence[str]) -> Path:
    """The folder in which an operation writes several files, given as the folder or as one file.

    Raises:
        UserError: a file of another name, a file in place of a folder, or a run folder.
    """
    path = Path(output).expanduser()
    if not _is_folder(output, path):
        if path.name in files:
            path = path.parent
        elif path.suffix.lower() in FILE_SUFFIXES:
            raise UserError(
                f"task.output={output}: it writes a folder of {', '.join(files)}; name a folder"
            )
    _check_free(output, path / files[0])
    return path


def _is_folder(output: str, path: Path) -> bool:
    return output.endswith(("/", os.sep)) or path.is_dir()


def _check_free(output: str, target: Path) -> None:
    for folder in target.absolute().parents:
        if (folder / "status.json").exists():
            raise UserError(
                f"task.output={output}: {folder} is a run, which is never changed; choose "
                "another folder"
            )
        if folder.is_file():
            raise UserError(f"task.output={output}: {folder} is a file; choose another folder")
