"""Images of some manifest rows -> their features: key -> cache -> compute.

Runs with the same key share the features. Counters record how much a run computed itself.
N images, B batch, D feature width.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.config.schema.library import LIBRARIES
from fgvc.data import loader
from fgvc.data.manifest import skip_hint
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.model.backbone import hf_config
from fgvc.model.backbone.base import Backbone
from fgvc.model.part_attention import TokenSelector
from fgvc.parallel.cpu_load import CpuTimes, cpu_times, other_load
from fgvc.parallel.device import autocast, peak_memory_mib
from fgvc.pipeline import bf16_trial, compile_errors, loader_wait, readback
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.inference import append_columns, concat_features, split_columns
from fgvc.record import console
from fgvc.record.env_stamp import fp32_precision, usable_cores
from fgvc.record.measured_rate import MeasuredRate
from fgvc.store import hashing, json_cache
from fgvc.store.feature_cache import ComputeMany, FeatureCache
from fgvc.types import (
    AttentionMaps,
    BadImage,
    Batch,
    Dataset,
    Features,
    UserError,
    WeightsSource,
)

WEIGHTS_NOTES = "weights_notes"
COST = ("parameters", "macs", *MeasuredRate.__dataclass_fields__, "peak_memory_mib")
SHARD = 256  # images per shard of the cache: at most these are lost when the process is killed
VERSION = 4  # in the key: raise it when the same inputs would give other features
PACKAGES = ("torch", "torchvision", "torchcodec", "pillow")
version = functools.cache(importlib.metadata.version)  # a call reads a file
# fields of a row of backbone.checkpoints
DECLARED = "patch registers prefix width embedding heads blocks activation architecture"


@dataclass
class Counters:
    """What this run computed. decoded, forwarded: images; prompts: read by a text tower. spent: on
    the extraction; its `own` covers every rank. waited: seconds of it without a decoded image."""

    decoded: int = 0
    forwarded: int = 0
    prompts: int = 0
    spent: CpuTimes = field(default_factory=CpuTimes)
    waited: float = 0.0


@dataclass
class FeatureExtractor:
    """Extracts the features of one dataset with one backbone, which is built when first needed.

    before_test: called each time before test features are read. suggest_skip: whether error
    messages may offer dataset.on_bad_image=skip. attention_maps: of the test images, once they are
    extracted. peak_memory_mib: of other processes that extract. load_average: of the minute before
    the extraction.
    """

    conf: Config
    dataset: Dataset
    source: WeightsSource
    device: torch.device
    before_test: Callable[[], None] = lambda: None
    suggest_skip: bool = True
    counters: Counters = field(default_factory=Counters)
    attention_maps: AttentionMaps | None = None
    _backbone: Backbone | None = None
    _selector: TokenSelector | None = None
    _compiled: Callable[[Tensor], Tensor] | None = None
    _tries_bf16: bool = False
    _batches_until_trial: int = bf16_trial.WARM_UP
    peak_memory_mib: float = 0.0
    load_average: float | None = None

    def __post_init__(self) -> None:
        self.preprocess: Preprocess = evaluation_transform(self.conf)
        self.cache_root = Path(self.conf.runtime.cache_root).expanduser()
        with contextlib.suppress(OSError):  # some systems have none
            self.load_average = round(os.getloadavg()[0], 2)
        self.cache = FeatureCache(self.cache_root / "features", notify=console.say)

    def extract(self, role: str, row_N: np.ndarray) -> Features:
        """Features of manifest rows (ascending), from the cache or computed into it.

        Args:
            role: the dataset's own split, "train" or "test". Validation is part of train, so
                another split_seed reads the same features.

        Raises:
            UserError: an image cannot be read and dataset.on_bad_image=error.
        """
        before = replace(self.counters)
        if bf16_trial.is_worthwhile(self.conf.precision, self.device, len(row_N)):
            self._tries_bf16 = not self.conf.runtime.compile  # which would compile bf16 as well
        if role == "test":
            self.before_test()
        with console.progress(f"features {role}", len(row_N), "images") as advance:
            columns = self.cache.get(
                self.key(role),
                row_N,
                self.compute_many(role, advance),
                SHARD,
                on_wait=console.say,
            )
        features, attention_maps = split_columns(columns, self.conf, scores=role == "test")
        if role == "test":
            self.attention_maps = attention_maps
        self.check_readable(features.bad)
        self._note_wait(role, before)
        if self.counters.forwarded == before.forwarded:
            console.say(f"features {role}: {len(features.row_N)} images, from the cache")
        self._save_cost(role)
        return features

    def key(self, role: str) -> dict[str, object]:
        """The key of the features of one role ("train" or "test") in the cache, as plain data."""
        conf, source = self.conf, self.source
        row, library = chosen_checkpoint(conf.backbone), conf.backbone.library
        norm_eps = hf_config.norm_eps(conf.backbone, source)
        options = asdict(conf.part_attention)
        for name in ("contrastive", "margin"):  # read only by training
            options.pop(name, None)
        draws = {"part_seed": conf.seed, "drawn_by": "path"} if options["name"] == "random" else {}
        return {
            # every field that a row declares: the model is checked against it only when it is built
            **{name: getattr(row, name) for name in DECLARED.split()},
            # the epsilon belongs to no tensor, so the weights' digest does not cover it
            **({} if norm_eps is None else {"norm_eps": norm_eps}),
            "extractor": VERSION,
            "libraries": {name: version(name) for name in (*PACKAGES, LIBRARIES[library].package)},
            "model": row.model,
            "weights": source.sha256 or f"random seed {conf.seed}",
            "layer": "last",
            "pooling": conf.backbone.features,
            "position_resize": conf.backbone.position_resize,
            "part_attention": options,
            **draws,
            "preprocess": self.preprocess.identity,
            "side": conf.resolution.side,
            "precision": conf.precision,
            **({"compiled": True} if conf.runtime.compile else {}),
            "matmul_precision": conf.matmul_precision,
            # older versions cached GPU features that TF32 convolutions had computed
            **({"fp32_precision": fp32_precision()} if self.device.type == "cuda" else {}),
            "device": self.device.type,
            "manifest": self.dataset.manifest.digest,
            "role": role,
        }

    def compute(
        self, role: str, shards: Sequence[np.ndarray], advance: Callable[[int], None]
    ) -> Iterator[tuple[int, Features]]:
        """Compute shards in this process; yields each with its index, in their order.

        The loader reads ahead across shards, and its processes start once.

        advance: called with the number of images of each batch.
        """
        runtime, start = self.conf.runtime, cpu_times()
        is_late = self.device.type in readback.DEVICES
        loaded = loader.batches(
            self.dataset.manifest,
            np.concatenate(shards),
            self.preprocess,
            runtime.eval_batch_size,
            loader.worker_count(runtime.num_workers),
            sections=[len(row_n) for row_n in shards],
            pin=self.device.type == "cuda",
        )
        outputs = self._forward_all(loaded, scores=role == "test")
        if is_late:
            outputs = readback.one_late(outputs)
        for index, row_n in enumerate(shards):
            parts, images = [], 0
            while images < len(row_n):
                batch, read = next(outputs)
                self.check_readable(batch.bad)
                images += len(batch.row_B) + len(batch.bad)
                advance(len(batch.row_B) + len(batch.bad))
                parts.append(Features(read(), batch.row_B, batch.bad))
                self.counters.decoded += len(batch.row_B)
            self.counters.spent += cpu_times() - start
            yield index, concat_features(parts)
            start = cpu_times()
        assert next(outputs, None) is None  # ends the loader's processes, whose CPU time counts
        self.counters.spent += cpu_times() - start

    def _forward_all(
        self, batches: Iterator[Batch], scores: bool
    ) -> Iterator[tuple[Batch, Callable[[], np.ndarray]]]:
        """Each batch with a function that waits for its features."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.counters.waited += time.perf_counter() - start
            if batch is None:
                return
            empty = torch.empty(0, 0)
            feature_BD = self._forward(batch, scores) if len(batch.row_B) else empty
            yield batch, readback.start(feature_BD)

    @torch.inference_mode()
    def _forward(self, batch: Batch, scores: bool) -> Tensor:
        feature, selector = self._feature(len(batch.row_B)), self._selector
        pixels_BCHW = batch.pixels_BCHW.to(self.device, non_blocking=True)
        if selector is not None:
            selector.set_images(self.dataset.manifest.key_N[batch.row_B])

        def forward(precision: str) -> Tensor:
            with autocast(precision, self.device):
                return feature(self.preprocess.normalize(pixels_BCHW)).float()

        with compile_errors.one_line(self.conf.runtime.compile):
            feature_BD = forward(self.conf.precision)
        self.counters.forwarded += len(feature_BD)
        if self._tries_bf16 and selector is None:  # a selector keeps its last forward pass
            if self._batches_until_trial == 0:
                console.say(bf16_trial.measure(forward, self.device))
            self._batches_until_trial -= 1
        return append_columns(feature_BD, selector and selector.last, scores)

    def compute_many(self, role: str, advance: Callable[[int], None]) -> ComputeMany:
        """A function that computes all missing shards."""
        return functools.partial(self.compute, role, advance=advance)

    def backbone(self) -> Backbone:
        if self._backbone is None:
            backbone, self._selector = build_model(self.conf, self.source)
            self._backbone = backbone.to(self.device)
        return self._backbone

    def _feature(self, images: int) -> Callable[[Tensor], Tensor]:
        """The forward pass for a batch of this size.

        Only full batches run in the compiled one, because it is compiled for each size again.
        """
        backbone, runtime = self.backbone(), self.conf.runtime
        if not runtime.compile or images != min(runtime.eval_batch_size, SHARD):
            return backbone.feature
        if self._compiled is None:
            self._compiled = torch.compile(backbone.feature, dynamic=False)
        return self._compiled

    def _note_wait(self, role: str, before: Counters) -> None:
        """Say if the GPU waited for images since `before`."""
        now, cores = self.counters, usable_cores()
        line = loader_wait.note(
            self.device,
            now.forwarded - before.forwarded,
            now.waited - before.waited,
            now.spent.wall - before.spent.wall,
            loader.worker_count(self.conf.runtime.num_workers),
            cores,
        )
        if line is not None:
            console.say(f"features {role}: {line}")

    def check_readable(self, bad: tuple[BadImage, ...]) -> None:
        """Raise UserError for the first unreadable image unless dataset.on_bad_image=skip."""
        if bad and self.conf.dataset.on_bad_image == "error":
            raise UserError(f"{bad[0].message}; repair it{skip_hint(self.suggest_skip)}")

    def end(self) -> None:
        """Nothing more will be extracted."""

    def cost(self) -> dict[str, object]:
        """The cost of the extraction, as `measure_cost`; null values where it was not measured."""
        for role in ("train", "test"):  # a zero-shot run reads test only
            if (cost := json_cache.read(self._cost_path(role), console.say)) is not None:
                return cost
        return {name: None for name in COST}  # noqa: C420 - typed as object values

    @property
    def threads(self) -> int:
        """Of all processes that extract on this machine."""
        return torch.get_num_threads()

    def measured_rate(self, images: int, spent: CpuTimes, processes: int = 1) -> MeasuredRate:
        """Images per second of a piece of work, with the conditions of the measurement.

        Args:
            processes: number of processes of this machine that shared the work.
        """
        cores = usable_cores()
        load, rate = other_load(spent, cores), images / max(spent.wall, 1e-9)
        return MeasuredRate(rate, load, self.load_average, self.threads * processes, cores)

    def _cost_path(self, role: str) -> Path:
        return self.cache_root / "costs" / f"{hashing.sha256_json(self.key(role))[:32]}.json"

    def _save_cost(self, role: str) -> None:
        """Store the cost beside the cached features, so that runs that only read them report it.

        A missing or damaged file is written again, with null for a rate that this process did not
        measure.
        """
        path, images = self._cost_path(role), self.counters.forwarded
        json_cache.clear_folder(path.parent, console.say)
        if json_cache.read(path, console.say) is not None:
            return
        rate = self.measured_rate(images, self.counters.spent) if images else MeasuredRate()
        peak = max(peak_memory_mib(self.device), self.peak_memory_mib) if images else None
        cost = measure_cost(self.backbone(), rate, self.device)
        json_cache.write(path, {**cost, "peak_memory_mib": peak})


def measure_cost(backbone: Backbone, rate: MeasuredRate, device: torch.device) -> dict[str, object]:
    """Parameters, multiply-accumulates per image, images per second, peak memory; and notes on
    which part of the weights file was read, which runs with cached features report too."""
    return {
        WEIGHTS_NOTES: list(backbone.notes),
        "parameters": backbone.parameter_count,
        "macs": backbone.macs,
        **asdict(rate),
        "peak_memory_mib": peak_memory_mib(device),
    }
