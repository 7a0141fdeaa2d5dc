"""Code of a species, plumage -> flat coloured polygons of a bird in its own frame.

In this frame, the bird faces right, y points down, and the body is about 100 units long around
(0, 0). Coordinates are computed with + - * / only, so polygons are identical on every machine.
M vertices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc.data.datasets.synthetic.species import Code

Rgb = tuple[int, int, int]
Point = tuple[float, float]

PARTS = ("beak", "crown", "eye", "nape", "throat", "breast", "belly", "back", "wing", "tail", "leg")

PAINT: dict[str, Rgb] = {
    "black": (26, 24, 30),
    "white": (244, 242, 234),
    "red": (206, 34, 30),
    "yellow": (246, 204, 36),
    "orange": (240, 128, 24),
    "blue": (38, 84, 214),
}

# Locations of parts without an own attribute, or whose outline is shared with the body.
ANCHORS: dict[str, Point] = {
    "nape": (17, -34),
    "throat": (46, -16),
    "breast": (33, 8),
    "belly": (2, 28),
    "back": (-10, -24),
}

OUTLINE: tuple[Point, ...] = (
    (57, -43), (53, -56), (40, -63), (25, -56), (12, -38), (-10, -26), (-34, -6), (-56, 18),
    (-52, 29), (-28, 35), (4, 38), (29, 28), (44, 8), (48, -12), (54, -29),
)  # fmt: skip
UNDERSIDE: tuple[Point, ...] = (
    (51, -27), (47, -12), (43, 7), (28, 27), (4, 37), (-28, 34), (-50, 28), (-26, 20), (4, 12),
    (22, -6), (38, -24),
)  # fmt: skip
WING_TOP: tuple[Point, ...] = ((24, -12), (8, -24), (-14, -22), (-40, -2), (-72, 24))
WING_LOW: tuple[Point, ...] = ((24, -12), (20, 8), (2, 18), (-26, 20), (-72, 24))

BEAKS: dict[str, tuple[Point, ...]] = {
    "cone": ((52, -54), (66, -49), (76, -38), (62, -32), (53, -30)),
    "dagger": ((53, -48), (80, -45), (104, -41), (80, -37), (53, -35)),
    "hook": ((52, -53), (66, -54), (79, -46), (80, -26), (71, -36), (62, -32), (53, -32)),
    "sickle": ((53, -47), (76, -47), (92, -36), (98, -16), (87, -30), (74, -39), (53, -36)),
    "spoon": ((53, -46), (76, -45), (88, -52), (98, -42), (88, -31), (76, -38), (53, -36)),
}
CAP: tuple[Point, ...] = (
    *((55, -49), (52, -58), (40, -65), (24, -59), (13, -42), (30, -44), (42, -51)),
)
CRESTS: dict[str, tuple[tuple[Point, ...], ...]] = {
    "smooth": (),
    "peak": (((54, -54), (44, -78), (26, -98), (16, -76), (18, -48)),),
    "swept": (((46, -61), (20, -72), (-18, -78), (4, -58), (19, -46)),),
    "fan": tuple(
        ((44 - 5 * i, -54), (52 - 17 * i, -90 + 2 * i * i), (65 - 17 * i, -86 + 2 * i * i))
        for i in range(5)
    ),
}
# Blades of a tail: (sideways lean, length, width at the root, width at the tip).
TAILS: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "square": ((-0.04, 50, 11, 13), (0.04, 50, 11, 13)),
    "forked": ((-0.30, 62, 12, 6), (0.30, 62, 12, 6)),
    "fan": tuple((0.3 * i, 52 - 2 * i * i, 9, 15) for i in range(-2, 3)),
    "streamer": ((-0.10, 40, 12, 9), (0.10, 40, 12, 9), (-0.03, 84, 6, 5), (0.03, 84, 6, 5)),
}
TAIL_MARKS: dict[str, tuple[tuple[float, float], ...]] = {
    "plain": (),
    "tipped": ((0.72, 1.0),),
    "barred": ((0.34, 0.48), (0.62, 0.76), (0.90, 1.0)),
}
BARS = {"one": (0.30,), "two": (0.18, 0.42), "three": (0.10, 0.32, 0.54)}
BAR_WIDTH = 0.14
LEG = 24.0
SPOTS: tuple[Point, ...] = (
    (41, -8), (34, -1), (40, 5), (29, 9), (36, 14), (23, 17), (29, 22), (14, 23), (18, 30), (6, 29),
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A filled polygon of one part; part "body" has no location."""

    part: str
    xy_M2: np.ndarray
    rgb: Rgb


