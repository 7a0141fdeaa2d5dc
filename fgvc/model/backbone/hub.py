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

TIMEOUT = 3.0  # seconds for the hub's first answer


@dataclass(frozen=True)
class HubFile:
    """One file of a repository, under the first of `names` that is there.

    what: "weights" or "tokenizer", for messages. model: whose. companions: small files that are
    fetched with it where the repository has them. instead: the way out without a network.
    certain: how many of `names` must be fetched to be sure of the weights. trusted: whether the
    repository may be contacted: a checkpoint alone may not name one.
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


def fetch(wanted: HubFile) -> tuple[Path, str]:
    """The cached file, downloaded where it is not cached yet, and the commit it belongs to.

    Raises:
        UserError: neither cached nor to be had; names both ways out, within 5 seconds when offline.
        OSError: the disk refused the download.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in wanted.names:
        path = try_to_load_from_cache(wanted.repo, name, revision=wanted.revision)
        if isinstance(path, str):
            break
    else:
        path = _downloaded(wanted)
    return Path(path), Path(path).parent.name  # .../snapshots/<commit>/model.safetensors


def cached_sha256(path: Path) -> str | None:
    """What the hub said the digest of a cached file is; None where the cache does not tell.

    A large file lies under its digest, and the snapshot only links to it.
    """
    name = path.resolve().name
    return name if re.fullmatch("[0-9a-f]{64}", name) else None


def _downloaded(wanted: HubFile) -> str:
    if not wanted.trusted:
        why = "only the checkpoint names it, which may not choose what is contacted"
        raise UserError(_unavailable(wanted, why))
    if not _is_reachable():
        raise UserError(_unavailable(wanted, "the hub cannot be reached"))
    try:
        return _download(wanted)
    except Exception as error:  # the client's errors share no base class
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(_unavailable(wanted, type(error).__name__)) from error


def _download(wanted: HubFile) -> str:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def get(name: str, revision: str) -> str:
        with add_path(Path(constants.HF_HUB_CACHE)):
            return hf_hub_download(wanted.repo, name, revision=revision, etag_timeout=TIMEOUT)

    path = None
    for name in wanted.names[:-1]:
        with suppress(EntryNotFoundError):
            path = get(name, wanted.revision)
            break
    path = path or get(wanted.names[-1], wanted.revision)
    for name in wanted.companions:
        with suppress(EntryNotFoundError):
            get(name, Path(path).parent.name)  # of the same commit
    return path


def _is_reachable() -> bool:
    """Whether the hub answers at all: its client would retry for half a minute.

    In a thread, as no timeout bounds the look-up of a name.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT)
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    return answered.is_set()


def _unavailable(wanted: HubFile, why: str) -> str:
    # of a repository of unknown origin, which name its weights have is unknown too
    names = (*wanted.names[: wanted.certain], *wanted.companions)
    download = command(["hf", "download", wanted.repo, *names, "--revision", wanted.revision])
    return (
        f"no {wanted.what} for {wanted.model}: {wanted.repo}@{wanted.revision} is not cached and "
        f"{why}; with a network run `{download}`, or {wanted.instead}"
    )
