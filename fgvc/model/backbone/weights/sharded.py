"""Sharded weights -> their tensors. The shards are listed in an index, or in a list of digests.

A list of digests names shards in a content store, where every file is stored under its digest.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.config.weight_files import shards as weight_files
from fgvc.config.weight_files.checkpoint_metadata import SHA256
from fgvc.model.backbone.weights.errors import as_user_errors
from fgvc.model.backbone.weights.read_file import read_content, read_json
from fgvc.store import hashing
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

LIST_START = b'{"index":"'


@as_user_errors()
def read(path: Path) -> dict[str, Tensor]:
    """The tensors of all shards.

    Raises:
        UserError: a JSON file of another kind, a shard that is missing or has another digest, or a
            tensor of the index that no shard holds.
    """
    content = read_json(path)
    names: Mapping[str, str] = {}
    if set(content) == {"index", "shards"}:
        shards = _stored_shards(path, content)
    elif weight_files.is_index(path) and "weight_map" in content:
        shards, names = weight_files.shards_of(path), weight_files.weight_map(path)
    else:
        raise UserError(
            f"weights {path} are a JSON file, not weights: name the weights file, or the index of "
            f"its shards, whose name ends in {weight_files.INDEX}"
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


def files_of(path: Path) -> tuple[tuple[Path, ...], bytes | None]:
    """The files to store for a weights file, and the list of digests for an index of shards."""
    with untrusted.open_regular(path) as file:
        is_digest_list = file.read(len(LIST_START)) == LIST_START
    if is_digest_list:  # from a content store
        return (*_stored_shards(path, read_json(path)), path), None
    if not weight_files.is_index(path):
        return (path,), None
    return (*weight_files.shards_of(path), path), weight_files.shard_list(path)


def _stored_shards(path: Path, content: Mapping[str, Any]) -> tuple[Path, ...]:
    """The shards in a content store that a list of digests names, verified."""
    shards, store = content.get("shards"), path.parent.parent
    digests = list(shards.values()) if isinstance(shards, dict) else []
    if not digests or not all(isinstance(each, str) and SHA256.fullmatch(each) for each in digests):
        raise UserError(
            f"{path} is no list of shards: give the original weights with backbone.weights=PATH"
        )
    files = tuple(store / sha256[:2] / sha256 for sha256 in digests)
    for file in files:
        if not file.is_file() or hashing.sha256_file(file) != file.name:
            raise UserError(
                f"{path} lists a shard with sha256 {file.name}, which is missing or damaged in "
                f"{store}: give the original weights with backbone.weights=PATH"
            )
    return files
