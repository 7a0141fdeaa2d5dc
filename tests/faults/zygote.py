"""A process that has loaded every library and forks jobs on request: jobs need no imports.

    python -m tests.faults.zygote

Reads one JSON object per line: the overrides of a job, its log file, environment and counter of
writes. Prints the pid of the child, then its exit code once it has ended. The child leads a new
session: its pid is the process group of every process that it starts.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import pkgutil
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

LIBRARIES = ("onnx", "onnxruntime", "onnxscript", "timm", "fgvc.model.onnx_export", "fgvc.run")
WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod"}


def serve() -> None:
    """Fork one job per line of standard input, one after the other."""
    load()
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            begin(request)
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def load() -> None:
    import torch

    import fgvc.launch.fork_server

    torch.set_num_threads(1)
    rooms = ("fgvc.launch.", "fgvc.pipeline.", "fgvc.task.")
    modules = [module.name for module in pkgutil.walk_packages(fgvc.__path__, "fgvc.")]
    for name in (*LIBRARIES, *(name for name in modules if name.startswith(rooms))):
        importlib.import_module(name)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)  # the server of a sweep ignores them


def begin(request: dict[str, Any]) -> None:
    """In the child: run the job like the command line; never returns."""
    code = 1
    try:
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for number, descriptor in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
            os.dup2(descriptor, number)
        os.environ.update(request["environment"])
        multiprocessing.set_start_method("fork", force=True)
        sys.argv = ["fgvc", *request["overrides"]]
        exec(request["setup"], {"sys": sys})
        Strike(**request["strike"])
        from fgvc.run import main

        code = main(sys.argv[1:])
        sys.stdout.flush()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


class Strike:
    """Counts the writes of this process below a folder, and kills it at one of them.

    A write is a file opened for writing, a rename, a removal, a new folder, a change of
    permissions or an fsync. The counter file holds the larger count of the process and of the
    processes forked from it.
    """

    def __init__(self, root: str, counter: str, at: int | None) -> None:
        self.root, self.at, self.count = root, at, 0
        self.counter = os.open(counter, os.O_RDWR | os.O_CREAT)
        sys.addaudithook(self.hook)
        fsync = os.fsync

        def counted(descriptor: int) -> None:
            self.touch()
            fsync(descriptor)

        os.fsync = counted

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in WRITES
        if event == "open":
            flags = arguments[2] if isinstance(arguments[2], int) else 0
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if writes and self.inside(arguments[0]):
            self.touch()

    def inside(self, path: object) -> bool:
        if not isinstance(path, str | bytes | Path):
            return False
        text = os.fsdecode(path)
        return text.startswith(self.root) or not text.startswith("/")  # relative to a descriptor

    def touch(self) -> None:
        if self.at is not None and self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1
        recorded = int(os.pread(self.counter, 16, 0) or b"0")
        if self.count > recorded:
            os.pwrite(self.counter, b"%16d" % self.count, 0)


if __name__ == "__main__":
    serve()
