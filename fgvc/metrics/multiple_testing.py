"""p-values of a family of comparisons -> adjusted p-values that bound its family-wise error."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float], hypotheses: int | None = None) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Statist. 1979), in the order given.

    Comparing the results with .05 keeps the probability of any false finding among them at 5 %.

    Args:
        hypotheses: size of the family, at least the number of p-values; the other hypotheses count
            as p = 1. If the tests were selected after seeing the predictions, the family contains
            all tests that could have been selected (`all_pairs`).
    """
    m = len(p_values) if hypotheses is None else hypotheses
    assert m >= len(p_values)
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for step, i in enumerate(order):
        highest = max(highest, min(1.0, (m - step) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def all_pairs(models: int) -> int:
    """Size of the family of comparisons with the model that is best on the same images.

    The best model is selected by the same predictions. Any pair may therefore be tested, and the
    family is all pairs: Holm's adjustment over all pairs is valid for any subset of them. For 50
    equally noisy models, its first step requires 4.1 standard errors; Tukey's range, which accounts
    for their correlation, requires 4.0. Hsu's comparison with the best (1996, Multiple Comparisons,
    ch. 4) requires less because it claims less: a model that it rejects as "not the best" may be
    exactly as good as the best.
    """
    return models * (models - 1) // 2
