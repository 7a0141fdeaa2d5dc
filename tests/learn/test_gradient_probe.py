"""The gradient fit: its optimum, selection, determinism and side effects."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from fgvc.config.schema import GradientFit
from fgvc.learn import gradient_probe
from fgvc.types import UserError

WIDTH, CLASSES = 12, 4
SETTINGS = GradientFit(12, 32, [1e-3, 3e-2], [0.0, 1e-2])
Rows = tuple[np.ndarray, np.ndarray]


def gaussian_classes(rows, seed) -> Rows:
    rng = np.random.default_rng(seed)
    label_N = np.arange(rows) % CLASSES
    centre_CD = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
    return (centre_CD[label_N] + rng.normal(size=(rows, WIDTH))).astype(np.float32), label_N


TRAIN, VAL, TEST = gaussian_classes(200, 0), gaussian_classes(80, 1), gaussian_classes(1000, 2)


def linear_head():
    head = nn.Linear(WIDTH, CLASSES, device="meta").to_empty(device="cpu")
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def dropout_head():
    """A head that draws random numbers in training."""
    return nn.Sequential(nn.Dropout(0.5), linear_head())


def fit(build=linear_head, settings=SETTINGS, seed=0, train: Rows = TRAIN, val: Rows = VAL, **key):
    return gradient_probe.fit(build, *train, *val, CLASSES, settings, seed, **key)


def refit(trial, build=linear_head, settings=SETTINGS, seed=0, rows: Rows = TRAIN, **key):
    return gradient_probe.refit(build, *rows, CLASSES, trial, settings, seed, **key)


def parameter_bytes(head):
    return {name: value.numpy().tobytes() for name, value in head.state_dict().items()}


def loss_of(head, x_ND, label_N):
    with torch.no_grad():
        logit_NC = head(torch.from_numpy(x_ND)).double()
    return float(nn.functional.cross_entropy(logit_NC, torch.from_numpy(label_N)))


def test_reaches_scikit_learns_logistic_regression():
    settings = GradientFit(60, 32, [1e-3, 1e-2, 1e-1], [0.0])
    head = refit(fit(settings=settings).trial, settings=settings)
    model = LogisticRegression(C=10.0, max_iter=1000).fit(*TRAIN)
    with torch.no_grad():
        correct_N = head(torch.from_numpy(TEST[0])).argmax(1).numpy() == TEST[1]
    assert 0.6 < model.score(*TEST) < 0.99  # neither hopeless nor trivial
    assert abs(correct_N.mean() - model.score(*TEST)) <= 0.01


def test_one_step_is_adamw_on_the_matrix_and_adam_on_the_bias():
    settings = GradientFit(1, len(TRAIN[0]), [0.1], [0.5])
    start = linear_head()
    nn.init.ones_(start.weight)
    nn.init.ones_(start.bias)
    rows = gradient_probe._as_tensors(
        TRAIN[0], np.zeros(200, int)
    )  # one class: no gradient vanishes
    assert next(
        gradient_probe._train_epochs(start, rows, (0.1, 0.5), settings, 0)
    ) == pytest.approx(math.log(CLASSES))
    # Adam's first step is the learning rate against the sign; decay takes 0.1 * 0.5 of a matrix
    for value, decay in ((start.weight, 0.95), (start.bias, 1.0)):
        step = (value - decay).abs()
        torch.testing.assert_close(step, torch.full_like(step, 0.1), atol=1e-4, rtol=0)


def test_epochs_train_in_training_mode_and_are_scored_out_of_it():
    modes = []

    class Watched(nn.Linear):
        def forward(self, input):
            modes.append(self.training)
            return super().forward(input)

    with torch.random.fork_rng(devices=[]):
        fit(lambda: Watched(WIDTH, CLASSES), GradientFit(2, 100, [1e-3], [0.0]))
    assert modes == [True, True, False] * 2


def test_the_rate_is_a_cosine_over_all_epochs(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def spy(self, *arguments, **key):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **key)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    settings = GradientFit(5, 64, [0.1], [0.0])
    trial = dataclasses.replace(fit(settings=settings).trial, epochs=3)
    steps = 5 * math.ceil(200 / 64)
    cosine = [0.05 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    np.testing.assert_allclose(rates, cosine, rtol=1e-9, atol=1e-12)
    rates.clear()
    refit(trial, settings=settings)  # stops early on the same schedule
    np.testing.assert_allclose(rates, cosine[: 3 * 4], rtol=1e-9)


def test_every_pair_is_tried_and_the_lowest_loss_over_pairs_and_epochs_wins():
    choice = fit()
    pairs = [(trial.learning_rate, trial.weight_decay) for trial in choice.trials]
    assert pairs == [(1e-3, 0.0), (1e-3, 1e-2), (3e-2, 0.0), (3e-2, 1e-2)]
    assert all(len(trial.curve) == 12 for trial in choice.trials)
    lowest = min(epoch.val_loss for trial in choice.trials for epoch in trial.curve)
    assert choice.trial.loss == lowest == choice.trial.curve[choice.trial.epochs - 1].val_loss
    assert loss_of(choice.head, *VAL) == pytest.approx(lowest, rel=1e-6)
    assert not choice.head.training


def test_order_and_repetition_of_the_settings_are_no_input():
    mixed = GradientFit(12, 32, [3e-2, 1e-3, 3e-2], [1e-2, 0.0])
    assert fit(settings=mixed).trials == fit().trials


def test_an_epoch_before_the_last_can_win():
    noisy = np.random.default_rng(5).permutation(TRAIN[1])  # nothing to learn: the start is best
    settings = GradientFit(12, 32, [3e-2], [0.0])
    choice = fit(settings=settings, train=(TRAIN[0], noisy))
    assert choice.trial.epochs < 12
    again = refit(choice.trial, settings=settings, rows=(TRAIN[0], noisy))
    assert parameter_bytes(again) == parameter_bytes(
        choice.head
    )  # the same rows: the same walk, stopped there


def test_a_tie_goes_to_the_smaller_rate_decay_and_epoch():
    class Deaf(nn.Module):
        """A head with constant logits."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, CLASSES))

        def forward(self, x_BD):
            return 0 * self.weight.expand(len(x_BD), -1)

    trial = fit(Deaf).trial
    assert (trial.learning_rate, trial.weight_decay, trial.epochs) == (1e-3, 0.0, 1)


