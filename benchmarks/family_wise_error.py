"""Tables of equally good rows -> how often task=report finds any row worse than the best row.

Predictions are simulated. The accuracy of each image is drawn from Beta(4.5, .5), with mean
.9: a quarter of the images has an accuracy above 99 %, a tenth below 73 %. All rows share the
accuracies; given these, rows are independent or near-copies of each other. Each table draws new
images. Tests, adjustment and choice of the best are those of `fgvc.report.ranking`. Each row also
reports the error of the previous procedure (adjusted over the comparisons shown, with a bootstrap p
for several seeds), and the power to detect one worse row, or one better row. The last rows report
single pairs with unequal numbers of seeds: the level of the test at several p, beside the level of
plain sign flips, which are not exact there.
It only runs if it is named (`python -m benchmarks family_wise_error`), for about ten minutes on one
core.
K rows, S seeds, N images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.side_by_side import Row
from fgvc import metrics
from fgvc.metrics import paired_tests

ALPHA, DRAWS = 0.05, 10_000
SHAPE = (4.5, 0.5)  # of the Beta distribution of the accuracy of an image
AGREE = 0.7  # chance that a seed shares the prediction of its row instead of drawing its own
COPY = 0.95  # chance that a near-copy has the prediction of the first row
BETWEEN = {500: 0.05, 5_000: 0.015}  # true difference of the power, by number of images
POWER_TABLES = 300
UNEQUAL = ((1, 3), (2, 5), (1, 10))
NEAR_CEILING = (9, 0.3)  # as SHAPE; mean .97
LEVELS, PAIRS = (0.05, 0.01, 0.001, 0.0005), 20_000


@dataclass(frozen=True)
class Setting:
    """seeds: number per row, in a cycle. copies: all other rows are near-copies of the first.
    shape: parameters of the Beta distribution of the accuracy of an image."""

    rows: int
    images: int
    seeds: Sequence[int] = (1,)
    copies: bool = False
    shape: tuple[float, float] = SHAPE


@dataclass(frozen=True)
class Outcome:
    """Shares of tables with any false finding. before: by the previous procedure."""

    error: float
    before: float


def rows() -> list[Row]:
    """Every cell of the table, the small ones first."""
    cells = [
        (Setting(rows, images, seeds), tables)
        for seeds, tables in (((1,), 10_000), ((3,), 1_000))
        for images in (500, 5_000)
        for rows in (2, 10, 50)
    ]
    cells += [(Setting(10, 500, (1,), copies=True), 10_000)]
    cells += [
        (Setting(10, images, seeds, shape=shape), 1_000)
        for seeds in UNEQUAL
        for images, shape in ((500, SHAPE), (200, NEAR_CEILING))
    ]
    pairs = [Setting(2, 200, seeds, shape=NEAR_CEILING) for seeds in UNEQUAL]
    return [
        *(_row(setting, tables, number) for number, (setting, tables) in enumerate(cells)),
        *(_level_row(setting) for setting in pairs),
    ]


def family_wise_error(setting: Setting, tables: int, seed: int) -> Outcome:
    """Over `tables` tables without any true difference."""
    rng = np.random.default_rng(seed)
    now = before = 0
    for _ in range(tables):
        correct = draw_table(setting, rng, [0.0] * setting.rows)
        _, p = compare_with_best(correct)
        now += min(metrics.holm(p, metrics.all_pairs(len(correct)))) <= ALPHA
        before += _smallest_before(correct, p) * len(p) <= ALPHA
    return Outcome(now / tables, before / tables)


def power(setting: Setting, difference: float, tables: int, seed: int) -> tuple[float, float]:
    """Share of true differences that are significant: one row is worse; one row is better."""
    rng = np.random.default_rng(seed)
    worse, better = 0.0, 0.0
    for _ in range(tables):
        _, significant = _significant(
            draw_table(setting, rng, [difference] + [0.0] * (setting.rows - 1))
        )
        worse += 0 in significant
        correct = draw_table(setting, rng, [0.0] + [difference] * (setting.rows - 1))
        best, significant = _significant(correct)
        better += len(significant) / (setting.rows - 1) if best == 0 else 0.0
    return worse / tables, better / tables


def draw_table(
    setting: Setting, rng: np.random.Generator, worse: Sequence[float]
) -> list[np.ndarray]:
    """right_SN of each row. worse: loss of accuracy of each row, as a fraction."""
    accuracy_N = rng.beta(*setting.shape, size=setting.images).astype(np.float32)
    mean = setting.shape[0] / sum(setting.shape)
    correct: list[np.ndarray] = []
    for row, loss in enumerate(worse):
        seeds = setting.seeds[row % len(setting.seeds)]
        right_SN = _draw_correct(accuracy_N * np.float32(1 - loss / mean), seeds, rng)
        if setting.copies and row:
            copied_SN = rng.random(right_SN.shape, dtype=np.float32) < COPY
            right_SN = np.where(copied_SN, correct[0], right_SN)
        correct.append(right_SN)
    return correct


def compare_with_best(correct: Sequence[np.ndarray]) -> tuple[int, list[float]]:
    """The best row on these images, and p of each other row compared with it."""
    best = int(np.argmax([right_SN.mean() for right_SN in correct]))
    others = [right_SN for row, right_SN in enumerate(correct) if row != best]
    return best, [metrics.sign_flip(right_SN, correct[best]) for right_SN in others]


def _significant(correct: Sequence[np.ndarray]) -> tuple[int, list[int]]:
    """The best row, and the rows that are significantly worse."""
    best, p = compare_with_best(correct)
    adjusted = metrics.holm(p, metrics.all_pairs(len(correct)))
    others = [row for row in range(len(correct)) if row != best]
    return best, [row for row, q in zip(others, adjusted, strict=True) if q <= ALPHA]


def _draw_correct(accuracy_N: np.ndarray, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """right_SN: correct predictions; each seed agrees with its row with probability AGREE."""
    shape = (seeds, len(accuracy_N))
    own_SN = rng.random(shape, dtype=np.float32) < accuracy_N
    if seeds == 1:
        return own_SN
    common_N = rng.random(len(accuracy_N), dtype=np.float32) < accuracy_N
    return np.where(rng.random(shape, dtype=np.float32) < AGREE, common_N, own_SN)


def _smallest_before(correct: Sequence[np.ndarray], p: Sequence[float]) -> float:
    """The smallest p of the previous procedure. With several seeds, this is the bootstrap p of the
    pair with the smallest exact p, because a bootstrap of every pair would take hours."""
    if all(len(right_SN) == 1 for right_SN in correct):
        return min(p)
    best = int(np.argmax([right_SN.mean() for right_SN in correct]))
    others = [right_SN for row, right_SN in enumerate(correct) if row != best]
    surplus_N = others[int(np.argmin(p))].mean(axis=0) - correct[best].mean(axis=0)
    value_V, count_V = np.unique(surplus_N.round(9), return_counts=True)
    drawn_BV = np.random.default_rng(0).multinomial(
        len(surplus_N), count_V / len(surplus_N), size=DRAWS
    )
    sum_B = drawn_BV @ value_V
    tail = min((sum_B <= 1e-9).sum(), (sum_B >= -1e-9).sum())
    return min(1.0, 2 * (int(tail) + 1) / (DRAWS + 1))


def _row(setting: Setting, tables: int, seed: int) -> Row:
    outcome = family_wise_error(setting, tables, seed)
    seeds = " and ".join(map(str, setting.seeds))
    work = (
        f"{setting.rows} rows of {seeds} seed{'s' if seeds != '1' else ''}, {setting.images} images"
    )
    work += ", near-copies" if setting.copies else ""
    mean = setting.shape[0] / sum(setting.shape)
    detail = f"accuracy {mean:.2f}; error {outcome.error:.4f} ± {_error(outcome.error, tables):.4f}"
    detail += f", before {outcome.before:.4f}"
    if setting.images in BETWEEN and not setting.copies:  # a copy loses next to nothing
        between = BETWEEN[setting.images]
        worse, better = power(setting, between, POWER_TABLES, seed + 1_000)
        detail += (
            f"; power at {100 * between:g} points: {worse:.2f} one worse, {better:.2f} one better"
        )
    print(f"{work}: {detail}", flush=True)
    bound = ALPHA + 2 * _error(ALPHA, tables)
    return Row(f"{work}: family-wise error", "–", outcome.error, round(bound, 4), detail, True)


def level(setting: Setting, pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of pairs with p at most each of LEVELS: of the test, and of plain sign flips."""
    rng = np.random.default_rng(seed)
    p_T2 = np.empty((pairs, 2))
    for number in range(pairs):
        a_SN, b_SN = draw_table(setting, rng, [0.0, 0.0])
        surplus_N = len(b_SN) * a_SN.sum(axis=0) - len(a_SN) * b_SN.sum(axis=0)
        p_T2[number] = metrics.sign_flip(a_SN, b_SN), paired_tests._exact_p(surplus_N)
    below_L2 = np.stack([(p_T2 <= bound).mean(axis=0) for bound in LEVELS])
    return below_L2[:, 0], below_L2[:, 1]


def _level_row(setting: Setting) -> Row:
    test_L, flips_L = level(setting, PAIRS, seed=2_000)
    seeds = " against ".join(map(str, setting.seeds))
    work = f"a pair of {seeds} seeds, {setting.images} images near the ceiling"
    cells = [
        f"p {bound:g}: {share / bound:.2f} ({flips / bound:.2f})"
        for bound, share, flips in zip(LEVELS, test_L, flips_L, strict=True)
    ]
    detail = f"of the test (of plain sign flips): {', '.join(cells)}"
    print(f"{work}: {detail}", flush=True)
    largest = float(max(test_L / np.array(LEVELS)))
    return Row(f"{work}: largest level over its nominal value", "–", largest, 1.0, detail, True)


def _error(share: float, tables: int) -> float:
    """Standard error of a share of tables."""
    return math.sqrt(share * (1 - share) / tables)
