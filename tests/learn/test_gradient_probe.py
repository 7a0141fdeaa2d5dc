"""The gradient fit: what it reaches, what chooses, what it repeats and what it leaves alone."""

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


def clouds(rows, seed):
    rng = np.random.default_rng(seed)
    label_N = np.arange(rows) % CLASSES
    centre_CD = np.random.default_rng(99).normal(size=(CLASSES, WIDTH))
    return (centre_CD[label_N] + rng.normal(size=(rows, WIDTH))).astype(np.float32), label_N


TRAIN, VAL, TEST = clouds(200, 0), clouds(80, 1), clouds(1000, 2)


def linear():
    head = nn.Linear(WIDTH, CLASSES, device="meta").to_empty(device="cpu")
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def dropping():
    """A head whose training draws random numbers."""
    return nn.Sequential(nn.Dropout(0.5), linear())


def fitted(build=linear, settings=SETTINGS, seed=0, train=TRAIN, val=VAL, on_step=None):
    return gradient_probe.fit(build, *train, *val, CLASSES, settings, seed, on_step)


def refitted(trial, build=linear, settings=SETTINGS, seed=0, rows=TRAIN):
    return gradient_probe.refit(build, *rows, CLASSES, trial, settings, seed)


def bits(head):
    return {name: value.numpy().tobytes() for name, value in head.state_dict().items()}


def loss_of(head, x_ND, label_N):
    with torch.no_grad():
        logit_NC = head(torch.from_numpy(x_ND)).double()
    return float(nn.functional.cross_entropy(logit_NC, torch.from_numpy(label_N)))


def test_reaches_scikit_learns_logistic_regression():
    settings = GradientFit(60, 32, [1e-3, 1e-2, 1e-1], [0.0])
    head = refitted(fitted(settings=settings).trial, settings=settings)
    model = LogisticRegression(C=10.0, max_iter=1000).fit(*TRAIN)
    with torch.no_grad():
        ours = head(torch.from_numpy(TEST[0])).argmax(1).numpy() == TEST[1]
    assert 0.6 < model.score(*TEST) < 0.99  # neither hopeless nor trivial
    assert abs(ours.mean() - model.score(*TEST)) <= 0.01


def test_one_step_is_adamw_on_the_matrix_and_adam_on_the_bias():
    settings = GradientFit(1, len(TRAIN[0]), [0.1], [0.5])
    start = linear()
    nn.init.ones_(start.weight)
    nn.init.ones_(start.bias)
    rows = gradient_probe._as_tensors(
        TRAIN[0], np.zeros(200, int)
    )  # one class: no gradient vanishes
    assert next(
        gradient_probe._train_epochs(start, rows, (0.1, 0.5), settings, 0)
    ) == pytest.approx(math.log(CLASSES))
    # Adam's first step is the learning rate against the sign; decay takes 0.1 * 0.5 of a matrix
    for value, kept in ((start.weight, 0.95), (start.bias, 1.0)):
        step = (value - kept).abs()
        torch.testing.assert_close(step, torch.full_like(step, 0.1), atol=1e-4, rtol=0)


def test_epochs_train_in_training_mode_and_are_scored_out_of_it():
    modes = []

    class Watched(nn.Linear):
        def forward(self, x_BD):
            modes.append(self.training)
            return super().forward(x_BD)

    with torch.random.fork_rng(devices=[]):
        fitted(lambda: Watched(WIDTH, CLASSES), GradientFit(2, 100, [1e-3], [0.0]))
    assert modes == [True, True, False] * 2


