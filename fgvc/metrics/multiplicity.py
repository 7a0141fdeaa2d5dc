"""p-values of a family of comparisons -> adjusted p-values that bound its family-wise error."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float], hypotheses: int | None = None) -> list[float]:
    """Holm's step-down adjustment (Scand. J. Statist. 1979), in the order given.

    Comparing the results with .05 keeps the chance of any false finding among them at 5 %.

    Args:
        hypotheses: size of the family, at least as many as there are p-values; those without a
            p-value count as if theirs were 1. Where the tests that are made were chosen by looking
            at the answers, the family is everything they were chosen from (`all_pairs`).
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
    """Size of the family of a comparison with the best on these very images.

    Which model is best is read off the same answers, so any of the pairs may come to be tested, and
    the family is all of them: whatever pairs are then shown, Holm's adjustment over all holds for
    them. For 50 equally noisy models its first step asks for 4.1 standard errors; Tukey's range,
    which knows their correlation, for 4.0. Hsu's comparison with the best (1996, Multiple
    Comparisons, ch. 4) asks for less because it claims less: what it calls "not the best" may be
    exactly as good as the best.
    """
    return models * (models - 1) // 2
