"""Tasks -> their results, from several processes of this machine that never outlive this process.

    with closing(WorkerPool(3, initializer, "extracting features")) as pool:
        for index, result in pool.imap_unordered(tasks, advance): ...

A worker is `python -m fgvc.parallel.worker_pool`, started when there is a task for it. Its standard
input is one end of a pair of sockets, which carries tasks and results, and either process notices
when the other ends. Only this process writes files and responds to signals; the workers end with
it.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe, connection
from multiprocessing.connection import Connection
from typing import Any, Protocol

from fgvc.parallel import signals
from fgvc.types import UserError

GRACE = 10.0  # seconds a worker has to end after this process has closed its socket

Advance = Callable[[int], None]  # called with the number of images of each batch
TaskFunction = Callable[[Any, Advance], Any]  # task -> result


class Initializer(Protocol):
    """Called first in each worker, which is numbered from 0; returns its function. Picklable."""

    def __call__(self, number: int) -> TaskFunction: ...


@dataclass
class _Worker:
    """A worker process, this process's end of its sockets, and the index of its current task."""

    process: subprocess.Popen[bytes]
    socket: Connection
    task_index: int | None = None


class WorkerPool:
    """At most `size` workers, which are started when there are tasks for them."""

    def __init__(self, size: int, initializer: Initializer, activity: str) -> None:
        """activity: what the workers do, for the message about a lost worker."""
        self.size, self._initializer, self._activity = size, initializer, activity
        self._workers: list[_Worker] = []

    def imap_unordered(self, tasks: Sequence[Any], advance: Advance) -> Iterator[tuple[int, Any]]:
        """Yields (index in `tasks`, result) in the order of completion.

        Raises:
            UserError: a worker died or raised this error. Earlier results were yielded.
            Exception: any other error of a worker, with its traceback as a note.
        """
        waiting = deque(enumerate(tasks))
        try:
            self._assign(waiting)
            while busy := [worker for worker in self._workers if worker.task_index is not None]:
                for worker in self._wait(busy):
                    kind, value = self._receive(worker)
                    if kind == "advance":
                        advance(value)
                    elif kind == "error":
                        raise value
                    else:
                        index, worker.task_index = worker.task_index, None
                        self._assign(waiting)  # before the caller uses the result, to lose no time
                        assert index is not None
                        yield index, value
        except BaseException:
            self.close()  # no caller waits for the other tasks
            raise

    def close(self) -> None:
        """Stop the workers; returns when the last process has ended."""
        for worker in self._workers:
            worker.socket.close()
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            try:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self._workers = []

    def _assign(self, waiting: deque[tuple[int, Any]]) -> None:
        """Give a task to every idle worker; start workers while there are tasks for them."""
        idle = [worker for worker in self._workers if worker.task_index is None]
        while waiting and (idle or len(self._workers) < self.size):
            worker = idle.pop(0) if idle else self._start_worker()
            worker.task_index, task = waiting.popleft()
            self._send(worker, task)

    def _start_worker(self) -> _Worker:
        number = len(self._workers)
        parent_socket, child_socket = Pipe()
        with child_socket, signals.blocked():
            process = subprocess.Popen(
                [sys.executable, "-m", "fgvc.parallel.worker_pool"],
                env={**os.environ, "LOCAL_RANK": str(number)},
                stdin=child_socket.fileno(),
            )
            worker = _Worker(process, parent_socket)
            self._workers.append(worker)
        self._send(worker, (number, self._initializer))
        return worker

    def _send(self, worker: _Worker, message: object) -> None:
        try:
            worker.socket.send_bytes(pickle.dumps(message))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._lost_worker(worker) from error

    def _wait(self, busy: Sequence[_Worker]) -> list[_Worker]:
        """Wait for workers whose socket can be read, because of a message or the worker's end."""
        while True:
            ready = connection.wait([worker.socket for worker in busy], 0.2)
            if ready:
                return [worker for worker in busy if worker.socket in ready]
            for worker in busy:  # children of a dead worker may hold its socket open for a while
                if worker.process.poll() is not None and not worker.socket.poll():
                    raise self._lost_worker(worker)

    def _receive(self, worker: _Worker) -> tuple[str, Any]:
        try:
            return pickle.loads(worker.socket.recv_bytes())
        except (EOFError, ConnectionResetError) as error:
            raise self._lost_worker(worker) from error

    def _lost_worker(self, worker: _Worker) -> UserError:
        try:
            code = worker.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            code = worker.process.wait()
        return UserError(
            f"runtime.nproc={self.size}: process {self._workers.index(worker)} of {self.size} "
            f"ended with {code} while {self._activity}. Finished work is kept, and the same "
            "command resumes from it; if memory ran out, set a smaller runtime.nproc"
        )


# --- in a worker process ---


def main() -> int:
    """Compute task after task; exit at once when the parent process closes the socket."""
    signals.ignore()
    socket = Connection(os.dup(0))
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(socket, messages), daemon=True).start()

    def send(kind: str, value: object) -> None:
        socket.send_bytes(pickle.dumps((kind, value)))

    try:
        number, initializer = pickle.loads(messages.get())
        function: TaskFunction = initializer(number)
        while True:
            send("result", function(pickle.loads(messages.get()), lambda n: send("advance", n)))
    except (BrokenPipeError, ConnectionResetError):  # the parent process has ended
        return 1
    except Exception as error:
        send("error", _picklable(error))
        messages.get()  # stay until the parent process has read the error and closes the socket
    return 1


def _listen(socket: Connection, messages: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            messages.put(socket.recv_bytes())
    except (EOFError, ConnectionResetError):
        os._exit(0)  # also in the middle of a task


def _picklable(error: Exception) -> Exception:
    """An exception that the parent process can raise; a pickle does not carry the traceback."""
    if isinstance(error, UserError | OSError | MemoryError):
        return error
    trace = "".join(traceback.format_exception(error))
    copy = RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())}")
    copy.add_note(f"in a worker process:\n{trace}")
    return copy


if __name__ == "__main__":
    sys.exit(main())
