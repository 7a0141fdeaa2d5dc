"""The checkpoint format: a safetensors file with one metadata key -> its facts, a content digest.

The file is read as bytes, without a tensor library. The content digest is stored in the file, so
that a changed byte is also detected in a copy outside the run folder.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fgvc import untrusted
from fgvc.store import hashing
from fgvc.types import UserError
from fgvc.untrusted import parse_json
from fgvc.untrusted.file_format import safetensors_header

KEY = "fgvc"  # in the metadata of the file
CONTENT = "content_sha256"  # in the facts
DTYPES = {  # of the safetensors format -> as torch prints them
    "BOOL": "torch.bool",
    "U8": "torch.uint8",
    "I8": "torch.int8",
    "I16": "torch.int16",
    "I32": "torch.int32",
    "I64": "torch.int64",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "F32": "torch.float32",
    "F64": "torch.float64",
}


class TensorEntry(NamedTuple):
    """One tensor. dtype: as torch prints it. raw: its bytes, little-endian, row-major."""

    name: str
    dtype: str
    shape: list[int]
    raw: bytes | memoryview


def content_sha256(facts: Mapping[str, Any], tensors: Iterable[TensorEntry]) -> str:
    """Digest of facts and tensors. tensors: sorted by name."""
    parts = [hashing.canonical_json(facts)]
    for name, dtype, shape, raw in tensors:
        parts.append(hashing.canonical_json([name, dtype, shape, hashing.sha256_bytes(raw)]))
    return hashing.sha256_bytes(b"\n".join(parts))


def verify(path: Path) -> None:
    """Verify the content digest of a checkpoint of fgvc.

    Raises:
        UserError: the file is not a checkpoint of fgvc, or its bytes changed.
    """
    tensors, data_start = safetensors_header(path) or ({}, 0)
    metadata = tensors.pop("__metadata__", None)
    text = metadata.get(KEY) if isinstance(metadata, dict) else None
    if text is None:
        raise UserError(f"{path}: not a checkpoint of fgvc")
    try:
        facts = parse_json(text)
        recorded = facts.pop(CONTENT, None)
        computed = content_sha256(facts, _entries(path, tensors, data_start))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        reason = error if isinstance(error, ValueError) else "its header"
        raise UserError(f"{path}: a damaged checkpoint of fgvc ({reason}): restore it") from error
    if recorded != computed:
        raise UserError(f"{path}: sha256 mismatch, the bytes changed since it was written")


def _entries(path: Path, tensors: Mapping[str, Any], data_start: int) -> Iterator[TensorEntry]:
    size = path.stat().st_size
    with untrusted.open_regular(path) as file:
        for name in sorted(tensors):
            entry = tensors[name]
            first, last = entry["data_offsets"]
            if not 0 <= first <= last <= size - data_start:
                raise ValueError(f"{name} is outside the file")
            file.seek(data_start + first)
            dtype = DTYPES.get(entry["dtype"], str(entry["dtype"]))
            # a tensor without elements has no bytes
            raw = file.read(last - first) if math.prod(entry["shape"]) else b""
            yield TensorEntry(name, dtype, entry["shape"], raw)
