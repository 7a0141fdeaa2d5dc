"""Tasks -> their answers, from several processes of this machine that never outlive this one.

    with closing(Crew(3, begin, "extracting features")) as crew:
        for place, answer in crew.answers(tasks, advance): ...

A worker is `python -m fgvc.parallel.worker_pool`, started when there is work for it. Its standard
input is one end of a pair of sockets: what is asked and answered goes through it, and either end
sees the other go. Only this process writes; it alone is told to stop, and the workers end with it.
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

GRACE = 10.0  # seconds that a worker has to end once this process has let go of it

Advance = Callable[[int], None]  # told of every batch, as it is done
Work = Callable[[Any, Advance], Any]  # a task -> its answer


class Initializer(Protocol):
    """What a worker does first; picklable. Worker `number` counts from 0."""

    def __call__(self, number: int) -> Work: ...


@dataclass
class _Member:
    """A worker, this process's end of its sockets, and the place of the task it is at."""

    process: subprocess.Popen[bytes]
    tie: Connection
    place: int | None = None

    def tell(self, message: object) -> None:
        self.tie.send_bytes(pickle.dumps(message))


class WorkerPool:
    """At most `size` workers, none of them started before there is something to do."""

    def __init__(self, size: int, begin: Initializer, doing: str) -> None:
        """doing: what they are at, for the line that says one is gone."""
        self.size, self._begin, self._doing = size, begin, doing
        self._members: list[_Member] = []

    def answers(self, tasks: Sequence[Any], advance: Advance) -> Iterator[tuple[int, Any]]:
        """(place in `tasks`, answer), in the order in which they are found.

        Raises:
            UserError: a worker died, or it said so of its task; the others' answers so far were
                handed out.
            Exception: what else a worker ran into, with its traceback as a note.
        """
        try:
            yield from self._answers(deque(enumerate(tasks)), advance)
        except BaseException:
            self.close()  # whatever they are at, nobody waits for it any more
            raise

    def close(self) -> None:
        """Let go of the workers; returns when the last of them is gone."""
        for member in self._members:
            member.tie.close()
        end = time.monotonic() + GRACE
        for member in self._members:
            try:
                member.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        self._members = []

    def _answers(
        self, waiting: deque[tuple[int, Any]], advance: Advance
    ) -> Iterator[tuple[int, Any]]:
        self._deal(waiting)
        while busy := [member for member in self._members if member.place is not None]:
            for member in self._heard(busy):
                kind, value = self._read(member)
                if kind == "advance":
                    advance(value)
                elif kind == "failed":
                    raise value
                else:
                    place, member.place = member.place, None
                    self._deal(waiting)  # first: nobody waits for what is done with the answer
                    assert place is not None
                    yield place, value

    def _deal(self, waiting: deque[tuple[int, Any]]) -> None:
        """A task to everyone who has none."""
        idle = [member for member in self._members if member.place is None]
        while waiting and (idle or len(self._members) < self.size):
            member = idle.pop(0) if idle else self._hire()
            member.place, task = waiting.popleft()
            self._told(member, task)

    def _hire(self) -> _Member:
        number = len(self._members)
        ours, theirs = Pipe()
        with theirs, signals.blocked():
            process = subprocess.Popen(
                [sys.executable, "-m", "fgvc.parallel.worker_pool"],
                env={**os.environ, "LOCAL_RANK": str(number)},
                stdin=theirs.fileno(),
            )
            self._members.append(_Member(process, ours))
        self._told(self._members[-1], (number, self._begin))
        return self._members[-1]

    def _told(self, member: _Member, message: object) -> None:
        try:
            member.tell(message)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._lost(member) from error

    def _heard(self, busy: Sequence[_Member]) -> list[_Member]:
        """Those who have something to say, or can say no more."""
        while True:
            ready = connection.wait([member.tie for member in busy], 0.2)
            if ready:
                return [member for member in busy if member.tie in ready]
            for member in busy:  # its own children may hold its end open a while longer
                if member.process.poll() is not None and not member.tie.poll():
                    raise self._lost(member)

    def _read(self, member: _Member) -> tuple[str, Any]:
        try:
            return pickle.loads(member.tie.recv_bytes())
        except (EOFError, ConnectionResetError) as error:
            raise self._lost(member) from error

    def _lost(self, member: _Member) -> UserError:
        try:
            code = member.process.wait(GRACE)
        except subprocess.TimeoutExpired:
            member.process.kill()
            code = member.process.wait()
        return UserError(
            f"process {self._members.index(member)} of {self.size} ended with {code} while "
            f"{self._doing}; what was finished is kept, and the same command goes on from there: "
            "out of memory? try a smaller runtime.nproc"
        )


# --- the worker's side ---


def main() -> int:
    """Answer task after task; ends at once when the other end lets go."""
    signals.ignore()
    tie = Connection(os.dup(0))
    heard: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(tie, heard), daemon=True).start()

    def say(kind: str, value: object) -> None:
        tie.send_bytes(pickle.dumps((kind, value)))

    try:
        number, begin = pickle.loads(heard.get())
        work: Work = begin(number)
        while True:
            say("answer", work(pickle.loads(heard.get()), lambda n: say("advance", n)))
    except (BrokenPipeError, ConnectionResetError):  # nobody is there to be told
        return 1
    except Exception as error:
        say("failed", _carried(error))
        heard.get()  # stay until the other end has read it and lets go
    return 1


def _listen(tie: Connection, heard: queue.SimpleQueue[bytes]) -> None:
    try:
        while True:
            heard.put(tie.recv_bytes())
    except (EOFError, ConnectionResetError):
        os._exit(0)  # in the middle of a task too


def _carried(error: Exception) -> Exception:
    """An exception as the other process can raise it: its traceback does not travel."""
    if isinstance(error, UserError | OSError | MemoryError):
        return error
    trace = "".join(traceback.format_exception(error))
    carried = RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())}")
    carried.add_note(f"in a worker process:\n{trace}")
    return carried


if __name__ == "__main__":
    sys.exit(main())
