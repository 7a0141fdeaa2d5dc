"""The result of `compare_runs` -> a page: the difference, pictures, classes, configs.

The numbers of the page are those of the JSON file. Long lists end with a count; the JSON holds all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fgvc.html.class_groups import top_groups
from fgvc.html.class_lists import ClassLists, ClassRow, class_lists
from fgvc.html.formats import percent, plain, points, relative_link
from fgvc.html.render import render
from fgvc.record.prediction_tables import read_hierarchy
from fgvc.record.run_dir import read_json
from fgvc.record.run_page import FILE
from fgvc.record.run_page.gallery import BUDGET, Album, PageImage, ReadImage, recorded_shots
from fgvc.report.compare import difference_tests, verdicts_differ
from fgvc.report.pairwise_tests import TESTS, WORDS

PICTURES = 24  # of each direction
LISTED = 200  # changed images, listed by path
CLASSES = 100  # that changed most; if more changed, lists hold all
CLASS_HEADINGS = ("class", "run − against, points", "run, %", "against, %", "images")
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
        "by_class": _class_lists(result["classes"], names, folders[0])
        if len(changed) > CLASSES
        else None,
        "listed": LISTED,
        "shown": names,
        "has_dataset": album.has_dataset,
        "test_names": TESTS,
        "words": WORDS,
    }
    return render("compare.html", facts)


def _class_lists(
    classes: Sequence[Comparison], names: Mapping[str, str], folder: Path
) -> ClassLists:
    """The classes with images, by the super-categories of a run.

    First those of the most images in difference: among thousands of classes, those of a single
    image change most.
    """
    labelmap = read_json(folder, "labelmap.json")
    groups, group_of = top_groups(read_hierarchy(labelmap)), {}
    if groups is not None:
        group_of = {row["id"]: groups.name_of(k) for k, row in enumerate(labelmap["classes"])}
    rows = []
    for row in classes:
        run, against, images = row["run"], row["against"], row["images"]
        counts = (round(run * images), round(against * images), images, int(run != against))
        shares = (percent(run), percent(against), str(images))
        cells = (names[row["name"]], points(row["difference"]), *shares)
        rows.append(ClassRow(group_of.get(row["id"], ""), counts, cells))
    rows.sort(key=lambda row: -abs(row.counts[0] - row.counts[1]))
    return class_lists(CLASS_HEADINGS, rows, _summarize)


def _summarize(rows: Sequence[ClassRow]) -> tuple[float, str]:
    run, against, images, changed = (
        sum(column) for column in zip(*(row.counts for row in rows), strict=True)
    )
    difference = (run - against) / images
    text = f"{points(difference)} points on {images:,} images"
    return -abs(difference), f"{text}; {changed:,} of {len(rows):,} classes changed"


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
