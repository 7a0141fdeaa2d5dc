"""A weights file -> its tensors, and nothing else.

A file is told by its first bytes, not its name, and whatever is wrong with it is said in one line.
Nothing in a file is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

_WRAPPERS = ("model", "state_dict")


def read_json(path: Path) -> dict[str, Any]:
    """What a library wrote beside its weights.

    Raises:
        UserError: no JSON object; one line.
    """
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): fetch it again") from error
    if not isinstance(held, dict):
        raise UserError(f"{path} holds a {type(held).__name__}, not a JSON object: fetch it again")
    return held


def read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or a torch checkpoint, on the CPU, wrappers taken off.

    Raises:
        UserError: not a weights file, cut short, or holding more than tensors; one line.
    """
    path = Path(path)
    with path.open("rb") as file:
        head = file.read(512)
    _refuse_stand_in(path, head)
    if head[8:9] == b"{":  # an 8-byte length, then JSON
        return _unwrapped(_safetensors(path), path)
    return _unwrapped(_pickled(path), path)


def _refuse_stand_in(path: Path, head: bytes) -> None:
    """Name the files that commonly lie where weights should."""
    text = head.lstrip().lower()
    if not head:
        raise UserError(f"weights {path} are empty (0 bytes): download them again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"weights {path} are a web page, not weights: download them again")
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"weights {path} are a Git LFS pointer: run `git lfs pull` where it lies")


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(_unreadable(path, error)) from error


def _pickled(path: Path) -> Any:
    """weights_only reads tensors and plain containers; anything that would run code is refused."""
    import pickle

    import torch

    try:
        with path.open("rb") as file:  # of a path, torch would believe the ending
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path} are not tensors alone: refused, and nothing in the file was run; "
            f"save the state dict by itself, best as .safetensors"
        ) from error
    except Exception as error:  # a damaged archive fails in as many ways as there are layers
        if "TorchScript" in str(error):
            raise UserError(
                f"weights {path} are a TorchScript program: refused, as reading one can run code; "
                "save its state dict by itself, best as .safetensors"
            ) from error
        raise UserError(_unreadable(path, error)) from error


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return f"weights {path} cannot be read ({path.stat().st_size} bytes, cut short?): {reason}"


def _unwrapped(state: Any, path: Path) -> dict[str, Tensor]:
    from torch import Tensor

    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not state:
        raise UserError(f"weights {path} hold a {type(state).__name__}, not named tensors")
    alien = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if alien is not None:
        kind = type(state[alien]).__name__
        raise UserError(f"weights {path} hold a {kind} at {alien!r}, where a tensor should be")
    return {str(key).removeprefix("module."): value for key, value in state.items()}
