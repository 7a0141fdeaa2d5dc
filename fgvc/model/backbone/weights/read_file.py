"""A weights file -> what it holds: tensors and plain values, by the format of its bytes.

The first bytes tell the format, not the name. Nothing in a file is ever executed, and whatever is
wrong with a file is one line.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.config.weight_files import sidecars
from fgvc.config.weight_files.shards import OTHER_LIBRARIES
from fgvc.model.backbone import run_checkpoint
from fgvc.types import UserError
from fgvc.untrusted.shell import file_word

if TYPE_CHECKING:
    from torch import Tensor

MAX_HEADER_LENGTH = (
    2**40
)  # more than the header of any .safetensors file: eight letters as a number
MAX_EXPANSION = 50  # times its size that an archive of numbers unpacks to at most
OTHER_FORMATS = (  # first bytes, format
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras saves weights"),
    (b"GGUF", "a GGUF file, as llama.cpp reads it"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"BZh", "compressed (bzip2)"),
    (b"\xfd7zXZ", "compressed (xz)"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "one NumPy array without names (.npy)"),
)
OLD_TORCH_MEMBERS = ("sys_info", "pickle", "tensors", "storages")  # in a tar of torch before 0.2
UNSAFE_ADVICE = re.compile(r"weights_only|torch\.load|pickle_module|safe_globals|arbitrary code")


def read_json(path: Path) -> dict[str, Any]:
    """What a library wrote beside its weights.

    Raises:
        UserError: no JSON object; one line.
    """
    try:
        return sidecars.read_object(path)
    except ValueError as error:
        raise UserError(str(error)) from error


def read_content(path: Path) -> Any:
    """What a weights file holds, on the CPU: named tensors, or containers of them.

    Raises:
        UserError: not a weights file, cut short, or holding what only code can rebuild; one line.
    """
    from fgvc.model.backbone.weights import pickled, sharded

    with untrusted.open_regular(path) as file:
        head = file.read(512)
    _refuse_placeholder_files(path, head)
    if (state := run_checkpoint.read(path)) is not None:
        return state
    if head.startswith(b"PK"):
        return _read_zip(path)
    if _is_json(head):
        return sharded.read(path)
    if head[8:9] == b"{":  # an 8-byte length, then JSON
        return _read_safetensors(path)
    _refuse_tar(path, head)
    _refuse_other_formats(path, head)
    return pickled.read(path)


def unreadable_error(path: Path, error: Exception) -> UserError:
    """The message for a damaged file."""
    reason = str(error).strip().partition("\n")[0][:200]
    if not reason or UNSAFE_ADVICE.search(str(error)):  # torch advises to let the file run its code
        reason = type(error).__name__
    return UserError(
        f"weights {path} cannot be read ({path.stat().st_size} bytes, cut short?): {reason}"
    )


def _read_zip(path: Path) -> Any:
    from fgvc.model.backbone.weights import npz, pickled, torchscript

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
            "of its model, best as .safetensors"
        )
    if not any(name.endswith("data.pkl") for name in names):
        inside = ", ".join(names[:3]) or "nothing"
        raise UserError(
            f"weights {path} cannot be read: a zip archive that holds {inside} and no weights; if "
            "they lie in it, unpack it and name the file"
        )
    return pickled.read(path)


def _is_json(head: bytes) -> bool:
    long = int.from_bytes(head[:8], "little") > MAX_HEADER_LENGTH
    return head.lstrip().startswith(b"{") and (long or len(head) < 9)


def _refuse_placeholder_files(path: Path, head: bytes) -> None:
    """Name the files that commonly lie where weights should."""
    text = head.lstrip().lower()
    if not head:
        raise UserError(f"weights {path} are empty (0 bytes): download them again")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"weights {path} are a web page, not weights: download them again")
    if text.startswith(b"version https://git-lfs"):
        raise UserError(f"weights {path} are a Git LFS pointer: run `git lfs pull` where it lies")


def _refuse_tar(path: Path, head: bytes) -> None:
    """Refuse a tar archive of any format: the message of torch advises to run its code."""
    import tarfile

    if not head.strip(b"\0"):
        raise UserError(
            f"weights {path} ({path.stat().st_size} bytes) begin with {len(head)} zeros, as a "
            "download that was broken off: download them again"
        )
    try:
        first = tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return
    if first.name.rstrip("/").rpartition("/")[2] in OLD_TORCH_MEMBERS:
        raise UserError(
            f"weights {path} are a tar archive of torch before 0.2, which only its own code reads: "
            "take the same model as .safetensors, or as a state dict that a later torch saved"
        )
    raise UserError(
        f"weights {path} are a tar archive: unpack it (`mkdir FOLDER; tar -xf "
        f"{file_word(path)} -C FOLDER`) and name the file inside"
    )


def _refuse_other_formats(path: Path, head: bytes) -> None:
    """Name the formats of other libraries."""
    kind = next((kind for start, kind in OTHER_FORMATS if head.startswith(start)), None)
    if kind is None and (library := OTHER_LIBRARIES.get(path.suffix.lower())) is not None:
        kind = f"a file of {library}"
    if kind is None:
        return
    packed = kind.startswith("compressed") or kind in ("a 7-Zip archive", "a RAR archive")
    way_out = (
        "unpack it and name the file inside"
        if packed
        else "which is not read: take the same model as .safetensors, or as a state dict of torch"
    )
    raise UserError(f"weights {path} are {kind}{':' if packed else ','} {way_out}")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(untrusted.require_regular(path))
    except OSError:
        raise
    except Exception as error:  # a damaged header, or numbers that torch does not have
        raise unreadable_error(path, error) from error
