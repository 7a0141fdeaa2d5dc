"""A repository and revision on the model hub -> its weights file in the local cache."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from fgvc.config import schema
from fgvc.types import UserError

FILENAME = "model.safetensors"
PATIENCE = 3.0  # seconds for the hub's first answer


def fetch(row: schema.Checkpoint, revision: str) -> tuple[Path, str]:
    """The cached file, downloaded where it is not cached yet, and the commit it belongs to.

    Raises:
        UserError: neither cached nor to be had; names both ways out, within 5 seconds when offline.
        OSError: the disk refused the download.
    """
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(row.repo, FILENAME, revision=revision)
    if not isinstance(path, str):
        path = _downloaded(row, revision)
    return Path(path), Path(path).parent.name  # .../snapshots/<commit>/model.safetensors


def _downloaded(row: schema.Checkpoint, revision: str) -> str:
    from huggingface_hub import hf_hub_download

    if not _answers():
        raise UserError(_no_weights(row, revision, "the hub cannot be reached"))
    try:
        return hf_hub_download(row.repo, FILENAME, revision=revision, etag_timeout=PATIENCE)
    except Exception as error:  # the client's errors share no base class
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(_no_weights(row, revision, f"{type(error).__name__}")) from error


def _answers() -> bool:
    """Whether the hub answers at all: its client would retry for half a minute.

    In a thread, as no timeout bounds the look-up of a name.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=PATIENCE)
            answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return answered.is_set()


def _no_weights(row: schema.Checkpoint, revision: str, why: str) -> str:
    return (
        f"no weights for {row.model}: {row.repo}@{revision} is not cached and {why}; "
        f"with a network run `hf download {row.repo} {FILENAME} --revision {revision}`, "
        f"or give a local file with backbone.weights=PATH"
    )
