"""Cached features -> a head fitted by gradients, for heads without a certified minimum.

AdamW over seeded minibatches, in float32 on the CPU, for every pair of a learning rate and a weight
decay. The pair and the epoch are selected on validation. The learning rate falls as a cosine over
settings.epochs, and the candidates are the states after each epoch of this schedule. `refit`
follows the same schedule from the same initial weights on more rows and stops at the selected
epoch: the learning rate at the end of an epoch does not depend on the number of rows.
N rows out of R, D features, B batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from fgvc.config import schema
from fgvc.learn.logistic.path import range_end
from fgvc.learn.logistic.problem import threads_for
from fgvc.learn.logistic.rows import check_rows
from fgvc.types import Progress, UserError

TIE = 1e-9  # relative difference of validation losses that counts as a tie
_EVAL_ROWS = 4096  # rows per forward pass in evaluation
_FLOAT32_SPEEDUP = 10  # of a float32 batch over the products that threads_for assumes
_LARGEST = 1e6  # far beyond any useful value; float32 can still represent the step

Build = Callable[[], nn.Module]  # features_BD -> logits; the same initial weights on every call
Rows = tuple[Tensor, Tensor, Tensor]  # float32 x_RD, int64 index_N of its rows, int64 label_N
Validation = tuple[Tensor, Tensor]  # float32 x_ND, int64 label_N


@dataclass(frozen=True)
class EpochMetrics:
    """Mean log-losses of an epoch (train_loss: during training, with dropout) and accuracy."""

    train_loss: float
    val_loss: float
    val_top1: float


@dataclass(frozen=True)
class Trial:
    """A pair of learning rate and weight decay.

    curve: the epochs, up to the last finite loss. epochs: number of epochs with the lowest
    validation loss (the fewest among ties); 0 if the loss became infinite or NaN, which excludes
    the trial.
    """

    learning_rate: float
    weight_decay: float
    epochs: int
    curve: tuple[EpochMetrics, ...]

    @property
    def loss(self) -> float:
        """The lowest validation loss; infinite for an excluded trial."""
        return self.curve[self.epochs - 1].val_loss if self.epochs else math.inf


@dataclass(frozen=True)
class Choice:
    """The trial of lowest validation loss, its head at the best epoch, and all trials.

    trials: in ascending order of learning rate, then weight decay.
    """

    trial: Trial
    head: nn.Module
    trials: tuple[Trial, ...]

    @property
    def ends(self) -> dict[str, str | None]:
        """Whether the selected rate and decay are "first" or "last" of several; None: neither.

        A decay of 0 is no end of the range, because no smaller value exists.
        """
        rates = [trial.learning_rate for trial in self.trials]
        decays = [trial.weight_decay for trial in self.trials]
        decay = range_end(self.trial.weight_decay, decays) if self.trial.weight_decay else None
        return {"learning_rate": range_end(self.trial.learning_rate, rates), "weight_decay": decay}


def fit(
    build: Build,
    x_RD: np.ndarray,
    label_N: np.ndarray,
    x_val_ND: np.ndarray,
    label_val_N: np.ndarray,
    classes: int,
    settings: schema.GradientFit,
    seed: int,
    on_step: Progress = lambda n, note="": None,
    rows_N: np.ndarray | None = None,
) -> Choice:
    """Run every pair and select the lowest validation log-loss over pairs and epochs.

    A tie (TIE, relative) goes to the smaller learning rate, weight decay and number of epochs.
    torch's global generator is not changed.

    Args:
        x_RD, x_val_ND: finite features, any float type; float32 is not copied.
        label_N, label_val_N: class indices in 0..classes-1.
        seed: of the order of rows, and of dropout.
        on_step: advanced by one per epoch, pairs x settings.epochs in total.
        rows_N: the rows of x_RD to fit to, which label_N belongs to; None: all.

    Raises:
        UserError: no rows, features not finite, labels or learning rates out of range, or no trial
            has a finite loss.
    """
    rates, decays = sorted(set(settings.learning_rates)), sorted(set(settings.weight_decays))
    if not rates or not 0 < rates[0] <= rates[-1] <= _LARGEST:
        raise UserError(
            f"head.fit.learning_rates={rates}: needs numbers above 0, at most {_LARGEST:g}"
        )
    if not decays or not 0 <= decays[0] <= decays[-1] <= _LARGEST:
        raise UserError(f"head.fit.weight_decays={decays}: needs numbers from 0 to {_LARGEST:g}")
    check_rows(x_RD, label_N, classes, rows_N)
    if len(x_val_ND) == 0:
        raise UserError("0 validation rows: no epoch can be chosen; raise dataset.val_fraction")
    check_rows(x_val_ND, label_val_N, classes)
    rows = _as_tensors(x_RD, label_N, rows_N)
    x_val, _, label_val = _as_tensors(x_val_ND, label_val_N)
    val = x_val, label_val
    trials: list[Trial] = []
    best: tuple[Trial, nn.Module] | None = None
    for pair in itertools.product(rates, decays):
        trial, head = _run_trial(build, rows, val, pair, settings, seed, on_step)
        trials.append(trial)
        if trial.epochs and (best is None or trial.loss < best[0].loss * (1 - TIE)):
            best = trial, head
    if best is None:
        raise UserError(
            f"the loss of every learning rate in {list(settings.learning_rates)} left the finite "
            "numbers: set head.fit.learning_rates to smaller ones"
        )
    return Choice(*best, tuple(trials))


def refit(
    build: Build,
    x_RD: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    trial: Trial,
    settings: schema.GradientFit,
    seed: int,
    on_step: Progress = lambda n, note="": None,
    rows_N: np.ndarray | None = None,
) -> nn.Module:
    """Follow the schedule of a trial on other rows (train + val) up to the selected epoch.

    Arguments and errors as in `fit`; on_step is advanced trial.epochs times.
    """
    check_rows(x_RD, label_N, classes, rows_N)
    head, pair = build(), (trial.learning_rate, trial.weight_decay)
    epochs = _train_epochs(head, _as_tensors(x_RD, label_N, rows_N), pair, settings, seed)
    for _ in itertools.islice(epochs, trial.epochs):
        on_step(1, _pair_note(pair))
    if not all(bool(weight.isfinite().all()) for weight in head.parameters()):
        raise UserError(
            f"at learning rate {trial.learning_rate:g} the weights became infinite or NaN on "
            "train and validation rows: set head.fit.learning_rates to smaller ones"
        )
    return head.eval()


def _as_tensors(x_RD: np.ndarray, label_N: np.ndarray, rows_N: np.ndarray | None = None) -> Rows:
    x = np.ascontiguousarray(x_RD, dtype=np.float32)
    index_N = np.arange(len(x)) if rows_N is None else rows_N.astype(np.int64)
    return (
        torch.from_numpy(x),
        torch.from_numpy(index_N),
        torch.from_numpy(label_N.astype(np.int64)),
    )


def _pair_note(pair: tuple[float, float]) -> str:
    return f"lr={pair[0]:g} wd={pair[1]:g}"


def _run_trial(
    build: Build,
    rows: Rows,
    val: Validation,
    pair: tuple[float, float],
    settings: schema.GradientFit,
    seed: int,
    on_step: Progress,
) -> tuple[Trial, nn.Module]:
    """Run a pair to the end of its schedule; the head returns to its best epoch."""
    head = build()
    curve: list[EpochMetrics] = []
    epochs, lowest_loss, best_state = 0, math.inf, {}
    for loss in _train_epochs(head, rows, pair, settings, seed):
        epoch = EpochMetrics(loss, *_evaluate(head, val))
        if not math.isfinite(epoch.train_loss + epoch.val_loss):
            epochs = 0
            break
        curve.append(epoch)
        if epoch.val_loss < lowest_loss * (1 - TIE):
            epochs, lowest_loss = len(curve), epoch.val_loss
            best_state = {name: value.clone() for name, value in head.state_dict().items()}
        on_step(1, _pair_note(pair))
    if epochs:
        head.load_state_dict(best_state)
    else:
        on_step(settings.epochs - len(curve), _pair_note(pair))
    return Trial(*pair, epochs, tuple(curve)), head.eval()


def _train_epochs(
    head: nn.Module, rows: Rows, pair: tuple[float, float], settings: schema.GradientFit, seed: int
) -> Iterator[float]:
    """Train in place; yields the mean loss of each epoch."""
    x_RD, index_N, label_N = rows
    # weight decay for matrices only: a bias or scale near 0 is no simpler than another value
    matrices = [weight for weight in head.parameters() if weight.ndim >= 2]
    others = [weight for weight in head.parameters() if weight.ndim < 2]
    groups = [{"params": matrices, "weight_decay": pair[1]}, {"params": others, "weight_decay": 0}]
    optimiser = torch.optim.AdamW(groups, lr=pair[0])
    steps = settings.epochs * math.ceil(len(label_N) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    weights = sum(weight.numel() for weight in head.parameters())
    cells = settings.batch_size * weights // _FLOAT32_SPEEDUP
    for _ in range(settings.epochs):
        order_N = torch.randperm(len(label_N), generator=generator)
        dropout_seed = int(torch.randint(2**62, (), generator=generator))
        loss_sum = 0.0
        head.train()
        with torch.random.fork_rng(devices=[]), threads_for(cells):
            torch.default_generator.manual_seed(dropout_seed)  # the generator of dropout
            for row_B in order_N.split(settings.batch_size):
                loss = cross_entropy(head(x_RD[index_N[row_B]]), label_N[row_B])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                loss_sum += loss.item() * len(row_B)
        yield loss_sum / len(label_N)


@torch.inference_mode()
def _evaluate(head: nn.Module, val: Validation) -> tuple[float, float]:
    """Mean log-loss, summed in float64, and accuracy."""
    head.eval()
    logprobs, hits = [], []  # of the labels: the logits of all rows and classes may fill gigabytes
    for x_BD, label_B in zip(*(column.split(_EVAL_ROWS) for column in val), strict=True):
        logit_BC = head(x_BD).double()
        logprobs.append(log_softmax(logit_BC, 1).gather(1, label_B[:, None]))
        hits.append(logit_BC.argmax(1) == label_B)
    loss = nll_loss(torch.cat(logprobs), torch.zeros_like(val[1]))
    return float(loss), float(torch.cat(hits).double().mean())
