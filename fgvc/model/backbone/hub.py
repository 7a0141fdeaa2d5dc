"""A repository and revision on the model hub -> its files in the local cache."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fgvc.store.disk_errors import add_path
from fgvc.types import UserError
from fgvc.untrusted.shell import command

TIMEOUT = 3.0  # seconds until the first response of the hub


@dataclass(frozen=True)
class HubFile:
    """A file of a repository, under the first of `names` that exists.

    what: "weights" or "tokenizer", for messages. model: the model it belongs to. companions: small
    files that are fetched with it if the repository has them. instead: what to do without a
    network. certain: how many of `names` must be fetched to be sure of the weights; None: all.
    trusted: whether the repository may be contacted (not if only a checkpoint names it).
    """

    what: str
    model: str
    repo: str
    revision: str
    names: Sequence[str]
    instead: str
    companions: Sequence[str] = ()
    certain: int | None = 1
    trusted: bool = True


def fetch(file: HubFile) -> tuple[Path, str]:
    """The path of the cached file, downloaded if necessary, and the commit it belongs to.

    Raises:
        UserError: neither cached nor available; names both ways out, within 5 seconds if offline.
        OSError: the disk refused the download.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in file.names:
        path = try_to_load_from_cache(file.repo, name, revision=file.revision)
        if isinstance(path, str):
            break
    else:
        path = _download(file)
    return Path(path), Path(path).parent.name  # .../snapshots/<commit>/model.safetensors


def cached_sha256(path: Path) -> str | None:
    """The digest by which the cache stores a file; None for a small file, stored by another name.

    The cache stores a large file under its digest, and the snapshot only links to it.
    """
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _download(file: HubFile) -> str:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def get(name: str, revision: str) -> str:
        with add_path(Path(constants.HF_HUB_CACHE)):
            return hf_hub_download(file.repo, name, revision=revision, etag_timeout=TIMEOUT)

    if not file.trusted:
        reason = "only the checkpoint names it, which may not choose what is contacted"
        raise UserError(_unavailable(file, reason))
    if not _is_reachable():
        raise UserError(_unavailable(file, "the hub cannot be reached"))
    try:
        path = None
        for name in file.names[:-1]:
            with suppress(EntryNotFoundError):
                path = get(name, file.revision)
                break
        path = path or get(file.names[-1], file.revision)
        for name in file.companions:
            with suppress(EntryNotFoundError):
                get(name, Path(path).parent.name)  # of the same commit
    except Exception as error:  # the client's errors share no base class
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(_unavailable(file, type(error).__name__)) from error
    return path


def _is_reachable() -> bool:
    """Whether the hub responds at all; the hub's client would retry for half a minute.

    The request runs in a thread, because no timeout bounds the look-up of a host name.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    responded = threading.Event()

    def send_request() -> None:
        with suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
            responded.set()

    thread = threading.Thread(target=send_request, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return responded.is_set()


def _unavailable(file: HubFile, reason: str) -> str:
    # in a repository of unknown origin, the name of the weights file is unknown too
    names = (*file.names[: file.certain], *file.companions)
    download = command(["hf", "download", file.repo, *names, "--revision", file.revision])
    return (
        f"no {file.what} for {file.model}: {file.repo}@{file.revision} is not cached and "
        f"{reason}; with a network run `{download}`, or {file.instead}"
    )
