"""One job on several processes: who they are, how the others learn of the job, how all end.

Rank 0 composes, opens the record and writes; the others receive what it found by broadcast and
never look at the command line. They come from torchrun (`torchrun --nproc-per-node N -m fgvc.run`)
or are started here (`runtime.nproc=N`), and then rank 0 is the process the user started.
"""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from fgvc.parallel import signals
from fgvc.parallel.device import check_devices
from fgvc.parallel.watchdog import Watchdog, continuation
from fgvc.types import UserError

PATIENCE = datetime.timedelta(hours=1)  # for a peer in a collective call, an evaluation included
MEETING = 60.0  # seconds for a connection to another machine
GRACE = 10.0  # seconds that the other ranks have to end once one is gone


@dataclass(frozen=True)
class World:
    """This process among its peers. launch: how they were started, for the stamp. watchdog: on rank
    0 of several ranks; otherwise None."""

    rank: int
    size: int
    launch: str
    watchdog: Watchdog | None = None

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def waiting(self, typical: bool = True) -> AbstractContextManager[None]:
        """Context for collective calls, in which the watchdog acts on a signal to stop.

        Args:
            typical: whether the length of this wait says how long later waits may take.
        """
        return nullcontext() if self.watchdog is None else self.watchdog.waiting(typical)

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        with self.waiting():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on rank 0; an empty list elsewhere."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.leads else None
        with self.waiting():
            dist.gather_object(value, found, dst=0)
        return found or []

    def any(self, flag: bool) -> bool:
        """Whether any rank says yes: all ranks then know."""
        if self.size == 1:
            return flag
        said = torch.tensor([int(flag)])
        with self.waiting():
            dist.all_reduce(said, op=dist.ReduceOp.MAX)
        return bool(said.item())


ALONE = World(0, 1, "one process")


@contextmanager
def join_group(nproc: int, device: str = "cpu", grace: float = 0.0) -> Iterator[World]:
    """The world of this job, its other ranks started where `runtime.nproc` asks for them.

    Args:
        device: `runtime.device`, by which rank 0 knows whether each process needs a GPU.
        grace: `runtime.stop_grace`, of rank 0's watchdog.

    Raises:
        UserError: both torchrun and runtime.nproc, more GPUs than there are, or a rank that died.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        if nproc not in (1, size):
            raise UserError(f"runtime.nproc={nproc}: torchrun started {size} already")
        check_devices(int(os.environ["LOCAL_WORLD_SIZE"]), device)
        _meet()
        rank = int(os.environ["RANK"])
        watchdog = Watchdog(grace) if rank == 0 else None
        with _told_of_peers(size, watchdog), _group(watchdog):
            yield World(rank, size, _launch(size), watchdog)
        return
    if nproc == 1:
        yield ALONE
        return
    check_devices(nproc, device)
    watchdog = Watchdog(grace)
    with _followers(nproc, watchdog), _group(watchdog):
        yield World(0, nproc, f"runtime.nproc={nproc}", watchdog)


def _meet() -> None:
    """Fail where rank 0's torchrun, which keeps the store that all meet in, has ended already: as a
    client of that store this rank would go on asking for as long as it has patience."""
    if os.environ["RANK"] == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection(place, timeout=MEETING).close()
    except OSError as error:
        raise UserError(
            f"rank 0's torchrun at {place[0]}:{place[1]} is gone ({error.strerror or error}): what "
            "it said stands there"
        ) from error


def _launch(size: int) -> str:
    """How torchrun started these ranks."""
    nodes = os.environ["GROUP_WORLD_SIZE"]
    return f"torchrun, {size} processes" + ("" if nodes == "1" else f" on {nodes} nodes")


@contextmanager
def _told_of_peers(size: int, watchdog: Watchdog | None) -> Iterator[None]:
    """That a rank is gone, here or on another machine, only the next collective call tells. Of
    rank 0's machine it alone says so: a follower there has been told already."""
    quiet = os.environ["GROUP_RANK"] == "0" and os.environ["RANK"] != "0"
    try:
        yield
    except RuntimeError as error:
        if quiet or not is_lost_peer(error):
            raise
        raise UserError(
            f"one of the {size} ranks is gone; what it said stands where it ran; "
            f"{continuation(watchdog and watchdog.state_saved)}"
        ) from error


