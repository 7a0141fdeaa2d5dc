"""The life of a run folder: in progress under a lock -> complete -> renamed -> immutable.

outputs/{run_id}/{config_hash}/in-progress/ becomes outputs/{run_id}/{config_hash}/{checkpoint_id}/
in one rename, so a folder named by a checkpoint is always complete. Folder names are the first 16
hex digits. Resume states are not part of the record: they are moved aside while it is sealed, and
deleted after the rename.
"""

from __future__ import annotations

import datetime
import io
import logging
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.weight_files.run_folder import IN_PROGRESS
from fgvc.record import env_stamp, privacy, retention
from fgvc.store import atomic, hashing, temporary_files
from fgvc.store.disk_errors import NamedFile
from fgvc.store.file_lock import lock
from fgvc.types import UserError, is_interruption

RESUME = "resume"  # folder of the resume states while the run is in progress
ASIDE = ".resume"  # the resume states while the record is sealed
TEST_READS = "test_reads.json"  # while the run is in progress; later in metrics.json
TEST_READ_LOG = "test_read_log"  # the key in metrics.json
UNREADABLE_FILE = "unreadable.json"
OVERLAYS_FOLDER, OVERLAY_FACTS = "overlays", "images.json"  # which images they show
SHORT = 16  # hex digits of a folder's name
OUTSIDE_INDEX = ("artifacts.json", "status.json", retention.FILE)  # the index, or may change
log = logging.getLogger("fgvc")


class _MaskingFormatter(logging.Formatter):
    """Mask secrets: a library may log a URL with a password, or the header of a request."""

    def format(self, record: logging.LogRecord) -> str:
        return privacy.masked(super().format(record))


