"""A key -> arrays that are computed once, whoever asks: small results beside the feature cache.

<root>/<32 hex digits of the key's digest>.safetensors, whole or absent; the digest of its content
stands in its metadata, and a file that does not match is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fgvc import untrusted
from fgvc.store import atomic, digest
from fgvc.store.lock import lock

Arrays = Mapping[str, np.ndarray]


def memo(root: Path, key: Mapping[str, object], compute: Callable[[], Arrays]) -> Arrays:
    """The arrays of `key`: read where they lie, else computed, written and returned."""
    path = root / f"{digest.sha256_bytes(digest.canonical_json(dict(key)))[:32]}.safetensors"
    with lock(path.with_suffix(".lock"), wait=True):
        found = _read(path)
        if found is None:
            found = {name: np.ascontiguousarray(value) for name, value in compute().items()}
            atomic.write_bytes(path, save(found, {"sha256": _content(found)}))
    return found


def _read(path: Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        with safe_open(untrusted.require_regular(path), framework="np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            recorded = (file.metadata() or {}).get("sha256")
    except SafetensorError:
        return None
    return found if recorded == _content(found) else None


def _content(arrays: Arrays) -> str:
    parts = [
        f"{name} {value.dtype} {value.shape} {digest.sha256_bytes(value.tobytes())}"
        for name, value in sorted(arrays.items())
    ]
    return digest.sha256_bytes("\n".join(parts).encode())
