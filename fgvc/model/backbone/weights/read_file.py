"""A weights file -> its content: tensors and plain values.

The first bytes determine the format, not the name. No code in a file is ever executed, and any
fault of a file becomes a message of one line. Shards are listed in an index, or in a list of
digests, which names shards in a content store, where every file is stored under its digest.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.config.weight_files import sidecars
from fgvc.config.weight_files.checkpoint_metadata import SHA256
from fgvc.config.weight_files.shards import (
    INDEX,
    OTHER_LIBRARIES,
    is_index,
    shard_list,
    shards_of,
    weight_map,
)
from fgvc.model.backbone import run_checkpoint
from fgvc.model.backbone.weights import npz, pickled, torchscript
from fgvc.model.backbone.weights.errors import as_user_errors, unreadable_error
from fgvc.store import hashing
from fgvc.types import UserError
from fgvc.untrusted.file_format import HEAD_BYTES, kind_of, with_article
from fgvc.untrusted.shell import file_word

if TYPE_CHECKING:
    from torch import Tensor

LIST_START = b'{"index":"'  # of a list of digests
MAX_EXPANSION = 50  # largest ratio of unpacked to packed bytes of an archive of numbers
OLD_TORCH_MEMBERS = ("sys_info", "pickle", "tensors", "storages")  # in a tar of torch before 0.2
DOWNLOAD = "not weights: download them again"
TAKE = "which is not read: take the same model as .safetensors, or as a state dict of torch"
WAYS_OUT = {  # format -> what to do
    "HTML page": DOWNLOAD,
    "XML document": DOWNLOAD,
    "Git LFS pointer": "not weights: run `git lfs pull` in its folder",
    "HDF5 file": f"as Keras saves weights, {TAKE}",
    "GGUF file": f"as llama.cpp reads it, {TAKE}",
    "NumPy array": f"without names (.npy), {TAKE}",
}


def read_content(path: Path) -> Any:
    """The content of a weights file, on the CPU: named tensors, or containers of them.

    Raises:
        UserError: not a weights file, cut short, or it holds objects that only code can rebuild;
            one line.
    """
    with untrusted.open_regular(path) as file:
        head = file.read(HEAD_BYTES)
    if (state := run_checkpoint.read(path)) is not None:
        return state
    if head.startswith(b"PK"):
        return _read_zip(path)
    # an 8-byte length, then JSON; eight letters read as a number are more
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        from safetensors.torch import load_file

        try:
            return load_file(untrusted.require_regular(path))
        except OSError:
            raise
        except Exception as error:  # a damaged header, or numbers that torch does not have
            raise unreadable_error(path, error) from error
    if head.lstrip().startswith(b"{"):
        return _read_shards(path)
    _refuse_other_formats(path, head)
    return pickled.read(path)


@as_user_errors()
def files_of(path: Path) -> tuple[tuple[Path, ...], bytes | None]:
    """The files to store for a weights file, and the list of digests for an index of shards."""
    with untrusted.open_regular(path) as file:
        is_digest_list = file.read(len(LIST_START)) == LIST_START
    if is_digest_list:  # from a content store
        return (*_stored_shards(path, sidecars.read_object(path)), path), None
    if not is_index(path):
        return (path,), None
    return (*shards_of(path), path), shard_list(path)


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(untrusted.require_regular(path)) as archive:
            names = archive.namelist()
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # a damaged directory fails in many ways
        raise unreadable_error(path, error) from error
    if unpacked > MAX_EXPANSION * path.stat().st_size:
        raise UserError(
            f"weights {path} cannot be read: an archive of {path.stat().st_size} bytes that "
            f"unpacks to {unpacked}, which numbers of a model do not; download it again"
        )
    if names and all(name.endswith(".npy") for name in names):
        return npz.read(path)
    if any(name.endswith("/constants.pkl") for name in names):
        return torchscript.read(path)
    if any(name.endswith("model_weights_config.json") for name in names):
        raise UserError(
            f"weights {path} are a program of torch.export, which is not read: save the state dict "
            "of its model, preferably as .safetensors"
        )
    if not any(name.endswith("data.pkl") for name in names):
        content = ", ".join(names[:3]) or "nothing"
        raise UserError(
            f"weights {path} cannot be read: a zip archive that holds {content} and no weights; if "
            "the weights are in it, unpack it and name the file"
        )
    return pickled.read(path)


def _refuse_other_formats(path: Path, head: bytes) -> None:
    """Refuse usual placeholders of weights, and the formats of other libraries."""
    if not head:
        raise UserError(f"weights {path} are empty (0 bytes): download them again")
    if not head.strip(b"\0"):
        raise UserError(
            f"weights {path} ({path.stat().st_size} bytes) begin with {len(head)} zeros, as after "
            "an interrupted download: download them again"
        )
    kind = kind_of(head)
    if kind is None and (library := OTHER_LIBRARIES.get(path.suffix.lower())) is not None:
        kind = f"file of {library}"
    if kind is not None:
        unpack = "not weights: unpack it and name the file inside"
        way_out = WAYS_OUT.get(kind, unpack if kind.endswith("archive") else TAKE)
        raise UserError(f"weights {path}: {with_article(kind)}, {way_out}")
    try:  # a tar archive of any format; torch's message advises to run its code
        member = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return
    if member.name.rstrip("/").rpartition("/")[2] in OLD_TORCH_MEMBERS:
        raise UserError(
            f"weights {path} are a tar archive of torch before 0.2, which only its own code reads: "
            "take the same model as .safetensors, or as a state dict that a later torch saved"
        )
    raise UserError(
        f"weights {path} are a tar archive: unpack it (`mkdir FOLDER; tar -xf "
        f"{file_word(path)} -C FOLDER`) and name the file inside"
    )


@as_user_errors()
def _read_shards(path: Path) -> dict[str, Tensor]:
    """The tensors of all shards, which an index or a list of digests names."""
    content = sidecars.read_object(path)
    names: Mapping[str, str] = {}
    if set(content) == {"index", "shards"}:
        shards = _stored_shards(path, content)
    elif is_index(path) and "weight_map" in content:
        shards, names = shards_of(path), weight_map(path)
    else:
        raise UserError(
            f"weights {path} are a JSON file, not weights: name the weights file, or the index of "
            f"its shards, whose name ends in {INDEX}"
        )
    tensors: dict[str, Any] = {}
    for shard in shards:
        shard_tensors = read_content(shard)
        if not isinstance(shard_tensors, Mapping):
            raise UserError(f"{shard}, a shard of {path}, holds no named tensors: fetch it again")
        if duplicates := tensors.keys() & shard_tensors.keys():
            raise UserError(f"{shard}: {min(duplicates)} is in another shard of {path} too")
        tensors |= shard_tensors
    if missing := [name for name in names if name not in tensors]:
        raise UserError(
            f"weights {path} list {missing[0]} in {names[missing[0]]}, which does not hold it "
            f"({len(missing)} such tensors): fetch the index and the shards again"
        )
    return tensors


def _stored_shards(path: Path, content: Mapping[str, Any]) -> tuple[Path, ...]:
    """The shards in a content store that a list of digests names, verified."""
    shards, store = content.get("shards"), path.parent.parent
    digests = list(shards.values()) if isinstance(shards, dict) else []
    if not digests or not all(isinstance(each, str) and SHA256.fullmatch(each) for each in digests):
        raise UserError(
            f"{path} is not a list of shards: give the original weights with backbone.weights=PATH"
        )
    files = tuple(store / sha256[:2] / sha256 for sha256 in digests)
    for file in files:
        if not file.is_file() or hashing.sha256_file(file) != file.name:
            raise UserError(
                f"{path} lists a shard with sha256 {file.name}, which is missing or damaged in "
                f"{store}: give the original weights with backbone.weights=PATH"
            )
    return files
