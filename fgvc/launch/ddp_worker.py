"""A rank other than 0: receive the plan, train along, write nothing.

Started by torchrun through the entrypoint, or by rank 0 as `python -m fgvc.launch.ddp_worker` with
a socket to it as standard input.
"""

from __future__ import annotations

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


def main() -> int:
    """Follow rank 0 to the end; returns this rank's exit code."""
    # rank 0 decides when all stop: a notice that reaches every process must not end this one first;
    # SIGTERM does until there is a job, as torchrun ends so what waits for a refused one
    for each in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    from fgvc.learn.train import NonFinite
    from fgvc.parallel.process_group import is_lost_peer, join_group
    from fgvc.types import Preempted, UserError

    try:
        with join_group(1) as group:
            _follow(group)
    except Preempted:
        return PREEMPTED
    except NonFinite:
        return FAILED  # on all ranks together: rank 0 says it
    except UserError as error:
        print(f"fgvc: {visible(str(error))}", file=sys.stderr, flush=True)
        return FAILED
    except RuntimeError as error:
        if is_lost_peer(error):
            return FAILED  # rank 0 or a peer has said why
        raise
    return DONE


def _follow(group: ProcessGroup) -> None:
    """The same steps as rank 0, nothing written."""
    from fgvc.parallel.device import check_gpu_count
    from fgvc.pipeline.determinism import set_up_process
    from fgvc.pipeline.finetune import Finetune

    setup = group.broadcast(None)
    if setup is None:
        return
    # rank 0 has looked at its own machine only
    check_gpu_count(int(os.environ["LOCAL_WORLD_SIZE"]), setup.conf.runtime.device)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from now on rank 0 says when to stop
    finetune = Finetune(setup, group, set_up_process(setup.conf))
    finetune.run(None, lambda: False)
    finetune.evaluate(None)


def _tied() -> None:
    """Report to rank 0, which waits, that this process runs; end when rank 0 ends in any way.

    Thus this process can leave every notice to rank 0.
    """
    signals.ignore()
    tie = socket.socket(fileno=os.dup(0))

    def watch() -> None:
        tie.recv(1)  # nothing is ever sent: it returns when the other end is gone
        os._exit(FAILED)

    threading.Thread(target=watch, daemon=True).start()
    import fgvc.pipeline.finetune  # noqa: F401 - what takes its time, before it is said

    tie.sendall(b".")


if __name__ == "__main__":
    _tied()
    sys.exit(main())
