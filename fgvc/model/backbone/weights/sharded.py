"""Sharded weights -> their tensors: an index with the shards beside it, or a list of digests.

A list of digests names shards in a content store, where every file lies under its own digest.
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
        UserError: a JSON file of another kind, a shard that is missing or is another file, or a
            tensor of the index that no shard holds.
    """
    held = read_json(path)
    if set(held) == {"index", "shards"}:
        return _read_shards(
            [_stored_shard(path, sha256) for sha256 in _listed_digests(path, held)], path
        )
    if not weight_files.is_index(path) or "weight_map" not in held:
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
    """The files to keep of a weights file, and of an index also the list of digests."""
    with untrusted.open_regular(path) as file:
        listed = file.read(len(LIST_START)) == LIST_START
    if listed:  # from a content store
        shards = _listed_digests(path, read_json(path))
        return (*(_stored_shard(path, sha256) for sha256 in shards), path), None
    if not weight_files.is_index(path):
        return (path,), None
    return (*weight_files.shards_of(path), path), weight_files.shard_list(path)


def _read_shards(shards: list[Path] | tuple[Path, ...], path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Any] = {}
    for shard in shards:
        held = read_content(shard)
        if not isinstance(held, Mapping):
            raise UserError(f"{shard}, a shard of {path}, holds no named tensors: fetch it again")
        if twice := tensors.keys() & held.keys():
            raise UserError(f"{shard}: {min(twice)} is in another shard of {path} too")
        tensors |= held
    return tensors


def _listed_digests(path: Path, held: Mapping[str, Any]) -> list[str]:
    """The digests in a list of shards; UserError if it holds something else."""
    shards = held.get("shards")
    listed = list(shards.values()) if isinstance(shards, dict) else []
    if not listed or not all(isinstance(each, str) and SHA256.fullmatch(each) for each in listed):
        raise UserError(
            f"{path} is no list of shards: give the original weights with backbone.weights=PATH"
        )
    return listed


def _stored_shard(path: Path, sha256: str) -> Path:
    shard = path.parent.parent / sha256[:2] / sha256
    if not shard.is_file() or hashing.sha256_file(shard) != sha256:
        raise UserError(
            f"{path} lists a shard with sha256 {sha256}, which is missing or damaged in "
            f"{path.parent.parent}: give the original weights with backbone.weights=PATH"
        )
    return shard
