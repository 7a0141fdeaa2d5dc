"""Test images of a run -> small JPEGs inside its page, no more bytes of them than agreed.

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
from fgvc.record.page.render import plain

ReadImage = Callable[[str], "np.ndarray | None"]  # path -> uint8 HWC, None where it cannot be read
SIDE, QUALITY = 168, 72  # pixels of the longer side; JPEG
OWN = ("PNG", "JPEG")  # formats of the pictures that a run writes
WIDE = 360  # the same of an overlay
BUDGET = 1_400_000  # bytes of all pictures of a page, as the page holds them


@dataclass(frozen=True)
class PageImage:
    """A picture as a page shows it. source: a data URI."""

    source: str
    width: int
    height: int
    path: str


SHOT = re.compile(
    r'<figure class="shot">\n<img src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)" '
    r'width="(\d{1,4})" height="(\d{1,4})" alt="[^"]*" title="([^"]*)">'
)


class Album:
    """The pictures of one page: what is asked for first is sure to be in."""

    def __init__(self, picture: ReadImage, budget: int = BUDGET) -> None:
        self._picture, self.left = picture, budget

    def test_image(self, path: str) -> PageImage | None:
        """None where it cannot be read, or the page is full."""
        pixels_HWC = self._picture(path)
        return None if pixels_HWC is None else self._small(Image.fromarray(pixels_HWC), path, SIDE)

    def overlay(self, file: Path) -> PageImage | None:
        """A picture that lies in the run folder, larger."""
        with Image.open(untrusted.require_regular(file), formats=OWN) as image:
            return self._small(image.convert("RGB"), file.name, WIDE)

    def whole(self, file: Path) -> PageImage | None:
        """A PNG as it is."""
        with Image.open(untrusted.require_regular(file), formats=OWN) as image:
            return self._kept(
                untrusted.read_bytes(file, untrusted.PICTURE), "png", image.size, file.name
            )

    def _small(self, image: Image.Image, path: str, side: int) -> PageImage | None:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        out = io.BytesIO()
        image.save(out, "JPEG", quality=QUALITY, optimize=True)
        return self._kept(out.getvalue(), "jpeg", image.size, path)

    def _kept(self, data: bytes, kind: str, size: tuple[int, int], path: str) -> PageImage | None:
        source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        if len(source) > self.left:
            return None
        self.left -= len(source)
        return PageImage(source, *size, plain(path))


class RecordedAlbum(Album):
    """The photographs that a page shows, in its order: to derive the rest of it without a dataset.

    Pictures of the run folder itself are read again.
    """

    def __init__(self, page: str) -> None:
        super().__init__(lambda path: None)
        self._shots = [
            PageImage(source, int(width), int(height), html.unescape(path))
            for source, width, height, path in SHOT.findall(page)
        ]

    def test_image(self, path: str) -> PageImage | None:
        """The next photograph, if it has this path: the page requests them in its own order."""
        if not self._shots or self._shots[0].path != plain(path):
            return None
        shot = self._shots.pop(0)
        self.left -= len(shot.source)
        return shot
