"""FiftyOne's MongoDB, checked before anything waits for it: a named one, or one of our own."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.types import UserError

URI = "FIFTYONE_DATABASE_URI"
TIMEOUT_OPTION = "serverSelectionTimeoutMS"
PING_TIMEOUT = 10_000  # milliseconds for a database that is named to answer
POLL = 0.2  # seconds between looks at a mongod that starts
STARTING = 4615611  # MongoDB's id of the first line of a start in its log


def connect(folder: Path) -> None:
    """Connect FiftyOne to its database, which is started where none is named.

    Args:
        folder: of the database of our own.

    Raises:
        UserError: a named database does not answer, or our mongod ends while it starts; names the
            variable and the way out.
    """
    import fiftyone as fo
    import fiftyone.core.odm.database as odm

    if fo.config.database_uri is not None:
        _ping(fo.config.database_uri)
    failure: list[Exception] = []

    def connect() -> None:
        try:
            odm.get_db_conn()
        except Exception as error:  # of pymongo, of FiftyOne, or of the operating system
            failure.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL)
        if _ended(odm):
            raise UserError(_why_mongod_ended(folder))
    if failure:
        raise UserError(
            f"FiftyOne's database does not answer ({_short(failure[0])}): name a MongoDB of your "
            f"own in {URI}, or give runtime.cache_root=PATH for a new one"
        ) from failure[0]


def _ping(uri: str) -> None:
    """Check that a MongoDB answers at the address within seconds.

    Raises:
        UserError: none does.
    """
    import pymongo
    from pymongo.errors import PyMongoError

    patience: dict[str, Any] = (
        {} if TIMEOUT_OPTION.lower() in uri.lower() else {TIMEOUT_OPTION: PING_TIMEOUT}
    )
    try:
        with pymongo.MongoClient(uri, **patience) as client:
            client.admin.command("ping")
    except (PyMongoError, ValueError, OSError) as error:
        raise UserError(
            f"{_named(uri)}: no MongoDB answers there ({_short(error)}); start it, or {_way_out()} "
            "for a database of fgvc's own"
        ) from error


def _named(uri: str) -> str:
    hidden = re.sub(r"//[^@/]*@", "//…@", uri)  # a user and a password
    return f"{URI}={hidden}" if URI in os.environ else f"database_uri={hidden}"


def _way_out() -> str:
    import fiftyone.constants as constants

    if URI in os.environ:
        return f"unset {URI}"
    file = os.environ.get("FIFTYONE_CONFIG_PATH", constants.FIFTYONE_CONFIG_PATH)
    return f"take database_uri out of {file}"


def _ended(odm: Any) -> bool:
    """Whether the process that watches our mongod is gone; one of another program is not ours."""
    child = getattr(odm._db_service, "child", None)
    return child is not None and hasattr(child, "poll") and child.poll() is not None


def _why_mongod_ended(folder: Path) -> str:
    reason = next(_errors(folder / "log" / "mongo.log"), "it left no reason")
    return (
        f"FiftyOne's mongod ended while it started ({reason[:200]}): remove {folder}, which fgvc "
        f"fills anew, give runtime.cache_root=PATH, or name a MongoDB of your own in {URI}"
    )


def _errors(log: Path) -> Iterator[str]:
    """What went wrong in the last start, in the order of its log."""
    try:
        text = untrusted.read_bytes(log, untrusted.LIST).decode("utf-8", "replace")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return
    starts = [place for place, line in enumerate(lines) if line.get("id") == STARTING]
    for line in lines[starts[-1] if starts else 0 :]:
        if line.get("s") in ("E", "F"):
            detail = line.get("attr", {}).get("error")
            detail = detail.get("errmsg") if isinstance(detail, dict) else detail
            yield " ".join(str(part) for part in (line.get("msg"), detail) if part)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(" ,;:") or type(error).__name__
