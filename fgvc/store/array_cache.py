"""A key -> arrays that are computed once, whoever asks: small results beside the feature cache.

<root>/<32 hex digits of the key's digest>.safetensors, whole or absent; the digest of its content
stands in its metadata, and a file that does not match is computed again.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fgvc import untrusted
from fgvc.store import atomic, hashing, json_cache
from fgvc.store.file_lock import lock

Arrays = Mapping[str, np.ndarray]


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=2)


def cached_arrays(
    root: Path,
    key: Mapping[str, object],
    compute: Callable[[], Arrays],
    on_note: Callable[[str], None] = _warn,
) -> Arrays:
    """The arrays of `key`, read from the cache; otherwise computed and written.

    Args:
        on_note: called with one line on a damaged file, which is computed again.
    """
    path = root / f"{hashing.sha256_bytes(hashing.canonical_json(dict(key)))[:32]}.safetensors"
    json_cache.clear_folder(root, on_note)
    json_cache.remove_folder(path.with_suffix(".lock"))
    with lock(path.with_suffix(".lock"), wait=True):
        arrays = _read(path, on_note)
        if arrays is None:
            arrays = {name: np.ascontiguousarray(value) for name, value in compute().items()}
            json_cache.remove_folder(path)
            atomic.write_bytes(path, save(arrays, {"sha256": _content_digest(arrays)}))
    return arrays


def _read(path: Path, on_note: Callable[[str], None]) -> dict[str, np.ndarray] | None:
    if not os.path.lexists(path):
        return None
    reason = "its content does not match its digest"
    try:
        with safe_open(untrusted.require_regular(path), framework="np") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            recorded = (file.metadata() or {}).get("sha256")
        if recorded == _content_digest(stored):
            return stored
    except OSError as error:
        reason = error.strerror or str(error)
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError):
        reason = "no arrays of this cache"
    json_cache.report(path, reason, on_note, "computed again")
    return None


def _content_digest(arrays: Arrays) -> str:
    parts = [
        f"{name} {value.dtype} {value.shape} {hashing.sha256_bytes(value.tobytes())}"
        for name, value in sorted(arrays.items())
    ]
    return hashing.sha256_bytes("\n".join(parts).encode())