def test_validation_labels_choose():
    wrong = fit(val=(VAL[0], (VAL[1] + 1) % CLASSES)).trial
    right = fit().trial
    assert (right.learning_rate, right.epochs) == (3e-2, 12)
    assert (wrong.learning_rate, wrong.epochs) == (1e-3, 1)  # the least learnt is the least wrong


def test_validation_rows_teach_nothing():
    settings = GradientFit(6, 32, [1e-2], [0.0])
    first_choice = fit(settings=settings).trials[0]
    other = fit(settings=settings, val=gaussian_classes(33, 7)).trials[0]
    assert [epoch.train_loss for epoch in first_choice.curve] == [
        epoch.train_loss for epoch in other.curve
    ]
    assert first_choice.loss != other.loss


@pytest.mark.parametrize("build", [linear_head, dropout_head])
def test_same_seed_same_bits_other_seed_others(build):
    first, second, other = fit(build), fit(build), fit(build, seed=1)
    assert first.trials == second.trials
    assert (
        parameter_bytes(first.head) == parameter_bytes(second.head) != parameter_bytes(other.head)
    )
    final = [parameter_bytes(refit(first.trial, build, seed=seed)) for seed in (0, 0, 1)]
    assert final[0] == final[1] != final[2]


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first_choice = fit(dropout_head)
    refit(first_choice.trial, dropout_head)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert parameter_bytes(fit(dropout_head).head) == parameter_bytes(first_choice.head)