@dataclass(frozen=True)
class Plumage:
    """Colours that do not depend on the species."""

    upper: Rgb
    under: Rgb
    wing: Rgb
    horn: Rgb  # of beak and legs


def draw_bird(code: Code, plumage: Plumage, down: Point) -> list[Shape]:
    """The shapes of a bird, back to front. down: unit vector of gravity in the bird's frame."""
    crest = [smooth_curve(feather, corners=True) for feather in CRESTS[code.crest]]
    gravity, side, legs = np.array(down), np.array((down[1], -down[0])), []
    for hip in ((2.0, 34.0), (-12.0, 34.0)):
        top, foot = np.array(hip), np.array(hip) + gravity * LEG
        corners = (top - side * 1.8, foot - side * 1.5, foot + side * 1.5, top + side * 1.8)
        legs.append(_shape("leg", np.array(corners), plumage.horn))
    breast: list[np.ndarray] = []
    if code.breast == "spotted":
        breast = [circle(spot, 2.9) for spot in SPOTS]
    elif code.breast == "banded":
        breast = [smooth_curve(((50, -10), (46, 2), (36, 3), (24, -3), (27, -13), (38, -6)))]
    eye = [
        _shape("eye", circle((44, -43), 4.6), (18, 14, 14)),
        _shape("eye", circle((45.6, -44.8), 1.4), (250, 250, 250)),
    ]
    if code.eye_ring != "none":
        eye.insert(0, _shape("eye", circle((44, -43), 8), PAINT[code.eye_ring]))
    return [
        *_tail(code, plumage),
        *legs,
        *[_shape("crown", feather, PAINT[code.crown]) for feather in crest],
        _shape("body", smooth_curve(OUTLINE), plumage.upper),
        _shape("body", smooth_curve(UNDERSIDE), plumage.under),
        *[_shape("breast", mark, PAINT["black"]) for mark in breast],
        *_wing(code, plumage),
        _shape("crown", smooth_curve(CAP), PAINT[code.crown]),
        _shape("beak", smooth_curve(BEAKS[code.beak], corners=True), plumage.horn),
        *eye,
    ]


def part_locations(shapes: Sequence[Shape]) -> dict[str, Point]:
    """The location of each part: its anchor, or the centre of area of its polygons."""
    centres = dict(ANCHORS)
    for part in (part for part in PARTS if part not in ANCHORS):
        total, moment = 0.0, np.zeros(2)
        for xy_M2 in (shape.xy_M2 for shape in shapes if shape.part == part):
            next_M2 = np.roll(xy_M2, -1, axis=0)
            cross_M = xy_M2[:, 0] * next_M2[:, 1] - next_M2[:, 0] * xy_M2[:, 1]
            doubled = cross_M.sum()
            centre = ((xy_M2 + next_M2) * cross_M[:, None]).sum(0) / (3 * doubled)
            area = abs(doubled) / 2
            total, moment = total + area, moment + area * centre
        x, y = (moment / total).tolist()
        centres[part] = x, y
    return {part: centres[part] for part in PARTS}


