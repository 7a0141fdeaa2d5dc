"""Shards of manifest rows -> their features, on a crew: each worker with a backbone and a device of
its own.

A shard is computed whole by one worker, in the batches that one process would take, so the bytes in
the cache do not depend on `runtime.nproc`.
"""

from __future__ import annotations

import dataclasses
import functools
import time

import numpy as np
import torch

from fgvc.config.schema import Config
from fgvc.data import loader
from fgvc.parallel.device import check_devices, choose_device, device_of
from fgvc.parallel.worker_pool import Advance, Work, WorkerPool
from fgvc.pipeline.determinism import seed_everything
from fgvc.pipeline.features import Extractor, ShardResult, measure_cost
from fgvc.types import Dataset, WeightsSource


def start_pool(conf: Config, dataset: Dataset, source: WeightsSource) -> WorkerPool | None:
    """Who extracts the features: None where this process does.

    Raises:
        UserError: more processes than GPUs.
    """
    nproc = conf.runtime.nproc
    if nproc == 1:
        return None
    check_devices(nproc, conf.runtime.device)
    begin = functools.partial(_begin, share_of(conf), dataset, source)
    return WorkerPool(nproc, begin, "extracting features")


def share_of(conf: Config) -> Config:
    """The config of one worker: threads and loader processes are given for each process, as in
    training; where they are not, the machine's are divided."""
    runtime = conf.runtime
    threads = runtime.threads or max(1, torch.get_num_threads() // runtime.nproc)
    loaders = runtime.num_workers
    if loaders is None:
        loaders = max(1, loader.worker_count(None) // runtime.nproc)
    own = dataclasses.replace(runtime, nproc=1, threads=threads, num_workers=loaders)
    return dataclasses.replace(conf, runtime=own)


def worker_device(conf: Config) -> torch.device:
    """Seed this worker; its device, which later CUDA calls then mean too."""
    seed_everything(conf)
    device = choose_device(device_of(conf.runtime.device))
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def _begin(conf: Config, dataset: Dataset, source: WeightsSource, number: int) -> Work:
    return functools.partial(_part, Extractor(conf, dataset, source, worker_device(conf)))


def _part(extractor: Extractor, task: tuple[str, np.ndarray], advance: Advance) -> ShardResult:
    role, row_N = task
    before, began = dataclasses.replace(extractor.counters), time.monotonic()
    features = extractor.compute(role, row_N, advance)
    done = extractor.counters
    return ShardResult(
        features,
        done.decoded - before.decoded,
        done.forwarded - before.forwarded,
        (began, time.monotonic()),
        measure_cost(extractor.built(), None, extractor.device),
    )
