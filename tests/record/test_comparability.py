"""The parts of the comparability key, and the short digests of fitted images."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from fgvc.record import comparability, fitted_images
from fgvc.record.comparability import FITTED, NAMES, Comparability, describe

PROBE = {"task": {"name": "probe"}, "preprocess": "shared", "final_fit": "trainval"}
FIELDS = [field.name for field in fields(Comparability)]


def make_comparability(config=PROBE, fitted_on=("images", "split"), **more) -> Comparability:
    arguments = {
        "evaluated_on": ("images", "split"),
        "labelmap": "l",
        "metrics": "1",
        "forced": False,
    }
    return describe(config, fitted_on=fitted_on, **{**arguments, **more})


def test_every_part_moves_the_key_and_only_the_fit_leaves_the_base():
    plain = make_comparability()
    assert set(NAMES) == set(FIELDS)
    for name in FIELDS:
        other = replace(plain, **{name: "another"})
        assert other.key != plain.key
        assert (other.base == plain.base) == (name in FITTED)
        assert list(comparability.difference(plain, other)) == [NAMES[name]]


def test_the_key_follows_from_what_metrics_json_holds():
    plain = make_comparability()
    assert Comparability(**asdict(plain)).key == plain.key


def test_a_zero_shot_run_is_fitted_on_nothing_and_matches_any_fit():
    config = {**PROBE, "task": {"name": "zero_shot"}}
    zero_shot = make_comparability(config, fitted_on=("a", "b"))
    assert zero_shot == make_comparability({**config, "final_fit": "train"}, fitted_on=("c", "d"))
    assert zero_shot == make_comparability(config, evaluated_on=("images", "another split"))
    assert {getattr(zero_shot, name) for name in FITTED} == {None}
    assert zero_shot.base == make_comparability().base
    assert comparability.difference(zero_shot, make_comparability(fitted_on=("a", "b"))) == {}
    assert list(comparability.difference(zero_shot, make_comparability(forced=True))) == [
        "forced resume"
    ]
    assert not zero_shot.fitted_elsewhere


@pytest.mark.parametrize("fitted_on", [("others", "split"), ("images", "another")])
def test_a_head_of_other_data_has_another_key_and_the_same_base(fitted_on):
    other = make_comparability(fitted_on=fitted_on)
    assert other.fitted_elsewhere
    assert other.key != make_comparability().key
    assert other.base == make_comparability().base


def test_debugging_is_read_from_the_config():
    debug = make_comparability({**PROBE, "task": {"name": "train", "debug": "overfit"}})
    assert debug.debug == "overfit"
    assert debug.base != make_comparability().base
    plain = make_comparability({**PROBE, "task": {"name": "train", "debug": None}})
    assert plain == make_comparability()


def sha256(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_overlap_counts_images_for_any_order_and_bits():
    """Half of all digests have the highest bit set, the sign of an int64."""
    fitted_N = fitted_images.short_digests([sha256(number) for number in range(100)])
    assert fitted_N.dtype == np.int64
    assert (np.diff(fitted_N) > 0).all()
    assert 0 < (fitted_N < 0).sum() < 100
    tested_N = fitted_images.short_digests([sha256(number) for number in range(199, 89, -1)])
    assert fitted_images.overlap(fitted_N, tested_N) == 10
    twice_N = fitted_images.short_digests([sha256(5), sha256(5), sha256(500)])
    assert fitted_images.overlap(fitted_N, twice_N) == 2
    assert (
        fitted_images.overlap(fitted_N[:0], tested_N)
        == fitted_images.overlap(fitted_N, tested_N[:0])
        == 0
    )


@pytest.mark.parametrize("images", [0, 7])
def test_a_checkpoint_gives_back_what_its_head_was_fitted_on(images):
    image_N = fitted_images.short_digests([sha256(number) for number in range(images)])
    validation_N = fitted_images.short_digests(
        [sha256(number) for number in range(90, 90 + images)]
    )
    fitted = fitted_images.FittedImages("m", "s", image_N, validation_N, forced=True)
    facts = {"answer": {"manifest_digest": "m"}, "split_digest": "s", "fit": fitted.facts()}
    tensors = load(save({"head.bias": torch.zeros(2), **fitted.tensors()}))
    restored = fitted_images.from_checkpoint(facts, tensors)
    assert (restored.manifest, restored.split, restored.forced) == ("m", "s", True)
    assert np.array_equal(restored.image_N, image_N)
    assert np.array_equal(restored.validation_N, validation_N)
    assert facts["fit"] == {"images": images, "validation": images, "forced": True}
    assert restored.overlap(validation_N) == restored.overlap(image_N) == images
