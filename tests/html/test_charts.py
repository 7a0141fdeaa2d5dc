"""Values -> ticks and curves of a chart."""

from __future__ import annotations

import pytest

from fgvc.html import charts
from tests.narrow import not_none


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
    axis = charts.frame(("", values, log), ("", values, False), (400, 240)).x
    pixels, labels = zip(*axis.ticks, strict=True)
    assert list(labels) == names
    assert axis.start <= pixels[0] < pixels[-1] <= axis.end
    assert axis.start < axis.at(min(values)) <= axis.at(max(values)) < axis.end


def test_a_descending_axis_has_the_ticks_of_the_ascending_one():
    up, down = charts.Axis("", -0.5, 40.5, 0, 82), charts.Axis("", 40.5, -0.5, 82, 0)
    assert down.ticks == up.ticks == [(1, "0"), (21, "10"), (41, "20"), (61, "30"), (81, "40")]


def test_a_chart_omits_nonfinite_points_and_keeps_the_last_point():
    points = [(float(step), 1 / (step + 1)) for step in range(5000)]
    points[7] = (7.0, float("nan"))
    curves = [("a", points), ("b", [])]
    drawn = not_none(charts.chart("loss", ("steps", False), ("", False), curves))
    (curve,) = drawn.curves
    assert len(curve.places) <= charts.MAX_POINTS + 1
    assert curve.places[-1][0] == drawn.frame.x.at(4999)
    assert "nan" not in curve.points
    assert charts.chart("", ("", False), ("", False), [("a", [(1.0, float("inf"))])]) is None
