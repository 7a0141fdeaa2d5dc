"""A folder that a person gives for weights -> the file in it, or what kind of folder it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from fgvc.config.errors import ConfigError
from fgvc.config.weight_files.run_folder import CHECKPOINT, checkpoint_in
from fgvc.config.weight_files.shards import find_file, missing_message, safetensors_header

ADAPTER = "adapter_config.json"  # of PEFT
ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
MERGE = (
    "merge it into its model first, with PeftModel.from_pretrained(MODEL, ADAPTER)"
    ".merge_and_unload().save_pretrained(FOLDER), and name FOLDER"
)
DEPTH = 2  # of folders below that are searched: snapshots/COMMIT of the hub's cache
MOST_NAMED = 3  # folders named in a message


def find_weights(value: str, folder: Path, library: str) -> Path:
    """The weights file, the index of the shards or the checkpoint of fgvc in a folder.

    Args:
        given: the value of `backbone.weights`, for messages.

    Raises:
        ConfigError: the folder holds none, or two different models.
    """
    path = find_file(folder, library)
    if path is not None:
        _refuse_two_models(value, folder, path)
        return path
    path = checkpoint_in(folder)
    if path is None:
        raise ConfigError(f"backbone.weights={value}: {_reason(folder, library)}")
    return path


def _refuse_two_models(value: str, folder: Path, path: Path) -> None:
    checkpoint = folder / CHECKPOINT
    if checkpoint.is_file() and safetensors_header(checkpoint) is not None:
        raise ConfigError(
            f"backbone.weights={value}: the folder holds {path.name} and {CHECKPOINT}, a "
            f"checkpoint of fgvc: name one of the two, {path} or {checkpoint}"
        )
    if (adapter := _adapter_in(folder)) is not None:
        raise ConfigError(
            f"backbone.weights={value}: the folder holds {path.name} and {adapter}, a PEFT "
            f"adapter: name {path} for the model without the adapter, or {MERGE}"
        )


def _reason(folder: Path, library: str) -> str:
    """Why no weights are read from a folder, and what to name."""
    for place in (folder, *_subfolders(folder)):
        if (adapter := _adapter_in(place)) is not None:
            name = (place / adapter).relative_to(folder)
            return f"{name} is a PEFT adapter, which is no model by itself: {MERGE}"
    message = missing_message(folder, library)
    if not message.endswith("; name the file itself"):
        return message
    message = message.removesuffix("; name the file itself")
    for place in _subfolders(folder):
        if any(place.glob("*.distcp")):
            inside = missing_message(place, library).partition("; ")[2]
            return f"{message}; in {place.relative_to(folder)}, {inside}"
    subfolders = [place for place in _subfolders(folder) if find_file(place, library) is not None]
    if not subfolders:
        return f"{message}; name the file itself"
    some = ", ".join(str(place.relative_to(folder)) for place in subfolders[:MOST_NAMED])
    more = f" and {len(subfolders) - MOST_NAMED} more" if len(subfolders) > MOST_NAMED else ""
    return f"{message}; its folders {some}{more} do: name one, such as {subfolders[-1]}"


def _adapter_in(folder: Path) -> str | None:
    return next((name for name in (*ADAPTERS, ADAPTER) if (folder / name).is_file()), None)


def _subfolders(folder: Path) -> Iterator[Path]:
    """The folders below, those of the earlier steps of a training first."""
    for depth in range(1, DEPTH + 1):
        places = [path for path in folder.glob("*/" * depth) if path.is_dir()]
        yield from sorted(places, key=_steps)


def _steps(path: Path) -> list[tuple[int, str]]:
    """Names with numbers in the order of the numbers: checkpoint-500 before checkpoint-1000."""
    parts = re.findall(r"\d+|\D+", str(path))
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
