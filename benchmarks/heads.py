"""Heads on frozen features: units of the C sweep against scikit-learn's, kNN against its product.

A unit is one X W^T and one X^T G at full size. N rows, D width, C classes.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks import pictures
from benchmarks.side_by_side import Row, best_times
from fgvc.learn import logistic
from fgvc.model.backbone import weights
from fgvc.model.head import KnnHead
from fgvc.pipeline.features import FeatureExtractor


def c_sweep(places: Path) -> Row:
    """The path of 45 values of C, against a loop of independent solves to tol 1e-12."""
    x_ND, label_N, classes = _features(places)
    cs = np.logspace(-6, 5, 45).tolist()
    with threadpool_limits(1):  # both sides: so small a product gains nothing from more
        return _swept(x_ND, label_N, classes, cs)


def _swept(x_ND: np.ndarray, label_N: np.ndarray, classes: int, cs: list[float]) -> Row:
    start = time.perf_counter()
    path = list(logistic.fit_path(x_ND, label_N, classes, cs, 1e-8, 10.0, 1000))
    ours = time.perf_counter() - start
    units = sum(solution.units for solution in path)
    rotation = logistic.rotation_units(*x_ND.shape, classes)
    start = time.perf_counter()
    theirs = sum(_independent(x_ND, label_N, c) for c in cs)
    seconds = time.perf_counter() - start
    worst = max(solution.gap for solution in path if solution.c <= 10)
    return Row(
        f"C sweep, {x_ND.shape[0]} x {x_ND.shape[1]} features, {classes} classes: units",
        "45 scikit-learn solves, tol 1e-12",
        theirs / (units + rotation),
        20.0,
        f"{units:.0f} + {rotation:.0f} for the rotation against {theirs}; {ours:.1f} against "
        f"{seconds:.1f} s; worst gap up to C = 10: {worst:.0e}",
    )


def knn(rows: int = 5994, queries: int = 5794, width: int = 768) -> Row:
    """kNN over a bank of CUB's size, against the similarity product alone."""
    generator = torch.Generator().manual_seed(0)
    bank_ND = torch.randn(rows, width, generator=generator)
    query_BD = torch.nn.functional.normalize(torch.randn(queries, width, generator=generator))
    head = KnnHead(bank_ND, torch.arange(rows) % 200, 200, 20, 0.07)
    with torch.inference_mode():
        ours, limit = best_times(lambda: head(query_BD), lambda: query_BD @ head.bank_ND.T)
    return Row(
        f"kNN, {queries} x {rows} x {width}",
        "the similarity product",
        ours / limit,
        2.5,
        f"{ours:.2f} against {limit:.2f} s",
        most=True,
    )


def _features(places: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Training features of the tiny ViT: with real weights where there are any."""
    chosen = (
        f"backbone.weights={pictures.WEIGHTS}"
        if pictures.WEIGHTS.is_file()
        else "backbone.pretrained=false"
    )
    conf = pictures.config(places, "backbone=vit_tiny", chosen)
    dataset = pictures.load(conf)
    extractor = FeatureExtractor(conf, dataset, weights.find(conf.backbone), torch.device("cpu"))
    features = extractor.extract("train", np.flatnonzero(dataset.manifest.split_N == 0))
    label_N = dataset.manifest.label_N[features.row_N]
    return features.x_ND, label_N, len(dataset.labelmap)


def _independent(x_ND: np.ndarray, label_N: np.ndarray, c: float) -> int:
    """Iterations of one solve: each is at least one function value and gradient, one unit."""
    model = LogisticRegression(C=c, tol=1e-12, max_iter=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_ND.astype(np.float64), label_N)
    return int(model.n_iter_.max())
