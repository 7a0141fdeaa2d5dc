"""fgvc.data.sampler: an epoch depends on seed and number; ranks divide its batches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fgvc.data.sampler import Draws, Order

COUNTS = (40, 9, 3, 1)  # images a class
KEYS = np.random.default_rng(0).integers(0, 2**64, 400, np.uint64)  # of rows


@pytest.fixture
def order():
    """`order(sampling=..., batch_size=..., seed=...)` over 53 rows with gaps between them."""
    label_N = np.repeat(np.arange(len(COUNTS)) * 5, COUNTS)
    row_N = np.random.default_rng(1).permutation(200)[: len(label_N)]

    def make(sampling: str = "uniform", batch_size: int = 8, seed: int = 3) -> Order:
        return Order(row_N, label_N, KEYS[row_N], seed, sampling, batch_size)

    return make


def label_of(sampler: Order) -> dict[int, int]:
    return dict(zip(sampler.row_N.tolist(), sampler.label_N.tolist(), strict=True))


def test_a_uniform_epoch_has_every_row_once(order):
    epoch = order().epoch(0)
    assert sorted(epoch.row_N.tolist()) == sorted(order().row_N.tolist())
    assert epoch.row_N.tolist() != order().row_N.tolist()
    assert not epoch.occurrence_N.any()


@pytest.mark.parametrize("sampling", ["uniform", "class_balanced"])
def test_seed_and_epoch_decide_and_nothing_else(order, sampling):
    np.random.seed(0)  # noqa: NPY002 the generator that must not be used
    first = order(sampling).epoch(4)
    np.random.seed(1)  # noqa: NPY002
    again = order(sampling).epoch(4)
    assert first.row_N.tolist() == again.row_N.tolist()
    assert first.occurrence_N.tolist() == again.occurrence_N.tolist()
    assert first.row_N.tolist() != order(sampling).epoch(5).row_N.tolist()
    assert first.row_N.tolist() != order(sampling, seed=4).epoch(4).row_N.tolist()


def renumbered(sampler: Order) -> tuple[Order, np.ndarray]:
    """The same images with other row numbers in another order, and the old row of each new row."""
    rng = np.random.default_rng(5)
    place_N, new_N = rng.permutation(len(sampler.row_N)), rng.permutation(200)
    other = dataclasses.replace(
        sampler,
        row_N=new_N[sampler.row_N[place_N]],
        label_N=sampler.label_N[place_N],
        key_N=sampler.key_N[place_N],
    )
    return other, np.argsort(new_N)


@pytest.mark.parametrize("sampling", ["uniform", "class_balanced"])
def test_rows_and_their_order_change_no_draw(order, sampling):
    sampler = order(sampling)
    other, old_of = renumbered(sampler)
    for number in range(5):
        epoch, again = sampler.epoch(number), other.epoch(number)
        assert old_of[again.row_N].tolist() == epoch.row_N.tolist()
        assert again.occurrence_N.tolist() == epoch.occurrence_N.tolist()


def test_an_image_more_leaves_the_order_of_the_others(order):
    sampler = order()
    more = dataclasses.replace(
        sampler,
        row_N=np.append(sampler.row_N, 300),
        label_N=np.append(sampler.label_N, 0),
        key_N=np.append(sampler.key_N, KEYS[300]),
    )
    longer = more.epoch(1).row_N.tolist()
    longer.remove(300)
    assert longer == sampler.epoch(1).row_N.tolist()


def test_every_image_is_at_every_position_equally_often(order):
    """Mean position of each of 53 images over 400 epochs: 26, standard deviation 0.77."""
    sampler = order()
    place_EN = np.array([np.argsort(sampler.epoch(number).row_N) for number in range(400)])
    assert np.abs(place_EN.mean(axis=0) - 26).max() < 4 * 0.77


@pytest.mark.parametrize(
    ("batch_size", "steps", "read"), [(8, 6, 48), (53, 1, 53), (54, 1, 53), (1, 53, 53)]
)
def test_an_incomplete_last_batch_is_left_out(order, batch_size, steps, read):
    sampler = order(batch_size=batch_size)
    assert sampler.steps_per_epoch == steps
    epoch = sampler.epoch(0)
    rows = np.concatenate([epoch.part(step, 0, 1).row_N for step in range(steps)])
    assert len(set(rows.tolist())) == len(rows) == read
    assert rows.tolist() == epoch.row_N[:read].tolist()


def test_what_is_left_out_differs_from_epoch_to_epoch(order):
    tails = {tuple(order().epoch(epoch).row_N[48:]) for epoch in range(5)}
    assert len(tails) == 5


@pytest.mark.parametrize("sampling", ["uniform", "class_balanced"])
@pytest.mark.parametrize("batch_size", [16, 15, 10, 2])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_share_out_the_global_batch(order, sampling, batch_size, world):
    sampler = order(sampling, batch_size)
    epoch = sampler.epoch(1)
    for step in range(sampler.steps_per_epoch):
        global_batch = epoch.part(step, 0, 1)
        parts = [epoch.part(step, rank, world) for rank in range(world)]
        again = Draws.joined(parts)
        assert global_batch.place_N.tolist() == list(range(batch_size))
        for column in ("row_N", "occurrence_N", "place_N"):
            assert getattr(again, column).tolist() == getattr(global_batch, column).tolist()
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 2
        assert all(size % 2 == 0 for size in sizes[:-1])
        firsts = [part.place_N[0] for part in parts if len(part)]
        assert all(first % 2 == 0 for first in firsts)


def test_ranks_share_out_a_single_smaller_batch(order):
    epoch = order(batch_size=64).epoch(0)
    assert [len(epoch.part(0, rank, 2)) for rank in range(2)] == [26, 27]


def test_balanced_draws_are_dealt_evenly_to_the_classes(order):
    sampler = order("class_balanced")
    label = label_of(sampler)
    extra = np.zeros(4, dtype=np.int64)
    for number in range(200):
        rows = sampler.epoch(number).row_N.tolist()
        assert len(rows) == 53
        count_C = np.bincount([label[row] // 5 for row in rows], minlength=4)
        assert sorted(count_C) == [13, 13, 13, 14]
        extra += count_C - 13
    # 200 throws of a fair die of four sides: 50 each, standard deviation 6.1
    assert np.abs(extra - 50).max() <= 25


def test_a_class_is_used_up_before_a_row_repeats(order):
    sampler = order("class_balanced")
    label = label_of(sampler)
    epoch = sampler.epoch(0)
    for place, size in enumerate(COUNTS):
        mine_N = np.array([label[row] == 5 * place for row in epoch.row_N.tolist()])
        times = np.unique(epoch.row_N[mine_N], return_counts=True)[1]
        assert len(times) == min(size, mine_N.sum())
        assert times.max() - times.min() <= 1
    assert len(set(zip(epoch.row_N.tolist(), epoch.occurrence_N.tolist(), strict=True))) == 53


def test_balanced_draws_of_a_large_class_reach_all_of_it(order):
    sampler = order("class_balanced")
    large = set(sampler.row_N[: COUNTS[0]].tolist())
    drawn_rows = [set(sampler.epoch(number).row_N.tolist()) & large for number in range(20)]
    assert len(drawn_rows[0]) in (13, 14)
    assert set.union(*drawn_rows) == large


@pytest.mark.parametrize("sampling", ["uniform", "class_balanced"])
def test_undrawn_rows_are_those_in_no_batch_of_the_steps_so_far(order, sampling):
    """At any step of any epoch, as after a resume, over the parts of all ranks."""
    sampler = order(sampling)
    remaining, undrawn = set(sampler.row_N.tolist()), []
    for step in range(4 * sampler.steps_per_epoch):
        undrawn.append(sorted(remaining))
        epoch, start = divmod(step, sampler.steps_per_epoch)
        for rank in range(3):
            remaining -= set(sampler.epoch(epoch).part(start, rank, 3).row_N.tolist())
    assert [sampler.undrawn(step).tolist() for step in range(len(undrawn))] == undrawn
    assert undrawn[0] == sorted(sampler.row_N.tolist())
    assert undrawn[sampler.steps_per_epoch]  # 53 rows are no multiple of the batch
