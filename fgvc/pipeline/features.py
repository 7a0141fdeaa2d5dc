"""Images of some manifest rows -> their features, computed once for every run that can share them.

The cache's key holds everything that can change a feature; counters say what a run really did.
N images, B batch, D feature width.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from fgvc.config.schema import Config, chosen_checkpoint
from fgvc.data import loader
from fgvc.data.manifest import skip_hint
from fgvc.data.preprocess import Preprocess, evaluation_transform
from fgvc.model import part_attention as parts
from fgvc.model.backbone import Backbone, hf_config
from fgvc.parallel.device import autocast, peak_memory_mib
from fgvc.parallel.worker_pool import WorkerPool
from fgvc.pipeline.attention_maps import append_columns, split_columns
from fgvc.pipeline.build_model import build_model
from fgvc.record import console
from fgvc.record.env_stamp import fp32_precision
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

LIBRARIES = ("torch", "torchvision", "torchcodec", "pillow")
FAMILY = {"timm": "timm", "open_clip": "open_clip_torch", "transformers": "transformers"}
WEIGHTS_NOTES = "weights_notes"
DECLARED = (  # fields of a row of backbone.checkpoints
    "patch",
    "registers",
    "prefix",
    "width",
    "embedding",
    "heads",
    "blocks",
    "activation",
    "architecture",
)
SHARD = 256  # images kept at once: what a kill can cost
VERSION = 4  # of this module: raise it when the same inputs would give other features


@dataclass
class Counters:
    """What a run really did. decoded, forwarded: images; prompts: read by a text tower."""

    decoded: int = 0
    forwarded: int = 0
    prompts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class ShardResult:
    """What one process found of one shard. span: when, by the clock of the machine. cost: as
    `cost_of`, of that process."""

    features: Features
    decoded: int
    forwarded: int
    span: tuple[float, float]
    cost: dict[str, object]


@dataclass
class Extractor:
    """One backbone looking at one dataset in one way; the backbone is built on the first miss.

    crew: workers that compute the features, where this process does not. before_test: called each
    time before test features are read. may_skip: whether the task may be given on_bad_image. looks:
    where part attention looked in the test images, once they are read.
    """

    conf: Config
    dataset: Dataset
    source: WeightsSource
    device: torch.device
    crew: WorkerPool | None = None
    before_test: Callable[[], None] = lambda: None
    may_skip: bool = True
    counters: Counters = field(default_factory=Counters)
    looks: AttentionMaps | None = None
    _backbone: Backbone | None = None
    _selector: parts.TokenSelector | None = None
    _told: dict[str, object] | None = None  # what a worker's backbone costs

    def __post_init__(self) -> None:
        self.preprocess: Preprocess = evaluation_transform(self.conf)
        self.cache_root = Path(self.conf.runtime.cache_root).expanduser()
        self.cache = FeatureCache(self.cache_root / "features", on_note=console.say)

    def features(self, role: str, row_N: np.ndarray) -> Features:
        """Features of manifest rows (ascending), from the cache or computed into it.

        Args:
            role: the dataset's own split, "train" or "test": validation is carved from train, so
                another split_seed reads the same features.

        Raises:
            UserError: an image could not be read and dataset.on_bad_image=error.
        """
        before = self.counters.forwarded
        if role == "test":
            self.before_test()
        with console.progress(f"features {role}", len(row_N), "images") as advance:
            found = self.cache.get(
                self.key(role),
                row_N,
                functools.partial(self.compute, role, advance=advance),
                SHARD,
                on_wait=console.say,
                compute_many=self._at_once(role, advance),
            )
        found, looks = split_columns(found, self.conf, scores=role == "test")
        self.looks = looks if role == "test" else self.looks
        self.refuse_bad(found.bad)
        if self.counters.forwarded == before:
            console.say(f"features {role}: {len(found.row_N)} images, from the cache")
        self._keep_cost(role)
        return found

    def key(self, role: str) -> dict[str, object]:
        """Everything that can change these features."""
        conf, row = self.conf, chosen_checkpoint(self.conf.backbone)
        weights = self.source.sha256 or f"random seed {conf.seed}"
        library = conf.backbone.library
        # all that a row declares: another declaration is checked against the model when it is built
        own = {name: getattr(row, name) for name in DECLARED}
        # older versions cached GPU features that TF32 convolutions had computed
        fp32 = {"fp32_precision": fp32_precision()} if self.device.type == "cuda" else {}
        eps = hf_config.norm_eps(conf.backbone, self.source)
        return {
            **own,
            **({} if eps is None else {"norm_eps": eps}),  # of no tensor, so not in the digest
            "extractor": VERSION,
            "libraries": {name: version(name) for name in (*LIBRARIES, FAMILY[library])},
            "model": row.model,
            "weights": weights,
            "layer": "last",
            "pooling": conf.backbone.features,
            "position_resize": conf.backbone.position_resize,
            **self._parts_key(),
            "preprocess": self.preprocess.identity,
            "side": conf.resolution.side,
            "precision": conf.precision,
            "matmul_precision": conf.matmul_precision,
            **fp32,
            "device": self.device.type,
            "manifest": self.dataset.manifest.digest,
            "role": role,
        }

    def _parts_key(self) -> dict[str, object]:
        """The choice of part attention, without what only training looks at; draws have a seed."""
        chosen = asdict(self.conf.part_attention)
        for name in ("contrastive", "margin"):
            chosen.pop(name, None)
        if chosen["name"] != "random":
            return {"part_attention": chosen}
        return {"part_attention": chosen, "part_seed": self.conf.seed, "drawn_by": "path"}

    def use(self, model: Backbone) -> None:
        """Extract with a backbone that is built already (on this device, from this source)."""
        self._backbone = model
        self._selector = parts.attach_selector(model, self.conf.part_attention, self.conf.seed)

    def cost(self) -> dict[str, object]:
        """Parameters, multiply-accumulates an image, images a second as measured when extracted."""
        for role in ("train", "test"):  # a zero-shot run reads test alone
            if (cost := json_cache.read(self._cost_path(role), console.say)) is not None:
                return cost
        known = ("parameters", "macs", "images_per_s", "peak_memory_mib")
        return {name: None for name in known}  # noqa: C420 - typed as object values

    def close(self) -> None:
        """Let go of the workers."""
        if self.crew is not None:
            self.crew.close()

    def compute(self, role: str, row_N: np.ndarray, advance: Callable[[int], None]) -> Features:
        """Features of the rows of one shard, by this process. advance: told of every batch."""
        kept, rows, bad = [], [], []
        start = time.monotonic()
        for batch in loader.batches(
            self.dataset.manifest,
            row_N,
            self.preprocess,
            self.conf.runtime.eval_batch_size,
            loader.worker_count(self.conf.runtime.num_workers),
        ):
            self.refuse_bad(batch.bad)
            bad += batch.bad
            advance(len(batch.row_B) + len(batch.bad))
            if len(batch.row_B):
                kept.append(self._forward(batch, scores=role == "test"))
                rows.append(batch.row_B)
            self.counters.decoded += len(batch.row_B)
        self.counters.seconds += time.monotonic() - start
        if not kept:
            return Features(np.empty((0, 0), np.float32), np.empty(0, np.int64), tuple(bad))
        return Features(np.concatenate(kept), np.concatenate(rows), tuple(bad))

    @torch.inference_mode()
    def _forward(self, batch: Batch, scores: bool) -> np.ndarray:
        """Features, and beside them where part attention looked."""
        model, selector = self.built(), self._selector
        pixels_BCHW = batch.pixels_BCHW.to(self.device, non_blocking=True)
        if selector is not None:
            selector.set_images(self.dataset.manifest.key_N[batch.row_B])
        with autocast(self.conf.precision, self.device):
            feature_BD = model.feature(self.preprocess.normalize(pixels_BCHW)).float()
        self.counters.forwarded += len(feature_BD)
        return append_columns(feature_BD, selector and selector.last, scores).cpu().numpy()

    def _at_once(self, role: str, advance: Callable[[int], None]) -> ComputeMany | None:
        """Several shards at once, by the crew, counted as if this process had computed them."""
        if (crew := self.crew) is None:
            return None

        def compute(shards: Sequence[np.ndarray]) -> Iterator[tuple[int, Features]]:
            spans: list[tuple[float, float]] = []
            for place, part in crew.answers([(role, row_N) for row_N in shards], advance):
                self._count(part)
                spans.append(part.span)
                yield place, part.features
            self.counters.seconds += max(end for _, end in spans) - min(start for start, _ in spans)

        return compute

    def _count(self, part: ShardResult) -> None:
        self.counters.decoded += part.decoded
        self.counters.forwarded += part.forwarded
        peaks = [float(told["peak_memory_mib"]) for told in (self._told, part.cost) if told]  # type: ignore[arg-type]
        self._told = {**part.cost, "peak_memory_mib": max(peaks)}

    def built(self) -> Backbone:
        """The backbone, on its device."""
        if self._backbone is None:
            built, self._selector = build_model(self.conf, self.source)
            self._backbone = built.to(self.device)
        return self._backbone

    def refuse_bad(self, bad: tuple[BadImage, ...]) -> None:
        """UserError for the first of them, unless such images are to be left out."""
        if bad and self.conf.dataset.on_bad_image == "error":
            raise UserError(f"{bad[0].message}; repair it{skip_hint(self.may_skip)}")

    def _cost_path(self, role: str) -> Path:
        name = hashing.sha256_bytes(hashing.canonical_json(self.key(role)))
        return self.cache_root / "costs" / f"{name[:32]}.json"

    def _keep_cost(self, role: str) -> None:
        """Beside the features: a run that finds them cached still reports what they cost.

        A lost or damaged file is made anew; a rate that was not measured by this process is null.
        """
        path = self._cost_path(role)
        json_cache.clear_folder(path.parent, console.say)
        if json_cache.read(path, console.say) is not None:
            return
        rate = None
        if self.counters.forwarded:
            rate = self.counters.forwarded / max(self.counters.seconds, 1e-9)
        cost = self._told or measure_cost(self.built(), rate, self.device)
        if rate is None:
            cost = {**cost, "peak_memory_mib": None}
        json_cache.write(path, {**cost, "images_per_s": rate})


def measure_cost(
    model: Backbone, images_per_s: float | None, device: torch.device
) -> dict[str, object]:
    """Parameters, multiply-accumulates an image, images a second as measured, memory; and notes on
    the part of the weights file that was read, which a run with cached features reports too."""
    return {
        WEIGHTS_NOTES: list(model.notes),
        "parameters": model.parameter_count,
        "macs": model.macs,
        "images_per_s": images_per_s,
        "peak_memory_mib": peak_memory_mib(device),
    }
