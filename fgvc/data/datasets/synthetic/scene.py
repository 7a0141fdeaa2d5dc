"""Code of a species, random generator -> a photograph-like image with box and part locations.

Everything but the code is drawn independently of the species: pose, place, size, plumage, backdrop,
leaves, light, blur, noise. H height, W width, K parts, M vertices.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fgvc.data.datasets.synthetic import bird
from fgvc.data.datasets.synthetic.bird import LEG, Point, Rgb, Shape, draw_bird, smooth_curve
from fgvc.data.datasets.synthetic.species import Code

ASPECTS = ((4, 3), (3, 2), (1, 1), (3, 4), (5, 4))
FRAME_SIZE = 200  # units of the bird's frame that fit into the shorter side, for every species
HIP: Point = (-5, 34)
# Hue and spread (turns) of backdrops: leaves, autumn, sky, bark, water, heath.
BACKDROPS = ((0.28, 0.07), (0.10, 0.05), (0.58, 0.05), (0.08, 0.03), (0.48, 0.06), (0.83, 0.08))


@dataclass(frozen=True)
class Pose:
    """Maps the bird's frame to pixels: mirror (1 faces right, -1 left), rotate, scale, shift."""

    mirror: int
    cosine: float
    sine: float
    scale: float
    x: float
    y: float

    @property
    def down(self) -> Point:
        """Gravity in the bird's frame."""
        return -self.sine, self.cosine

    def __call__(self, xy_M2: np.ndarray) -> np.ndarray:
        x_M, y_M = xy_M2[..., 0], xy_M2[..., 1]
        right_M = (self.cosine * x_M + self.sine * y_M) * (self.scale * self.mirror)
        below_M = (self.cosine * y_M - self.sine * x_M) * self.scale
        return np.stack([self.x + right_M, self.y + below_M], axis=-1)


@dataclass(frozen=True)
class Drawing:
    """An image with annotations in pixels.

    box: x, y, width, height. parts: name -> x, y, whether it is inside the image.
    """

    image: Image.Image
    box: tuple[int, int, int, int]
    parts: dict[str, tuple[float, float, bool]]


def draw_scene(code: Code, rng: np.random.Generator, side: int) -> Drawing:
    """Draw an image whose longer side is `side` pixels."""
    x_ratio, y_ratio = ASPECTS[rng.integers(len(ASPECTS))]
    longest = max(x_ratio, y_ratio)
    size = side * x_ratio // longest, side * y_ratio // longest
    pose = _draw_pose(rng, size)
    hue, strength = rng.random(), rng.uniform(0.02, 0.12)
    upper = _rgb(hue, strength, rng.uniform(0.46, 0.6))
    under = _rgb(hue + rng.uniform(-0.08, 0.08), strength * 0.5, rng.uniform(0.7, 0.82))
    horn = _rgb(rng.uniform(0.06, 0.12), rng.uniform(0.1, 0.6), rng.uniform(0.2, 0.5))
    wing = bird.scale_brightness(upper, rng.uniform(0.55, 0.75))
    shapes = draw_bird(code, bird.Plumage(upper, under, wing, horn), pose.down)
    scenery = [*_perch(rng, size, pose), *_litter(rng, size)]
    image = _backdrop(rng, size)
    scenery_layer = _rasterize(scenery, size, oversampling=2)
    image.paste(scenery_layer, mask=scenery_layer)
    bird_shapes = [Shape(shape.part, pose(shape.xy_M2), shape.rgb) for shape in shapes]
    bird_layer = _rasterize(bird_shapes, size, oversampling=3)
    bird_layer = _shade(bird_layer, row=pose.y, half=60 * pose.scale)
    image.paste(bird_layer, mask=bird_layer)
    # the smallest box around the pixels that the bird covers by half or more
    covered = bird_layer.getchannel("A").point([0] * 128 + [255] * 128)
    left, top, right, bottom = covered.getbbox() or (0, 0, 0, 0)
    parts = {}
    for part, point in bird.part_locations(shapes).items():
        x, y = pose(np.array(point)).round(1).tolist()
        parts[part] = (x, y, 0 <= x < size[0] and 0 <= y < size[1])
    return Drawing(_expose(rng, image), (left, top, right - left, bottom - top), parts)


def _draw_pose(rng: np.random.Generator, size: tuple[int, int]) -> Pose:
    degrees = int(rng.integers(0, 46))
    scale = min(size) / FRAME_SIZE * rng.uniform(0.82, 1.1)
    drift_x, drift_y = rng.uniform(-0.1, 0.1, size=2) * min(size)
    return Pose(
        mirror=1 if rng.random() < 0.5 else -1,
        cosine=round(math.cos(math.radians(degrees)), 6),
        sine=round(math.sin(math.radians(degrees)), 6),
        scale=scale,
        x=size[0] / 2 + drift_x,
        y=size[1] / 2 + drift_y + 6 * scale,
    )


def _perch(rng: np.random.Generator, size: tuple[int, int], pose: Pose) -> list[Shape]:
    """A branch under the feet across the whole image, and its twigs."""
    foot = pose(np.array(HIP)) + np.array((0, LEG * pose.scale))
    bark = _rgb(rng.uniform(0.05, 0.11), rng.uniform(0.1, 0.45), rng.uniform(0.22, 0.5))
    slope, thick = rng.uniform(-0.25, 0.25), rng.uniform(3, 8) * pose.scale
    reach = float(size[0])
    left = foot + np.array((-reach, -reach * slope + thick))
    right = foot + np.array((reach, reach * slope + thick))
    shapes = [
        _stick(left, right, thick, bark),
        _stick(left, right, thick * 0.3, bird.scale_brightness(bark, 1.25)),
    ]
    for _ in range(rng.integers(1, 5)):
        start = foot + np.array((1, slope)) * rng.uniform(-0.5, 0.5) * reach
        end = start + rng.uniform(-0.4, 0.4, size=2) * reach
        shapes.append(_stick(start, end, thick * 0.3, bird.scale_brightness(bark, 0.85)))
    return shapes


