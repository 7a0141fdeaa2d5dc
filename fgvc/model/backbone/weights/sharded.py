"""Sharded weights -> their tensors. The shards are listed in an index, or in a list of digests.

A list of digests names shards in a content store, where every file is stored under its digest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.config.weight_files import shards as weight_files
from fgvc.model.backbone.weights.read_file import read_content, read_json
from fgvc.store import hashing
from fgvc.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

SHA256 = re.compile(r"[0-9a-f]{64}")
LIST_START = b'{"index":"'


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of all shards.

    Raises:
        UserError: a JSON file of another kind, a shard that is missing or has another digest, or a
            tensor of the index that no shard holds.
    """
    content = read_json(path)
    if set(content) == {"index", "shards"}:
        return _read_shards(
            [_stored_shard(path, sha256) for sha256 in _listed_digests(path, content)], path
        )
    if not weight_files.is_index(path) or "weight_map" not in content:
        raise UserError(
            f"weights {path} are a JSON file, not weights: name the weights file, or the index of "
            f"its shards, whose name ends in {weight_files.INDEX}"
        )
    try:
        shards = weight_files.shards_of(path)
        names = weight_files.weight_map(path)
    except ValueError as error:
        raise UserError(str(error)) from error
    tensors = _read_shards(shards, path)
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
        shards = _listed_digests(path, read_json(path))
        return (*(_stored_shard(path, sha256) for sha256 in shards), path), None
    if not weight_files.is_index(path):
        return (path,), None
    return (*weight_files.shards_of(path), path), weight_files.shard_list(path)


def _read_shards(shards: list[Path] | tuple[Path, ...], path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Any] = {}
    for shard in shards:
        shard_tensors = read_content(shard)
        if not isinstance(shard_tensors, Mapping):
            raise UserError(f"{shard}, a shard of {path}, holds no named tensors: fetch it again")
        if duplicates := tensors.keys() & shard_tensors.keys():
            raise UserError(f"{shard}: {min(duplicates)} is in another shard of {path} too")
        tensors |= shard_tensors
    return tensors


def _listed_digests(path: Path, content: Mapping[str, Any]) -> list[str]:
    """The digests in a list of shards; raises UserError if it holds anything else."""
    shards = content.get("shards")
    digests = list(shards.values()) if isinstance(shards, dict) else []
    if not digests or not all(isinstance(each, str) and SHA256.fullmatch(each) for each in digests):
        raise UserError(
            f"{path} is no list of shards: give the original weights with backbone.weights=PATH"
        )
    return digests


def _stored_shard(path: Path, sha256: str) -> Path:
    shard = path.parent.parent / sha256[:2] / sha256
    if not shard.is_file() or hashing.sha256_file(shard) != sha256:
        raise UserError(
            f"{path} lists a shard with sha256 {sha256}, which is missing or damaged in "
            f"{path.parent.parent}: give the original weights with backbone.weights=PATH"
        )
    return shard
