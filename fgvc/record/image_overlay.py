"""A picture, what the network looked at and what was found -> a PNG in the picture's own pixels.

    title        in a white strip above the picture, as many lines as it takes
    heat         laid over the region that the network saw, nowhere else; only hot hides
    patches      frames, light inside dark, so that they stand out on any ground

The picture's pixel (x, y) is the image's pixel (x, y + height of the strip). H x W pixels, C 3
channels, K patches, R x R token grid.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFont

NARROWEST = 240  # pixels of a title's width, though the picture be narrower
CELL, SHOWN = 360, 16  # of a grid: pixels of a picture's longer side, pictures at most
HOT = 0.75  # how far the hottest spot hides the picture
FRAME, SHADE = (255, 225, 0), (0, 0, 0)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Overlay:
    """What is drawn; x, y, width, height in pixels of the picture throughout.

    picture_HWC: uint8 RGB. title: may hold line breaks. patch_K4: selected patches; one that
    several heads selected is given as often. heat_RR: any scale, laid over the box `seen`. tiled:
    the box that its cells tile, where that is not `seen`, as patches overlap.
    """

    picture_HWC: np.ndarray
    title: str
    patch_K4: np.ndarray
    seen: Box | None = None
    heat_RR: np.ndarray | None = None
    tiled: Box | None = None

    def within(self, side: int) -> Overlay:
        """The same with a picture of `side` pixels at most, boxes with it."""
        height, width = self.picture_HWC.shape[:2]
        factor = side / max(height, width)
        if factor >= 1:
            return self
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = Image.fromarray(self.picture_HWC).resize(size, Image.Resampling.LANCZOS)
        factor_4 = np.tile([size[0] / width, size[1] / height], 2)
        seen, tiled = (
            box and tuple((np.array(box) * factor_4).tolist()) for box in (self.seen, self.tiled)
        )
        return replace(
            self,
            picture_HWC=np.asarray(small),
            patch_K4=self.patch_K4 * factor_4,
            seen=seen,
            tiled=tiled,
        )


def title(predicted: str, probability: float, true: str | None = None) -> str:
    """The line above a picture: what it was taken for, how surely, what it is if that is known."""
    said = f"{predicted} {100 * probability:.1f} %"
    if true is None:
        return said
    return f"{said}: right" if true == predicted else f"{said}: wrong, it is {true}"


def png(overlay: Overlay) -> bytes:
    """The overlay as PNG."""
    return _encoded(_drawn(overlay))


def grid_png(overlays: Sequence[Overlay]) -> bytes:
    """Up to 16 overlays side by side, made smaller before anything is drawn on them, as PNG."""
    cells = [_drawn(one.within(CELL)) for one in overlays[:SHOWN]]
    columns = math.ceil(math.sqrt(len(cells)))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + 8 for row in rows]
    sheet = Image.new("RGB", (columns * (CELL + 8), sum(heights)), "white")
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            sheet.paste(cell, (column * (CELL + 8) + 4, sum(heights[:number]) + 4))
    return _encoded(sheet)


def _drawn(overlay: Overlay) -> Image.Image:
    picture_HWC = overlay.picture_HWC
    assert picture_HWC.dtype == np.uint8
    assert picture_HWC.ndim == 3
    if overlay.heat_RR is not None and overlay.seen is not None:
        tiled = overlay.tiled or overlay.seen
        picture_HWC = _heated(picture_HWC, overlay.heat_RR, overlay.seen, tiled)
    height, width = picture_HWC.shape[:2]
    font = _font(width, height)
    strip = _strip(overlay.title, max(width, NARROWEST), font)
    sheet = Image.new("RGB", (strip.width, strip.height + height), "white")
    sheet.paste(strip, (0, 0))
    picture = Image.fromarray(picture_HWC)
    _frame(picture, overlay.patch_K4, font)
    sheet.paste(picture, (0, strip.height))
    return sheet


def _heated(picture_HWC: np.ndarray, heat_RR: np.ndarray, seen: Box, tiled: Box) -> np.ndarray:
    """The picture under its heat; pixels whose centre lies outside `seen` stay as they are."""
    height, width = picture_HWC.shape[:2]
    columns, x_W = _span(seen[0], seen[2], width)
    rows, y_H = _span(seen[1], seen[3], height)
    along_W = (x_W - tiled[0]) / tiled[2] * heat_RR.shape[1] - 0.5
    along_H = (y_H - tiled[1]) / tiled[3] * heat_RR.shape[0] - 0.5
    low, high = float(heat_RR.min()), float(heat_RR.max())
    unit_RR = (heat_RR.astype(np.float32) - low) / max(high - low, 1e-30)
    heat_HW = _bilinear(unit_RR, along_H, along_W)
    out_HWC = picture_HWC.copy()
    cold_HWC = out_HWC[rows, columns]
    hidden_HW1 = (HOT * heat_HW)[..., None]
    out_HWC[rows, columns] = np.rint(cold_HWC * (1 - hidden_HW1) + _colour(heat_HW) * hidden_HW1)
    return out_HWC


def _span(start: float, length: float, limit: int) -> tuple[slice, np.ndarray]:
    """The pixels whose centres lie inside, and these centres."""
    first = max(math.ceil(start - 0.5), 0)
    last = min(math.floor(start + length - 0.5), limit - 1)
    return slice(first, last + 1), np.arange(first, last + 1) + 0.5


def _bilinear(value_RR: np.ndarray, y_H: np.ndarray, x_W: np.ndarray) -> np.ndarray:
    """Values between the centres of tokens; beyond the outer ones, theirs."""
    return _mixed(_mixed(value_RR, y_H).T, x_W).T


def _mixed(value_RS: np.ndarray, at_H: np.ndarray) -> np.ndarray:
    at_H = at_H.clip(0, len(value_RS) - 1)
    low_H = np.floor(at_H).astype(int).clip(max=max(len(value_RS) - 2, 0))
    share_H1 = (at_H - low_H)[:, None]
    high_H = np.minimum(low_H + 1, len(value_RS) - 1)
    return value_RS[low_H] * (1 - share_H1) + value_RS[high_H] * share_H1


def _colour(unit_HW: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    return 255 * colormaps["turbo"](unit_HW)[..., :3]


def _font(width: int, height: int) -> ImageFont.FreeTypeFont:
    """Letters in proportion to the picture, as it will be looked at on one screen."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont("DejaVu Sans"), round(max(12, max(width, height) / 32)))


