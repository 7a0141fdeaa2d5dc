"""Parts of pages: axes, formatted numbers, and images within a budget."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fgvc.record.page import chart, render
from fgvc.record.page.images import Album


@pytest.mark.parametrize(
    ("values", "log", "names"),
    [
        ((0.0, 1.0), False, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ((90.1, 94.9), False, ["90", "91", "92", "93", "94", "95"]),
        ((7.0,), False, ["6", "6.5", "7", "7.5", "8"]),
        ((0.0,), False, ["-0.1", "-0.05", "0", "0.05", "0.1"]),
        ((1e-6, 1e5), True, ["1e-06", "0.001", "1", "1000"]),
        ((1.2, 60.0), True, ["1", "2", "5", "10", "20", "50"]),
        ((0.0, 1000.0), True, ["0", "200", "400", "600", "800", "1000"]),
    ],
)
def test_ticks_are_round_and_within(values, log, names):
    axis = chart.frame(("", values, log), ("", values, False), (400, 240)).x
    pixels, labels = zip(*axis.ticks, strict=True)
    assert list(labels) == names
    assert axis.start <= pixels[0] < pixels[-1] <= axis.end
    assert axis.start < axis.at(min(values)) <= axis.at(max(values)) < axis.end


def test_a_chart_omits_nonfinite_points_and_keeps_the_last_point():
    points = [(float(step), 1 / (step + 1)) for step in range(5000)]
    points[7] = (7.0, float("nan"))
    drawn = chart.chart("loss", ("steps", False), ("", False), [("a", points), ("b", [])])
    (curve,) = drawn.curves
    assert len(curve.places) <= chart.MAX_POINTS + 1
    assert curve.places[-1][0] == drawn.frame.x.at(4999)
    assert "nan" not in curve.points
    assert chart.chart("", ("", False), ("", False), [("a", [(1.0, float("inf"))])]) is None


def test_numbers_are_formatted_for_people():
    assert [render.points(value) for value in (0.0142, -0.0142, 0)] == ["+1.4", "−1.4", "+0.0"]
    assert [render.p_value(p) for p in (0.0004, 0.012, 0.5, 1)] == [
        "< .001",
        ".012",
        "0.50",
        "1.00",
    ]
    si_texts = [render.si(value) for value in (5524416, 1.2e9, 23.9, 999.6, 0, 0.02, None)]
    assert si_texts == ["5.52 M", "1.20 G", "23.9", "1.00 k", "0.00", "0.02", "–"]
    assert [render.duration(s) for s in (2.04, 600, 9000, None)] == [
        "2.0 s",
        "10 min",
        "2.5 h",
        "–",
    ]


def test_an_album_never_exceeds_its_budget(tmp_path):
    noise_HWC = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    album = Album(lambda path: None if path == "gone" else noise_HWC, budget=60_000)
    images = [album.test_image(str(number)) for number in range(30)]
    added = [image for image in images if image]
    assert 0 < len(added) < 30
    assert sum(len(image.source) for image in added) == 60_000 - album.left <= 60_000
    assert {(image.width, image.height) for image in added} == {(168, 126)}
    assert Album(lambda path: None).test_image("gone") is None
    Image.fromarray(noise_HWC).save(tmp_path / "big.png")
    assert album.whole(tmp_path / "big.png") is None
