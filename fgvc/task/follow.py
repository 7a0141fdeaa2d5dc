"""A rank other than 0: receive the plan, train along, write nothing.

Started by torchrun through the entrypoint, or by rank 0 as `python -m fgvc.task.follow` with a
socket to it as standard input.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from fgvc import notices
from fgvc.escape import visible
from fgvc.task import DONE, FAILED, PREEMPTED


def main() -> int:
    """Follow rank 0 to the end; returns this rank's exit code."""
    # rank 0 decides when all stop: a notice that reaches every process must not end this one first;
    # SIGTERM does until there is a job, as torchrun ends so what waits for a refused one
    for each in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    from fgvc.learn.train import NonFinite
    from fgvc.record.folder import Preempted
    from fgvc.task.distributed import joined, peer_gone
    from fgvc.task.train import follow
    from fgvc.types import UserError

    try:
        with joined(1) as world:
            follow(world)
    except Preempted:
        return PREEMPTED
    except NonFinite:
        return FAILED  # on all ranks together: rank 0 says it
    except UserError as error:
        print(f"fgvc: {visible(str(error))}", file=sys.stderr, flush=True)
        return FAILED
    except RuntimeError as error:
        if peer_gone(error):
            return FAILED  # rank 0 or a peer has said why
        raise
    return DONE


def _tied() -> None:
    """Report to rank 0, which waits, that this process runs; end when rank 0 ends in any way.

    Thus this process can leave every notice to rank 0.
    """
    notices.ignore()
    tie = socket.socket(fileno=os.dup(0))

    def watch() -> None:
        tie.recv(1)  # nothing is ever sent: it returns when the other end is gone
        os._exit(FAILED)

    threading.Thread(target=watch, daemon=True).start()
    import fgvc.task.train  # noqa: F401 - what takes its time, before it is said

    tie.sendall(b".")


if __name__ == "__main__":
    _tied()
    sys.exit(main())