def _stick(start: np.ndarray, end: np.ndarray, half: float, rgb: Rgb) -> Shape:
    across, down = abs(end - start)
    shift = np.array((0, half) if across > down else (half, 0))
    return Shape("scenery", np.array([start - shift, end - shift, end + shift, start + shift]), rgb)


def _litter(rng: np.random.Generator, size: tuple[int, int]) -> list[Shape]:
    """Leaves, and a few petals in two of the colours that distinguish species."""
    petals = [tuple(bird.PAINT.values())[row] for row in rng.permutation(len(bird.PAINT))[:2]]
    shapes = []
    for _ in range(rng.integers(2, 9)):
        petal = bird.scale_brightness(petals[rng.integers(2)], rng.uniform(0.8, 1.1))
        green = _rgb(rng.uniform(0.18, 0.38), rng.uniform(0.3, 0.7), rng.uniform(0.25, 0.7))
        shapes.append(_leaf(rng, size, petal if rng.random() < 0.15 else green))
    return shapes


def _leaf(rng: np.random.Generator, size: tuple[int, int], rgb: Rgb) -> Shape:
    x, y = (rng.random(2) * np.array(size)).tolist()
    turn = math.radians(int(rng.integers(360)))
    length = rng.uniform(0.03, 0.09) * min(size)
    broad = length * rng.uniform(0.25, 0.9)
    along_x, along_y = round(math.cos(turn), 6), round(math.sin(turn), 6)
    corners = (
        (x - along_x * length, y - along_y * length),
        (x - along_y * broad, y + along_x * broad),
        (x + along_x * length, y + along_y * length),
        (x + along_y * broad, y - along_x * broad),
    )
    return Shape("scenery", smooth_curve(corners, steps=4, corners=True), rgb)


def _backdrop(rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Soft blobs over a gradient, drawn small and enlarged to look out of focus."""
    hue, spread = BACKDROPS[rng.integers(len(BACKDROPS))]
    small = (size[0] // 8 + 2, size[1] // 8 + 2)
    top, bottom = (_muted_colour(rng, hue, spread) for _ in range(2))
    ramp_H11 = np.linspace(0, 1, small[1])[:, None, None]
    rgb_H13 = (1 - ramp_H11) * np.array(top) + ramp_H11 * np.array(bottom)
    rows_HW3 = np.broadcast_to(rgb_H13, (small[1], small[0], 3))
    image = Image.fromarray(np.rint(rows_HW3).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(4, 40)):
        x, y = (int(v) for v in rng.random(2) * np.array(small))
        r = int(rng.integers(1, 2 + min(small) // 6))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_muted_colour(rng, hue, spread))
    soft = image.filter(ImageFilter.GaussianBlur(1.2))
    return soft.resize(size, Image.Resampling.BICUBIC)


def _muted_colour(rng: np.random.Generator, hue: float, spread: float) -> Rgb:
    return _rgb(hue + rng.uniform(-spread, spread), rng.uniform(0.05, 0.2), rng.uniform(0.45, 0.65))


def _rasterize(shapes: Sequence[Shape], size: tuple[int, int], oversampling: int) -> Image.Image:
    """Draw polygons, antialiased, on a transparent layer; later ones cover earlier ones."""
    layer = Image.new("RGBA", (size[0] * oversampling, size[1] * oversampling))
    draw = ImageDraw.Draw(layer)
    for shape in shapes:
        corners = np.rint(shape.xy_M2 * oversampling - 0.5).astype(int)
        draw.polygon([(x, y) for x, y in corners.tolist()], fill=shape.rgb)
    return layer.reduce(oversampling)


def _shade(layer: Image.Image, row: float, half: float) -> Image.Image:
    """Lighten above `row` and darken below it, like a round body under the sky."""
    rows_H = (np.arange(layer.height) - row) / half
    light_H11 = np.clip(1.04 - 0.2 * rows_H, 0.7, 1.18)[:, None, None]
    shaded = _to_image(np.asarray(layer.convert("RGB")) * light_H11)
    shaded.putalpha(layer.getchannel("A"))
    return shaded


def _expose(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Vary light, colour, focus and grain."""
    across, down = rng.uniform(-0.1, 0.1, size=2)
    white_3 = rng.uniform(0.88, 1.08) * rng.uniform(0.96, 1.04, size=3)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.7) * max(image.size) / 320))
    ramp_W1 = np.linspace(-across, across, image.width)[:, None]
    ramp_H11 = np.linspace(-down, down, image.height)[:, None, None]
    lit_HW3 = np.asarray(image) * ((1 + ramp_W1 + ramp_H11) * white_3)
    reach = int(rng.integers(1, 5))
    grain_HW1 = rng.integers(-reach, reach, size=lit_HW3.shape[:2], dtype=np.int8, endpoint=True)
    return _to_image(lit_HW3 + grain_HW1[..., None])


def _to_image(rgb_HW3: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(rgb_HW3), 0, 255).astype(np.uint8))


def _rgb(hue: float, saturation: float, value: float) -> Rgb:
    """Hue in turns (modulo 1), saturation and value in 0..1."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)
