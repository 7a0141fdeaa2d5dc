"""A weights file -> the names of its tensors, without torch: fast enough for composing a config.

safetensors: the keys of the header. Index of shards: the keys of its map. torch.save: the opcodes
of the pickle are read and nothing in it is built or run; a name is a text that is followed by a
function of torch that rebuilds a tensor. Other text (metadata, training options) is not a name.
"""

from __future__ import annotations

import functools
import pickletools
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fgvc import untrusted
from fgvc.config.weight_files.shards import weight_map
from fgvc.untrusted.file_format import safetensors_header

REBUILD = re.compile(r"torch\._(utils|tensor) _rebuild_\w+")
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
        names = list(_names_in(weights))
    except Exception:  # a damaged file fails in many ways; the reader of weights reports it
        return frozenset()
    return frozenset(INSIDE.sub("", name) for name in names)


def _names_in(weights: Path) -> Iterator[str]:
    if (header := safetensors_header(weights)) is not None:
        yield from header[0].keys() - {"__metadata__"}
        return
    untrusted.check_pickles(weights)
    with untrusted.open_regular(weights) as file:
        start = file.read(4)
        if start.startswith(b"{"):
            yield from weight_map(weights)
            return
        if start == b"PK\x03\x04":  # the test of torch and of check_pickles
            with zipfile.ZipFile(file) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                yield from _pickled_names(archive.open(name))
            return
        file.seek(0)
        for _ in range(LEGACY - 1):
            list(pickletools.genops(file))
        yield from _pickled_names(file)


def _pickled_names(pickled: IO[bytes]) -> Iterator[str]:
    """The texts of a pickle directly before a function that rebuilds a tensor."""
    memo: dict[int, object] = {}
    previous: object = None  # what the previous opcode pushed: a string, REBUILD or another value
    for opcode, value, _ in pickletools.genops(pickled):
        argument: Any = value
        if "PUT" in opcode.name or opcode.name == "MEMOIZE":
            memo[len(memo) if argument is None else argument] = previous
            continue
        pushed: object = None
        if opcode.name.endswith("GET"):
            pushed = memo.get(argument)
        elif opcode.name == "GLOBAL" and REBUILD.fullmatch(argument):
            pushed = REBUILD
        elif opcode.name.endswith(("STRING", "UNICODE")):
            pushed = argument
        if pushed is REBUILD and isinstance(previous, str):
            yield previous
        previous = pushed
