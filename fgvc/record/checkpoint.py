"""Tensors and facts <-> ckpt.bin: one safetensors file whose bytes depend on its content alone.

Everything beside the tensors stands in one metadata key as canonical JSON (safetensors writes
several keys in a random order). Among it is a digest of the content, so that a file that was copied
away from its run folder is verified on every load all the same: one flipped byte would otherwise
load as wrong weights.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from fgvc import untrusted
from fgvc.config.weight_files import checkpoint_metadata
from fgvc.record.find_run import SEALED, find_run
from fgvc.store import atomic, hashing, tensor_file
from fgvc.store.tensor_file import CONTENT, KEY
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

FILE = "ckpt.bin"


def write(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Write FILE into the folder; returns its sha256, which is the checkpoint_id."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    facts = {**facts, CONTENT: _content(kept, facts)}
    data = save(kept, metadata={KEY: hashing.canonical_json(facts).decode()})
    atomic.write_bytes(folder / FILE, data)
    return hashing.sha256_bytes(data)


def copy(file: Path, folder: Path) -> str:
    """Put a checkpoint that was read, and so verified, into another run; returns its id."""
    data = untrusted.read_bytes(file, untrusted.ARRAYS)
    atomic.write_bytes(folder / FILE, data)
    return hashing.sha256_bytes(data)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """A checkpoint's tensors, facts and checkpoint_id, after its digests were verified.

    Args:
        path: a ckpt.bin, the run folder that holds it, or a folder with one complete run below.

    Raises:
        UserError: no such file, not a checkpoint, or its bytes are not the ones that were written.
    """
    file = locate(path)
    checkpoint_id = hashing.sha256_file(file)
    _check_folder(file, checkpoint_id)
    _diagnose(file)
    try:
        with safe_open(untrusted.require_regular(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    except OSError:
        raise
    except Exception as error:  # a damaged header raises many types of exceptions
        raise UserError(f"{file}: not a checkpoint of fgvc ({_short(error)})") from error
    facts = _facts(file, metadata)
    recorded = facts.pop(CONTENT, None)
    if recorded != _content(tensors, facts):
        raise UserError(f"{file}: sha256 mismatch, the bytes changed since it was written")
    return tensors, facts, checkpoint_id


def _facts(file: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The facts in the metadata; UserError unless they are those of a checkpoint."""
    if KEY not in metadata:
        raise UserError(f"{file}: not a checkpoint of fgvc: its metadata lacks {KEY}")
    try:
        return checkpoint_metadata.parse(metadata[KEY])
    except ValueError as error:
        raise UserError(
            f"{file}: a damaged checkpoint, or of another version of fgvc: {error}. Restore the "
            "file, or repeat the run that made it"
        ) from error


def locate(path: Path) -> Path:
    """The checkpoint file that a path means: itself, or that of the run folder at or below it.

    Raises:
        UserError: none is there, or several are.
    """
    folder = find_run(path, "checkpoint", (SEALED, FILE)) if path.is_dir() else path
    file = folder / FILE if folder.is_dir() else folder
    if not file.is_file():
        raise UserError(f"checkpoint={path}: no such file (a {FILE}, or the folder that holds it)")
    return file


def _content(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    return tensor_file.content_sha256(facts, map(_entry, sorted(tensors.items())))


def _entry(item: tuple[str, Tensor]) -> tensor_file.Entry:
    name, tensor = item
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return tensor_file.Entry(name, str(tensor.dtype), list(tensor.shape), raw)


def _check_folder(file: Path, computed: str) -> None:
    index = file.parent / "artifacts.json"
    if not index.is_file():
        return
    try:
        recorded = untrusted.read_json(index)[file.name]["sha256"]
        if not isinstance(recorded, str):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{index}: damaged, it lacks the digest of {file.name}") from error
    if recorded != computed:
        raise UserError(
            f"{file}: sha256 mismatch, recorded {one_line(recorded, 16)}, "
            f"computed {computed[:16]}…: the file changed since the run; "
            "restore it or repeat the run"
        )


def _diagnose(file: Path) -> None:
    """One line for what is often found in a checkpoint's place."""
    size = file.stat().st_size
    with untrusted.open_regular(file) as opened:
        head = opened.read(64)
    if size == 0:
        raise UserError(f"{file}: 0 bytes, the file is empty")
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{file}: a git-lfs pointer, not the file itself: run `git lfs pull`")
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise UserError(f"{file}: an HTML page, not a checkpoint (a failed download?)")
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise UserError(f"{file}: a pickle, which could run code: refused, fgvc writes safetensors")
    if size >= 8 and struct.unpack("<Q", head[:8])[0] > size:
        raise UserError(f"{file}: truncated at {size} bytes, or not a checkpoint")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__
