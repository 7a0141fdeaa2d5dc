"""The other ranks of a process group -> their errors on rank 0; none of them outlives the group."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch.distributed as dist

from fgvc.parallel.watchdog import Watchdog, describe_resume
from fgvc.types import UserError

MAX_MESSAGE = 2**16  # bytes of an error that a rank sends to rank 0
LOST_PEER = ("connection closed", "connection reset", "broken pipe")
GRACE = 10.0  # seconds the other ranks have to end after one has died


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether the error of a collective call only means that another rank has ended."""
    text = str(error).lower()
    return isinstance(error, dist.DistNetworkError) or any(part in text for part in LOST_PEER)


class RankOutOfMemory(UserError):  # noqa: N818
    """The memory of another rank is exhausted. status: of the stopped run."""

    status = "oom"


def report_error(parent_socket: socket.socket, error: UserError) -> None:
    """Send the error of this rank to rank 0, which reports and records it."""
    status = getattr(type(error), "status", "failed")
    with suppress(OSError):  # rank 0 may have ended, with an error of its own
        parent_socket.sendall(f"{status} {error}".encode()[:MAX_MESSAGE])


class RankMonitor:
    """Kills the other ranks when one fails, and leaves no rank running at the end.

    lost: whether a rank has failed.
    """

    def __init__(
        self, ranks: list[tuple[subprocess.Popen[bytes], socket.socket]], watchdog: Watchdog
    ) -> None:
        self.processes = [process for process, _ in ranks]
        self.sockets = [parent_socket for _, parent_socket in ranks]
        self.watchdog, self.lost, self.ended = watchdog, False, False
        self.closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        """Kill all ranks when one fails; rank 0's next collective call then raises an error."""
        while not self.closed.wait(0.2):
            if any(process.poll() not in (None, 0) for process in self.processes):
                self.lost = True
                self._kill()
                return

    @contextmanager
    def ending_on_error(self) -> Iterator[None]:
        """If the block raises, end the ranks at once, because their results are not needed.

        Raises:
            UserError: in place of the error of a collective call, if a rank was lost.
        """
        try:
            yield
        except BaseException as error:
            cause = error
            if isinstance(error, RuntimeError) and not self.ended:
                cause = self._explain(error)
            self._end()
            if cause is not error:
                raise cause from error
            raise

    def _explain(self, error: RuntimeError) -> Exception:
        """An error that names the failed rank, if there is one; otherwise `error`."""
        # a rank that closed its connection takes a while to end
        deadline = time.monotonic() + (GRACE if is_lost_peer(error) else 2.0)
        while time.monotonic() < deadline:
            if (reported := self._reported_error()) is not None:
                return reported
            for rank, process in enumerate(self.processes, start=1):
                if process.poll() not in (None, 0):
                    return UserError(
                        f"rank {rank} of ranks 0 to {len(self.processes)} ended with exit code "
                        f"{process.returncode}. Its output above gives the reason; "
                        f"{describe_resume(self.watchdog)}"
                    )
            time.sleep(0.1)
        return error

    def _reported_error(self) -> UserError | None:
        """The error that a rank has sent by `report_error`, if one has."""
        for parent_socket in self.sockets:
            with suppress(BlockingIOError):
                message = parent_socket.recv(MAX_MESSAGE, socket.MSG_DONTWAIT).decode()
                status, _, text = message.partition(" ")
                if text:
                    return RankOutOfMemory(text) if status == "oom" else UserError(text)
        return None

    def close(self) -> None:
        """Wait for the ranks to end, then kill those that run on."""
        self.closed.set()
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(p.poll() is None for p in self.processes):
            time.sleep(0.05)
        self._kill()
        self._end()

    def _end(self) -> None:
        """Close the sockets, at which the ranks exit."""
        self.ended = True
        for parent_socket in self.sockets:
            parent_socket.close()

    def _kill(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
