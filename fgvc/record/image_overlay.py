"""An image, its attention map and its prediction -> a PNG at the resolution of the image.

    title        in a white strip above the image, in as many lines as needed
    heat         over the region that the network saw; the hotter, the more opaque
    patches      frames with a light and a dark line, visible on any background

Pixel (x, y) of the image is pixel (x, y + height of the strip) of the PNG. H x W pixels, C 3
channels, K patches, R x R token grid.
"""

from __future__ import annotations

import io
import math
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_WIDTH = 240  # of a title, in pixels
MAX_ALPHA = 0.75  # opacity of the hottest spot
FRAME, SHADE = (255, 225, 0), (0, 0, 0)
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Overlay:
    """The content of an overlay; boxes are x, y, width, height in pixels of the image.

    image_HWC: uint8 RGB. title: may hold line breaks. patch_K4: selected patches, one row per
    head that selected the patch. heat_RR: attention map at any scale. seen: the box that the
    network saw, over which the map is drawn. tiled: the box that the cells of the map tile, if it
    differs from `seen` because patches overlap.
    """

    image_HWC: np.ndarray
    title: str
    patch_K4: np.ndarray
    seen: Box | None = None
    heat_RR: np.ndarray | None = None
    tiled: Box | None = None

    def within(self, side: int) -> Overlay:
        """The overlay with image and boxes scaled down to at most `side` pixels."""
        height, width = self.image_HWC.shape[:2]
        factor = side / max(height, width)
        if factor >= 1:
            return self
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        small = Image.fromarray(self.image_HWC).resize(size, Image.Resampling.LANCZOS)
        factor_4 = np.tile([size[0] / width, size[1] / height], 2)
        seen = self.seen and tuple((np.array(self.seen) * factor_4).tolist())
        tiled = self.tiled and tuple((np.array(self.tiled) * factor_4).tolist())
        return replace(
            self,
            image_HWC=np.asarray(small),
            patch_K4=self.patch_K4 * factor_4,
            seen=seen,
            tiled=tiled,
        )


def title(predicted: str, probability: float, true: str | None = None) -> str:
    """The title of an overlay: predicted class, probability, and the true class if known."""
    prediction = f"{predicted} {100 * probability:.1f} %"
    if true is None:
        return prediction
    return f"{prediction}: right" if true == predicted else f"{prediction}: wrong, it is {true}"


def png(overlay: Overlay) -> bytes:
    import matplotlib

    image_HWC = overlay.image_HWC
    assert image_HWC.dtype == np.uint8
    assert image_HWC.ndim == 3
    if overlay.heat_RR is not None and overlay.seen is not None:
        tiled = overlay.tiled or overlay.seen
        image_HWC = _draw_heat(image_HWC, overlay.heat_RR, overlay.seen, tiled)
    image = Image.fromarray(image_HWC)
    # matplotlib.font_manager would search all fonts and write a cache into the home directory
    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    font = ImageFont.truetype(file, round(max(12, max(image.size) / 32)))
    strip = _title_strip(overlay.title, max(image.width, MIN_WIDTH), font)
    sheet = Image.new("RGB", (strip.width, strip.height + image.height), "white")
    sheet.paste(strip, (0, 0))
    _draw_frames(image, overlay.patch_K4, font)
    sheet.paste(image, (0, strip.height))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def _draw_heat(image_HWC: np.ndarray, heat_RR: np.ndarray, seen: Box, tiled: Box) -> np.ndarray:
    """The image under its attention map; pixels with centres outside `seen` do not change."""
    from matplotlib import colormaps
    from scipy.ndimage import map_coordinates

    height, width = image_HWC.shape[:2]
    columns, x_W = _pixel_range(seen[0], seen[2], width)
    rows, y_H = _pixel_range(seen[1], seen[3], height)
    along_W = (x_W - tiled[0]) / tiled[2] * heat_RR.shape[1] - 0.5
    along_H = (y_H - tiled[1]) / tiled[3] * heat_RR.shape[0] - 0.5
    low, high = float(heat_RR.min()), float(heat_RR.max())
    unit_RR = (heat_RR.astype(np.float32) - low) / max(high - low, 1e-30)
    # bilinear between the centres of tokens, constant beyond the outer centres
    along_2HW = np.meshgrid(along_H, along_W, indexing="ij")
    heat_HW = map_coordinates(unit_RR, along_2HW, order=1, mode="nearest")
    colour_HWC = 255 * colormaps["turbo"](heat_HW)[..., :3]
    out_HWC = image_HWC.copy()
    region_HWC = out_HWC[rows, columns]
    alpha_HW1 = (MAX_ALPHA * heat_HW)[..., None]
    out_HWC[rows, columns] = np.rint(region_HWC * (1 - alpha_HW1) + colour_HWC * alpha_HW1)
    return out_HWC


def _pixel_range(start: float, length: float, limit: int) -> tuple[slice, np.ndarray]:
    """The pixels whose centres are in a range, and these centres."""
    first = max(math.ceil(start - 0.5), 0)
    last = min(math.floor(start + length - 0.5), limit - 1)
    return slice(first, last + 1), np.arange(first, last + 1) + 0.5


def _title_strip(text: str, width: int, font: ImageFont.FreeTypeFont) -> Image.Image:
    """The title in black on white, wrapped at words, and within words that are too long."""
    margin = round(font.size / 3)
    lines = [line for part in text.split("\n") for line in _wrap(part, width - 2 * margin, font)]
    advance = round(font.size * 1.3)
    strip = Image.new("RGB", (width, len(lines) * advance + margin), "white")
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(lines):
        draw.text((margin, margin // 2 + number * advance), line, "black", font)
    return strip


def _wrap(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
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


def _draw_frames(image: Image.Image, patch_K4: np.ndarray, font: ImageFont.FreeTypeFont) -> None:
    """Frame each patch, dark outside and light inside its box, with its number of selections."""
    draw = ImageDraw.Draw(image)
    line_width = max(1, round(max(image.size) / 220))
    for (x, y, width, height), count in Counter(map(tuple, patch_K4.tolist())).items():
        left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
        for margin, colour in ((line_width, SHADE), (0, FRAME)):
            draw.rectangle(
                (left - margin, top - margin, max(right + margin, left), max(bottom + margin, top)),
                outline=colour,
                width=line_width,
            )
        if count > 1:
            small = font.font_variant(size=max(9, min(font.size, 0.45 * (right - left))))
            draw.text(
                (left + 2 * line_width, top + line_width),
                f"×{count}",
                FRAME,
                small,
                stroke_width=max(1, round(small.size / 9)),
                stroke_fill=SHADE,
            )
