"""Estimates of a dry run: measured or scaled rates, printed in 80 columns."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from fgvc.report.cost_estimate import (
    Assumptions,
    JobCost,
    Layout,
    Rate,
    format_estimate,
    seconds,
    vit_macs,
)

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


LISTED, HEAD = Layout(), ["jobs", "images", "time", "disk"]


def plan(items, rates, left_out=(), notes=(), layout=LISTED, free=50_000_000_000, cache=None):
    ground = Assumptions("cpu", rates, free, notes, cache)
    return list(format_estimate("one", "dataset=cub " * 9, items, left_out, ground, layout))


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
    assert "1,000 read from an earlier job; 1,000 cached" in " ".join(text.split())
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


def grid() -> list[JobCost]:
    """A grid of 1,152 jobs; the finetunes cost more, and no rate is known for large models."""
    names = {
        "dataset": ["cub", "dogs"],
        "backbone": ["clip", "siglip2", "dinov2", "vit"],
        "backbone.size": ["small", "large"],
        "part_attention": ["off", "transfg", "random", "centre"],
        "experiment": ["baseline_zero_shot", "baseline_knn", "finetune"],
        "seed": [str(seed) for seed in range(6)],
    }
    jobs = [dict(zip(names, values, strict=True)) for values in itertools.product(*names.values())]
    return [
        item(
            values=job,
            trained=9000 if job["experiment"] == "finetune" else 0,
            macs=1e12 if job["backbone.size"] == "large" else 1.1e9,
            model=job["backbone.size"],
            kept=(2_000_000, 300_000_000),
        )
        for job in jobs
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_many_jobs_fit_a_screen_in_groups_after_the_totals(width):
    reasons = [("vit off", "head=text reads class names: no text tower " * 3)] * 72
    notes = ["dataset=cub cannot be read (no such folder): counts of its definition"] * 2
    lines = plan(grid(), [TINY], reasons, notes, Layout(width, list_jobs=False))
    assert len(lines) <= 40
    assert max(map(len, lines)) <= width
    start = next(i for i, line in enumerate(lines) if line.split()[-4:] == HEAD)
    assert [line.partition(":")[0] for line in lines[1:start] if line[0] != " "] == [
        *("images", "time", "disk", "note", "note")
    ]
    text = "\n".join(" ".join(line.split()) for line in lines[start + 1 :])
    assert "dataset cub, dogs 576 2,304,000 > 9 h 170 GB" in text  # equal rows stand together
    assert "backbone.size small 576 2,304,000 18 h 170 GB" in text  # 11 ms per image, 33 to train
    assert "large 576 2,304,000 ? 170 GB" in text
    assert "finetune 384 3,840,000 > 16 h" in text
    assert lines[-2].startswith("  left out: 72: head=text")
    assert lines[-1] == "runtime.dry_run_jobs=all lists every job"
    assert not any("0123456789abcdef" in line for line in lines)


def test_a_key_with_many_different_values_is_cut():
    items = [item(values={"seed": str(seed)}, forward=1000 + seed) for seed in range(100)]
    lines = plan(items, [TINY], layout=Layout(80, list_jobs=False))
    assert len(lines) < 40
    assert "and 76 more values" in "\n".join(lines)
    same = [item(values={"seed": str(seed)}) for seed in range(100)]
    lines = plan(same, [TINY], layout=Layout(80, list_jobs=False))
    assert any("0, 1, 2, 3, 4, … 99" in line for line in lines)


@pytest.mark.parametrize(
    ("free", "cache", "short"),
    [
        (5_000_000, None, None),
        (4_000_000, None, "1.0 MB"),
        (3_000_000, 2_000_000, None),  # two disks
        (2_000_000, 9_000_000, "1.0 MB"),
        (9_000_000, 500_000, "1.5 MB"),
    ],
)
def test_a_disk_that_is_too_small_comes_first(free, cache, short):
    text = " ".join(" ".join(plan([item()], [], free=free, cache=cache)).split())
    assert (f"disk: DOES NOT FIT, {short} short: about" in text) == (short is not None)
    assert ("DOES NOT FIT" in text) == (short is not None)
    assert text.count("B free") == (1 if cache is None else 2)


@pytest.mark.parametrize(
    ("values", "changes", "expected"),
    [
        ({"forward": 36_100}, {}, True),  # 361 s at the measured rate
        ({"forward": 35_900}, {}, False),
        ({"forward": 0, "trained": 12_100}, {}, True),  # three forward passes each
        ({"forward": 36_100}, {"device": "cpu"}, False),
        ({"forward": 36_100}, {"compiles": True}, False),
        ({"forward": 36_100}, {"rates": []}, False),
        ({"forward": 36_100, "done": True}, {}, False),
    ],
)
def test_compiling_pays_off_where_it_takes_less_time_than_it_saves(values, changes, expected):
    """60 s to compile, saved by 36,000 images at 120 instead of 100 images/s."""
    usual = {"device": "cuda", "rates": [TINY], "free": 10**12, "notes": []}
    lines = format_estimate(
        "id", "", [item(**values), item()], [], Assumptions(**usual | changes), Layout()
    )
    text = " ".join(" ".join(lines).split())
    assert ("runtime.compile=true would pay off in 1 of 2 jobs" in text) is expected
    assert ("from about 36,000 forward passes on" in text) is expected
