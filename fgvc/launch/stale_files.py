"""The folders that a command writes -> the same without temporaries of killed processes.

Called at the start of every command, including prune. Complete runs are listed, not searched:
only their status and retention are written after they were sealed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fgvc.config.schema import Config
from fgvc.record.run_dir import IN_PROGRESS
from fgvc.store import temporary_files

CACHE_DEPTH = 2  # cache/features/KEY/
RUN_DEPTH = 3  # outputs/RUN/CONFIG/CHECKPOINT/
SWEEP_DEPTH = 2  # multirun/RUN/jobs/
ANY_DEPTH = 1_000


def remove_leftovers(conf: Config) -> list[Path]:
    """Remove the temporaries that `temporary.remove_stale` finds; returns them."""
    removed: list[Path] = []
    for folder, depth in _places(conf):
        with suppress(RuntimeError):  # no home folder: the writer reports it
            place = Path(folder).expanduser()
            removed += temporary_files.remove_stale(place, depth, whole=(IN_PROGRESS,))
    return removed


def _places(conf: Config) -> Iterator[tuple[str, int]]:
    """Folders, and the levels below them that are searched."""
    runtime = conf.runtime
    yield runtime.cache_root, CACHE_DEPTH
    yield runtime.output_root, RUN_DEPTH
    yield runtime.multirun_root, SWEEP_DEPTH
    if conf.dataset.reader == "synthetic" and conf.dataset.root is not None:
        yield str(Path(conf.dataset.root).parent), 0
    if (output := getattr(conf.task, "output", None)) is not None:
        yield output, 0
        yield str(Path(output).parent), 0
    if (overlay := getattr(conf.task, "overlay", None)) is not None:
        yield overlay, ANY_DEPTH
