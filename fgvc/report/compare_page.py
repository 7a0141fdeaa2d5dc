"""The result of `compare_runs` -> a page: the difference, pictures, classes, configs.

The numbers of the page are those of the JSON file. Long lists end with a count; the JSON holds all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fgvc.html.formats import plain, relative_link
from fgvc.html.render import render
from fgvc.record.run_page import FILE
from fgvc.record.run_page.gallery import BUDGET, Album, PageImage, ReadImage, recorded_shots
from fgvc.report.compare import difference_tests, verdicts_differ
from fgvc.report.pairwise_tests import TESTS, WORDS

PICTURES = 24  # of each direction
LISTED = 200  # changed images, listed by path
CLASSES = 100  # that changed most
Comparison = Mapping[str, Any]


class PairAlbum(Album):
    """Test images of two runs: from the dataset, or from the runs' own pages."""

    def __init__(self, read_image: ReadImage | None, pages: Sequence[str]) -> None:
        super().__init__(read_image or (lambda path: None), BUDGET)
        self.has_dataset = read_image is not None
        self._recorded = {shot.path: shot for page in pages for shot in recorded_shots(page)}

    def test_image(self, path: str) -> PageImage | None:
        shot = super().test_image(path)
        if shot is None and (shot := self._recorded.get(plain(path))) is not None:
            if len(shot.source) > self.left:
                return None
            self.left -= len(shot.source)
        return shot


def render_comparison(
    result: Comparison,
    folders: Sequence[Path],
    names: Mapping[str, str],
    album: PairAlbum,
    to: Path,
) -> str:
    """Render the page.

    Args:
        result: of `compare_runs`.
        folders: run and against.
        names: class name -> the name that people read.
        album: the test images.
        to: the folder that the page will be written to.
    """
    pages = [folder.resolve() / FILE for folder in folders]
    sides = [
        {
            **result[side],
            "side": side,
            "link": relative_link(page if page.is_file() else page.parent, to.resolve()),
        }
        for side, page in zip(("run", "against"), pages, strict=True)
    ]
    order = {row["name"]: place for place, row in enumerate(result["classes"])}
    changed = [row for row in result["classes"] if row["difference"]]
    facts = {
        "result": result,
        "sides": sides,
        "tests": difference_tests(result),
        "contradiction": verdicts_differ(result),
        "images": [
            _images(result[key], order, album) for key in ("wrong_to_right", "right_to_wrong")
        ],
        "classes": changed[:CLASSES],
        "changed": len(changed),
        "listed": LISTED,
        "shown": names,
        "has_dataset": album.has_dataset,
        "test_names": TESTS,
        "words": WORDS,
    }
    return render("compare.html", facts)


def _images(
    images: Sequence[Comparison], order: Mapping[str, int], album: PairAlbum
) -> dict[str, Any]:
    """The changed images, those of the classes that changed most first, some with pictures."""
    images = sorted(images, key=lambda image: (order[image["class"]], image["path"]))
    # without a dataset, a picture may be anywhere on the pages of the runs
    tried = images[: 2 * PICTURES] if album.has_dataset else images
    with_pictures = ((image, album.test_image(image["path"])) for image in tried)
    shots = islice(((image, shot) for image, shot in with_pictures if shot), PICTURES)
    return {"all": images, "shots": list(shots)}
