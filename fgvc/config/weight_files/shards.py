"""Files of weights: their names in a folder, a safetensors header, shards and their digest."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.errors import ConfigError
from fgvc.untrusted import TooLargeError, parse_json
from fgvc.untrusted.shell import command, file_word

# library: names under which it saves weights, first choice first
NAMES: Mapping[str, Sequence[str]] = {
    "timm": ("model.safetensors", "pytorch_model.bin"),
    "open_clip": ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
    "transformers": ("model.safetensors", "pytorch_model.bin"),
}
MOST = 100_000_000  # bytes of a header, as the safetensors format limits it
INDEX = ".index.json"  # ending of the file that lists the shards
SHARDED = (f"model.safetensors{INDEX}", f"pytorch_model.bin{INDEX}")
ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".npz", ".ckpt", ".tar", ".pkl")
SHARD = re.compile(r"-\d{5}-of-\d{5}")
STATE = re.compile(  # files of a training beside the weights
    r"(training_args|optimizer|scheduler|scaler|sampler|rng_state|random_states|"
    r"custom_checkpoint)(_\d+)*\.\w+"
)
OTHER_LIBRARIES = {  # ending of a file in a folder: who reads it
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


def candidate_names(library: str) -> tuple[str, ...]:
    """File names to look for in a folder, first choice first: the library's own, shards, others."""
    own = tuple(NAMES[library])
    others = tuple(name for names in NAMES.values() for name in names)
    return tuple(dict.fromkeys((*own, *SHARDED, *others)))


def find_file(folder: Path, library: str) -> Path | None:
    """The weights file, or the index of the shards, in a folder as a library saves it."""
    paths = (folder / name for name in candidate_names(library))
    return next((path for path in paths if path.is_file()), None)


def safetensors_header(path: Path) -> bytes | None:
    """The JSON header of a file in safetensors format, unparsed; None for any other file."""
    with untrusted.open_regular(path) as file:
        start = file.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > min(MOST, path.stat().st_size):
            return None
        return b"{" + file.read(length - 1)


def missing_message(folder: Path, library: str) -> str:
    """The message for a folder without a weights file of a known name."""
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    names = " or ".join(candidate_names(library)[: len(NAMES[library])])
    message = f"the folder holds no {names}, as {library} saves them"
    if any(name.endswith(".distcp") for name in files):
        convert = ("python", "-m", "torch.distributed.checkpoint.format_utils", "dcp_to_torch")
        run = f"{command(convert)} {file_word(folder)} FILE"
        return f"{message}; it holds a distributed checkpoint: run `{run}` and name FILE"
    if "zero_to_fp32.py" in files:
        return f"{message}; run `python zero_to_fp32.py . pytorch_model.bin` there (DeepSpeed)"
    shards = [name for name in files if SHARD.search(name)]
    if shards:
        return f"{message}; {shards[0]} is a shard without {SHARDED[0]}: fetch the index too"
    own = [name for name in files if name.endswith(ENDINGS) and not STATE.fullmatch(name)]
    if own:
        some = ", ".join(own[:3]) + (" ..." if len(own) > 3 else "")
        return f"{message}; it holds {some}: name the file itself"
    for name in files:
        if (other := OTHER_LIBRARIES.get(Path(name).suffix)) is not None:
            return (
                f"{message}; {name} is a file of {other}, which is not read: take {names} of the "
                "same model"
            )
    return f"{message}; name the file itself"


def shards_of(index: Path) -> tuple[Path, ...]:
    """The files that an index lists, which lie beside it, in the order of their names.

    Raises:
        ConfigError: the index is no list of shards, names a file elsewhere, or a file is missing.
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
        ConfigError: the index is no list of shards, or names a file elsewhere.
    """
    names = sorted(set(weight_map(index).values()))
    if nested := [name for name in names if name.endswith(INDEX)]:
        raise ConfigError(
            f"{index} names the shard {nested[0]!r}, an index itself: fetch the index again"
        )
    outside = [name for name in names if Path(name).name != name or "\\" in name or name == ".."]
    if outside:
        raise ConfigError(
            f"{index} names the shard {outside[0]!r}: a shard must lie beside its index; fetch the "
            "index again"
        )
    return names


def weight_map(index: Path) -> dict[str, str]:
    """Name of a tensor -> name of the shard that holds it.

    Raises:
        ConfigError: the file is no index.
    """
    try:
        content: Any = parse_json(untrusted.read_bytes(index, MOST))
        listed = content["weight_map"]
        if not listed or not all(isinstance(name, str) and name for name in listed.values()):
            raise ValueError("weight_map is empty or holds something else than names")
    except (ValueError, KeyError, TypeError, AttributeError, TooLargeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(
            f"{index} is no index of shards ({type(error).__name__}: {reason}): fetch it again, or "
            "name the weights file itself"
        ) from error
    return listed


def is_index(path: Path) -> bool:
    """Whether the file is the index of sharded weights, by its name."""
    return path.name.endswith(INDEX)


def sha256_of(path: Path) -> str:
    """Digest of a weights file; of sharded weights the digest of `shard_list`.

    Raises:
        ConfigError: as `shards_of`.
    """
    if is_index(path):
        return hashlib.sha256(shard_list(path)).hexdigest()
    return sha256_of_file(path)


def shard_list(index: Path) -> bytes:
    """Canonical JSON of the digests of an index and of its shards: their common identity.

    Raises:
        ConfigError: as `shards_of`.
    """
    shards = {path.name: sha256_of_file(path) for path in shards_of(index)}
    text = json.dumps(
        {"index": sha256_of_file(index), "shards": shards}, sort_keys=True, separators=(",", ":")
    )
    return text.encode()


def sha256_of_file(path: Path) -> str:
    """Digest of the bytes of one file."""
    stat = path.stat()
    return _sha256_of_version(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_of_version(path: Path, size: int, mtime_ns: int) -> str:
    """Gigabytes are read once per process, not once per look at the config."""
    with untrusted.open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
