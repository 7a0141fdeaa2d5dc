"""A repository and revision on the model hub -> its files in the local cache."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from fgvc.store.disk_errors import add_path
from fgvc.types import UserError
from fgvc.untrusted.shell import command

TIMEOUT = 3.0  # seconds until the first response of the hub


def fetch(
    repo: str,
    revision: str,
    names: Sequence[str],
    companions: Sequence[str] = (),
    *,
    what: str,
    way_out: str,
    named: int = 1,
    trusted: bool = True,
) -> Path:
    """The cached file of a repository, .../snapshots/COMMIT/NAME, downloaded if necessary.

    Args:
        names: the first that exists is taken.
        companions: small files that are downloaded with it if the repository has them.
        what, way_out: for messages, such as "weights for MODEL", and what to do without a network.
        named: how many of `names` the command in the message downloads.
        trusted: whether the repository may be contacted (not if only a checkpoint names it).

    Raises:
        UserError: neither cached nor available; names both ways out, within 5 seconds if offline.
        OSError: the disk refused the download.
    """
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        if isinstance(path := try_to_load_from_cache(repo, name, revision=revision), str):
            return Path(path)
    if not trusted:
        reason = "only the checkpoint names it, which may not choose network addresses"
    elif not _is_reachable():
        reason = "the hub cannot be reached"
    else:
        try:
            return _download(repo, revision, names, companions)
        except Exception as error:  # the client's errors share no base class
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = type(error).__name__
    words = ["hf", "download", repo, *names[:named], *companions, "--revision", revision]
    raise UserError(
        f"no {what}: {repo}@{revision} is not cached and {reason}; with a network run "
        f"`{command(words)}`, or {way_out}"
    )


def _download(repo: str, revision: str, names: Sequence[str], companions: Sequence[str]) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def get(name: str, revision: str) -> Path:
        with add_path(Path(constants.HF_HUB_CACHE)):
            return Path(hf_hub_download(repo, name, revision=revision, etag_timeout=TIMEOUT))

    path = None
    for name in names[:-1]:
        with suppress(EntryNotFoundError):
            path = get(name, revision)
            break
    path = path or get(names[-1], revision)
    for name in companions:
        with suppress(EntryNotFoundError):
            get(name, path.parent.name)  # of the same commit
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
