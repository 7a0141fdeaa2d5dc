"""The processes of one job -> a process group with rank, size and collective calls.

Rank 0 composes the config and writes files. The other ranks receive requests by broadcast and never
read the command line. torchrun starts all ranks (`torchrun --nproc-per-node N -m fgvc.run`), or the
process of the user becomes rank 0 and starts the others (`runtime.nproc=N`).
"""

from __future__ import annotations

import datetime
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from fgvc.parallel import signals
from fgvc.parallel.device import check_gpu_count
from fgvc.parallel.rank_monitor import RankMonitor, is_lost_peer
from fgvc.parallel.watchdog import Watchdog, describe_resume
from fgvc.types import UserError

TIMEOUT = datetime.timedelta(hours=1)  # of a collective call; others may be evaluating
IDLE_TIMEOUT = datetime.timedelta(days=7)  # of a wait for a request; rank 0 may be fitting a head
POLL = 0.02  # seconds between two checks whether the other ranks have arrived
CONNECT_TIMEOUT = 60.0  # seconds for a connection to another machine
TORCHRUN = "torchrun"


@dataclass(eq=False)
class ProcessGroup:
    """This process among the ranks of a job.

    launch: how the ranks were started, for the stamp. watchdog: of rank 0 of several ranks.
    local_size: ranks on this machine. start: starts and connects the ranks.
    """

    rank: int
    size: int
    launch: str
    watchdog: Watchdog | None = None
    local_size: int = 1
    start: Callable[[], None] = lambda: None
    monitor: RankMonitor | None = None  # of the ranks that this process has started
    requests: dist.ProcessGroup | None = None  # None: the ranks are not connected

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_torchrun(self) -> bool:
        return self.launch.startswith(TORCHRUN)

    def waiting(self, typical: bool = True) -> AbstractContextManager[None]:
        """Context for collective calls, in which the watchdog acts on a signal to stop.

        Args:
            typical: whether later waits may take as long as this one.
        """
        return nullcontext() if self.watchdog is None else self.watchdog.waiting(typical)

    def request(self, value: Any = None) -> Any:
        """Rank 0's request, on every rank; starts the other ranks if they do not run yet.

        The other ranks may wait for the next request for days.
        """
        if self.size == 1:
            return value
        if self.requests is None:
            self.start()
        values = [value]
        with self.waiting(typical=False):
            dist.broadcast_object_list(values, src=0, group=self.requests)
        return values[0]

    def broadcast(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        with self.waiting():
            dist.broadcast_object_list(values, src=0)
        return values[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all ranks in rank order, on rank 0; an empty list on the other ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_main else None
        with self.waiting():
            dist.gather_object(value, values, dst=0)
        return values or []

    def barrier(self) -> None:
        """Wait for all ranks; unlike in other collective calls, signals are handled meanwhile."""
        work = dist.all_reduce(torch.zeros(1), async_op=True)
        assert work is not None
        try:
            while not work.is_completed():
                time.sleep(POLL)
        except KeyboardInterrupt:
            if self.monitor is None:  # torchrun started the ranks, and the group ends with all
                with self.waiting():
                    work.wait()
            raise
        work.wait()

    @contextmanager
    def naming_lost_rank(self) -> Iterator[ProcessGroup]:
        """Within the block as in that of `join_group`: an error ends the other ranks, and the error
        of a collective call is replaced by an error that names the lost rank.

        Raises:
            UserError: a rank was lost.
        """
        with ExitStack() as stack:
            if self.monitor is not None:
                stack.enter_context(self.monitor.ending_on_error())
            elif self.is_torchrun:
                stack.enter_context(_report_lost_rank(self.size, self.watchdog))
            yield self

    def check(self) -> None:
        """Raise an error if a rank that this process has started is lost, without waiting for it.

        Raises:
            RuntimeError: which `join_group` replaces by an error that names the rank.
        """
        if self.monitor is not None and self.monitor.lost:
            raise RuntimeError("a rank has ended")

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any rank; the same result on every rank."""
        if self.size == 1:
            return flag
        flags = torch.tensor([int(flag)])
        with self.waiting():
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        return bool(flags.item())


SINGLE_PROCESS = ProcessGroup(0, 1, "one process")


@contextmanager
def join_group(
    nproc: int, device: str = "cpu", grace: float = 0.0, lazy: bool = False
) -> Iterator[ProcessGroup]:
    """The process group of this job; starts the other ranks if `runtime.nproc` is above 1.

    If the block raises, the ranks that this process has started end at once.

    Args:
        device: `runtime.device`, to check that every rank has its own GPU.
        grace: `runtime.stop_grace`, of rank 0's watchdog.
        lazy: start the ranks with the first request. Ranks of torchrun are connected at once.

    Raises:
        UserError: torchrun and another runtime.nproc, too few GPUs, or a rank died.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1:
        if nproc not in (1, size):
            raise UserError(f"runtime.nproc={nproc}: torchrun started {size} already")
        local_size = int(os.environ["LOCAL_WORLD_SIZE"])
        check_gpu_count(local_size, device)
        _check_store()
        rank, nodes = int(os.environ["RANK"]), os.environ["GROUP_WORLD_SIZE"]
        launch = f"{TORCHRUN}, {size} processes" + ("" if nodes == "1" else f" on {nodes} nodes")
        watchdog = Watchdog(grace) if rank == 0 else None
        with _report_lost_rank(size, watchdog), _init_group(watchdog) as requests:
            yield ProcessGroup(rank, size, launch, watchdog, local_size, requests=requests)
        return
    if nproc == 1:
        yield SINGLE_PROCESS
        return
    check_gpu_count(nproc, device)
    watchdog = Watchdog(grace)
    with ExitStack() as ranks:

        def start() -> None:
            group.monitor = ranks.enter_context(_start_ranks(nproc, watchdog))
            group.requests = ranks.enter_context(_init_group(watchdog))
            # before the group ends, which waits for pending calls of the other ranks
            ranks.enter_context(group.monitor.ending_on_error())

        group = ProcessGroup(0, nproc, f"runtime.nproc={nproc}", watchdog, nproc, start)
        try:
            if not lazy:
                group.start()
            yield group
        finally:
            # no reference remains: a forked process that collected it would wait for its threads
            group.requests = None


def _check_store() -> None:
    """Fail if rank 0's torchrun, which keeps the store for the rendezvous, has ended already.

    Otherwise this rank would retry the connection until its timeout.
    """
    if os.environ["RANK"] == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        socket.create_connection(address, timeout=CONNECT_TIMEOUT).close()
    except OSError as error:
        raise UserError(
            f"rank 0's torchrun at {address[0]}:{address[1]} has ended "
            f"({error.strerror or error}). Its own output gives the reason"
        ) from error


@contextmanager
def _report_lost_rank(size: int, watchdog: Watchdog | None) -> Iterator[None]:
    """Report a lost rank of torchrun, which only surfaces as an error in the next collective call.

    On the machine of rank 0, only rank 0 reports it.
    """
    quiet = os.environ["GROUP_RANK"] == "0" and os.environ["RANK"] != "0"
    try:
        yield
    except RuntimeError as error:
        if quiet or not is_lost_peer(error):
            raise
        raise UserError(
            f"one of the {size} ranks has ended. Its own output gives the reason; "
            f"{describe_resume(watchdog)}"
        ) from error


@contextmanager
def _init_group(watchdog: Watchdog | None) -> Iterator[dist.ProcessGroup]:
    """torch's process group for the ranks of this environment (RANK, MASTER_ADDR, …); yields the
    group for requests, which differs from it in its timeout."""
    # CPU tensors use gloo, also beside GPUs; NCCL starts when it is first used
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    local_rank = int(os.environ["LOCAL_RANK"])
    if local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    with ExitStack() as watch:
        waiting = nullcontext
        if watchdog is not None:
            watch.enter_context(watchdog.watching())
            waiting = partial(watchdog.waiting, typical=False)
        with waiting():
            dist.init_process_group(backend, timeout=TIMEOUT)
        try:
            yield _new_request_group(waiting)  # in no variable here, see join_group
        finally:
            with waiting():
                dist.destroy_process_group()


def _new_request_group(waiting: Callable[[], AbstractContextManager[None]]) -> dist.ProcessGroup:
    with waiting():
        group = dist.new_group(timeout=IDLE_TIMEOUT, backend="gloo")
    assert isinstance(group, dist.ProcessGroup)
    return group


@contextmanager
def _start_ranks(nproc: int, watchdog: Watchdog) -> Iterator[RankMonitor]:
    """Start ranks 1 to nproc - 1 beside this process, which becomes rank 0; end them afterwards."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(nproc), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"LOCAL_WORLD_SIZE": str(nproc), "GROUP_RANK": "0", "GROUP_WORLD_SIZE": "1"}
    # in a process of torchrun, rank 0 would wait for the store of torchrun instead of opening one
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "False"}
    environment = {**shared, "RANK": "0", "LOCAL_RANK": "0"}
    before = {name: os.environ.get(name) for name in environment}
    ranks = [_start_rank({**os.environ, **shared}, rank) for rank in range(1, nproc)]
    os.environ.update(environment)
    monitor = RankMonitor(ranks, watchdog)
    watchdog.processes += [process.kill for process, _ in ranks]
    try:
        with monitor.ending_on_error():
            for _, parent_socket in ranks:
                if not parent_socket.recv(1):  # the rank has ended: do not wait for the others
                    raise RuntimeError("a rank did not start")
            yield monitor
    finally:
        monitor.close()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def _start_rank(
    environment: dict[str, str], rank: int
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A rank and a socket to it: either process notices at once when the other ends."""
    parent_socket, child_socket = socket.socketpair()
    with child_socket, signals.blocked():
        process = subprocess.Popen(
            [sys.executable, "-m", "fgvc.launch.ddp_worker"],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=child_socket.fileno(),
        )
    return process, parent_socket
