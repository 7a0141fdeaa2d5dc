"""Manifest rows whose features were extracted fast -> their features in IEEE float32.

fp32 features of all images of an earlier run are read from the cache; otherwise only the requested
images are forwarded. N images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from fgvc.config.schema import Config
from fgvc.model.backbone.base import Backbone
from fgvc.pipeline.determinism import set_fp32_precision
from fgvc.pipeline.features import SHARD, FeatureExtractor
from fgvc.pipeline.inference import predict_features, split_columns
from fgvc.record import console
from fgvc.store import hashing
from fgvc.store.feature_cache import DONE
from fgvc.types import TEST, Features, Predictions, UserError


def exact(conf: Config) -> Config:
    """The same config in IEEE float32."""
    return replace(conf, precision="fp32", matmul_precision="highest")


@contextmanager
def exact_products(conf: Config) -> Iterator[None]:
    """In this block, float32 products of this process are IEEE float32.

    conf: the config whose precision holds again afterwards.
    """
    set_fp32_precision("highest")
    try:
        yield
    finally:
        set_fp32_precision(conf.matmul_precision)


class ReferenceExtractor(FeatureExtractor):
    """Extracts in float32 what another extractor has extracted in its own precision.

    Both share one backbone, which is built at most once; autocast leaves its weights as they are.
    With several ranks, rank 0 computes alone: few images are repeated.
    """

    def __init__(self, fast: FeatureExtractor) -> None:
        super().__init__(exact(fast.conf), fast.dataset, fast.source, fast.device)
        self._fast = fast

    def select(self, role: str, row_N: np.ndarray) -> Features:
        """Features of manifest rows (ascending) that the fast extractor could read.

        The read of test is that of the fast extractor: it belongs to the same evaluation.

        Raises:
            UserError: an image can no longer be read.
        """
        if not len(row_N):
            return Features(np.empty((0, 0), np.float32), row_N)
        manifest, title = self.dataset.manifest, f"features {role} in fp32"
        key, wanted_N = self.key(role), row_N
        folder = self.cache.root / hashing.sha256_json(key)[:32]
        if (folder / DONE).is_file():  # of all images
            is_role_N = (manifest.split_N == TEST) == (role == "test")
            row_N = np.flatnonzero(is_role_N)
        else:
            rows = hashing.sha256_bytes(np.ascontiguousarray(row_N, np.int64).tobytes())
            key = {**key, "rows": rows}
        with (
            exact_products(self._fast.conf),
            console.progress(title, len(wanted_N), "images") as advance,
        ):
            compute_many = self.compute_many(role, advance)
            columns = self.cache.get(key, row_N, compute_many, SHARD, on_wait=console.say)
        features, _ = split_columns(columns, self.conf, scores=role == "test")
        chosen_N = np.isin(features.row_N, wanted_N)
        if chosen_N.sum() != len(wanted_N):
            reasons = {bad.row: bad.message for bad in features.bad}
            reason = next((reasons[row] for row in wanted_N.tolist() if row in reasons), "")
            raise UserError(f"{reason}; its fast features were extracted before")
        return Features(features.x_ND[chosen_N], features.row_N[chosen_N])

    def predict(self, head: torch.nn.Module, row_N: np.ndarray) -> Predictions:
        """Predictions of a head for test rows, as `select`."""
        return predict_features(head, self.select("test", row_N), self.dataset)

    def repeat(self, head: torch.nn.Module, test: Features, row_N: np.ndarray) -> Predictions:
        """Predictions of a head for all test images, with float32 features in some rows.

        A row of logits does not depend on other rows, so the predictions of the others stay.

        Args:
            test: fast features. row_N: test rows, as for `select`.
        """
        x_ND = test.x_ND.copy()
        x_ND[np.searchsorted(test.row_N, row_N)] = self.select("test", row_N).x_ND
        return predict_features(head, Features(x_ND, test.row_N, test.bad), self.dataset)

    def backbone(self) -> Backbone:
        backbone, self._selector = self._fast.backbone(), self._fast._selector
        return backbone

    def end(self) -> None:
        """Add the images forwarded in float32 to those of the fast extractor.

        At the end: the rate of the fast extraction does not include them.
        """
        counters, own = self._fast.counters, self.counters
        counters.decoded += own.decoded
        counters.forwarded += own.forwarded
        counters.spent += own.spent
