"""Cached features -> a fitted head, by the `fit` of its HeadSpec.

N images, D feature width, C classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from fgvc.config.schema.head import heads
from fgvc.learn import gradient_probe, logistic
from fgvc.learn.logistic.rows import check_rows
from fgvc.model.build_head import build, new_head
from fgvc.pipeline import feature_rows
from fgvc.pipeline.experiment import Experiment
from fgvc.pipeline.feature_rows import FeatureRows
from fgvc.pipeline.inference import predict_features
from fgvc.pipeline.text_features import class_text_features
from fgvc.record import console
from fgvc.types import Predictions


@dataclass(frozen=True)
class FittedHead:
    """The fitted head that predicts test, and what the record needs of the fit.

    val: predictions of validation by the head that was fitted on train; None without validation.
    numbers: for metrics.json. notes: on the fit.
    """

    val: Predictions | None
    final_head: torch.nn.Module
    numbers: dict[str, object]
    notes: tuple[str, ...] = ()


def fit_head(experiment: Experiment, train: FeatureRows, val: FeatureRows) -> FittedHead:
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
    build(conf, sizes, torch.Generator())


def does_refit(experiment: Experiment) -> bool:
    """Whether the reported head is fitted to train and validation together."""
    return experiment.conf.final_fit == "trainval" and len(experiment.dataset.split.val_N) > 0


def _logistic(experiment: Experiment, train: FeatureRows, val: FeatureRows) -> FittedHead:
    """Choose C on validation, then solve again to task.final_gap: on train and, if the final fit
    joins both splits, on train and validation.

    A head that reads text takes unit features, and is regularised towards the text classifier. A
    convex optimum does not depend on the initial weights, so the text is in the penalty:
    C |W - scale * text|^2.
    """
    conf, prior_CD, numbers = experiment.conf.head, None, {}
    if heads()[conf.name].reads_text:
        weight_CD, scale = class_text_features(experiment)
        prior_CD = (weight_CD.double() * scale).numpy()
        train, val = feature_rows.unit_length(train, val)
        numbers = {"text_scale": scale}
    task, label_N = experiment.conf.task, experiment.dataset.manifest.label_N
    classes, limits = experiment.num_classes, (task.gap_until, task.max_iterations)
    choice = _choose_c(experiment, train, val, prior_CD)

    def solve(rows: FeatureRows, start: logistic.Solution) -> logistic.Solution:
        return logistic.refit(
            rows.x_RD,
            label_N[rows.row_N],
            classes,
            start,
            task.final_gap,
            *limits,
            prior_CD,
            rows.index_N,
            experiment.extractor.device.type,
        )

    chosen = choice.solution
    if not chosen.gap <= task.final_gap:
        chosen = solve(train, chosen)
    final = solve(feature_rows.join(train, val), chosen) if does_refit(experiment) else chosen
    for step, trial in enumerate(choice.curve):
        points = {"val_loss": trial.loss, "val_top1": trial.top1, "log10_c": np.log10(trial.c)}
        for name, value in points.items():
            experiment.board.scalar(f"select/{name}", float(value), step)

    def head(solution: logistic.Solution) -> torch.nn.Module:
        """The head as the checkpoint stores it, in float32; the same head predicts test."""
        head = new_head(conf, train.x_RD.shape[1], experiment.num_classes, experiment.conf.seed)
        state = {"weight_CD": solution.weight_CD, "bias_C": solution.bias_C}
        head.load_state_dict({name: torch.as_tensor(value) for name, value in state.items()})
        return head

    selection = {
        "c": choice.solution.c,
        "end": choice.end,
        "chosen": chosen.convergence,  # predicts validation
        "final": final.convergence,  # predicts test
        "whole": choice.whole,
        "units": choice.units,
        "path": [
            {
                **trial.convergence,
                "loose": trial.loose,
                "val_loss": trial.loss,
                "val_top1": trial.top1,
            }
            for trial in choice.curve
        ],
    }
    notes = _c_notes(experiment, choice)
    predicted = _predict(experiment, head(chosen), val)
    return FittedHead(predicted, head(final), {"selection": selection, **numbers}, notes)


def _choose_c(
    experiment: Experiment, train: FeatureRows, val: FeatureRows, prior_CD: np.ndarray | None
) -> logistic.Choice:
    """Select C on validation, by task.c_search. The memory of the solver ends here."""
    task, label_N = experiment.conf.task, experiment.dataset.manifest.label_N
    cs = np.logspace(np.log10(task.c_low), np.log10(task.c_high), task.c_count).tolist()
    arguments = (
        train.x_RD,
        label_N[train.row_N],
        experiment.num_classes,
        cs,
        task.gap,
        task.gap_until,
        task.max_iterations,
    )
    used = {"row_N": train.index_N, "device": experiment.extractor.device.type}
    val_rows = val.x_ND, label_N[val.row_N]
    if task.c_search == "path":
        with console.progress("logistic regression", len(cs), "values of C") as advance:
            return logistic.choose(
                logistic.fit_path(*arguments, advance, prior_CD, **used), *val_rows
            )
    with console.progress("logistic regression", None, "solutions") as advance:
        choice = logistic.fit_bracket(*arguments, *val_rows, advance, prior_CD, **used)
    console.say(
        f"logistic regression: C = {choice.solution.c:.3g}, "
        f"{len(choice.curve)} of {len(cs)} values solved"
    )
    return choice


def _c_notes(experiment: Experiment, choice: logistic.Choice) -> tuple[str, ...]:
    """Notes on a curve of several minima, and on a chosen C at an end of its range."""
    task, notes = experiment.conf.task, []
    if choice.whole == "two minima":
        notes.append(
            "task.c_search=bracket: the validation loss has more than one minimum over C, so all "
            f"{task.c_count} values were solved."
        )
    if choice.end is None:
        return tuple(notes)
    key, verb = {"first": ("c_low", "Lower"), "last": ("c_high", "Raise")}[choice.end]
    notes.append(
        f"task.{key}={getattr(task, key):g}: the chosen C = {choice.solution.c:.3g} is the "
        f"{choice.end} of {task.c_count} values; validation may prefer one beyond it. {verb} "
        f"task.{key}."
    )
    return tuple(notes)


def _closed_form(experiment: Experiment, train: FeatureRows, val: FeatureRows) -> FittedHead:
    """Fit a head that leaves nothing to choose on validation."""
    conf, fit = experiment.conf.head, heads()[experiment.conf.head.name].fit
    assert callable(fit), conf.name

    def head(features: FeatureRows) -> torch.nn.Module:
        label_N, classes = (
            experiment.dataset.manifest.label_N[features.row_N],
            experiment.num_classes,
        )
        check_rows(features.x_RD, label_N, classes, features.index_N)
        return fit(conf, torch.from_numpy(features.x_ND), torch.from_numpy(label_N), classes)

    fitted = head(train)
    predicted = _predict(experiment, fitted, val)
    if does_refit(experiment):
        del fitted  # a bank may hold all features
        fitted = head(feature_rows.join(train, val))
    return FittedHead(predicted, fitted, {"selection": None})


def _predict(experiment: Experiment, head: torch.nn.Module, val: FeatureRows) -> Predictions | None:
    """Predictions of the validation images; None if there are none."""
    if not len(experiment.dataset.split.val_N):
        return None
    return predict_features(head, val.copy(), experiment.dataset)


def _by_gradient(experiment: Experiment, train: FeatureRows, val: FeatureRows) -> FittedHead:
    """Train with every learning rate and weight decay; validation chooses the pair and epoch."""
    label_N, classes = experiment.dataset.manifest.label_N, experiment.num_classes
    conf, seed = experiment.conf.head, experiment.conf.seed
    settings = conf.fit
    pairs = len(settings.learning_rates) * len(settings.weight_decays)

    def create() -> torch.nn.Module:
        return new_head(conf, train.x_RD.shape[1], classes, seed)

    with console.progress(f"head={conf.name}", pairs * settings.epochs, "epochs") as advance:
        choice = gradient_probe.fit(
            create,
            *(train.x_RD, label_N[train.row_N]),
            *(val.x_ND, label_N[val.row_N]),
            classes,
            settings,
            seed,
            advance,
            train.index_N,
        )
    final, trial = choice.head, choice.trial
    if does_refit(experiment):
        both = feature_rows.join(train, val)
        rows = both.x_RD, label_N[both.row_N]
        with console.progress("fit on train and val", trial.epochs, "epochs") as advance:
            final = gradient_probe.refit(
                create, *rows, classes, trial, settings, seed, advance, both.index_N
            )
    selection = {
        "chosen": {k: getattr(trial, k) for k in ("learning_rate", "weight_decay", "epochs")},
        "ends": choice.ends,
        "trials": [asdict(trial) for trial in choice.trials],
    }
    predicted = _predict(experiment, choice.head, val)
    return FittedHead(predicted, final, {"selection": selection}, _grid_notes(choice))


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
