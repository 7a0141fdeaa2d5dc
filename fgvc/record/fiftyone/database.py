"""A folder or FIFTYONE_DATABASE_URI -> a connection of FiftyOne to MongoDB, or a clear error."""

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
PING_TIMEOUT = 10_000  # milliseconds in which the database of a URI must answer
POLL = 0.2  # seconds between checks of a mongod that starts
STARTING = 4615611  # MongoDB's id of the first log line of a start


def connect(folder: Path) -> None:
    """Connect FiftyOne to the database of its URI, or start the database in a folder.

    Args:
        folder: of the database that is started without a URI.

    Raises:
        UserError: the database of the URI does not answer, or the started mongod exits; names the
            variable and the way out.
    """
    import fiftyone as fo
    import fiftyone.core.odm.database as odm

    if fo.config.database_uri is not None:
        _ping(fo.config.database_uri)
    failure: list[Exception] = []

    def get_connection() -> None:
        try:
            odm.get_db_conn()
        except Exception as error:  # from pymongo, FiftyOne or the operating system
            failure.append(error)

    thread = threading.Thread(target=get_connection, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(POLL)
        child = getattr(odm._db_service, "child", None)  # watches our mongod; None for any other
        if child is not None and hasattr(child, "poll") and child.poll() is not None:
            reason = next(_log_errors(folder / "log" / "mongo.log"), "no reason in its log")
            raise UserError(
                f"FiftyOne's mongod ended while it started ({reason[:200]}): remove {folder}, set "
                f"runtime.cache_root=PATH, or set {URI} to a MongoDB of your own"
            )
    if failure:
        raise UserError(
            f"FiftyOne's database does not answer ({_short(failure[0])}): set {URI} to a MongoDB "
            "of your own, or set runtime.cache_root=PATH for a new database"
        ) from failure[0]


def _ping(uri: str) -> None:
    """Check that a MongoDB answers at the address within seconds; UserError otherwise."""
    import pymongo
    from pymongo.errors import PyMongoError

    patience: dict[str, Any] = (
        {} if TIMEOUT_OPTION.lower() in uri.lower() else {TIMEOUT_OPTION: PING_TIMEOUT}
    )
    try:
        with pymongo.MongoClient(uri, **patience) as client:
            client.admin.command("ping")
    except (PyMongoError, ValueError, OSError) as error:
        import fiftyone.constants as constants

        masked_uri = re.sub(r"//[^@/]*@", "//…@", uri)  # without user and password
        key, way_out = URI, f"unset {URI}"
        if URI not in os.environ:
            file = os.environ.get("FIFTYONE_CONFIG_PATH", constants.FIFTYONE_CONFIG_PATH)
            key, way_out = "database_uri", f"remove database_uri from {file}"
        raise UserError(
            f"{key}={masked_uri}: no MongoDB answers there ({_short(error)}); start it, or "
            f"{way_out} to use fgvc's own database"
        ) from error


def _log_errors(log: Path) -> Iterator[str]:
    """The errors of the last start, in the order of the log."""
    try:
        text = untrusted.read_bytes(log, untrusted.LIST).decode("utf-8", "replace")
        lines = [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return
    starts = [number for number, line in enumerate(lines) if line.get("id") == STARTING]
    for line in lines[starts[-1] if starts else 0 :]:
        if line.get("s") in ("E", "F"):
            detail = line.get("attr", {}).get("error")
            detail = detail.get("errmsg") if isinstance(detail, dict) else detail
            yield " ".join(str(part) for part in (line.get("msg"), detail) if part)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(" ,;:") or type(error).__name__