def smooth_curve(points: Sequence[Point], steps: int = 6, corners: bool = False) -> np.ndarray:
    """Closed Catmull-Rom curve through the points; corners=True halves the tangents."""
    p_K2 = np.asarray(points, dtype=np.float64)
    q_K2 = np.roll(p_K2, -1, axis=0)
    pull = 0.25 if corners else 0.5
    m_K2 = (q_K2 - np.roll(p_K2, 1, axis=0)) * pull
    n_K2 = np.roll(m_K2, -1, axis=0)
    curve = []
    for step in range(steps):
        t = step / steps
        a, b = (1 + 2 * t) * (1 - t) * (1 - t), t * (1 - t) * (1 - t)
        c, d = t * t * (3 - 2 * t), t * t * (t - 1)
        curve.append(a * p_K2 + b * m_K2 + c * q_K2 + d * n_K2)
    return np.stack(curve, axis=1).reshape(-1, 2)


def circle(centre: Point, radius: float) -> np.ndarray:
    x, y = centre
    r, d = radius, radius * 0.7071
    ring = ((r, 0), (d, d), (0, r), (-d, d), (-r, 0), (-d, -d), (0, -r), (d, -d))
    return smooth_curve([(x + a, y + b) for a, b in ring], steps=3)


def scale_brightness(rgb: Rgb, factor: float) -> Rgb:
    """A colour made darker (< 1) or lighter (> 1)."""
    r, g, b = (min(255, max(0, round(value * factor))) for value in rgb)
    return r, g, b


def _shape(part: str, points: np.ndarray | Sequence[Point] | list[np.ndarray], rgb: Rgb) -> Shape:
    return Shape(part, np.asarray(points, dtype=np.float64), rgb)


def _wing(code: Code, plumage: Plumage) -> list[Shape]:
    outline = smooth_curve([*WING_TOP, *WING_LOW[-2:0:-1]])
    edge = scale_brightness(plumage.wing, 0.72)
    shapes = [_shape("wing", outline, plumage.wing)]
    for i in range(4):
        start, across = 0.62 + 0.06 * i, 0.2 + 0.2 * i
        feather = ((start, across), (0.97, across), (start, across + 0.07))
        shapes.append(_shape("wing", [_on_wing(*corner) for corner in feather], edge))
    for start in BARS[code.wing_bars]:
        bar = [_on_wing(start, across) for across in (0.04, 0.5, 0.96)]
        bar += [_on_wing(start + BAR_WIDTH, across) for across in (0.96, 0.5, 0.04)]
        shapes.append(_shape("wing", bar, PAINT[code.bar_colour]))
    return shapes


def _on_wing(along: float, across: float) -> np.ndarray:
    """A point of the wing. along: 0 shoulder .. 1 tip. across: 0 upper edge .. 1 lower edge."""
    knots = [index / (len(WING_TOP) - 1) for index in range(len(WING_TOP))]
    ends = [
        np.array([np.interp(along, knots, [p[axis] for p in edge]) for axis in (0, 1)])
        for edge in (WING_TOP, WING_LOW)
    ]
    return ends[0] * (1 - across) + ends[1] * across


def _tail(code: Code, plumage: Plumage) -> list[Shape]:
    shapes = []
    for order, blade in enumerate(TAILS[code.tail]):
        colour = scale_brightness(plumage.wing, 0.94 if order % 2 else 0.8)
        shapes.append(_shape("tail", _blade(blade, 0, 1), colour))
        marks = TAIL_MARKS[code.tail_mark]
        shapes += [_shape("tail", _blade(blade, *mark), PAINT["white"]) for mark in marks]
    return shapes


def _blade(blade: tuple[float, float, float, float], start: float, end: float) -> np.ndarray:
    """The section start .. end (fractions of its length) of a tail feather."""
    lean, length, root, tip = blade
    origin, along = np.array((-44.0, 20.0)), np.array((-0.95, 0.31))
    side = np.array((0.31, 0.95))
    corners = []
    for at, sign in ((start, -1), (end, -1), (end, 1), (start, 1)):
        half = (root + (tip - root) * at) / 2
        reach = origin + along * (length * at) + side * (lean * length * at + lean * 12)
        corners.append(reach + side * (half * sign))
    return np.array(corners)