def test_the_rate_is_a_cosine_over_all_epochs(monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def spy(self, *arguments, **named):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *arguments, **named)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    settings = GradientFit(5, 64, [0.1], [0.0])
    trial = dataclasses.replace(fitted(settings=settings).trial, epochs=3)
    steps = 5 * math.ceil(200 / 64)
    cosine = [0.05 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    np.testing.assert_allclose(rates, cosine, rtol=1e-9, atol=1e-12)
    rates.clear()
    refitted(trial, settings=settings)  # stops early on the same schedule
    np.testing.assert_allclose(rates, cosine[: 3 * 4], rtol=1e-9)


def test_every_pair_is_tried_and_the_lowest_loss_over_pairs_and_epochs_wins():
    choice = fitted()
    pairs = [(trial.learning_rate, trial.weight_decay) for trial in choice.trials]
    assert pairs == [(1e-3, 0.0), (1e-3, 1e-2), (3e-2, 0.0), (3e-2, 1e-2)]
    assert all(len(trial.curve) == 12 for trial in choice.trials)
    lowest = min(epoch.val_loss for trial in choice.trials for epoch in trial.curve)
    assert choice.trial.loss == lowest == choice.trial.curve[choice.trial.epochs - 1].val_loss
    assert loss_of(choice.head, *VAL) == pytest.approx(lowest, rel=1e-6)
    assert not choice.head.training


def test_order_and_repetition_of_the_settings_are_no_input():
    mixed = GradientFit(12, 32, [3e-2, 1e-3, 3e-2], [1e-2, 0.0])
    assert fitted(settings=mixed).trials == fitted().trials


def test_an_epoch_before_the_last_can_win():
    noisy = np.random.default_rng(5).permutation(TRAIN[1])  # nothing to learn: the start is best
    settings = GradientFit(12, 32, [3e-2], [0.0])
    choice = fitted(settings=settings, train=(TRAIN[0], noisy))
    assert choice.trial.epochs < 12
    again = refitted(choice.trial, settings=settings, rows=(TRAIN[0], noisy))
    assert bits(again) == bits(choice.head)  # the same rows: the same walk, stopped there


def test_a_tie_goes_to_the_smaller_rate_decay_and_epoch():
    class Deaf(nn.Module):
        """Always the same logits, whatever is learnt."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, CLASSES))

        def forward(self, x_BD):
            return 0 * self.weight.expand(len(x_BD), -1)

    trial = fitted(Deaf).trial
    assert (trial.learning_rate, trial.weight_decay, trial.epochs) == (1e-3, 0.0, 1)


def test_validation_labels_choose():
    wrong = fitted(val=(VAL[0], (VAL[1] + 1) % CLASSES)).trial
    right = fitted().trial
    assert (right.learning_rate, right.epochs) == (3e-2, 12)
    assert (wrong.learning_rate, wrong.epochs) == (1e-3, 1)  # the least learnt is the least wrong


def test_validation_rows_teach_nothing():
    settings = GradientFit(6, 32, [1e-2], [0.0])
    one = fitted(settings=settings).trials[0]
    other = fitted(settings=settings, val=clouds(33, 7)).trials[0]
    assert [epoch.train_loss for epoch in one.curve] == [epoch.train_loss for epoch in other.curve]
    assert one.loss != other.loss


@pytest.mark.parametrize("build", [linear, dropping])
def test_same_seed_same_bits_other_seed_others(build):
    once, twice, other = fitted(build), fitted(build), fitted(build, seed=1)
    assert once.trials == twice.trials
    assert bits(once.head) == bits(twice.head) != bits(other.head)
    final = [bits(refitted(once.trial, build, seed=seed)) for seed in (0, 0, 1)]
    assert final[0] == final[1] != final[2]


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = fitted(dropping)
    refitted(one.trial, dropping)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert bits(fitted(dropping).head) == bits(one.head)


def test_training_losses_are_means_over_rows():
    class Table(nn.Module):
        """Logits that no step moves, of another loss for every row."""

        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x_BD):
            return x_BD[:, :CLASSES] + 0 * self.weight

    epoch = fitted(Table, GradientFit(1, 64, [1e-3], [0.0])).trials[0].curve[0]
    assert epoch.train_loss == pytest.approx(loss_of(Table(), *TRAIN), rel=1e-6)
    assert epoch.val_loss == pytest.approx(loss_of(Table(), *VAL), rel=1e-6)
    assert epoch.val_top1 == np.mean(VAL[0][:, :CLASSES].argmax(1) == VAL[1])


def test_a_trial_that_diverges_is_out_and_recorded():
    steps = []
    settings = GradientFit(12, 200, [1e-2, 1e6], [1.0])  # decay by -1e6 a step
    choice = fitted(settings=settings, on_step=lambda n, note="": steps.append((n, note)))
    out = choice.trials[1]
    assert out.epochs == 0
    assert out.loss == math.inf
    assert 0 < len(out.curve) < 12  # what it reached before does not count
    assert choice.trial.learning_rate == 1e-2
    assert sum(n for n, _ in steps) == 24
    assert steps[0] == (1, "lr=0.01 wd=1")


def test_all_trials_out_are_one_line():
    with pytest.raises(UserError, match=r"every learning rate in \[1000000\.0\]") as told:
        fitted(settings=GradientFit(8, 32, [1e6], [1.0]))
    assert "\n" not in str(told.value)


def test_a_refit_that_diverges_is_refused():
    trial = gradient_probe.Trial(1e6, 1.0, 3, ())
    with pytest.raises(UserError, match="at learning rate 1e\\+06 the weights left"):
        refitted(trial)


@pytest.mark.parametrize(
    ("rates", "decays", "named"),
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
def test_rates_that_are_none_are_refused(rates, decays, named):
    with pytest.raises(UserError, match=f"head.fit.{named}="):
        fitted(settings=GradientFit(1, 32, rates, decays))


def test_rows_that_cannot_be_fitted_are_refused():
    bad_ND = TRAIN[0].copy()
    bad_ND[3, 0] = math.nan
    with pytest.raises(UserError, match="1 of 200 rows are not finite .first: row 3."):
        fitted(train=(bad_ND, TRAIN[1]))
    with pytest.raises(UserError, match="0 training rows"):
        fitted(train=(TRAIN[0][:0], TRAIN[1][:0]))
    with pytest.raises(UserError, match="0 validation rows"):
        fitted(val=(VAL[0][:0], VAL[1][:0]))
    with pytest.raises(UserError, match=r"label 4 is outside 0\.\.3"):
        fitted(train=(TRAIN[0], TRAIN[1] + 1))