def _strip(text: str, width: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """Black on white, wrapped at words, and inside them where there is no other way."""
    margin = round(font.size / 3)
    lines = [
        line
        for paragraph in text.split("\n")
        for line in _wrapped(paragraph, width - 2 * margin, font)
    ]
    advance = round(font.size * 1.3)
    strip = Image.new("RGB", (width, len(lines) * advance + margin), "white")
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((margin, margin // 2 + number * advance), line, "black", font)
    return strip


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _frame(picture: Image.Image, patch_K4: np.ndarray, font: ImageFont.FreeTypeFont) -> None:
    """A frame for every patch, and how often it was selected where that is more than once.

    The dark line lies outside the box and the light one inside: their border is the box's.
    """
    draw = ImageDraw.Draw(picture)
    thick = max(1, round(max(picture.size) / 220))
    for (x, y, width, height), times in Counter(map(tuple, patch_K4.tolist())).items():
        left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
        for grown, colour in ((thick, SHADE), (0, FRAME)):
            draw.rectangle(
                (left - grown, top - grown, max(right + grown, left), max(bottom + grown, top)),
                outline=colour,
                width=thick,
            )
        if times > 1:
            small = font.font_variant(size=max(9, min(font.size, 0.45 * (right - left))))
            _label(draw, (left + 2 * thick, top + thick), f"×{times}", small)


def _label(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, font: ImageFont.FreeTypeFont
) -> None:
    draw.text(at, text, FRAME, font, stroke_width=max(1, round(font.size / 9)), stroke_fill=SHADE)


def _encoded(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
