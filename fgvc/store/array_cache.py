"""A key -> arrays that are computed once: small results beside the feature cache.

<root>/<32 hex digits of the key's digest>.safetensors, written atomically. Its metadata holds the
digest of its content; a file that does not match is computed again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save

from fgvc import untrusted
from fgvc.store import atomic, hashing, json_cache
from fgvc.store.file_lock import lock

Arrays = Mapping[str, np.ndarray]


def cached_arrays(
    root: Path,
    key: Mapping[str, object],
    compute: Callable[[], Arrays],
    notify: json_cache.Notify = warnings.warn,
) -> Arrays:
    """The arrays of `key`, read from the cache; otherwise computed and written.

    Args:
        notify: called with one line on a damaged file, which is computed again.
    """
    path = root / f"{hashing.sha256_json(dict(key))[:32]}.safetensors"
    json_cache.clear_folder(root, notify)
    json_cache.remove_folder(path.with_suffix(".lock"))
    with lock(path.with_suffix(".lock"), wait=True):
        arrays = json_cache.read_whole(path, _load, notify, "computed again")
        if arrays is None:
            arrays = {name: np.ascontiguousarray(value) for name, value in compute().items()}
            json_cache.remove_folder(path)
            atomic.write_bytes(path, save(arrays, {"sha256": _content_digest(arrays)}))
    return arrays


def _load(path: Path) -> Arrays | None:
    """The arrays of a file; None if they do not match its digest."""
    with safe_open(untrusted.require_regular(path), framework="np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        recorded = (file.metadata() or {}).get("sha256")
    return arrays if recorded == _content_digest(arrays) else None


def _content_digest(arrays: Arrays) -> str:
    parts = [
        f"{name} {value.dtype} {value.shape} {hashing.sha256_bytes(value.tobytes())}"
        for name, value in sorted(arrays.items())
    ]
    return hashing.sha256_bytes("\n".join(parts).encode())
