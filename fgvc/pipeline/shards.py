"""Shards of manifest rows -> their features, computed by a pool of workers.

Each worker has a backbone and a device of its own. One worker computes a whole shard, in the same
batches as a single process, so the bytes in the cache do not depend on `runtime.nproc`.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import numpy as np
import torch

from fgvc.config.schema import Config
from fgvc.data import loader
from fgvc.parallel.device import check_gpu_count
from fgvc.parallel.worker_pool import Advance, TaskFunction, WorkerPool
from fgvc.pipeline.determinism import set_up_process
from fgvc.pipeline.features import FeatureExtractor, ShardResult, measure_cost
from fgvc.types import Dataset, WeightsSource


def start_pool(conf: Config, dataset: Dataset, source: WeightsSource) -> WorkerPool | None:
    """The workers that extract features; None where this process extracts them.

    Raises:
        UserError: more processes than GPUs.
    """
    nproc = conf.runtime.nproc
    if nproc == 1:
        return None
    check_gpu_count(nproc, conf.runtime.device)
    initializer = functools.partial(_initialize_worker, worker_config(conf), dataset, source)
    return WorkerPool(nproc, initializer, "extracting features")


def worker_config(conf: Config) -> Config:
    """The config of one worker.

    `runtime.threads` and `runtime.num_workers` are per process, as in training. Where they are not
    set, the workers divide the machine's threads and loader processes.
    """
    runtime = conf.runtime
    threads = runtime.threads or max(1, torch.get_num_threads() // runtime.nproc)
    num_workers = runtime.num_workers
    if num_workers is None:
        num_workers = max(1, loader.worker_count(None) // runtime.nproc)
    runtime = dataclasses.replace(runtime, nproc=1, threads=threads, num_workers=num_workers)
    return dataclasses.replace(conf, runtime=runtime)


def worker_device(conf: Config) -> torch.device:
    """Set up this worker; returns its device, which becomes CUDA's current device."""
    device = set_up_process(conf)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def _initialize_worker(
    conf: Config, dataset: Dataset, source: WeightsSource, number: int
) -> TaskFunction:
    extractor = FeatureExtractor(conf, dataset, source, worker_device(conf))
    return functools.partial(_extract_shard, extractor)


def _extract_shard(
    extractor: FeatureExtractor, task: tuple[str, np.ndarray], advance: Advance
) -> ShardResult:
    role, row_N = task
    before, start = dataclasses.replace(extractor.counters), time.monotonic()
    features = extractor.compute(role, row_N, advance)
    return ShardResult(
        features,
        extractor.counters.decoded - before.decoded,
        extractor.counters.forwarded - before.forwarded,
        (start, time.monotonic()),
        measure_cost(extractor.backbone(), None, extractor.device),
    )