class RunLog(logging.FileHandler):
    """run.log: the first line that cannot be written raises; later lines are dropped silently."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8")
        self.setFormatter(_MaskingFormatter("%(asctime)s %(levelname)s %(message)s"))

    def _open(self) -> io.TextIOWrapper:
        path = Path(self.baseFilename)
        buffer = io.BufferedWriter(NamedFile(path, "a", path))
        return io.TextIOWrapper(buffer, encoding="utf-8", errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):  # logging would print a traceback and continue
            raise error
        super().handleError(record)


@dataclass
class RunFolder:
    """An open run. All files except the streams (run.log, tb/) are written through store/.

    started: the job, which began before its folder was opened.
    checkpoint_id: of ckpt.bin once it is written; it will name the folder.
    clock: `started` by the monotonic clock.
    """

    path: Path
    run_id: str
    config_hash: str
    code: env_stamp.GitState
    started: datetime.datetime
    run_log: RunLog
    clock: float
    checkpoint_id: str | None = None
    sealed: Path | None = None

    def write_json(self, name: str, value: object) -> None:
        atomic.write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        atomic.write_text(self.path / name, text)

    def write_bytes(self, name: str, data: bytes) -> None:
        atomic.write_bytes(self.path / name, data)

    def test_reads(self) -> list[dict[str, Any]]:
        """One entry per process of this run that started to read the test split."""
        return _test_reads(self.path)

    def record_test_read(self, identity: Mapping[str, object]) -> None:
        """Record on disk that the test split is read; call it before reading the first test image.

        The entry survives a killed process; the next process of this run appends to the list.

        Args:
            identity: of the result for which the test split is read.
        """
        entry = {"time": now().isoformat(), "config_hash": self.config_hash, **identity}
        self.write_json(TEST_READS, [*self.test_reads(), entry])

    def adopt_test_reads(self, folder: Path) -> None:
        """Add the test reads of another run in progress, whose training this run continues."""
        own_reads = self.test_reads()
        if adopted := [entry for entry in _test_reads(folder) if entry not in own_reads]:
            self.write_json(TEST_READS, [*adopted, *own_reads])

    def discard(self) -> None:
        """Delete a run that turned out to be unnecessary."""
        self.close_log()
        shutil.rmtree(self.path)
        self.sealed = self.path

    def close_log(self) -> None:
        """Close run.log, so that its digest is final."""
        log.removeHandler(self.run_log)
        self.run_log.close()

    @property
    def seconds(self) -> float:
        """Wall time since the job started, by a monotonic clock."""
        return time.monotonic() - self.clock

    def seal(self, days: int = retention.SHORTEST) -> Path:
        """Index every file, mark the run done, and give the folder its final name.

        Args:
            days: minimum retention.

        Raises:
            UserError: a complete run with this checkpoint exists; it is not changed.
        """
        assert self.checkpoint_id is not None, "ckpt.bin must be written first"
        target = self.path.parent / self.checkpoint_id[:SHORT]
        if target.exists():
            raise UserError(f"{target}: is already complete. Set a new runtime.run_id")
        self.close_log()
        aside, states = self.path.parent / ASIDE, self.path / RESUME
        if states.exists():
            states.rename(aside)
        (self.path / TEST_READS).unlink(missing_ok=True)  # now in metrics.json
        self.write_json("artifacts.json", index_files(self.path))
        sealed_at, identity = now(), "/".join(target.parts[-3:])
        kept = retention.new_retention(sealed_at, days, identity)
        retention.write(self.path / retention.FILE, kept)
        write_status(self.path, "done", self.started, of=identity, updated=sealed_at)
        self.path.rename(target)
        atomic.sync_folder(target.parent)
        self.sealed = target
        temporary_files.remove(aside)
        return target


@contextmanager
def open_run(
    output_root: Path,
    run_id: str,
    config_hash: str,
    texts: Mapping[str, str | bytes],
    keep: Sequence[str] = (),
    clock: float | None = None,
) -> Iterator[RunFolder]:
    """Open and lock a run folder, log into it, and write a correct status however the run ends.

    Args:
        texts: files known from the start (config.yaml, config.canonical.json, command.txt).
        keep: files of an interrupted earlier attempt to keep (RESUME, run.log); its test reads are
            always kept, all other files are deleted.
        clock: when the job started, by the monotonic clock; None: now.

    Raises:
        LockHeld: another process runs this config under this run_id.
        UserError: the folder holds the states of a stopped training, which this run would delete,
            or a text holds a secret.
        OSError: the output folder cannot be written; raised before any work.
    """
    config_folder = output_root / run_id / config_hash[:SHORT]
    path = config_folder / IN_PROGRESS
    _refuse_secrets(texts)
    with ExitStack() as stack:
        try:
            config_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = f"runtime.output_root cannot be written ({error.strerror})"
            raise OSError(error.errno, reason, str(config_folder)) from error
        stack.enter_context(lock(config_folder / ".lock"))
        if RESUME not in keep:
            _refuse_resume_states(path, run_id)
        _clear(path, keep)
        code = env_stamp.git_state()
        clock = time.monotonic() if clock is None else clock
        started = now() - datetime.timedelta(seconds=time.monotonic() - clock)
        run_log = RunLog(path / "run.log")
        run = RunFolder(path, run_id, config_hash, code, started, run_log, clock)
        stack.callback(run.close_log)
        log.addHandler(run.run_log)
        log.setLevel(logging.INFO)
        try:
            write_status(path, "running", run.started)
            for name, text in texts.items():
                run.write_bytes(name, text if isinstance(text, bytes) else text.encode())
            if run.code.patch:
                run.write_bytes("code.patch", run.code.patch)
            if run.code.untracked:
                run.write_json("untracked.json", run.code.listing)
            yield run
        except BaseException as error:
            if run.sealed is None:
                # on a full disk these fail as well: report the first error
                with suppress(OSError):
                    log.error("%s", _describe_error(error), exc_info=error)
                with suppress(OSError):
                    write_status(path, state_of(error), run.started, error)
            raise


def write_status(
    folder: Path,
    state: str,
    started: datetime.datetime,
    error: BaseException | None = None,
    *,
    of: str | None = None,
    updated: datetime.datetime | None = None,
) -> None:
    """Write status.json: state, times, the error and its traceback, and a checksum of these.

    Args:
        of: run_id/config_hash/NAME, where NAME is the final name of the folder; None: from the
            path.
        updated: None: now.
    """
    trace = "".join(traceback.format_exception(error)) if error else None
    artifacts = folder / "artifacts.json"
    status = {
        "state": state,
        "started": started.isoformat(),
        "updated": (updated or now()).isoformat(),
        "of": of or "/".join(folder.resolve().parts[-3:]),
        "error": privacy.masked(_describe_error(error)) if error else None,
        "traceback": privacy.masked(trace) if trace else None,
        "artifacts_sha256": hashing.sha256_file(artifacts) if artifacts.is_file() else None,
    }
    atomic.write_checked_json(folder / "status.json", status)


def mark_abandoned(output_root: Path, run_id: str, config_hash: str, line: str, state: str) -> None:
    """Write the status of a run whose process died before it could write it.

    Args:
        line: how the process died. state: as in `write_status`.
    """
    config_folder = output_root / run_id / config_hash[:SHORT]
    if not (config_folder / IN_PROGRESS / "status.json").exists():
        return
    with lock(config_folder / ".lock"):
        status = read_json(config_folder / IN_PROGRESS, "status.json")
        if status["state"] == "running":
            started = datetime.datetime.fromisoformat(status["started"])
            write_status(config_folder / IN_PROGRESS, state, started, UserError(line))


def index_files(folder: Path) -> dict[str, dict[str, object]]:
    """Every file of a run folder: {relative path: {sha256, bytes}}."""
    names = (file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    return {
        name: {
            "sha256": hashing.sha256_file(folder / name),
            "bytes": (folder / name).stat().st_size,
        }
        for name in sorted(names)
        if name not in OUTSIDE_INDEX
    }


def complete_runs(output_root: Path, run_id: str, config_hash: str) -> list[Path]:
    """The complete runs of a config under a run_id (their names are checkpoint ids)."""
    files = (output_root / run_id / config_hash[:SHORT]).glob("*/status.json")
    return sorted(file.parent for file in files if file.parent.name != IN_PROGRESS)


def read_json(folder: Path, name: str) -> Any:
    return untrusted.read_json(folder / name, untrusted.LIST)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _refuse_secrets(texts: Mapping[str, str | bytes]) -> None:
    """Raise UserError if a file of the record would hold a password or token."""
    for name, text in texts.items():
        if isinstance(text, bytes):
            text = text.decode(errors="replace")
        if privacy.masked(text) == text:  # faster than line by line, which names the line
            continue
        for line in text.split("\n"):
            if (masked := privacy.masked(line)) != line:
                raise UserError(privacy.refusal(f"{name}: {' '.join(masked.split())[:200]}"))


def _refuse_resume_states(path: Path, run_id: str) -> None:
    """Raise UserError if `path` holds resume states; another task may share config and run_id."""
    if not path.exists():  # moved states are left over from a complete run
        return
    for states in (path / RESUME, path.parent / ASIDE):
        if states.is_dir() and any(states.iterdir()):
            raise UserError(
                f"runtime.run_id={run_id}: {states} holds the states of a stopped training, which "
                "this run would delete. Give another runtime.run_id, or finish the training first."
            )


def _clear(path: Path, keep: Sequence[str]) -> None:
    """Delete the files of an interrupted earlier attempt, except `keep` and its test reads."""
    path.mkdir(exist_ok=True)
    aside = path.parent / ASIDE
    if aside.exists() and not (path / RESUME).exists():  # killed while being sealed
        aside.rename(path / RESUME)
    if reads := _test_reads(path):  # metrics.json, deleted below, may be their only copy
        atomic.write_json(path / TEST_READS, reads)
    for entry in (aside, *path.iterdir()):
        if entry.name not in (*keep, TEST_READS):
            temporary_files.remove(entry)


def _test_reads(folder: Path) -> list[dict[str, Any]]:
    """The test reads of a run in progress; from metrics.json if it was killed while sealed."""
    if (folder / TEST_READS).is_file():
        return read_json(folder, TEST_READS)
    if (folder / "metrics.json").is_file():
        numbers = read_json(folder, "metrics.json")
        return numbers.get(TEST_READ_LOG, []) if isinstance(numbers, dict) else []
    return []


def state_of(error: BaseException) -> str:
    """The state of a run that ended with an exception: preempted, oom or failed."""
    if is_interruption(error):
        return "preempted"
    # out-of-memory errors of a device are defined in other packages, with this class attribute
    device_oom = getattr(type(error), "status", None) == "oom"
    return "oom" if device_oom or isinstance(error, MemoryError) else "failed"


def _describe_error(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {text}"
