"""A rank other than 0 -> what rank 0 requests: training steps or shards of features.

It writes no files, and never reads the command line.

It is started by torchrun through the entrypoint, or by rank 0 as `python -m fgvc.launch.ddp_worker`
with a socket to rank 0 as standard input.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

from fgvc.exit_codes import DONE, FAILED, PREEMPTED
from fgvc.parallel import signals
from fgvc.untrusted.escape import visible

if TYPE_CHECKING:
    from fgvc.parallel.process_group import ProcessGroup


def main(parent_socket: socket.socket | None = None) -> int:
    """Follow rank 0 to the end; returns this rank's exit code.

    Args:
        parent_socket: to rank 0, if it has started this process; otherwise torchrun has.
    """
    # rank 0 decides when all ranks stop: a signal to every process must not end this one first.
    # SIGTERM does so until there is a job: torchrun ends this way a rank that waits in vain
    signals.ignore([signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT])
    from fgvc.learn.train import NonFinite
    from fgvc.parallel.process_group import join_group
    from fgvc.parallel.rank_monitor import is_lost_peer, report_error
    from fgvc.types import Preempted, UserError

    try:
        with join_group(1) as group:
            try:
                _follow(group)
            except UserError as error:
                if parent_socket is None:
                    raise
                report_error(parent_socket, error)  # before the connections to other ranks close
                return FAILED
    except Preempted:
        return PREEMPTED
    except NonFinite:
        return FAILED  # on all ranks together; rank 0 reports it
    except UserError as error:
        print(f"fgvc: {visible(str(error))}", file=sys.stderr, flush=True)
        return FAILED
    except RuntimeError as error:
        if is_lost_peer(error):
            return FAILED  # rank 0 or a peer has reported why
        raise
    return DONE


def _follow(group: ProcessGroup) -> None:
    """Do what rank 0 requests, to the end."""
    from fgvc.parallel.device import check_gpu_count
    from fgvc.pipeline.determinism import set_up_process
    from fgvc.pipeline.finetune import Finetune, FinetuneSetup

    setup = group.request()  # FinetuneSetup or ExtractionSetup; None: nothing is left to compute
    if setup is None:
        return
    check_gpu_count(group.local_size, setup.conf.runtime.device)  # rank 0 has checked its machine
    signals.ignore()  # from now on rank 0 decides when to stop
    if not isinstance(setup, FinetuneSetup):
        setup.follow(group)
        return
    finetune = Finetune(setup, group, set_up_process(setup.conf))
    finetune.run(None, lambda: False)
    finetune.evaluate(None)


def _attach_to_parent() -> socket.socket:
    """Report to rank 0, which waits, that this process has started; exit when rank 0 exits.

    Returns the socket to rank 0.

    Thus this process can leave all signals to rank 0.
    """
    signals.ignore()
    parent_socket = socket.socket(fileno=os.dup(0))

    def watch() -> None:
        with contextlib.suppress(OSError):  # rank 0 may have ended without reading an error
            parent_socket.recv(1)  # rank 0 sends nothing: this returns when its end is closed
        os._exit(FAILED)

    threading.Thread(target=watch, daemon=True).start()
    import fgvc.pipeline.finetune
    import fgvc.pipeline.rank_extraction  # noqa: F401

    parent_socket.sendall(b".")
    return parent_socket


if __name__ == "__main__":
    sys.exit(main(_attach_to_parent()))
