"""Heads on frozen features: cost of the C sweep vs. scikit-learn, kNN vs. its matrix product.

A unit of cost is one X W^T and one X^T G at full size. N rows, D width, C classes.
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

from benchmarks import bench_dataset
from benchmarks.side_by_side import Row, best_times
from fgvc.learn import logistic
from fgvc.model.backbone import weights
from fgvc.model.head_layers import KnnHead
from fgvc.pipeline.features import FeatureExtractor
from fgvc.pipeline.inference import CHUNK

Features = tuple[np.ndarray, np.ndarray, int]  # x_ND, label_N, number of classes
# bank, queries, classes: CUB's, and a tenth of iNaturalist 2017's bank
KNN_SIZES = ((5_994, 5_794, 200), (57_918, 1_024, 5_089))


def c_sweep(folder: Path) -> Row:
    """The path of 45 values of C, vs. independent solves with tol 1e-12, on every third image."""
    x_ND, label_N, classes = _features(folder)
    x_ND, label_N = x_ND[::3], label_N[::3]
    cs = np.logspace(-6, 5, 45).tolist()
    with threadpool_limits(1):  # for both; more threads do not speed up small products
        return _time_c_sweep(x_ND, label_N, classes, cs)


def _time_c_sweep(x_ND: np.ndarray, label_N: np.ndarray, classes: int, cs: list[float]) -> Row:
    start = time.perf_counter()
    path = list(logistic.fit_path(x_ND, label_N, classes, cs, 1e-8, 10.0, 1000))
    seconds = time.perf_counter() - start
    units = sum(solution.units for solution in path)
    rotation = rotation_units(x_ND.shape[0], x_ND.shape[1], classes)
    start = time.perf_counter()
    reference_units = sum(_solver_iterations(x_ND, label_N, c) for c in cs)
    reference_seconds = time.perf_counter() - start
    largest_gap = max(solution.gap for solution in path if solution.c <= 10)
    return Row(
        f"C sweep, {x_ND.shape[0]} x {x_ND.shape[1]} features, {classes} classes: units",
        "45 scikit-learn solves, tol 1e-12",
        reference_units / (units + rotation),
        20.0,
        f"{units:.0f} + {rotation:.0f} for the rotation against {reference_units}; "
        f"{seconds:.1f} against {reference_seconds:.1f} s; "
        f"worst gap up to C = 10: {largest_gap:.0e}",
    )


def c_search(folder: Path) -> Row:
    """The search for C vs. the path of 45 values, with every tenth image for validation.

    On features of published weights; without them, on made features, because those of random
    weights have two minima.
    """
    found = _features(folder) if bench_dataset.WEIGHTS.is_file() else _made_features()
    x_ND, label_N, classes = found
    held_N = np.arange(len(label_N)) % 10 == 0
    rows, val_rows = (x_ND[~held_N], label_N[~held_N]), (x_ND[held_N], label_N[held_N])
    arguments = (*rows, classes, np.logspace(-6, 5, 45).tolist(), 1e-8, 10.0, 1000)
    with threadpool_limits(1):
        path = logistic.choose(logistic.fit_path(*arguments), *val_rows)
        search = logistic.fit_bracket(*arguments, *val_rows)
    same = "the same C" if search.solution.c == path.solution.c else "ANOTHER C"
    return Row(
        f"search for C, {len(rows[0])} x {x_ND.shape[1]} features, {classes} classes: units",
        "the path of 45 values",
        search.units / path.units,
        1 / 3,
        f"{search.units:.0f} against {path.units:.0f}, {same}",
        upper_bound=True,
    )


def rotation_units(rows: int, width: int, classes: int) -> float:
    """Cost of the rotation in units: the flops of a thin SVD (Golub and Van Loan, 6 m n^2 + 20 n^3)
    over the flops of a unit (4 N D C)."""
    long, short = max(rows, width), min(rows, width)
    return (6 * long * short**2 + 20 * short**3) / (4 * rows * width * classes)


def knn() -> list[Row]:
    """kNN, vs. the similarity product only, at each of KNN_SIZES."""
    return [_knn(*sizes) for sizes in KNN_SIZES]


def _knn(rows: int, queries: int, classes: int, width: int = 768) -> Row:
    """The product has blocks of the same size as the head."""
    generator = torch.Generator().manual_seed(0)
    bank_ND = torch.randn(rows, width, generator=generator)
    query_BD = torch.nn.functional.normalize(torch.randn(queries, width, generator=generator))
    head = KnnHead(bank_ND, torch.arange(rows) % classes, classes, 20, 0.07)

    def product() -> None:
        for chunk_BD in query_BD.split(1024):
            for block_MD in head.bank_ND.split(4096):
                torch.mm(chunk_BD, block_MD.T)

    with torch.inference_mode():
        seconds, reference = best_times(
            lambda: [head(chunk_BD) for chunk_BD in query_BD.split(CHUNK)], product
        )
    return Row(
        f"kNN, {queries} x {rows} x {width}",
        "the similarity product",
        seconds / reference,
        1.3,
        f"{seconds:.2f} against {reference:.2f} s",
        upper_bound=True,
    )


def _features(folder: Path) -> Features:
    """Training features of the tiny ViT, with published weights if they are available."""
    weights_override = (
        f"backbone.weights={bench_dataset.WEIGHTS}"
        if bench_dataset.WEIGHTS.is_file()
        else "backbone.pretrained=false"
    )
    conf = bench_dataset.config(folder, "backbone=vit_tiny", weights_override)
    dataset = bench_dataset.load(conf)
    extractor = FeatureExtractor(conf, dataset, weights.find(conf.backbone), torch.device("cpu"))
    features = extractor.extract("train", np.flatnonzero(dataset.manifest.split_N == 0))
    label_N = dataset.manifest.label_N[features.row_N]
    return features.x_ND, label_N, len(dataset.labelmap)


def _made_features(rows: int = 1_320, width: int = 96, classes: int = 40) -> Features:
    """Overlapping Gaussian classes: about half of the images are recognised."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, classes, rows)
    noise_ND = 4 * rng.normal(size=(rows, width))
    x_ND = rng.normal(size=(classes, width))[label_N] + noise_ND
    return x_ND.astype(np.float32), label_N, classes


def _solver_iterations(x_ND: np.ndarray, label_N: np.ndarray, c: float) -> int:
    """Iterations of one solve; each costs at least a function value and a gradient, one unit."""
    model = LogisticRegression(C=c, tol=1e-12, max_iter=10_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_ND.astype(np.float64), label_N)
    return int(model.n_iter_.max())
