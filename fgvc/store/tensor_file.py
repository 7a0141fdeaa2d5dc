"""The checkpoint format: a safetensors file with one metadata key -> its facts, a content digest.

Only bytes are read, so that no tensor library is needed here. Digesting the content, and not the
file alone, detects a changed byte in a file that was copied away from its run folder.
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

KEY = "fgvc"  # in the metadata of the file
CONTENT = "content_sha256"  # in the facts
MAX_HEADER = 100_000_000  # bytes of a header, as the safetensors format limits it
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


class Entry(NamedTuple):
    """One tensor. dtype: as torch prints it. raw: its bytes, little-endian, row-major."""

    name: str
    dtype: str
    shape: list[int]
    raw: bytes


def content_sha256(facts: Mapping[str, Any], tensors: Iterable[Entry]) -> str:
    """Digest of facts and tensors. tensors: sorted by name."""
    parts = [hashing.canonical_json(facts)]
    for name, dtype, shape, raw in tensors:
        parts.append(hashing.canonical_json([name, dtype, shape, hashing.sha256_bytes(raw)]))
    return hashing.sha256_bytes(b"\n".join(parts))


def read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a checkpoint of fgvc, not verified; None for any other file.

    Raises:
        UserError: the file has the metadata key of a checkpoint, but its facts are damaged.
    """
    header = _header(path)
    metadata = header[1].get("__metadata__") if header else None
    written = metadata.get(KEY) if isinstance(metadata, dict) else None
    if written is None:
        return None
    try:
        facts = parse_json(written)
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: a damaged checkpoint of fgvc ({error}): restore it") from error
    if not isinstance(facts, dict):
        raise UserError(f"{path}: a damaged checkpoint of fgvc (no facts): restore it")
    return facts


def verify(path: Path) -> dict[str, Any]:
    """The facts of a checkpoint of fgvc whose content has the digest that was written with it.

    Raises:
        UserError: it is no checkpoint of fgvc, or its bytes changed since it was written.
    """
    facts = read_facts(path)
    if facts is None:
        raise UserError(f"{path}: not a checkpoint of fgvc")
    recorded = facts.pop(CONTENT, None)
    try:
        computed = content_sha256(facts, _entries(path))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{path}: a damaged checkpoint of fgvc (its header): restore it") from error
    if recorded != computed:
        raise UserError(f"{path}: sha256 mismatch, the bytes changed since it was written")
    return facts


def _header(path: Path) -> tuple[int, dict[str, Any]] | None:
    """Where the tensors begin and the header; None if the file is not in safetensors format."""
    with untrusted.open_regular(path) as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > min(MAX_HEADER, path.stat().st_size):
            return None
        try:
            header = parse_json(b"{" + file.read(length - 1))
        except ValueError:
            return None
    return (8 + length, header) if isinstance(header, dict) else None


def _entries(path: Path) -> Iterator[Entry]:
    header = _header(path)
    assert header is not None, path
    begin, tensors = header[0], dict(header[1])
    tensors.pop("__metadata__", None)
    size = path.stat().st_size
    with untrusted.open_regular(path) as file:
        for name in sorted(tensors):
            about = tensors[name]
            first, last = about["data_offsets"]
            if not 0 <= first <= last <= size - begin:
                raise ValueError(f"{name} lies outside the file")
            file.seek(begin + first)
            dtype = DTYPES.get(about["dtype"], str(about["dtype"]))
            # as written: a tensor without elements has no bytes
            raw = file.read(last - first) if math.prod(about["shape"]) else b""
            yield Entry(name, dtype, about["shape"], raw)
