"""Missing shards of a feature cache -> their features, computed by the ranks of a process group.

Of R ranks, rank r computes shards r, r + R, …; rank 0 collects the shards of each round and writes
them. A rank computes a whole shard in the same batches as a single process, so the bytes in the
cache do not depend on the number of ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fgvc.config.schema import Config
from fgvc.data import loader
from fgvc.parallel.cpu_load import cpu_times
from fgvc.parallel.device import peak_memory_mib
from fgvc.parallel.process_group import SINGLE_PROCESS, ProcessGroup
from fgvc.pipeline.determinism import set_up_process
from fgvc.pipeline.features import Counters, FeatureExtractor
from fgvc.store.feature_cache import ComputeMany
from fgvc.types import Dataset, Features, UserError, WeightsSource


@dataclass(frozen=True)
class ExtractionSetup:
    """Rank 0's first request to the ranks that extract features."""

    conf: Config
    dataset: Dataset
    source: WeightsSource
    suggest_skip: bool
    share_threads: bool

    def follow(self, group: ProcessGroup) -> None:
        """Compute this rank's shards of each request, until rank 0 requests None."""
        conf = rank_config(self.conf, group.local_size, self.share_threads)
        extractor = FeatureExtractor(
            conf, self.dataset, self.source, set_up_process(conf), suggest_skip=self.suggest_skip
        )
        while (request := group.request()) is not None:
            role, shards = request
            for first in range(0, len(shards), group.size):
                share = shards[first + group.rank : first + group.rank + 1]
                result = _compute(extractor, role, share[0]) if share else None
                group.barrier()
                group.gather(result)
                if isinstance(result, Exception):
                    break  # rank 0 raises it


@dataclass
class RankedExtractor(FeatureExtractor):
    """On rank 0, extracts features together with the other ranks.

    They are started when at least two shards are missing, because their start takes seconds.
    """

    group: ProcessGroup = SINGLE_PROCESS
    _is_set_up: bool = False

    def __post_init__(self) -> None:
        share_threads = not self.group.is_torchrun
        self._setup = ExtractionSetup(
            self.conf, self.dataset, self.source, self.suggest_skip, share_threads
        )
        self.conf = rank_config(self.conf, self.group.local_size, share_threads)
        super().__post_init__()

    def end(self) -> None:
        """Let the other ranks end; a rank that was lost after the extraction does not matter."""
        if self.group.requests is not None:
            with contextlib.suppress(RuntimeError):
                self.group.request(None)

    @property
    def threads(self) -> int:
        return (self.conf.runtime.threads or super().threads) * self.group.local_size

    def compute_many(self, role: str, advance: Callable[[int], None]) -> ComputeMany:
        return functools.partial(self._compute_shards, role, advance)

    def _compute_shards(
        self, role: str, advance: Callable[[int], None], shards: Sequence[np.ndarray]
    ) -> Iterator[tuple[int, Features]]:
        """Yields (index of a shard, features); adds up the counters of all ranks."""
        if len(shards) == 1:
            yield from self.compute(role, shards, advance)
            return
        if not self._is_set_up:
            self.group.request(self._setup)
            self._is_set_up = True
        self.group.request((role, shards))
        spent, start, threads = self.counters.spent, cpu_times(), torch.get_num_threads()
        other_ranks = 0.0  # CPU seconds

        def check_and_advance(images: int) -> None:
            self.group.check()  # ends the extraction if a rank is lost
            advance(images)

        torch.set_num_threads(self.conf.runtime.threads or threads)
        try:
            for first in range(0, len(shards), self.group.size):
                for _, features in self.compute(role, shards[first : first + 1], check_and_advance):
                    yield first, features
                self.group.barrier()
                for index, result in enumerate(self.group.gather(None)[1:], first + 1):
                    if isinstance(result, Exception):
                        raise result
                    if result is not None:
                        features, counters, peak_memory_mib = result
                        self.counters.decoded += counters.decoded
                        self.counters.forwarded += counters.forwarded
                        other_ranks += counters.spent.own
                        self.peak_memory_mib = max(self.peak_memory_mib, peak_memory_mib)
                        advance(len(shards[index]))
                        yield index, features
        finally:
            torch.set_num_threads(threads)
            total = spent + (cpu_times() - start)
            self.counters.spent = dataclasses.replace(total, own=total.own + other_ranks)


def rank_config(conf: Config, local_size: int, share_threads: bool = True) -> Config:
    """The config of one of `local_size` ranks on a machine.

    `runtime.threads` and `runtime.num_workers` are per process, as in training. Where they are not
    set, the ranks divide the machine's threads and loader processes.

    Args:
        share_threads: False under torchrun, whose OMP_NUM_THREADS is already per process.
    """
    available = torch.get_num_threads()
    threads = conf.runtime.threads or max(1, available // (local_size if share_threads else 1))
    num_workers = conf.runtime.num_workers
    if num_workers is None:
        num_workers = max(1, loader.worker_count(None) // local_size)
    runtime = dataclasses.replace(conf.runtime, threads=threads, num_workers=num_workers)
    return dataclasses.replace(conf, runtime=runtime)


def _compute(
    extractor: FeatureExtractor, role: str, row_N: np.ndarray
) -> tuple[Features, Counters, float] | Exception:
    """A shard, what this rank computed for it and its peak memory; or an error for rank 0."""
    extractor.counters = Counters()
    try:
        ((_, features),) = extractor.compute(role, [row_N], lambda images: None)
    except (UserError, OSError, MemoryError) as error:
        return error
    except Exception as error:  # a pickle does not carry the traceback
        trace = "".join(traceback.format_exception(error))
        copy = RuntimeError(f"{type(error).__name__}: {' '.join(str(error).split())}")
        copy.add_note(f"in another rank:\n{trace}")
        return copy
    return features, extractor.counters, peak_memory_mib(extractor.device)
