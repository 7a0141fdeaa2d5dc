"""Weights files: their names in a folder, shards and their digest."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.errors import ConfigError
from fgvc.config.schema.library import LIBRARIES
from fgvc.untrusted import TooLargeError, parse_json

MOST = 100_000_000  # bytes of an index
INDEX = ".index.json"  # ending of the file that lists the shards
SHARDED = (f"model.safetensors{INDEX}", f"pytorch_model.bin{INDEX}")
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz", ".ckpt", ".tar", ".pkl")
SHARD = re.compile(r"-\d{5}-of-\d{5}")
OTHER_LIBRARIES = {  # suffix: the library that reads it
    ".h5": "Keras",
    ".keras": "Keras",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".gguf": "GGUF",
    ".tflite": "TensorFlow Lite",
    ".pb": "TensorFlow",
    ".index": "TensorFlow",
    ".mlmodel": "Core ML",
}


def find_file(folder: Path, library: str) -> Path | None:
    """The weights file, or the index of shards, in a folder; None if there is none.

    Names of the library come first, then those of shards and of other libraries.
    """
    others = itertools.chain(*(spec.weight_files for spec in LIBRARIES.values()))
    names = (*LIBRARIES[library].weight_files, *SHARDED, *others)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def check_digest(key: str, stated: str | None, path: Path) -> str:
    """The digest of a weights file or a tokenizer.

    Raises:
        ConfigError: another digest than the stated one, or as `shards_of`.
    """
    digest = sha256_of(path)
    if stated not in (None, digest):
        raise ConfigError(
            f"{key}={stated}: {path} has sha256 {digest}. Restore the file, or leave the digest out"
        )
    return digest


def shards_of(index: Path) -> tuple[Path, ...]:
    """The files that an index lists, in the folder of the index, sorted by name.

    Raises:
        ConfigError: not an index of shards, a name in another folder, or a missing file.
    """
    folder, names = index.parent, shard_names(index)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{index} lists {len(names)} shards, and {len(missing)} of them are missing, the first "
            f"is {missing[0]}: put it into {folder}"
        )
    return tuple(folder / name for name in names)


def shard_names(index: Path) -> list[str]:
    """The names of the files that an index lists, sorted.

    Raises:
        ConfigError: not an index of shards, or a name in another folder.
    """
    names = sorted(set(weight_map(index).values()))
    if nested := [name for name in names if name.endswith(INDEX)]:
        raise ConfigError(
            f"{index} names the shard {nested[0]!r}, which is an index: fetch the index again"
        )
    outside = [name for name in names if Path(name).name != name or "\\" in name or name == ".."]
    if outside:
        raise ConfigError(
            f"{index} names the shard {outside[0]!r}: a shard must be beside its index; fetch the "
            "index again"
        )
    return names


def weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> name of its shard.

    Raises:
        ConfigError: not an index of shards.
    """
    try:
        content: Any = parse_json(untrusted.read_bytes(index, MOST))
        shards = content["weight_map"]
        if not shards or not all(isinstance(name, str) and name for name in shards.values()):
            raise ValueError("weight_map is empty or holds other values than names")
    except (ValueError, KeyError, TypeError, AttributeError, TooLargeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{index} is not an index of shards ({type(error).__name__}: {reason}): fetch it "
            "again, or name the weights file itself"
        ) from error
    return shards


def is_index(path: Path) -> bool:
    return path.name.endswith(INDEX)


def sha256_of(path: Path) -> str:
    """Digest of a weights file; for sharded weights, the digest of `shard_list`.

    Raises:
        ConfigError: as `shards_of`.
    """
    if is_index(path):
        return hashlib.sha256(shard_list(path)).hexdigest()
    return sha256_of_file(path)


def shard_list(index: Path) -> bytes:
    """Canonical JSON of the digests of an index and its shards.

    Raises:
        ConfigError: as `shards_of`.
    """
    shards = {path.name: sha256_of_file(path) for path in shards_of(index)}
    text = json.dumps(
        {"index": sha256_of_file(index), "shards": shards}, sort_keys=True, separators=(",", ":")
    )
    return text.encode()


def sha256_of_file(path: Path) -> str:
    stat = path.stat()
    return _sha256_of_version(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_of_version(path: Path, size: int, mtime_ns: int) -> str:
    """Cached, because every composed config needs the digest of gigabytes."""
    with untrusted.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
