"""A run's life: in-progress under a lock -> whole -> renamed to its checkpoint -> immutable.

outputs/{run_id}/{config_hash}/in-progress/ becomes outputs/{run_id}/{config_hash}/{checkpoint_id}/
in one rename, so a folder named by a checkpoint is complete, always. Names are the first 16 hex
digits. Resume states are no part of the record: they stand aside while it is sealed, and are gone
once it has its name.
"""

from __future__ import annotations

import datetime
import logging
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.config.weight_files.run_folder import IN_PROGRESS
from fgvc.record import env_stamp, privacy, retention
from fgvc.record.run_log import FORMAT, RunLog
from fgvc.store import atomic, hashing
from fgvc.store.file_lock import lock
from fgvc.types import Preempted, UserError

RESUME = "resume"  # folder of the resume states, while the run is in progress
TEST_READS = "test_reads.json"  # while the run is in progress; then in metrics.json
TEST_READ_LOG = "test_read_log"  # its key in metrics.json
ASIDE = ".resume"  # the same, between the last byte of a record and its final name
SHORT = 16  # hex digits of a folder's name
OUTSIDE_INDEX = ("artifacts.json", "status.json", retention.FILE)  # may change, or index the rest
log = logging.getLogger("fgvc")


@dataclass
class RunFolder:
    """An open run. Everything but the streams (run.log, tb/) is written through store/."""

    path: Path
    run_id: str
    config_hash: str
    code: env_stamp.GitState
    started: datetime.datetime
    sealed: Path | None = None
    _clock: float = field(default_factory=time.monotonic)

    def write_json(self, name: str, value: object) -> None:
        atomic.write_json(self.path / name, value)

    def write_text(self, name: str, text: str) -> None:
        atomic.write_text(self.path / name, text)

    def write_bytes(self, name: str, data: bytes) -> None:
        atomic.write_bytes(self.path / name, data)

    def test_reads(self) -> list[dict[str, Any]]:
        """Each time that a process of this run began to read the test split."""
        return _test_reads(self.path)

    def record_test_read(self, identity: Mapping[str, object]) -> None:
        """Record a read of test on disk; to be called before the first test image is read.

        The entry outlives a killed process: the next process of this run adds to the list.

        Args:
            identity: of the answer for which test is read.
        """
        entry = {"time": now().isoformat(), "config_hash": self.config_hash, **identity}
        self.write_json(TEST_READS, [*self.test_reads(), entry])

    def adopt_test_reads(self, folder: Path) -> None:
        """Add the test reads of another run in progress, whose training this run continues."""
        own = self.test_reads()
        if adopted := [entry for entry in _test_reads(folder) if entry not in own]:
            self.write_json(TEST_READS, [*adopted, *own])

    def discard(self) -> None:
        """Leave no trace of a run that turned out to be unnecessary."""
        _close_log_of(self.path)
        shutil.rmtree(self.path)
        self.sealed = self.path

    def pause(self, state: str) -> None:
        """Mark a run that ended well before it is whole: it stays in progress."""
        write_status(self.path, state, self.started)

    @property
    def seconds(self) -> float:
        """Since the run was opened, by a clock that cannot jump."""
        return time.monotonic() - self._clock

    def seal(self, checkpoint_id: str, days: int = retention.SHORTEST) -> Path:
        """Index every file, mark the run done, and give the folder its final name.

        Args:
            days: how long it is kept at least.

        Raises:
            UserError: that very answer lies there already, complete; nothing of it is touched.
        """
        target = self.path.parent / checkpoint_id[:SHORT]
        if target.exists():
            raise UserError(f"{target} is complete already: give a new runtime.run_id")
        _close_log_of(self.path)
        aside = _set_aside(self.path)
        (self.path / TEST_READS).unlink(missing_ok=True)  # metrics.json has it by now
        self.write_json("artifacts.json", index_files(self.path))
        sealed_at, own = now(), "/".join(target.parts[-3:])
        retention.write(self.path / retention.FILE, retention.new_retention(sealed_at, days, own))
        write_status(self.path, "done", self.started, of=own, updated=sealed_at)
        self.path.rename(target)
        atomic.sync_folder(target.parent)
        self.sealed = target
        _remove(aside)
        return target


@contextmanager
def open_run(
    output_root: Path,
    run_id: str,
    config_hash: str,
    texts: Mapping[str, str | bytes],
    keep: Sequence[str] = (),
) -> Iterator[RunFolder]:
    """Open a run folder, lock it, log into it, and leave a true status however the run ends.

    Args:
        texts: files known from the start (config.yaml, config.canonical.json, command.txt).
        keep: what stays of an earlier try that was interrupted (RESUME, run.log), with its
            reads of test; all other files are deleted.

    Raises:
        LockHeld: another process runs this very config under this very run_id.
        UserError: a stopped training lies there, whose states this run would delete, or a text
            holds a secret.
        OSError: the output folder cannot be written; raised before any work.
    """
    home = output_root / run_id / config_hash[:SHORT]
    path = home / IN_PROGRESS
    _refuse_secrets(texts)
    with ExitStack() as stack:
        _make(home)
        stack.enter_context(lock(home / ".lock"))
        if RESUME not in keep:
            _refuse_states(path, run_id)
        _clear(path, keep)
        run = RunFolder(path, run_id, config_hash, env_stamp.git_state(), now())
        stack.enter_context(_logging_to(path / "run.log"))
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
                # a full disk refuses these too: report the first error
                with suppress(OSError):
                    log.error("%s", _line(error), exc_info=error)
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
    """status.json: state, times, the error and its traceback, with a checksum of its own.

    Args:
        of: the run, as run_id/config_hash/NAME, where NAME is the folder's last name; None: as the
            path says.
        updated: None: now.
    """
    trace = "".join(traceback.format_exception(error)) if error else None
    artifacts = folder / "artifacts.json"
    status: dict[str, Any] = {
        "state": state,
        "started": started.isoformat(),
        "updated": (updated or now()).isoformat(),
        "of": of or "/".join(folder.resolve().parts[-3:]),
        "error": privacy.masked(_line(error)) if error else None,
        "traceback": privacy.masked(trace) if trace else None,
        "artifacts_sha256": hashing.sha256_file(artifacts) if artifacts.is_file() else None,
    }
    status["checksum"] = hashing.sha256_bytes(hashing.canonical_json(status))
    atomic.write_json(folder / "status.json", status)