def test_training_losses_are_means_over_rows():
    class Table(nn.Module):
        """Constant logits with a different loss for every row."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x_BD):
            return x_BD[:, :CLASSES] + 0 * self.weight

    epoch = fit(Table, GradientFit(1, 64, [1e-3], [0.0])).trials[0].curve[0]
    assert epoch.train_loss == pytest.approx(loss_of(Table(), *TRAIN), rel=1e-6)
    assert epoch.val_loss == pytest.approx(loss_of(Table(), *VAL), rel=1e-6)
    assert epoch.val_top1 == np.mean(VAL[0][:, :CLASSES].argmax(1) == VAL[1])


def test_a_trial_that_diverges_is_out_and_recorded():
    steps = []
    settings = GradientFit(12, 200, [1e-2, 1e6], [1.0])  # decay by -1e6 a step
    choice = fit(settings=settings, on_step=lambda n, note="": steps.append((n, note)))
    out = choice.trials[1]
    assert out.epochs == 0
    assert out.loss == math.inf
    assert 0 < len(out.curve) < 12  # what it reached before does not count
    assert choice.trial.learning_rate == 1e-2
    assert sum(n for n, _ in steps) == 24
    assert steps[0] == (1, "lr=0.01 wd=1")


def test_all_trials_out_are_one_line():
    with pytest.raises(UserError, match=r"every learning rate in \[1000000\.0\]") as error:
        fit(settings=GradientFit(8, 32, [1e6], [1.0]))
    assert "\n" not in str(error.value)


def test_a_refit_that_diverges_is_refused():
    trial = gradient_probe.Trial(1e6, 1.0, 3, ())
    with pytest.raises(UserError, match="at learning rate 1e\\+06 the weights became"):
        refit(trial)


@pytest.mark.parametrize(
    ("rates", "decays", "key"),
    [
        ([], [0.0], "learning_rates"),
        ([0.0], [0.0], "learning_rates"),
        ([math.inf], [0.0], "learning_rates"),
        ([1e-3, math.nan], [0.0], "learning_rates"),
        ([math.nan, 1e-3], [0.0], "learning_rates"),
        ([1e-3], [], "weight_decays"),
        ([1e-3], [-1.0], "weight_decays"),
    ],
)
def test_invalid_rates_are_refused(rates, decays, key):
    with pytest.raises(UserError, match=f"head.fit.{key}="):
        fit(settings=GradientFit(1, 32, rates, decays))


def test_rows_that_cannot_be_fitted_are_refused():
    bad_ND = TRAIN[0].copy()
    bad_ND[3, 0] = math.nan
    with pytest.raises(UserError, match="1 of 200 rows are not finite .first: row 3."):
        fit(train=(bad_ND, TRAIN[1]))
    with pytest.raises(UserError, match="0 training rows"):
        fit(train=(TRAIN[0][:0], TRAIN[1][:0]))
    with pytest.raises(UserError, match="0 validation rows"):
        fit(val=(VAL[0][:0], VAL[1][:0]))
    with pytest.raises(UserError, match=r"label 4 is outside 0\.\.3"):
        fit(train=(TRAIN[0], TRAIN[1] + 1))


def test_rows_of_a_larger_matrix_give_the_same_bits():
    """The other rows are not read: here, they are not finite."""
    rows_N = np.arange(1, 2 * len(TRAIN[1]), 2)
    x_RD = np.full((2 * len(rows_N), WIDTH), np.nan, np.float32)
    x_RD[rows_N] = TRAIN[0]
    settings = GradientFit(3, 32, [1e-2], [0.1])
    expected = fit(settings=settings)
    choice = fit(settings=settings, train=(x_RD, TRAIN[1]), rows_N=rows_N)
    assert choice.trials == expected.trials
    assert parameter_bytes(choice.head) == parameter_bytes(expected.head)
    again = refit(choice.trial, settings=settings, rows=(x_RD, TRAIN[1]), rows_N=rows_N)
    assert parameter_bytes(again) == parameter_bytes(refit(expected.trial, settings=settings))
    x_RD[rows_N[9], 2] = np.inf
    message = rf"features of 1 of {len(rows_N)} rows are not finite \(first: row 9\)"
    with pytest.raises(UserError, match=message):
        fit(settings=settings, train=(x_RD, TRAIN[1]), rows_N=rows_N)


def test_validation_is_scored_in_blocks_with_the_loss_of_all_rows(monkeypatch):
    """The float64 logits of all rows would fill gigabytes for iNaturalist 2017."""
    settings, sizes = GradientFit(2, 64, [1e-2], [0.0]), []
    whole, double = fit(settings=settings), torch.Tensor.double

    def spy(tensor):
        sizes.append(tensor.numel())
        return double(tensor)

    monkeypatch.setattr(gradient_probe, "_EVAL_ROWS", 32)
    monkeypatch.setattr(torch.Tensor, "double", spy)
    choice = fit(settings=settings)
    assert max(sizes) == 32 * CLASSES
    for epoch, expected in zip(choice.trial.curve, whole.trial.curve, strict=True):
        assert epoch.val_loss == pytest.approx(expected.val_loss, rel=1e-6)
        assert epoch.val_top1 == expected.val_top1
    loss = loss_of(choice.head, *VAL)
    assert choice.trial.loss == pytest.approx(loss, rel=1e-6)
