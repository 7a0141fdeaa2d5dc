"""Bytes -> SHA256 digests; plain data -> canonical JSON for hashing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fgvc import untrusted


def sha256_bytes(data: bytes | memoryview) -> str:
    """SHA256 of bytes in memory; 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | Path) -> str:
    """SHA256 of a regular file, read in chunks; 64 hex digits.

    Raises:
        OSError: the file cannot be read, or is not a regular file (a pipe would block).
    """
    with untrusted.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # pyright: ignore[reportArgumentType]


def canonical_json(obj: object) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal data, equal bytes.

    Raises:
        ValueError: NaN or an infinity, which JSON does not have.
        TypeError: a value that is not plain data.
    """
    text = json.dumps(
        obj, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )
    return text.encode()


def sha256_json(obj: object) -> str:
    """SHA256 of plain data as canonical JSON; 64 hex digits. Raises as `canonical_json`."""
    return sha256_bytes(canonical_json(obj))
