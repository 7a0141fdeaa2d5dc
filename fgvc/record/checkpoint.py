"""Tensors and facts <-> ckpt.bin: one safetensors file whose bytes depend only on its content.

The facts are stored in one metadata key as canonical JSON (safetensors writes several keys in
random order). They include a digest of the content, so a checkpoint is verified on every load, even
outside its run folder. Otherwise a flipped byte would load as wrong weights.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
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
from fgvc.untrusted.file_format import placeholder

FILE = "ckpt.bin"
PIECE = 2**24  # bytes that are hashed and written at once


def write(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    """Write FILE into the folder; returns its sha256, which is the checkpoint_id.

    The bytes are those of `safetensors.torch.save`, which holds the whole file in memory twice; a
    kNN bank can take gigabytes.
    """
    views = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    facts = {**facts, CONTENT: _content_digest(views, facts)}
    metadata = {KEY: hashing.canonical_json(facts).decode()}
    order, header = _header(views, metadata)
    pieces = itertools.chain([header], *(_pieces(_raw(views[name])) for name in order))
    return _write_hashed(folder / FILE, pieces)


def _header(tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> tuple[list[str], bytes]:
    """The tensors in the order of the file, and what precedes their bytes."""
    empty = save({name: tensor.flatten()[:0].clone() for name, tensor in tensors.items()}, metadata)
    entries = json.loads(empty[8 : 8 + int.from_bytes(empty[:8], "little")])
    order, start = [name for name in entries if name != "__metadata__"], 0
    for name in order:
        end = start + tensors[name].nbytes
        entries[name] |= {"shape": list(tensors[name].shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return order, len(text).to_bytes(8, "little") + text


def _raw(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data if tensor.numel() else memoryview(b"")


def _pieces(raw: memoryview) -> Iterator[memoryview]:
    return (raw[start : start + PIECE] for start in range(0, len(raw), PIECE))


def _write_hashed(path: Path, pieces: Iterable[bytes | memoryview]) -> str:
    """Write a file atomically; returns its sha256."""
    running = hashlib.sha256()
    with atomic.open_atomic(path) as file:
        for piece in pieces:
            running.update(piece)
            file.write(piece)
    return running.hexdigest()


def copy(file: Path, folder: Path) -> str:
    """Copy a checkpoint that was already verified into another run folder; returns its id."""
    with untrusted.open_regular(file) as source:
        return _write_hashed(folder / FILE, iter(lambda: source.read(PIECE), b""))


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """The tensors, facts and checkpoint_id of a checkpoint, after verifying its digests.

    Args:
        path: a ckpt.bin, the run folder that holds it, or a folder with one complete run below.

    Raises:
        UserError: no such file, not a checkpoint, or its bytes changed.
    """
    file = locate(path)
    checkpoint_id = hashing.sha256_file(file)
    _check_index(file, checkpoint_id)
    _refuse_other_formats(file)
    try:
        with safe_open(untrusted.require_regular(file), framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in sorted(opened.keys())}
    except OSError:
        raise
    except Exception as error:  # a damaged header raises many types of exceptions
        raise UserError(f"{file}: not a checkpoint of fgvc ({one_line(error, 120)})") from error
    if KEY not in metadata:
        raise UserError(f"{file}: not a checkpoint of fgvc: its metadata lacks {KEY}")
    try:
        facts = checkpoint_metadata.parse(metadata[KEY])
    except ValueError as error:
        raise UserError(
            f"{file}: a damaged checkpoint, or of another version of fgvc: {error}. Restore the "
            "file, or repeat its run"
        ) from error
    if facts.pop(CONTENT, None) != _content_digest(tensors, facts):
        raise UserError(f"{file}: sha256 mismatch, the bytes changed since it was written")
    return tensors, facts, checkpoint_id


def locate(path: Path) -> Path:
    """The checkpoint file at a path: the file itself, or in the run folder at or below the path.

    Raises:
        UserError: no checkpoint is there, or several.
    """
    folder = find_run(path, "checkpoint", (SEALED, FILE)) if path.is_dir() else path
    file = folder / FILE if folder.is_dir() else folder
    if not file.is_file():
        raise UserError(f"checkpoint={path}: no such file (a {FILE}, or the folder that holds it)")
    return file


def _content_digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    def entries() -> Iterator[tensor_file.TensorEntry]:
        for name, tensor in sorted(tensors.items()):
            raw = _raw(tensor.contiguous())
            yield tensor_file.TensorEntry(name, str(tensor.dtype), list(tensor.shape), raw)

    return tensor_file.content_sha256(facts, entries())


def _check_index(file: Path, computed: str) -> None:
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


def _refuse_other_formats(file: Path) -> None:
    """Raise UserError with the format of a file that often replaces a checkpoint by mistake."""
    size = file.stat().st_size
    with untrusted.open_regular(file) as opened:
        head = opened.read(64)
    if (kind := placeholder(head)) is not None:
        raise UserError(f"{file}: {kind} ({size} bytes), not a checkpoint")
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise UserError(f"{file}: a pickle, which could run code: refused, fgvc writes safetensors")
    if size >= 8 and struct.unpack("<Q", head[:8])[0] > size:
        raise UserError(f"{file}: truncated at {size} bytes, or not a checkpoint")
