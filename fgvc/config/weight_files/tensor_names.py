"""A weights file -> the names of its tensors, without torch: fast enough for composing a config.

safetensors: the keys of the header. Index of shards: the keys of its map. torch.save: the pickle is
read with inert placeholders for every class in it, so no code in the file runs. Text beside the
tensors (metadata, training options) is not a name.
"""

from __future__ import annotations

import functools
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fgvc import untrusted

MOST_BYTES = 64 * 2**20  # of a file, searched for names
MOST_VALUES = 500_000  # in all mappings of a file; a mapping may occur many times
DEPTH = 4  # of nested mappings
TENSOR = re.compile(r"torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+")
LEGACY = 4  # pickles in a file of torch.save before 1.6: number, protocol, machine, content
# what torch.compile, FSDP and checkpointing insert into module names
INSIDE = re.compile(r"(?<=\.)_(orig_mod|fsdp_wrapped_module|checkpoint_wrapped_module)\.")


def tensor_names(weights: Path) -> frozenset[str]:
    """The names, without what parallel training inserts. Empty for another format or a damaged
    file; the reader of weights reports the damage."""
    stat = weights.stat()
    return _names_in_version(weights, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _names_in_version(weights: Path, size: int, mtime_ns: int) -> frozenset[str]:
    try:
        untrusted.check_pickles(weights)
        with untrusted.open_regular(weights) as file:
            names = _names_in(file)
    except Exception:  # a damaged file fails in many ways; the reader of weights reports it
        return frozenset()
    return frozenset(INSIDE.sub("", name) for name in names)


def _names_in(file: IO[bytes]) -> list[str]:
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            if archive.getinfo(name).file_size > MOST_BYTES:
                return []
            with archive.open(name) as inside:
                return list(_named_tensors(_NameReader(inside).load()))
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if file.read(1) == b"{" and length <= MOST_BYTES:
        return [name for name in json.loads(b"{" + file.read(length - 1)) if name != "__metadata__"]
    file.seek(0)
    if file.read(1) == b"{":
        file.seek(0)
        return list(json.loads(file.read(MOST_BYTES))["weight_map"])
    file.seek(0)
    value = [_NameReader(file).load() for _ in range(LEGACY)][-1]
    return list(_named_tensors(value))


class _Inert:
    """A placeholder for an object of the pickle: accepts any arguments and ignores them."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Ignored: a list holds no named tensors."""

    def extend(self, values: object) -> None:
        """As `append`."""

    def add(self, value: object) -> None:
        """As `append`."""


class _Tensor(_Inert):
    """A placeholder for a tensor."""


class _Names(dict[Any, Any]):
    """A dictionary of the pickle; its attributes are ignored."""

    def __setstate__(self, state: object) -> None:
        pass


# the Python unpickler: its memo is a dictionary, so a forged index cannot allocate memory
class _NameReader(pickle._Unpickler):
    """Rebuilds the mappings of a pickle; imports nothing."""

    def find_class(self, module: str, name: str) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        if (module, name) == ("collections", "OrderedDict"):
            return _Names
        return _Tensor if TENSOR.fullmatch(f"{module}.{name}") else _Inert

    def persistent_load(self, pid: object) -> object:
        return _Inert()


def _named_tensors(
    node: object, depth: int = 0, budget: Iterator[int] | None = None
) -> Iterator[str]:
    """Names of tensors. budget: counts down the values that may still be visited."""
    budget = iter(range(MOST_VALUES)) if budget is None else budget
    if not isinstance(node, Mapping) or depth > DEPTH:
        return
    for (key, value), _ in zip(node.items(), budget, strict=False):
        if isinstance(value, _Tensor) and isinstance(key, str):
            yield key
        yield from _named_tensors(value, depth + 1, budget)
