"""Estimates of a dry run: measured or scaled rates, printed in 80 columns."""

from __future__ import annotations

import dataclasses

import pytest

from fgvc.report.cost_estimate import Assumptions, JobCost, Rate, format_estimate, seconds, vit_macs

TINY = Rate("vit_tiny", "", 224, 1.0e9, 100.0, 500)
BASE = Rate("vit_base", "", 224, 16.0e9, 8.0, 500)


def item(**values) -> JobCost:
    usual = {
        "hash": "0123456789abcdef" * 4,
        "choices": "siglip2 large r448 transfg baseline_zero_shot seed=1",
        "model": "vit_tiny",
        "shape": "",
        "side": 224,
        "macs": 1.1e9,
        "forward": 1000,
        "trained": 0,
        "cached": 0,
        "shared": 0,
        "done": False,
        "kept": (2_000_000, 3_000_000),
    }
    return JobCost(**{**usual, **values})


@pytest.mark.parametrize(
    ("values", "rates", "takes"),
    [
        ({}, [BASE, TINY], 10.0),  # as measured: the macs of both are not compared
        ({"side": 448, "macs": 4.0e9}, [BASE, TINY], 40.0),  # the same model scales first
        ({"model": "dinov2", "macs": 20.0e9}, [TINY, BASE], 156.25),  # then the nearest one
        ({"shape": "mini"}, [TINY], 11.0),  # the same name, another model
        ({"forward": 100, "trained": 900}, [TINY], 28.0),  # a step is three forward passes
        ({"model": "giant", "macs": 129.0e9}, [TINY, BASE], None),  # too far for scaling
        ({"side": 448}, [dataclasses.replace(TINY, images=16)], None),  # measured on too few images
        ({}, [dataclasses.replace(TINY, images=16)], 10.0),
        ({"forward": 0}, [], 0.0),
        ({"done": True}, [], 0.0),
        ({}, [], None),
    ],
)
def test_time_is_scaled_from_the_nearest_measurement(values, rates, takes):
    assert seconds(item(**values), rates) == takes


def test_a_vit_has_the_published_multiply_accumulates():
    assert vit_macs(768, 12, 197) == pytest.approx(17.6e9, rel=0.05)  # ViT-B/16 at 224
    assert vit_macs(192, 12, 197) == pytest.approx(1.26e9, rel=0.15)


def plan(items, rates, left_out=(), notes=()):
    ground = Assumptions("cpu", rates, 50_000_000_000, notes)
    return list(format_estimate("one", "dataset=cub " * 9, items, left_out, ground))


def test_the_plan_is_80_columns_wide_and_adds_up():
    items = [
        item(),
        item(forward=0, shared=1000),
        item(forward=0, cached=1000),
        item(forward=100, trained=30_000, macs=2.2e9, model="vit_small"),
        item(done=True),
    ]
    skipped = [("vit r224 off", "no text tower " * 9), ("vit r336 off", "no text tower " * 9)]
    lines = plan(items, [TINY], skipped, ["the hub is not asked " * 6])
    text = "\n".join(lines)
    assert max(map(len, lines)) <= 80
    assert lines[0] == "run_id one: 5 jobs, nothing started"
    assert "1,100 images to forward; 30,000 to train on" in text
    assert "1,000 read from a job above; 1,000 cached" in " ".join(text.split())
    assert "done: 1 of 5 jobs" in text
    assert "about 8 MB of features and 12 MB of run folders; 50 GB free" in text
    # 10 s, and (100 + 3 * 30,000) / 100 s scaled by 2.2
    assert "about 33 min on cpu" in text
    assert "1 of 2 jobs is scaled" in " ".join(text.split())
    assert text.count("left out") == 1
    assert "    vit r336 off" in lines
    for label in ("as above", "cached", "done"):
        assert any(f" {label} " in line for line in lines if "0123456789abcdef" in line)


def test_an_unknown_time_is_reported_as_unknown():
    text = "\n".join(plan([item()], []))
    assert "time: unknown" in text
    assert " ? " in text
    some = " ".join("\n".join(plan([item(), item(macs=1e12, model="x")], [TINY])).split())
    assert "about 10 s on cpu, without 1 of 2 jobs" in some
    assert "min" not in text.partition("time: ")[2].partition("disk")[0]
    assert "none: every job is complete" in "\n".join(plan([item(done=True)], []))
