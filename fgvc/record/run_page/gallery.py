"""Test images of a run -> the classes and errors to show on its page, as small JPEGs inside it.

A shown image has the columns of predictions.parquet in COLUMNS; for an unreadable image pred is
UNREADABLE and confidence None. An example is such an image with its thumbnail on the page. All
thumbnails together have a budget of bytes. H x W pixels, C 3 channels.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fgvc import untrusted
from fgvc.html.formats import plain
from fgvc.record.prediction_tables import read_class_rows, read_predictions

ReadImage = Callable[[str], "np.ndarray | None"]  # path -> uint8 HWC, None if it cannot be read
SIDE, QUALITY = 168, 72  # longer side of a test image in pixels; JPEG quality
OVERLAY_SIDE = 360  # longer side of an overlay in pixels
FORMATS = ("PNG", "JPEG")  # of the images that a run writes
BUDGET = 1_400_000  # bytes of all images of a page, base64 included
CONFIDENT = 12  # errors with the highest confidence
WORST, BEST = 6, 4  # classes
ERRORS, HITS = 4, 2  # images per class
COLUMNS = ["path", "split", "label", "pred", "confidence"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class PageImage:
    """An image on a page. source: a data URI."""

    source: str
    width: int
    height: int
    path: str


SHOT = re.compile(
    r'<figure class="shot"(?: id="[a-z0-9-]+")?>\n'
    r'<img src="(data:image/jpeg;base64,[A-Za-z0-9+/=]+)" '
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

    def overlay(self, file: Path, title_px: int = 0) -> PageImage | None:
        """An overlay of the run folder without its title, larger than a test image."""
        with Image.open(untrusted.require_regular(file), formats=FORMATS) as image:
            # a forger's crop could be huge
            top = title_px if 0 <= title_px < image.height else 0
            untitled = image.crop((0, top, *image.size)).convert("RGB")
            return self._shrink(untitled, file.name, OVERLAY_SIDE)

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
        self._shots = recorded_shots(page)

    def test_image(self, path: str) -> PageImage | None:
        """The next image of the page, if it has this path; images are requested in page order."""
        if not self._shots or self._shots[0].path != plain(path):
            return None
        shot = self._shots.pop(0)
        self.left -= len(shot.source)
        return shot


def recorded_shots(page: str) -> list[PageImage]:
    """The test images of an existing page, in its order."""
    return [
        PageImage(source, int(width), int(height), html.unescape(path))
        for source, width, height, path in SHOT.findall(page)
    ]


def gallery(folder: Path, images: Sequence[Row], album: Album) -> dict[str, list[Any]]:
    """The classes and test images that a page shows.

    Args:
        images: of `read_test_images`.

    Returns:
        worst, best: the classes of lowest and highest recall (index, recall, support; of equal
        recalls the larger class first), with examples; surest: examples of the most confident
        errors.
    """
    rows = read_class_rows(folder / "per_class.csv")
    # of equal recalls, that of more images says more
    worst = sorted(rows, key=lambda row: (row["recall"], -row["support"], row["index"]))[:WORST]
    worst = [row for row in worst if row["recall"] < 1]
    best = sorted(rows, key=lambda row: (-row["recall"], -row["support"], row["index"]))[:BEST]
    best = [row for row in best if row not in worst]
    errors = [image for image in images if image["pred"] != image["label"]]
    hits = [image for image in images if image["pred"] == image["label"]]

    def with_examples(row: Row, images: Iterable[Row], count: int) -> Row:
        of_class = [image for image in images if image["label"] == row["index"]]
        return {**row, "examples": _examples(of_class[:count], album)}

    return {
        "worst": [with_examples(row, errors, ERRORS) for row in worst],
        "best": [with_examples(row, hits, HITS) for row in best],
        "surest": _examples(errors[:CONFIDENT], album),
    }


def _examples(images: Iterable[Row], album: Album) -> list[tuple[Row, PageImage]]:
    """The images with their thumbnails, without those that cannot be read or exceed the budget."""
    pairs = ((image, album.test_image(image["path"])) for image in images)
    return [(image, page_image) for image, page_image in pairs if page_image is not None]


def read_test_images(file: Path) -> list[Row]:
    """The test images, by descending confidence; unreadable images come last."""
    # Python values: Arrow's own filter and its conversion to NumPy import pandas
    rows = read_predictions(file, COLUMNS).to_pylist()
    images = [row for row in rows if row["split"] == "test"]
    return sorted(images, key=lambda image: (-(image["confidence"] or 0.0), image["path"]))
