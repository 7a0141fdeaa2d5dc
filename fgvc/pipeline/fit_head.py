"""Cached features -> a fitted head, by the `fit` of its HeadSpec.

N images, D feature width, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn.functional import normalize

from fgvc.config.schema.head import heads
from fgvc.learn import gradient_probe, logistic
from fgvc.model.build_head import new_head
from fgvc.pipeline.experiment import Experiment
from fgvc.pipeline.text_features import class_text_features
from fgvc.record import console
from fgvc.types import Features


@dataclass(frozen=True)
class FittedHead:
    """The heads that predict validation and test, numbers for the record, and notes on them."""

    val_head: torch.nn.Module
    final_head: torch.nn.Module
    numbers: dict[str, object]
    notes: tuple[str, ...] = ()


def fit_head(experiment: Experiment, train: Features, val: Features) -> FittedHead:
    """Fit the experiment's head on train, choose its options on val, and refit on both if asked.

    Raises:
        UserError: too few images for the head, or features that no head can be fitted to.
    """
    spec = heads()[experiment.conf.head.name]
    if not spec.learns:
        return _closed_form(experiment, train, val)
    return (_logistic if spec.fit == "logistic" else _by_gradient)(experiment, train, val)


def check_fit(experiment: Experiment) -> None:
    """Check the head's options before features are extracted, by an empty head.

    Raises:
        UserError: too few images for the head.
    """
    conf, images = experiment.conf.head, len(experiment.dataset.split.train_N)
    sizes = {"C": experiment.num_classes, "D": 1, "N": images}
    heads()[conf.name].build(conf, sizes, torch.Generator())


def does_refit(experiment: Experiment) -> bool:
    """Whether the reported head is fitted to train and validation together."""
    return experiment.conf.final_fit == "trainval" and len(experiment.dataset.split.val_N) > 0


def concat_features(train: Features, val: Features) -> Features:
    """The features of both splits, rows ascending."""
    row_N = np.concatenate([train.row_N, val.row_N])
    order_N = np.argsort(row_N, kind="stable")
    x_ND = np.concatenate([train.x_ND, val.x_ND]) if len(val.row_N) else train.x_ND
    return Features(x_ND[order_N], row_N[order_N], (*train.bad, *val.bad))


# --- logistic regression ---


def _unit(features: Features) -> Features:
    x_ND = normalize(torch.from_numpy(features.x_ND), dim=1).numpy()
    return Features(x_ND, features.row_N, features.bad)


def _logistic(experiment: Experiment, train: Features, val: Features) -> FittedHead:
    """Choose C on validation, then solve again to task.final_gap: on train and, if the final fit
    joins both splits, on train and validation.

    A head that reads text takes unit features, and is regularised towards the text classifier. A
    convex optimum does not depend on the initial weights, so the text is in the penalty:
    C |W - scale * text|^2.
    """
    conf, prior_CD, numbers = experiment.conf.head, None, {}
    if heads()[conf.name].reads_text:
        text = class_text_features(experiment)
        prior_CD = (text.weight_CD.double() * text.scale).numpy()
        train, val, numbers = _unit(train), _unit(val), {"text_scale": text.scale}
    task, label_N = experiment.conf.task, experiment.dataset.manifest.label_N
    cs = np.logspace(np.log10(task.c_low), np.log10(task.c_high), task.c_count).tolist()
    path: list[dict[str, object]] = []
    with console.progress("logistic regression", len(cs), "values of C") as advance:
        solutions = logistic.fit_path(
            train.x_ND,
            label_N[train.row_N],
            experiment.num_classes,
            cs,
            task.gap,
            task.gap_until,
            task.max_iterations,
            advance,
            prior_CD,
        )
        choice = logistic.choose(_record_path(solutions, path), val.x_ND, label_N[val.row_N])
    chosen = _solve_to_final_gap(experiment, train, choice.solution, prior_CD)
    final = chosen
    if does_refit(experiment):
        final = _solve_to_final_gap(experiment, concat_features(train, val), chosen, prior_CD)
    for step, trial in enumerate(choice.curve):
        experiment.board.scalar("select/val_loss", trial.loss, step)
        experiment.board.scalar("select/val_top1", trial.top1, step)
        experiment.board.scalar("select/log10_c", float(np.log10(trial.c)), step)

    def head(solution: logistic.Solution) -> torch.nn.Module:
        """The head as the checkpoint stores it, in float32; the same head predicts test."""
        head = new_head(conf, train.x_ND.shape[1], experiment.num_classes, experiment.conf.seed)
        state = {"weight_CD": solution.weight_CD, "bias_C": solution.bias_C}
        head.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
        return head

    selection = _selection(path, choice, chosen, final)
    notes = _c_notes(experiment, choice)
    return FittedHead(head(chosen), head(final), {"selection": selection, **numbers}, notes)


def _record_path(
    solutions: Iterable[logistic.Solution], path: list[dict[str, object]]
) -> Iterator[logistic.Solution]:
    """Pass the solutions on; append the convergence of each to `path`, not its large weights."""
    for solution in solutions:
        path.append(_convergence(solution))
        yield solution


def _solve_to_final_gap(
    experiment: Experiment,
    features: Features,
    start: logistic.Solution,
    prior_CD: np.ndarray | None,
) -> logistic.Solution:
    """Solve at start.c on these features until the certified gap is at most task.final_gap."""
    task = experiment.conf.task
    return logistic.refit(
        features.x_ND,
        experiment.dataset.manifest.label_N[features.row_N],
        experiment.num_classes,
        start,
        task.final_gap,
        task.gap_until,
        task.max_iterations,
        prior_CD,
    )


def _c_notes(experiment: Experiment, choice: logistic.Choice) -> tuple[str, ...]:
    """A note if the chosen C lies at an end of its range, with the key that widens the range."""
    if choice.end is None:
        return ()
    task, c = experiment.conf.task, choice.solution.c
    key, value, verb = ("c_high", task.c_high, "Raise")
    if choice.end == "first":
        key, value, verb = ("c_low", task.c_low, "Lower")
    return (
        f"task.{key}={value:g}: the chosen C = {c:.3g} is the {choice.end} of {task.c_count} "
        f"values; validation may prefer one beyond it. {verb} task.{key}.",
    )


def _selection(
    path: list[dict[str, object]],
    choice: logistic.Choice,
    chosen: logistic.Solution,
    final: logistic.Solution,
) -> dict[str, object]:
    """How C was chosen, and how well each problem was solved.

    end: whether the chosen C is the "first" or "last" of the range. path: as validation compared
    them, solved to task.gap. chosen, final: solved to task.final_gap; `chosen` predicts
    validation and `final` predicts test.
    """
    curve = [{"val_loss": trial.loss, "val_top1": trial.top1} for trial in choice.curve]
    return {
        "c": choice.solution.c,
        "end": choice.end,
        "chosen": _convergence(chosen),
        "final": _convergence(final),
        "path": [{**solved, **trial} for solved, trial in zip(path, curve, strict=True)],
    }


def _convergence(solution: logistic.Solution) -> dict[str, object]:
    return {
        "c": solution.c,
        "gap": solution.gap if math.isfinite(solution.gap) else None,
        "iterations": solution.iterations,
        "units": solution.units,
        "converged": solution.converged,
    }


# --- other heads ---


def _closed_form(experiment: Experiment, train: Features, val: Features) -> FittedHead:
    """Fit a head that leaves nothing to choose on validation."""
    conf, fit = experiment.conf.head, heads()[experiment.conf.head.name].fit
    assert callable(fit), conf.name

    def head(features: Features) -> torch.nn.Module:
        label_N = torch.from_numpy(experiment.dataset.manifest.label_N[features.row_N])
        return fit(conf, torch.from_numpy(features.x_ND), label_N, experiment.num_classes)

    final = concat_features(train, val) if does_refit(experiment) else train
    return FittedHead(head(train), head(final), {"selection": None})


def _by_gradient(experiment: Experiment, train: Features, val: Features) -> FittedHead:
    """Train with every learning rate and weight decay; validation chooses the pair and epoch."""
    label_N, classes = experiment.dataset.manifest.label_N, experiment.num_classes
    conf, seed = experiment.conf.head, experiment.conf.seed
    settings = conf.fit
    pairs = len(settings.learning_rates) * len(settings.weight_decays)

    def build() -> torch.nn.Module:
        return new_head(conf, train.x_ND.shape[1], classes, seed)

    with console.progress(f"head={conf.name}", pairs * settings.epochs, "epochs") as advance:
        choice = gradient_probe.fit(
            build,
            train.x_ND,
            label_N[train.row_N],
            val.x_ND,
            label_N[val.row_N],
            classes,
            settings,
            seed,
            advance,
        )
    final, trial = choice.head, choice.trial
    if does_refit(experiment):
        both = concat_features(train, val)
        with console.progress("fit on train and val", trial.epochs, "epochs") as advance:
            final = gradient_probe.refit(
                build, both.x_ND, label_N[both.row_N], classes, trial, settings, seed, advance
            )
    selection = {
        "chosen": {
            "learning_rate": trial.learning_rate,
            "weight_decay": trial.weight_decay,
            "epochs": trial.epochs,
        },
        "ends": choice.ends,
        "trials": [asdict(trial) for trial in choice.trials],
    }
    return FittedHead(choice.head, final, {"selection": selection}, _grid_notes(choice))


def _grid_notes(choice: gradient_probe.Choice) -> tuple[str, ...]:
    """A note for a learning rate or weight decay at an end of its list, with its key."""
    notes = []
    for name, end in choice.ends.items():
        if end is not None:
            values = sorted({getattr(trial, name) for trial in choice.trials})
            notes.append(
                f"head.fit.{name}s={values}: the chosen {getattr(choice.trial, name):g} is the "
                f"{end}; validation may prefer one beyond it. Add a "
                f"{'smaller' if end == 'first' else 'larger'} value to head.fit.{name}s."
            )
    return tuple(notes)
