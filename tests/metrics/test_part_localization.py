"""Localization of selected patches, compared with plain loops over images, patches and parts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fgvc.metrics import part_localization

N, K, P = 40, 6, 9


@pytest.fixture
def example():
    """Patches, indices, boxes (some missing) and parts (some invisible) of random images."""
    rng = np.random.default_rng(0)
    patch_NK4 = np.concatenate(
        [rng.uniform(0, 400, (N, K, 2)), rng.uniform(10, 60, (N, K, 2))], axis=2
    )
    box_N4 = np.concatenate([rng.uniform(0, 150, (N, 2)), rng.uniform(80, 250, (N, 2))], axis=1)
    part_NP2 = rng.uniform(0, 420, (N, P, 2))
    part_NP2[rng.random((N, P)) < 0.4] = np.nan
    box_N4[::7] = np.nan
    part_NP2[::5] = np.nan
    return patch_NK4, rng.integers(0, 9, (N, K)), box_N4, part_NP2


def centres(patches):
    return [(x + w / 2, y + h / 2) for x, y, w, h in patches]


def visible(of_image):
    return [(x, y) for x, y in of_image if not math.isnan(x)]


def mean(values):
    return sum(values) / len(values), len(values)


def test_share_in_the_box(example):
    patch_NK4, _, box_N4, _ = example
    shares = []
    for patches, (left, top, width, height) in zip(patch_NK4, box_N4, strict=True):
        if not math.isnan(left):
            inside = [
                left <= x <= left + width and top <= y <= top + height for x, y in centres(patches)
            ]
            shares.append(sum(inside) / K)
    assert 0.1 < mean(shares)[0] < 0.9
    assert part_localization.in_box(patch_NK4, box_N4) == pytest.approx(mean(shares))
    assert mean(shares)[1] == N - 6


def test_distance_to_the_nearest_visible_part(example):
    patch_NK4, _, box_N4, part_NP2 = example
    pixels, diagonals = [], []
    for patches, box, of_image in zip(patch_NK4, box_N4, part_NP2, strict=True):
        if not (visible_parts := visible(of_image)):
            continue
        nearest = [
            min(math.dist(centre, part) for part in visible_parts) for centre in centres(patches)
        ]
        pixels.append(sum(nearest) / K)
        if not math.isnan(box[0]):
            diagonals.append(sum(nearest) / K / math.hypot(box[2], box[3]))
    assert part_localization.part_distance(patch_NK4, part_NP2) == pytest.approx(mean(pixels))
    assert part_localization.part_distance(patch_NK4, part_NP2, box_N4) == pytest.approx(
        mean(diagonals)
    )
    assert len(diagonals) < len(pixels) < N


def test_share_of_visible_parts_that_are_covered(example):
    patch_NK4, _, _, part_NP2 = example
    shares = []
    for patches, of_image in zip(patch_NK4, part_NP2, strict=True):
        covered = []
        for part in visible(of_image):
            within = [
                math.dist(centre, part) <= math.hypot(patch[2], patch[3]) / 2
                for centre, patch in zip(centres(patches), patches, strict=True)
            ]
            covered.append(any(within))
        if covered:
            shares.append(sum(covered) / len(covered))
    assert 0.05 < mean(shares)[0] < 0.9
    assert part_localization.coverage(patch_NK4, part_NP2) == pytest.approx(mean(shares))


def test_share_of_repeated_selections(example):
    index_NK = example[1]
    shares = []
    for row in index_NK.tolist():
        repeated = sum(index in row[:head] for head, index in enumerate(row))
        shares.append(repeated / K)
    assert part_localization.duplicates(index_NK) == pytest.approx(mean(shares))
    assert part_localization.duplicates(np.array([[4, 4, 4, 4], [1, 2, 3, 4]])) == (0.375, 2)


def test_by_hand_on_the_border():
    """One patch of 10 x 10: its centre is a corner of the box, and its corner is the part."""
    patch, box = np.array([[[5.0, 5, 10, 10]]]), np.array([[10.0, 10, 30, 40]])
    part = np.array([[[5.0, 5.0]]])
    assert part_localization.in_box(patch, box) == (1.0, 1)
    assert part_localization.in_box(patch - [0.01, 0, 0, 0], box) == (0.0, 1)
    assert part_localization.in_box(patch - [-30, -40, 0, 0], box) == (1.0, 1)
    assert part_localization.in_box(patch - [-30, -40.01, 0, 0], box) == (0.0, 1)
    assert part_localization.coverage(patch, part) == (1.0, 1)
    assert part_localization.coverage(patch, part - 0.01) == (0.0, 1)
    assert part_localization.part_distance(patch, part, box).value == pytest.approx(50**0.5 / 50)


def test_one_image_counts_as_much_as_another_however_many_parts_it_shows():
    patch_NK4 = np.tile([0.0, 0, 10, 10], (2, 1, 1))
    part_NP2 = np.full((2, 4, 2), np.nan)
    part_NP2[0] = 100  # four parts, none covered
    part_NP2[1, 0] = 5  # one, covered
    assert part_localization.coverage(patch_NK4, part_NP2) == (0.5, 2)


def test_all_numbers_and_what_has_no_ground(example):
    patch_NK4, index_NK, box_N4, part_NP2 = example
    numbers = part_localization.localization(patch_NK4, index_NK, box_N4, part_NP2)
    assert numbers == {
        "in_box": part_localization.in_box(patch_NK4, box_N4),
        "part_distance_px": part_localization.part_distance(patch_NK4, part_NP2),
        "part_distance": part_localization.part_distance(patch_NK4, part_NP2, box_N4),
        "part_coverage": part_localization.coverage(patch_NK4, part_NP2),
        "duplicates": part_localization.duplicates(index_NK),
    }
    without_annotations = part_localization.localization(patch_NK4, index_NK, None, None)
    assert without_annotations.pop("duplicates") == numbers["duplicates"]
    assert set(without_annotations.values()) == {(None, 0)}
    nothing = np.full((N, 4), np.nan)
    assert part_localization.in_box(patch_NK4, nothing) == (None, 0)
    assert part_localization.part_distance(patch_NK4, part_NP2, nothing) == (None, 0)