def mark_abandoned(output_root: Path, run_id: str, config_hash: str, line: str, state: str) -> None:
    """Give a run whose process is gone the status that it could not write itself.

    Args:
        line: what became of the process. state: as `write_status` takes it.
    """
    home = output_root / run_id / config_hash[:SHORT]
    if not (home / IN_PROGRESS / "status.json").exists():
        return
    with lock(home / ".lock"):
        status = read_json(home / IN_PROGRESS, "status.json")
        if status["state"] == "running":
            started = datetime.datetime.fromisoformat(status["started"])
            write_status(home / IN_PROGRESS, state, started, UserError(line))


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
    home = output_root / run_id / config_hash[:SHORT]
    return sorted(p.parent for p in home.glob("*/status.json") if p.parent.name != IN_PROGRESS)


def read_json(folder: Path, name: str) -> Any:
    """A JSON file of a run folder."""
    return untrusted.read_json(folder / name, untrusted.LIST)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"runtime.output_root cannot be written ({error.strerror})", str(folder)
        ) from error


def _refuse_secrets(texts: Mapping[str, str | bytes]) -> None:
    """UserError if a file of the record would hold a password or token."""
    for name, text in texts.items():
        for line in (text.decode(errors="replace") if isinstance(text, bytes) else text).split(
            "\n"
        ):
            if (shown := privacy.masked(line)) != line:
                raise UserError(privacy.refusal(f"{name}: {' '.join(shown.split())[:200]}"))


def _refuse_states(path: Path, run_id: str) -> None:
    """UserError if a stopped training lies in path: another task may share config and run_id."""
    if not path.exists():  # what lies aside is left over from a run that is complete
        return
    for states in (path / RESUME, path.parent / ASIDE):
        if states.is_dir() and any(states.iterdir()):
            raise UserError(
                f"runtime.run_id={run_id}: {states} holds the states of a stopped training, which "
                "this run would delete. Give another runtime.run_id, or finish the training first."
            )


def _clear(path: Path, keep: Sequence[str]) -> None:
    """Start anew where an earlier try of the same run was killed: its pieces prove nothing."""
    path.mkdir(exist_ok=True)
    aside = path.parent / ASIDE
    if aside.exists() and not (path / RESUME).exists():  # killed while it was sealed
        aside.rename(path / RESUME)
    if reads := _test_reads(path):  # metrics.json, deleted below, may be their only copy
        atomic.write_json(path / TEST_READS, reads)
    for found in (aside, *path.iterdir()):
        if found.name not in (*keep, TEST_READS):
            _remove(found)


def _test_reads(folder: Path) -> list[dict[str, Any]]:
    """Test reads of a run in progress; from metrics.json if it was killed while being sealed."""
    if (folder / TEST_READS).is_file():
        return read_json(folder, TEST_READS)
    if (folder / "metrics.json").is_file():
        numbers = read_json(folder, "metrics.json")
        return numbers.get(TEST_READ_LOG, []) if isinstance(numbers, dict) else []
    return []


def _set_aside(path: Path) -> Path:
    """Take the resume states out of a record; they are deleted when it can no longer need them."""
    aside, states = path.parent / ASIDE, path / RESUME
    if states.exists():
        states.rename(aside)
    return aside


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Masking(logging.Formatter):
    """Mask secrets: a library may log an address with a password, or the header of a request."""

    def format(self, record: logging.LogRecord) -> str:
        return privacy.masked(super().format(record))


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = RunLog(path)
    handler.setFormatter(_Masking(FORMAT))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


def _close_log_of(path: Path) -> None:
    """The log is a stream: it ends before it is digested."""
    for handler in list(log.handlers):
        if (
            isinstance(handler, logging.FileHandler)
            and Path(handler.baseFilename).parent == path.resolve()
        ):
            handler.close()
            log.removeHandler(handler)


def state_of(error: BaseException) -> str:
    """What an exception makes of a run: preempted, oom or failed."""
    if isinstance(error, Preempted | KeyboardInterrupt):
        return "preempted"
    # a device's memory: said by the exception's own class, which other rooms define
    device = getattr(type(error), "status", None) == "oom"
    return "oom" if device or isinstance(error, MemoryError) else "failed"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError | OSError) else f"{type(error).__name__}: {text}"
