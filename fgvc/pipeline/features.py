"""Images of some manifest rows -> their features: key -> cache -> compute.

Runs with the same key share the features. Counters record how much a run computed itself.
N images, B batch, D feature width.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from fgvc.config.schema import Config
from fgvc.data import loader
from fgvc.data.manifest import skip_hint
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.model import part_attention as parts
from fgvc.model.backbone import Backbone
from fgvc.parallel.device import autocast, peak_memory_mib
from fgvc.pipeline.attention_maps import append_columns, split_columns
from fgvc.pipeline.build_model import build_model
from fgvc.pipeline.feature_key import feature_key
from fgvc.record import console
from fgvc.store import hashing, json_cache
from fgvc.store.feature_cache import FeatureCache
from fgvc.types import (
    AttentionMaps,
    BadImage,
    Batch,
    ComputeMany,
    Dataset,
    Features,
    UserError,
    WeightsSource,
)

WEIGHTS_NOTES = "weights_notes"
COST = ("parameters", "macs", "images_per_s", "peak_memory_mib")
SHARD = 256  # images per shard of the cache: at most these are lost when the process is killed


@dataclass
class Counters:
    """What this run computed. decoded, forwarded: images; prompts: read by a text tower."""

    decoded: int = 0
    forwarded: int = 0
    prompts: int = 0
    seconds: float = 0.0


@dataclass
class FeatureExtractor:
    """Extracts the features of one dataset with one backbone, which is built when first needed.

    before_test: called each time before test features are read. suggest_skip: whether error
    messages may offer dataset.on_bad_image=skip. attention_maps: of the test images, once they are
    extracted. peak_memory_mib: of other processes that extract.
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
    _selector: parts.TokenSelector | None = None
    peak_memory_mib: float = 0.0

    def __post_init__(self) -> None:
        self.preprocess: Preprocess = evaluation_transform(self.conf)
        self.cache_root = Path(self.conf.runtime.cache_root).expanduser()
        self.cache = FeatureCache(self.cache_root / "features", on_note=console.say)

    def extract(self, role: str, row_N: np.ndarray) -> Features:
        """Features of manifest rows (ascending), from the cache or computed into it.

        Args:
            role: the dataset's own split, "train" or "test". Validation is part of train, so
                another split_seed reads the same features.

        Raises:
            UserError: an image cannot be read and dataset.on_bad_image=error.
        """
        forwarded_before = self.counters.forwarded
        if role == "test":
            self.before_test()
        with console.progress(f"features {role}", len(row_N), "images") as advance:
            columns = self.cache.get(
                self.key(role),
                row_N,
                functools.partial(self.compute, role, advance=advance),
                SHARD,
                on_wait=console.say,
                compute_many=self.compute_many(role, advance),
            )
        features, attention_maps = split_columns(columns, self.conf, scores=role == "test")
        if role == "test":
            self.attention_maps = attention_maps
        self.check_readable(features.bad)
        if self.counters.forwarded == forwarded_before:
            console.say(f"features {role}: {len(features.row_N)} images, from the cache")
        self._save_cost(role)
        return features

    def key(self, role: str) -> dict[str, object]:
        """The key of these features in the cache."""
        return feature_key(self.conf, self.dataset, self.source, self.preprocess, self.device, role)

    def compute(self, role: str, row_N: np.ndarray, advance: Callable[[int], None]) -> Features:
        """Compute the features of one shard in this process. advance: called with each batch."""
        x_BDs, row_Bs, bad = [], [], []
        start = time.monotonic()
        for batch in loader.batches(
            self.dataset.manifest,
            row_N,
            self.preprocess,
            self.conf.runtime.eval_batch_size,
            loader.worker_count(self.conf.runtime.num_workers),
        ):
            self.check_readable(batch.bad)
            bad += batch.bad
            advance(len(batch.row_B) + len(batch.bad))
            if len(batch.row_B):
                x_BDs.append(self._forward(batch, scores=role == "test"))
                row_Bs.append(batch.row_B)
            self.counters.decoded += len(batch.row_B)
        self.counters.seconds += time.monotonic() - start
        if not x_BDs:
            return Features(np.empty((0, 0), np.float32), np.empty(0, np.int64), tuple(bad))
        return Features(np.concatenate(x_BDs), np.concatenate(row_Bs), tuple(bad))

    @torch.inference_mode()
    def _forward(self, batch: Batch, scores: bool) -> np.ndarray:
        """Features of a batch, with the columns of part attention."""
        backbone, selector = self.backbone(), self._selector
        pixels_BCHW = batch.pixels_BCHW.to(self.device, non_blocking=True)
        if selector is not None:
            selector.set_images(self.dataset.manifest.key_N[batch.row_B])
        with autocast(self.conf.precision, self.device):
            feature_BD = backbone.feature(self.preprocess.normalize(pixels_BCHW)).float()
        self.counters.forwarded += len(feature_BD)
        return append_columns(feature_BD, selector and selector.last, scores).cpu().numpy()

    def compute_many(self, role: str, advance: Callable[[int], None]) -> ComputeMany | None:
        """A function that computes all missing shards; None: they are computed one by one."""
        return None

    def backbone(self) -> Backbone:
        """The backbone, on its device."""
        if self._backbone is None:
            backbone, self._selector = build_model(self.conf, self.source)
            self._backbone = backbone.to(self.device)
        return self._backbone

    def use_backbone(self, backbone: Backbone) -> None:
        """Extract with a backbone that is built already (on this device, from this source)."""
        self._backbone = backbone
        self._selector = parts.attach_selector(backbone, self.conf.part_attention, self.conf.seed)

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

    def _cost_path(self, role: str) -> Path:
        digest = hashing.sha256_bytes(hashing.canonical_json(self.key(role)))
        return self.cache_root / "costs" / f"{digest[:32]}.json"

    def _save_cost(self, role: str) -> None:
        """Store the cost beside the cached features, so that runs that only read them report it.

        A missing or damaged file is written again, with null for a rate that this process did not
        measure.
        """
        path = self._cost_path(role)
        json_cache.clear_folder(path.parent, console.say)
        if json_cache.read(path, console.say) is not None:
            return
        rate = None
        if self.counters.forwarded:
            rate = self.counters.forwarded / max(self.counters.seconds, 1e-9)
        cost = measure_cost(self.backbone(), rate, self.device)
        peak = None if rate is None else max(peak_memory_mib(self.device), self.peak_memory_mib)
        json_cache.write(path, {**cost, "peak_memory_mib": peak})


def measure_cost(
    backbone: Backbone, images_per_s: float | None, device: torch.device
) -> dict[str, object]:
    """Parameters, multiply-accumulates per image, images per second, peak memory; and notes on
    which part of the weights file was read, which runs with cached features report too."""
    return {
        WEIGHTS_NOTES: list(backbone.notes),
        "parameters": backbone.parameter_count,
        "macs": backbone.macs,
        "images_per_s": images_per_s,
        "peak_memory_mib": peak_memory_mib(device),
    }
