"""A backbone's config -> where its weights and its tokenizer are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

from fgvc.config import schema
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files.folder import find_weights
from fgvc.config.weight_files.hub_name import HUB, hub_hint, local_path, set_repo
from fgvc.config.weight_files.shards import (
    SHARDED,
    is_index,
    sha256_of,
    sha256_of_file,
    shard_names,
    shards_of,
)
from fgvc.model.backbone import hub, run_checkpoint
from fgvc.store import hashing
from fgvc.types import UserError, WeightsSource
from fgvc.untrusted.shell import command, file_word

TOKENIZER = "tokenizer.json"


def find(conf: schema.Backbone, may_fetch: Callable[[str], bool] | None = None) -> WeightsSource:
    """Where the weights are: a local file or folder, nowhere (random weights), or the hub's cache.

    Weights that are not cached are downloaded.

    Args:
        may_fetch: repository -> whether it may be contacted; None: every repository may.

    Raises:
        UserError: no such file, no network, a digest other than `backbone.weights_sha256` or the
            hub's own, or a made-up model, which has no published weights.
    """
    if conf.weights is not None and conf.weights.startswith(HUB):
        conf = copy.deepcopy(conf)
        set_repo(conf)
    row = schema.chosen_checkpoint(conf)
    if conf.weights is not None:
        path = _local_file(conf, row)
        sha256 = _check_sha256(path, conf.weights_sha256)
        return WeightsSource(
            "file", path.name, path, sha256, made_by=run_checkpoint.writing_run(path)
        )
    if not conf.pretrained:
        return WeightsSource("random", row.model)
    if not row.repo:
        raise UserError(
            f"backbone.size={row.size}: a made-up {conf.name} has no published weights; "
            "backbone.pretrained=false takes random ones, backbone.weights=PATH those of a file, "
            "and a row of your own may name a repo"
        )
    names = _hub_names(conf.library, row)
    trusted = may_fetch is None or may_fetch(row.repo)
    path, commit = hub.fetch(
        hub.HubFile(
            what="weights",
            model=row.model,
            repo=row.repo,
            revision=conf.revision or row.revision,
            names=names,
            companions=LIBRARIES[conf.library].companions,
            instead="give a local file with backbone.weights=PATH",
            certain=1 if conf.revision is None else None,
            trusted=trusted,
        )
    )
    files = (path, *_fetch_shards(row, path, commit, trusted)) if is_index(path) else (path,)
    for file in files:
        _check_cached_file(file)
    sha256 = _check_sha256(path, conf.weights_sha256)
    return WeightsSource("hub", row.repo, path, sha256, commit)


def tokenizer(conf: schema.Backbone, source: WeightsSource) -> Path | None:
    """The tokenizer of the weights; None for random weights and libraries with their own tokenizer.

    Raises:
        UserError: neither beside the weights nor on the hub, or its digest is not
            `backbone.tokenizer_sha256`.
    """
    if source.path is None or not LIBRARIES[conf.library].reads_tokenizer:
        return None
    row = schema.chosen_checkpoint(conf)
    path = source.path.with_name(TOKENIZER)
    if not path.is_file():
        path = _fetch_tokenizer(row, source)
    sha256 = hashing.sha256_file(path)
    if conf.tokenizer_sha256 not in (None, sha256):
        raise UserError(
            f"tokenizer {path} has sha256 {sha256}, not backbone.tokenizer_sha256="
            f"{conf.tokenizer_sha256}: the file changed or is another one"
        )
    return path


def _fetch_tokenizer(row: schema.Checkpoint, source: WeightsSource) -> Path:
    assert source.path is not None
    if source.revision is None:
        folder = source.path.parent
        download = command(["hf", "download", row.repo or "REPO", TOKENIZER])
        raise UserError(
            f"no tokenizer for {row.model}: {folder} holds no {TOKENIZER}; run "
            f"`{download} --local-dir {file_word(folder)}`, or "
            "leave backbone.weights out to take weights and tokenizer from the hub"
        )
    path, _ = hub.fetch(
        hub.HubFile(
            what="tokenizer",
            model=row.model,
            repo=source.name,
            revision=source.revision,
            names=(TOKENIZER,),
            instead="give a folder that holds weights and tokenizer with backbone.weights=PATH",
        )
    )
    return path


def _local_file(conf: schema.Backbone, row: schema.Checkpoint) -> Path:
    path = local_path(conf.weights or "")
    if path.is_dir():
        try:
            return find_weights(conf.weights or "", path, conf.library)
        except ValueError as error:
            raise UserError(str(error)) from error
    if not path.is_file():
        raise UserError(
            f"backbone.weights={conf.weights}: no such file; correct the path, "
            f"or leave it out to take {row.repo} from the hub{hub_hint(conf.weights or '')}"
        )
    return path


def _hub_names(library: str, row: schema.Checkpoint) -> Sequence[str]:
    """File names to look for in a repository, the preferred one first.

    open_clip also reads files of transformers, unless the row has a tag of open_clip.
    """
    names = LIBRARIES[library].weight_files
    if library != "open_clip":
        return (*names, *SHARDED)
    if row.tag is not None:
        return names
    return (*names, *LIBRARIES["transformers"].weight_files, *SHARDED)


def _fetch_shards(
    row: schema.Checkpoint, index: Path, commit: str, trusted: bool
) -> tuple[Path, ...]:
    """The shards that an index of the hub lists; those that are not cached are downloaded."""
    try:
        missing = [name for name in shard_names(index) if not index.with_name(name).is_file()]
        if missing:
            hub.fetch(
                hub.HubFile(
                    what="shards of the weights",
                    model=row.model,
                    repo=row.repo or "",
                    revision=commit,
                    names=missing[:1],
                    companions=missing[1:],
                    trusted=trusted,
                    instead="give a local file or folder with backbone.weights=PATH",
                )
            )
        return shards_of(index)
    except ValueError as error:  # an index that is not whole
        raise UserError(str(error)) from error


def _check_sha256(path: Path, expected: str | None) -> str:
    try:
        sha256 = sha256_of(path)
    except ValueError as error:  # sharded weights that are not whole
        raise UserError(str(error)) from error
    if expected not in (None, sha256):
        raise UserError(
            f"weights {path} have sha256 {sha256}, not backbone.weights_sha256={expected}: "
            f"the file changed or is another one"
        )
    return sha256


def _check_cached_file(path: Path) -> None:
    expected = hub.cached_sha256(path)
    if expected is None:
        return
    sha256 = sha256_of_file(path)
    if expected != sha256:
        raise UserError(
            f"weights {path} have sha256 {sha256}, the hub says {expected}: the cached file is "
            f"damaged; delete {path.resolve()} and run again"
        )