def is_lost_peer(error: RuntimeError) -> bool:
    """Whether it only says that a peer has ended."""
    text, said = str(error).lower(), ("connection closed", "connection reset", "broken pipe")
    return isinstance(error, dist.DistNetworkError) or any(part in text for part in said)


@contextmanager
def _group(watchdog: Watchdog | None) -> Iterator[None]:
    """The process group of this environment's ranks (RANK, WORLD_SIZE, MASTER_ADDR, …)."""
    # what is on the CPU goes through gloo even where there are GPUs; NCCL begins when it is used
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    local = int(os.environ["LOCAL_RANK"])
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    with _guarded(watchdog) as waiting:
        with waiting():
            dist.init_process_group(backend, timeout=PATIENCE)
        try:
            yield
        finally:
            with waiting():
                dist.destroy_process_group()


@contextmanager
def _guarded(
    watchdog: Watchdog | None,
) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Run the watchdog, if any, during the block; yields its `waiting`."""
    if watchdog is None:
        yield nullcontext
        return
    with watchdog.watching():
        yield lambda: watchdog.waiting(typical=False)


@contextmanager
def _followers(nproc: int, watchdog: Watchdog) -> Iterator[None]:
    """Ranks 1 to nproc - 1, started beside this process, which becomes rank 0; all gone after."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shape = {"WORLD_SIZE": str(nproc), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shape |= {"LOCAL_WORLD_SIZE": str(nproc), "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
    ours = {**shape, "RANK": "0", "LOCAL_RANK": "0"}
    before = {name: os.environ.get(name) for name in ours}
    followers = [_follower({**os.environ, **shape}, rank) for rank in range(1, nproc)]
    os.environ.update(ours)
    watch = _Watch([process for process, _ in followers], watchdog)
    watchdog.processes += [process.kill for process, _ in followers]
    started = False
    try:
        for _, tie in followers:
            if not tie.recv(1):  # it is gone: the others would be waited for in vain
                raise RuntimeError("a rank did not start")
        started = True
        yield
    except RuntimeError as error:
        raise watch.blamed(error) from error
    finally:
        if not started:  # stopped or failed before they had work to finish: they end at once
            for _, tie in followers:
                tie.close()
        watch.end()
        for _, tie in followers:
            tie.close()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _follower(
    environment: dict[str, str], rank: int
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A rank and the socket that ties it to this process: either sees the other's end at once."""
    ours, theirs = socket.socketpair()
    with theirs, signals.blocked():
        process = subprocess.Popen(
            [sys.executable, "-m", "fgvc.launch.ddp_worker"],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=theirs.fileno(),
        )
    return process, ours


class _Watch:
    """Sees a rank die while the others wait for it, and leaves none behind."""

    def __init__(self, processes: list[subprocess.Popen[bytes]], watchdog: Watchdog) -> None:
        self.processes, self.watchdog, self.over = processes, watchdog, threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        """One that fails takes the other followers with it: rank 0 then sees its peers gone."""
        while not self.over.wait(0.2):
            if any(process.poll() not in (None, 0) for process in self.processes):
                self._stop()
                return

    def blamed(self, error: RuntimeError) -> Exception:
        """The dead rank, where there is one; a peer that goes takes a moment to be seen as gone."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            for rank, process in enumerate(self.processes, start=1):
                if process.poll() not in (None, 0):
                    return UserError(
                        f"rank {rank} of {len(self.processes) + 1} ended with "
                        f"{process.returncode}; what it said stands above; "
                        f"{continuation(self.watchdog.state_saved)}"
                    )
            time.sleep(0.1)
        return error

    def end(self) -> None:
        self.over.set()
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(p.poll() is None for p in self.processes):
            time.sleep(0.05)
        self._stop()

    def _stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
        for process in self.processes:
            process.wait()
