"""task=probe: frozen features -> a head chosen on validation, refitted, and read on test once.

N images, D feature width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from fgvc.config.compose import resolved
from fgvc.config.schema import KnnHead
from fgvc.learn import logistic
from fgvc.model import head as heads
from fgvc.record import console
from fgvc.task import Job, writeup
from fgvc.task.experiment import (
    Experiment,
    Outcome,
    already_complete,
    opened,
    predictions,
)
from fgvc.types import TRAIN, Features, Predictions, UserError


def run(job: Job) -> None:
    """Run one probe into its run folder.

    Raises:
        UserError: data, weights, device or folder are not what the command says they are.
    """
    with opened("probe", job.conf, resolved(job.cfg), job.command) as experiment:
        if already_complete(experiment) is None:
            writeup.finish(experiment, _probe(experiment))


def _probe(job: Experiment) -> Outcome:
    manifest, split = job.dataset.manifest, job.dataset.split
    _check_neighbours(job)
    features = job.extractor.features("train", np.flatnonzero(manifest.split_N == TRAIN))
    train, val = _rows_of(features, split.train_N), _rows_of(features, split.val_N)
    fit = _fit_knn if isinstance(job.conf.head, KnnHead) else _fit_linear
    val_head, final_head, numbers = fit(job, features, train, val)
    splits: dict[str, Predictions] = {}
    if len(split.val_N):
        splits["val"] = _predict(job, val_head, val)
    test = job.extractor.features("test", split.test_N)  # read here, once, when all is chosen
    splits["test"] = _predict(job, final_head, test)
    counts = {
        "unreadable": {"train": len(features.bad), "test": len(test.bad)},
        "fitted_on": len(train.row_N) + (len(val.row_N) if _refits(job) else 0),
    }
    return Outcome(splits, final_head.state_dict(), {**numbers, **counts})


def _check_neighbours(job: Experiment) -> None:
    head, images = job.conf.head, len(job.dataset.split.train_N)
    if isinstance(head, KnnHead) and head.k > images:
        raise UserError(f"head.k={head.k} exceeds the {images} training images: lower head.k")


def _fit_linear(
    job: Experiment, features: Features, train: Features, val: Features
) -> tuple[torch.nn.Module, torch.nn.Module, dict[str, object]]:
    """Choose C on validation, refit; both models, and the path for the record."""
    task, label_N = job.conf.task, job.dataset.manifest.label_N
    cs = np.logspace(np.log10(task.c_low), np.log10(task.c_high), task.c_count).tolist()
    path: list[dict[str, object]] = []
    with console.progress("logistic regression", len(cs), "values of C") as advance:
        solutions = logistic.fit_path(
            train.x_ND,
            label_N[train.row_N],
            job.classes,
            cs,
            task.gap,
            task.gap_until,
            task.max_iterations,
            advance,
        )
        choice = logistic.choose(_kept(solutions, path), val.x_ND, label_N[val.row_N])
    final = choice.solution
    if _refits(job):
        both = _rows_of(features, np.sort(np.concatenate([train.row_N, val.row_N])))
        final = logistic.refit(
            both.x_ND,
            label_N[both.row_N],
            job.classes,
            choice.solution,
            task.final_gap,
            task.gap_until,
            task.max_iterations,
        )
    _log_path(job, choice)
    return _linear(choice.solution), _linear(final), {"selection": _selection(path, choice, final)}


def _fit_knn(
    job: Experiment, features: Features, train: Features, val: Features
) -> tuple[torch.nn.Module, torch.nn.Module, dict[str, object]]:
    """Nothing is fitted or chosen: the bank is the training features, k and temperature given."""
    bank = _rows_of(features, np.sort(np.concatenate([train.row_N, val.row_N])))
    final = bank if _refits(job) else train
    return _knn(job, train), _knn(job, final), {"selection": None}


def _linear(solution: logistic.Solution) -> torch.nn.Module:
    """The head that is stored and read on test: float32, as the checkpoint keeps it."""
    return heads.LinearHead(
        torch.as_tensor(solution.weight_CD).float(), torch.as_tensor(solution.bias_C).float()
    )


def _knn(job: Experiment, bank: Features) -> torch.nn.Module:
    head = job.conf.head
    return heads.KnnHead(
        torch.from_numpy(bank.x_ND),
        torch.from_numpy(job.dataset.manifest.label_N[bank.row_N]),
        job.classes,
        head.k,
        head.temperature,
    )


@torch.inference_mode()
def _predict(job: Experiment, head: torch.nn.Module, features: Features) -> Predictions:
    return predictions(features, job.dataset, score(head, features.x_ND, job.classes))


@torch.inference_mode()
def score(head: torch.nn.Module, x_ND: np.ndarray, classes: int, chunk: int = 4096) -> np.ndarray:
    """Logits of cached features, in fixed chunks on the CPU: they repeat to the last bit."""
    parts = [head(torch.from_numpy(x_ND[i : i + chunk])) for i in range(0, len(x_ND), chunk)]
    return torch.cat(parts).numpy() if parts else np.empty((0, classes), np.float32)


def _refits(job: Experiment) -> bool:
    return job.conf.final_fit == "trainval" and len(job.dataset.split.val_N) > 0


def _rows_of(features: Features, row_N: np.ndarray) -> Features:
    """The features of some manifest rows, without those that could not be read (they count)."""
    kept_N = np.isin(features.row_N, row_N)
    wanted = set(row_N.tolist())
    bad = tuple(one for one in features.bad if one.row in wanted)
    return Features(features.x_ND[kept_N], features.row_N[kept_N], bad)


def _kept(
    solutions: Iterable[logistic.Solution], numbers: list[dict[str, object]]
) -> Iterator[logistic.Solution]:
    """Pass solutions on, keeping only how well each was solved: 45 sets of weights are large."""
    for solution in solutions:
        numbers.append(_solved(solution))
        yield solution


def _selection(
    path: list[dict[str, object]], choice: logistic.Choice, final: logistic.Solution
) -> dict[str, object]:
    """How C was chosen, and how well each problem on the way was solved."""
    curve = [{"val_loss": trial.loss, "val_top1": trial.top1} for trial in choice.curve]
    return {
        "c": choice.solution.c,
        "final": _solved(final),
        "path": [{**solved, **trial} for solved, trial in zip(path, curve, strict=True)],
    }


def _solved(solution: logistic.Solution) -> dict[str, object]:
    return {
        "c": solution.c,
        "gap": solution.gap,
        "iterations": solution.iterations,
        "units": solution.units,
        "converged": solution.converged,
    }


def _log_path(job: Experiment, choice: logistic.Choice) -> None:
    for step, trial in enumerate(choice.curve):
        job.board.scalar("select/val_loss", trial.loss, step)
        job.board.scalar("select/val_top1", trial.top1, step)
        job.board.scalar("select/log10_c", float(np.log10(trial.c)), step)
