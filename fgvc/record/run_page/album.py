"""Test images of a run -> small JPEGs inside its page, within a budget of bytes.

H x W pixels, C 3 channels.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fgvc import untrusted
from fgvc.html.formats import plain

ReadImage = Callable[[str], "np.ndarray | None"]  # path -> uint8 HWC, None if it cannot be read
SIDE, QUALITY = 168, 72  # longer side of a test image in pixels; JPEG quality
OVERLAY_SIDE = 360  # longer side of an overlay in pixels
FORMATS = ("PNG", "JPEG")  # of the images that a run writes
BUDGET = 1_400_000  # bytes of all images of a page, base64 included


@dataclass(frozen=True)
class PageImage:
    """An image on a page. source: a data URI."""

    source: str
    width: int
    height: int
    path: str


SHOT = re.compile(
    r'<figure class="shot">\n<img src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)" '
    r'width="(\d{1,4})" height="(\d{1,4})" alt="[^"]*" title="([^"]*)">'
)


class Album:
    """The images of one page; the budget goes to the images that are requested first."""

    def __init__(self, read_image: ReadImage, budget: int = BUDGET) -> None:
        self._read_image, self.left = read_image, budget

    def test_image(self, path: str) -> PageImage | None:
        """A test image; None if it cannot be read or the budget is spent."""
        pixels_HWC = self._read_image(path)
        return None if pixels_HWC is None else self._shrink(Image.fromarray(pixels_HWC), path, SIDE)

    def overlay(self, file: Path) -> PageImage | None:
        """An overlay of the run folder, larger than a test image."""
        with Image.open(untrusted.require_regular(file), formats=FORMATS) as image:
            return self._shrink(image.convert("RGB"), file.name, OVERLAY_SIDE)

    def _shrink(self, image: Image.Image, path: str, side: int) -> PageImage | None:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY, optimize=True)
        source = f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
        if len(source) > self.left:
            return None
        self.left -= len(source)
        return PageImage(source, *image.size, plain(path))


class RecordedAlbum(Album):
    """The test images of an existing page, in its order.

    With them an audit derives the page without a dataset. The images of the run folder itself are
    read again.
    """

    def __init__(self, page: str) -> None:
        super().__init__(lambda path: None)
        self._shots = [
            PageImage(source, int(width), int(height), html.unescape(path))
            for source, width, height, path in SHOT.findall(page)
        ]

    def test_image(self, path: str) -> PageImage | None:
        """The next image of the page, if it has this path; images are requested in page order."""
        if not self._shots or self._shots[0].path != plain(path):
            return None
        shot = self._shots.pop(0)
        self.left -= len(shot.source)
        return shot
