"""The folders that a command writes -> the same without temporary files of killed processes.

Every command starts with this, including prune. Complete runs are listed, not searched: only their
status and retention change after they are sealed.
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


def remove_stale_files(conf: Config) -> list[Path]:
    """Remove temporary files whose process is gone; returns their paths."""
    removed: list[Path] = []
    for folder, depth in _folders(conf):
        with suppress(RuntimeError):  # no home folder; the writer reports this
            path = Path(folder).expanduser()
            removed += temporary_files.remove_stale(path, depth, whole=(IN_PROGRESS,))
    return removed


def _folders(conf: Config) -> Iterator[tuple[str, int]]:
    """Folders to search, each with the number of levels to search below it."""
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
