"""Cached features -> a head fitted by gradient, where its objective has no certified minimum.

AdamW over seeded minibatches, in float32 on the CPU, for every pair of a learning rate and a weight
decay; validation chooses the pair and the epoch. The candidates are states of one long schedule:
the rate falls as a cosine over settings.epochs, wherever it is stopped. `refit` walks the same
schedule from the same initial weights, counted in epochs, and stops at the chosen one: it repeats
what was chosen on more rows, as the rate at the end of an epoch does not depend on their number.
N rows, D features, B batch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fgvc.config import schema
from fgvc.learn.logistic.frame import check_rows
from fgvc.learn.logistic.problem import threads_for
from fgvc.learn.range_end import range_end
from fgvc.types import Progress, UserError

TIE = 1e-9  # relative difference of validation losses that counts as none
_EVAL_ROWS = 4096  # rows that are scored at once
_FLOAT32_SPEEDUP = 10  # float32 products in a batch take a tenth of what threads_for counts with
_LARGEST = 1e6  # far beyond any use, and within what float32 can step by

Build = Callable[[], nn.Module]  # features_BD -> logits; the same initial weights on every call
Rows = tuple[Tensor, Tensor]  # float32 x_ND, int64 label_N


@dataclass(frozen=True)
class Epoch:
    """Mean log-losses after one epoch (train: on the way, dropout and all) and accuracy."""

    train_loss: float
    val_loss: float
    val_top1: float


@dataclass(frozen=True)
class Trial:
    """One pair. curve: its epochs, up to the last of finite loss; epochs: how many of them gave the
    lowest validation loss (the earliest of ties), 0 where the loss left the finite numbers, which
    puts the whole trial out."""

    learning_rate: float
    weight_decay: float
    epochs: int
    curve: tuple[Epoch, ...]

    @property
    def loss(self) -> float:
        """The lowest validation loss; infinite for a trial that is out."""
        return self.curve[self.epochs - 1].val_loss if self.epochs else math.inf


@dataclass(frozen=True)
class Choice:
    """The trial of lowest validation loss, its head as it was at its best epoch, and all trials in
    ascending order of learning rate, then weight decay."""

    trial: Trial
    head: nn.Module
    trials: tuple[Trial, ...]

    @property
    def ends(self) -> dict[str, str | None]:
        """Whether the chosen rate and decay are the "first" or "last" of several (None: neither);
        a decay of 0 is not an end, because no smaller value exists."""
        rates = [trial.learning_rate for trial in self.trials]
        decays = [trial.weight_decay for trial in self.trials]
        decay = range_end(self.trial.weight_decay, decays) if self.trial.weight_decay else None
        return {"learning_rate": range_end(self.trial.learning_rate, rates), "weight_decay": decay}


def fit(
    build: Build,
    x_ND: np.ndarray,
    label_N: np.ndarray,
    x_val_ND: np.ndarray,
    label_val_N: np.ndarray,
    classes: int,
    settings: schema.GradientFit,
    seed: int,
    on_step: Progress | None = None,
) -> Choice:
    """Try every pair; the lowest validation log-loss over pairs and epochs wins.

    A tie (TIE, relative) goes to the smaller learning rate, weight decay and number of epochs.
    Torch's global generator is left as it was.

    Args:
        x_ND, x_val_ND: finite features, any float type.
        label_N, label_val_N: class indices in 0..classes-1.
        seed: of the order of rows, and of dropout.
        on_step: advanced by one an epoch, pairs x settings.epochs in all.

    Raises:
        UserError: no rows, features not finite, labels out of range, rates that are none; the loss
            of every trial left the finite numbers.
    """
    check_rows(x_ND, label_N, classes)
    if len(x_val_ND) == 0:
        raise UserError("0 validation rows: no epoch can be chosen; raise dataset.val_fraction")
    check_rows(x_val_ND, label_val_N, classes)
    rows, val = _as_tensors(x_ND, label_N), _as_tensors(x_val_ND, label_val_N)
    trials: list[Trial] = []
    best: tuple[Trial, nn.Module] | None = None
    for pair in _grid(settings):
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
    x_ND: np.ndarray,
    label_N: np.ndarray,
    classes: int,
    chosen: Trial,
    settings: schema.GradientFit,
    seed: int,
    on_step: Progress | None = None,
) -> nn.Module:
    """Walk the chosen pair's schedule on these rows (train + val) up to the chosen epoch; arguments
    as fit, on_step advanced chosen.epochs times.

    Raises:
        UserError: as fit.
    """
    check_rows(x_ND, label_N, classes)
    head, pair = build(), (chosen.learning_rate, chosen.weight_decay)
    walk = _train_epochs(head, _as_tensors(x_ND, label_N), pair, settings, seed)
    for _ in itertools.islice(walk, chosen.epochs):
        if on_step is not None:
            on_step(1, _pair_note(pair))
    if not all(bool(weight.isfinite().all()) for weight in head.parameters()):
        raise UserError(
            f"at learning rate {chosen.learning_rate:g} the weights left the finite numbers on "
            "train and validation rows: set head.fit.learning_rates to smaller ones"
        )
    return head.eval()


def _grid(settings: schema.GradientFit) -> list[tuple[float, float]]:
    rates, decays = sorted(set(settings.learning_rates)), sorted(set(settings.weight_decays))
    if not rates or not 0 < rates[0] <= rates[-1] <= _LARGEST:
        raise UserError(
            f"head.fit.learning_rates={rates}: needs numbers above 0, at most {_LARGEST:g}"
        )
    if not decays or not 0 <= decays[0] <= decays[-1] <= _LARGEST:
        raise UserError(f"head.fit.weight_decays={decays}: needs numbers from 0 to {_LARGEST:g}")
    return list(itertools.product(rates, decays))


def _as_tensors(x_ND: np.ndarray, label_N: np.ndarray) -> Rows:
    x = np.ascontiguousarray(x_ND, dtype=np.float32)
    return torch.from_numpy(x), torch.from_numpy(label_N.astype(np.int64))


def _pair_note(pair: tuple[float, float]) -> str:
    return f"lr={pair[0]:g} wd={pair[1]:g}"


def _run_trial(
    build: Build,
    rows: Rows,
    val: Rows,
    pair: tuple[float, float],
    settings: schema.GradientFit,
    seed: int,
    on_step: Progress | None,
) -> tuple[Trial, nn.Module]:
    """One pair to the end of its schedule; its head goes back to the best epoch."""
    head = build()
    curve: list[Epoch] = []
    epochs, lowest, state = 0, math.inf, {}
    for loss in _train_epochs(head, rows, pair, settings, seed):
        epoch = Epoch(loss, *_evaluate(head, val))
        if not math.isfinite(epoch.train_loss + epoch.val_loss):
            epochs = 0
            break
        curve.append(epoch)
        if epoch.val_loss < lowest * (1 - TIE):
            epochs, lowest = len(curve), epoch.val_loss
            state = {name: value.clone() for name, value in head.state_dict().items()}
        if on_step is not None:
            on_step(1, _pair_note(pair))
    if epochs:
        head.load_state_dict(state)
    elif on_step is not None:
        on_step(settings.epochs - len(curve), _pair_note(pair))
    return Trial(*pair, epochs, tuple(curve)), head.eval()


def _train_epochs(
    head: nn.Module,
    rows: Rows,
    pair: tuple[float, float],
    settings: schema.GradientFit,
    seed: int,
) -> Iterator[float]:
    """Train in place; the mean loss of each epoch as it ends."""
    x_ND, label_N = rows
    rate, decay = pair
    optimiser = torch.optim.AdamW(_parameter_groups(head, decay), lr=rate)
    steps = settings.epochs * math.ceil(len(x_ND) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator = torch.Generator().manual_seed(seed)
    weights = sum(weight.numel() for weight in head.parameters())
    cells = settings.batch_size * weights // _FLOAT32_SPEEDUP
    for _ in range(settings.epochs):
        order_N = torch.randperm(len(x_ND), generator=generator)
        noise = int(torch.randint(2**62, (), generator=generator))
        total = 0.0
        head.train()
        with torch.random.fork_rng(devices=[]), threads_for(cells):
            torch.default_generator.manual_seed(noise)  # where dropout draws from
            for row_B in order_N.split(settings.batch_size):
                loss = cross_entropy(head(x_ND[row_B]), label_N[row_B])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.item() * len(row_B)
        yield total / len(x_ND)


def _parameter_groups(head: nn.Module, decay: float) -> list[dict[str, object]]:
    """Weight decay for matrices alone: a bias or a scale near 0 is no simpler than another."""
    matrices = [weight for weight in head.parameters() if weight.ndim >= 2]
    others = [weight for weight in head.parameters() if weight.ndim < 2]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


@torch.inference_mode()
def _evaluate(head: nn.Module, rows: Rows) -> tuple[float, float]:
    """Mean log-loss, summed in float64, and accuracy."""
    head.eval()
    x_ND, label_N = rows
    logit_NC = torch.cat([head(chunk_BD) for chunk_BD in x_ND.split(_EVAL_ROWS)]).double()
    loss = float(cross_entropy(logit_NC, label_N))
    return loss, float((logit_NC.argmax(1) == label_N).double().mean())
