"""Numbers -> text for people."""

from __future__ import annotations

from fgvc.html import formats


def test_numbers_are_formatted_for_people():
    assert [formats.points(value) for value in (0.0142, -0.0142, 0)] == ["+1.4", "−1.4", "+0.0"]
    assert [formats.p_value(p) for p in (0.0004, 0.012, 0.5, 1)] == [
        "< .001",
        ".012",
        "0.50",
        "1.00",
    ]
    si_texts = [formats.si(value) for value in (5524416, 1.2e9, 23.9, 999.6, 0, 0.02, None)]
    assert si_texts == ["5.52 M", "1.20 G", "23.9", "1.00 k", "0.00", "0.02", "–"]
    assert [formats.duration(s) for s in (2.04, 600, 9000, None)] == [
        "2.0 s",
        "10 min",
        "2.5 h",
        "–",
    ]


def test_a_level_keeps_a_digit_that_is_not_9():
    levels = [formats.level(1 - 0.05 / pairs) for pairs in (1, 3, 45, 1225, 10**6)]
    assert levels == ["95 %", "98.3 %", "99.9 %", "99.996 %", "99.999995 %"]
