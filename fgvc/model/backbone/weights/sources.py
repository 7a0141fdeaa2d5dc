"""A backbone's config -> where its weights and its tokenizer are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from fgvc.config import schema
from fgvc.config.schema.library import LIBRARIES
from fgvc.config.weight_files.checkpoint_metadata import SHA256
from fgvc.config.weight_files.folder import local_weights
from fgvc.config.weight_files.hub_name import set_repo
from fgvc.config.weight_files.shards import (
    SHARDED,
    check_digest,
    is_index,
    sha256_of_file,
    shard_names,
    shards_of,
)
from fgvc.model.backbone import hub, run_checkpoint
from fgvc.model.backbone.weights.errors import as_user_errors
from fgvc.types import UserError, WeightsSource
from fgvc.untrusted.shell import command, file_word

TOKENIZER = "tokenizer.json"
WAY_OUT = "give a local file or folder with backbone.weights=PATH"


@as_user_errors()
def find(conf: schema.Backbone, may_fetch: Callable[[str], bool] | None = None) -> WeightsSource:
    """Where the weights are: a local file or folder, nowhere (random weights), or the hub's cache.

    Weights that are not cached are downloaded.

    Args:
        may_fetch: repository -> whether it may be contacted; None: every repository may.

    Raises:
        UserError: no such file, no network, a digest other than `backbone.weights_sha256` or the
            hub's own, or a test model, which has no published weights.
    """
    conf = copy.deepcopy(conf)
    set_repo(conf)
    row = schema.chosen_checkpoint(conf)
    if conf.weights is not None:
        path = local_weights(conf.weights, conf.library)
        sha256 = check_digest("backbone.weights_sha256", conf.weights_sha256, path)
        made_by = run_checkpoint.writing_run(path)
        return WeightsSource("file", path.name, path, sha256, made_by=made_by)
    if not conf.pretrained:
        return WeightsSource("random", row.model)
    if not row.repo:
        raise UserError(
            f"backbone.size={row.size}: this test model of {conf.name} has no published weights; "
            "backbone.pretrained=false takes random ones, backbone.weights=PATH those of a file, "
            "and a new row may name a repo"
        )
    trusted = may_fetch is None or may_fetch(row.repo)
    path = _fetch(conf, row, row.repo, trusted)
    sha256 = check_digest("backbone.weights_sha256", conf.weights_sha256, path)
    return WeightsSource("hub", row.repo, path, sha256, path.parent.name)


def _fetch(conf: schema.Backbone, row: schema.Checkpoint, repo: str, trusted: bool) -> Path:
    """The weights file, or the index of shards, in the hub's cache, with all its shards."""
    spec = LIBRARIES[conf.library]
    names = (*spec.weight_files, *SHARDED)
    if conf.library == "open_clip":  # reads files of transformers too, unless it has its own tag
        others = (*LIBRARIES["transformers"].weight_files, *SHARDED) if row.tag is None else ()
        names = (*spec.weight_files, *others)
    path = hub.fetch(
        repo,
        conf.revision or row.revision,
        names,
        spec.companions,
        what=f"weights for {row.model}",
        way_out=WAY_OUT,
        # in a repository of unknown origin, the name of the weights file is unknown too
        named=1 if conf.revision is None else len(names),
        trusted=trusted,
    )
    files = (path,)
    if is_index(path):
        if missing := [name for name in shard_names(path) if not path.with_name(name).is_file()]:
            what = f"shards of the weights for {row.model}"
            commit = path.parent.name
            hub.fetch(
                repo, commit, missing[:1], missing[1:], what=what, way_out=WAY_OUT, trusted=trusted
            )
        files = (path, *shards_of(path))
    for file in files:
        # the cache stores a large file under its digest, and the snapshot only links to it
        blob, sha256 = file.resolve(), sha256_of_file(file)
        if SHA256.fullmatch(blob.name) and blob.name != sha256:
            raise UserError(
                f"weights {file} have sha256 {sha256}, the hub has {blob.name}: the cached file "
                f"is damaged; delete {blob} and run again"
            )
    return path


@as_user_errors()
def tokenizer(conf: schema.Backbone, source: WeightsSource) -> Path | None:
    """The tokenizer of the weights; None for random weights and libraries with their own tokenizer.

    Raises:
        UserError: neither beside the weights nor on the hub, or its digest is not
            `backbone.tokenizer_sha256`.
    """
    if source.path is None or not LIBRARIES[conf.library].reads_tokenizer:
        return None
    row, folder = schema.chosen_checkpoint(conf), source.path.parent
    path = folder / TOKENIZER
    if not path.is_file() and source.revision is not None:
        path = hub.fetch(
            source.name,
            source.revision,
            [TOKENIZER],
            what=f"tokenizer for {row.model}",
            way_out="give a folder that holds weights and tokenizer with backbone.weights=PATH",
        )
    elif not path.is_file():
        download = command(["hf", "download", row.repo or "REPO", TOKENIZER])
        raise UserError(
            f"no tokenizer for {row.model}: {folder} holds no {TOKENIZER}; run "
            f"`{download} --local-dir {file_word(folder)}`, or "
            "leave backbone.weights out to take weights and tokenizer from the hub"
        )
    check_digest("backbone.tokenizer_sha256", conf.tokenizer_sha256, path)
    return path
