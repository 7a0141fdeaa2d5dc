"""A confusion matrix -> the order of its classes in a plot, and its worst block.

Neighbours in the order are the classes that the model confuses with each other. The order depends
on exact arithmetic only, so every machine draws the same plot. C classes, K chosen classes or
groups, V cells, P pairs.
"""

from __future__ import annotations

import numpy as np

from fgvc.types import ConfusionCounts

ORDERED_UP_TO = 1000  # classes; the time grows with their third power, and is about 1 s here


def cluster_order(counts: ConfusionCounts) -> np.ndarray:
    """The order of the classes in a plot: average linkage on the shares of confused images.

    Groups of confused classes come first, the group with the most errors at the start; classes
    that are never confused follow by index. With more than ORDERED_UP_TO classes: by index.

    Returns:
        order_C: the class at each place.
    """
    classes = counts.classes
    if classes > ORDERED_UP_TO:
        return np.arange(classes)
    matrix = counts.dense()
    count_CC = matrix[:, :classes] + matrix[:, :classes].T
    np.fill_diagonal(count_CC, 0)
    groups = _merge(_shares(matrix), count_CC)
    errors = [int(count_CC[group].sum()) for group in groups]
    ranked = sorted(zip(errors, groups, strict=True), key=lambda pair: (-pair[0], min(pair[1])))
    return np.array([index for _, group in ranked for index in group], dtype=np.int64)


def worst_block(counts: ConfusionCounts, most: int) -> np.ndarray:
    """At most `most` classes with many errors between each other, by index; empty without errors.

    Greedy: the next class is the one with the most errors with the chosen ones, unless each class
    of the most confused pair of others would add more. Of equal ones, the first by index.
    """
    pairs, gain_C = iter(_pairs(counts)), np.zeros(counts.classes, np.int64)
    pair, nothing = next(pairs, None), (0, 0, 0)
    chosen: list[int] = []
    while len(chosen) < most:
        while pair is not None and {*pair[1:]} & {*chosen}:
            pair = next(pairs, None)
        count, *both = pair or nothing
        best, has_room = int(gain_C.argmax()), len(chosen) + 2 <= most
        if gain_C[best] > 0 and (2 * gain_C[best] >= count or not has_room):
            added = [best]
        elif count > 0 and has_room:
            added = both
        else:
            break
        chosen += added
        for index in added:
            _add_errors(gain_C, counts, index)
        gain_C[chosen] = -1
    return np.array(sorted(chosen), dtype=np.int64)


def _add_errors(gain_C: np.ndarray, counts: ConfusionCounts, index: int) -> None:
    """Add, for each class, its errors with one class in both directions."""
    as_pred_V = counts.pred_V == index
    gain_C[counts.truth_V[as_pred_V]] += counts.count_V[as_pred_V]
    as_truth_V = (counts.truth_V == index) & (counts.pred_V < counts.classes)
    gain_C[counts.pred_V[as_truth_V]] += counts.count_V[as_truth_V]


def _pairs(counts: ConfusionCounts) -> list[tuple[int, int, int]]:
    """(errors in both directions, class, class) of every confused pair, the most errors first."""
    wrong_V = (counts.truth_V != counts.pred_V) & (counts.pred_V < counts.classes)
    row_V, column_V = counts.truth_V[wrong_V], counts.pred_V[wrong_V]
    pair_V = np.minimum(row_V, column_V) * counts.classes + np.maximum(row_V, column_V)
    pair_P, place_V = np.unique(pair_V, return_inverse=True)
    count_P = np.zeros(len(pair_P), np.int64)
    np.add.at(count_P, place_V, counts.count_V[wrong_V])
    order_P = np.argsort(-count_P, kind="stable")
    first_P, second_P = np.divmod(pair_P, counts.classes)
    columns = (values_P[order_P].tolist() for values_P in (count_P, first_P, second_P))
    return list(zip(*columns, strict=True))


def block(counts: ConfusionCounts, index_K: np.ndarray) -> ConfusionCounts:
    """The cells of some classes; the other predictions of each count as unreadable."""
    place_C = np.full(counts.classes + 1, len(index_K))
    place_C[index_K] = np.arange(len(index_K))
    return regroup(counts, place_C, len(index_K))


def regroup(counts: ConfusionCounts, place_C: np.ndarray, places: int) -> ConfusionCounts:
    """The counts of K groups of classes, K few.

    Args:
        place_C: the group of each class, and K for unreadable images; classes of K are left out as
            true classes and count as unreadable as predictions.
        places: K.
    """
    matrix = np.zeros((places + 1, places + 1), np.int64)
    np.add.at(matrix, (place_C[counts.truth_V], place_C[counts.pred_V]), counts.count_V)
    return ConfusionCounts.of(matrix[:places])


def _shares(matrix: np.ndarray) -> np.ndarray:
    """share_CC: for each two classes, the shares of either that are taken for the other, added."""
    total_C = np.maximum(matrix.sum(axis=1), 1)
    share_CC = matrix[:, : len(matrix)] / total_C[:, None]
    share_CC = share_CC + share_CC.T
    np.fill_diagonal(share_CC, 0)
    return share_CC


def _merge(share_CC: np.ndarray, count_CC: np.ndarray) -> list[list[int]]:
    """Merge the two most similar groups until no two groups share an error.

    Sums of floats would depend on the machine, so each step works on single elements.
    """
    group_of = {index: [index] for index in range(len(share_CC))}
    while share_CC.size:
        first, second = sorted(divmod(int(share_CC.argmax()), len(share_CC)))
        if share_CC[first, second] == 0:
            break
        sizes = len(group_of[first]), len(group_of[second])
        merged_C = (sizes[0] * share_CC[first] + sizes[1] * share_CC[second]) / sum(sizes)
        merged_C[[first, second]] = 0
        share_CC[first], share_CC[:, first] = merged_C, merged_C
        share_CC[second], share_CC[:, second] = 0, 0
        group_of[first] = _join(group_of[first], group_of.pop(second), count_CC)
    return list(group_of.values())


def _join(left: list[int], right: list[int], count_CC: np.ndarray) -> list[int]:
    """Two groups side by side, each turned so that its errors with the other are near it."""
    cross = count_CC[np.ix_(left, right)]
    if _lean(cross.sum(axis=1)) < 0:
        left = left[::-1]
    if _lean(cross.sum(axis=0)) > 0:
        right = right[::-1]
    return left + right


def _lean(count_K: np.ndarray) -> int:
    """Negative if the counts lie rather at the start than at the end, positive for the end."""
    return int(((2 * np.arange(len(count_K)) - len(count_K) + 1) * count_K).sum())
