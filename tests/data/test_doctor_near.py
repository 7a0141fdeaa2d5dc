"""Fingerprints: copies are near, other images are far, and the search misses no pair."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fgvc.data.doctor import near_duplicates


def random_image(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (7, 9), dtype=np.uint8)
    return Image.fromarray(noise).resize((300, 200), Image.Resampling.BICUBIC)


def code(image: Image.Image) -> np.ndarray:
    return np.array([near_duplicates.fingerprint(np.asarray(image.convert("L")))], np.uint64)


def distance(code_a: np.ndarray, code_b: np.ndarray) -> int:
    return int(np.bitwise_count(code_a ^ code_b).sum())


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("quality", [30, 90])
def test_copies_are_near_and_others_far(scale, quality):
    for seed in range(5):
        image = random_image(seed)
        out = io.BytesIO()
        image.resize((round(300 * scale), round(200 * scale))).save(out, "JPEG", quality=quality)
        assert distance(code(image), code(Image.open(out))) <= near_duplicates.MAX_DISTANCE
        assert (
            distance(code(image), code(random_image(seed + 100))) > 2 * near_duplicates.MAX_DISTANCE
        )


def test_more_bands_than_differing_bits():
    """By the pigeonhole principle a pair within the bound shares two bands, which cover a half."""
    assert 2 * len(near_duplicates.BANDS) - near_duplicates.MAX_DISTANCE >= 2
    bits = [bit for first, width in near_duplicates.BANDS for bit in range(first, first + width)]
    assert bits == list(range(64))


def test_search_finds_what_comparing_all_with_all_finds():
    rng = np.random.default_rng(0)
    one_N2 = rng.integers(0, 2**64, (400, 2), dtype=np.uint64)
    other_M2 = one_N2[rng.integers(0, 400, 300)]
    for row in range(300):  # 0 to 14 flipped bits
        for bit in rng.choice(128, row % 15, replace=False).tolist():
            other_M2[row, bit // 64] ^= np.uint64(1 << (bit % 64))
    differ_NM = np.bitwise_count(one_N2[:, None] ^ other_M2[None]).sum(axis=2)
    expected = np.argwhere(differ_NM <= near_duplicates.MAX_DISTANCE)
    assert len(expected) == 180
    assert near_duplicates.pairs(one_N2, other_M2).tolist() == expected.tolist()


def test_search_in_small_blocks_finds_the_same(monkeypatch):
    same_N2 = np.full((30, 2), 0xFFFF0000FFFF, np.uint64)
    monkeypatch.setattr(near_duplicates, "BLOCK", 100)
    assert len(near_duplicates.pairs(same_N2, same_N2[:20])) == 600


def test_few_pairs_of_different_images_are_compared(monkeypatch):
    """A shared band alone would leave 10 / 8,192 of all pairs: 19,500 here, and 7e7 at 675,170."""
    compared, search = [0], near_duplicates._equal_pairs

    def count(*bands):
        for rows in search(*bands):
            compared[0] += len(rows[0])
            yield rows

    monkeypatch.setattr(near_duplicates, "_equal_pairs", count)
    one_N2, other_M2 = np.random.default_rng(0).integers(0, 2**64, (2, 4000, 2), dtype=np.uint64)
    other_M2[:5] = one_N2[:5]
    assert len(near_duplicates.pairs(one_N2, other_M2)) == 5
    assert 5 * 45 <= compared[0] < 400


def test_the_search_ends_when_nearly_all_images_look_the_same(monkeypatch):
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 1000)
    monkeypatch.setattr(near_duplicates, "BLOCK", 500)
    same_N2 = np.full((100, 2), 0xFFFF0000FFFF, np.uint64)
    pair_K2 = near_duplicates.pairs(same_N2, same_N2)
    assert len(np.unique(pair_K2, axis=0)) == 1000


def test_plain_surfaces_are_like_nothing():
    noise = np.random.default_rng(0).integers(128, 132, (80, 100), dtype=np.uint8)
    flat = code(Image.fromarray(noise))
    assert near_duplicates.pairs(flat, flat).shape == (0, 2)
    textured = code(random_image(0))
    assert near_duplicates.pairs(textured, textured).tolist() == [[0, 0]]


def test_no_images_no_pairs():
    none = np.empty((0, 2), np.uint64)
    assert near_duplicates.pairs(none, code(random_image(1))).shape == (0, 2)
    assert near_duplicates.pairs(code(random_image(1)), none).shape == (0, 2)
