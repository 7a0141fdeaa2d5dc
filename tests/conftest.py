"""Fixtures: small copies of the published datasets in their original file formats, child processes
that tests may kill, and a browser.

Each copy has three classes that differ in brightness, with four train and two test images each.
"""

from __future__ import annotations

import csv
import functools
import gc
import io
import json
import os
import shutil
import signal
import tempfile
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.io import savemat

from fgvc.run import GC_THRESHOLD

pytest_plugins = ["tests.jobs"]

# a shell ignores SIGINT in a job that it starts in the background; the processes that tests start
# would inherit that, and no test could interrupt them
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


SELECTING = {"slow", "real", "smoke", "fault"}  # marks for -m


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `-m "slow or real"`, ignore modules whose text names no such mark: importing all of them
    takes as long as a slow test.
    """
    marks = _only_marks(config)
    if collection_path.suffix != ".py" or not marks:
        return None
    return None if any(_names_mark(collection_path, mark) for mark in marks) else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse a mark from another module, which the function above would not find. Of slow tests,
    run those of `task/` first: they take longest, and no worker should wait for them at the end.
    """
    for item in items:
        for mark in {mark.name for mark in item.iter_markers()} & SELECTING:
            if not _names_mark(item.path, mark):
                raise pytest.UsageError(f"{item.path}: must name pytest.mark.{mark} itself")
    if _only_marks(config):
        items.sort(key=lambda item: item.path, reverse=True)  # equal paths keep their order


def _only_marks(config: pytest.Config) -> list[str]:
    """The marks of `-m`, if a test needs one of them; otherwise none."""
    marks = config.option.markexpr.split(" or ")
    return marks if SELECTING.issuperset(marks) else []


def _names_mark(path: Path, name: str) -> bool:
    return f"pytest.mark.{name}" in _text(path)


@functools.cache
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from visiting all modules of all libraries again and again."""
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Free the memory of the folders of a session that passed, if they lie in memory."""
    folder = Path(tempfile.gettempdir())
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if exitstatus == 0 and folder == Path("/dev/shm") and not is_worker:
        factory: pytest.TempPathFactory = session.config._tmp_path_factory  # type: ignore[attr-defined]
        shutil.rmtree(factory.getbasetemp())


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries print what is never collected


CLASSES, TRAIN, TEST = 3, 4, 2
WIDTH, HEIGHT = 60, 45
CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "smart fortwo 2012")
DOGS = ("n02085620-Chihuahua", "n02085936-Maltese_dog", "n02113799-standard_poodle")
SPECIES = ("Abies alba", "Zosterops lateralis", "Aglais io")
BRANCHES = ("Plantae", "Aves", "Insecta")
LABELS = ("Möwe = große, weiße", "Ram C/V $2", "鳥 (juvenile) $1")
Rows = list[tuple[int, bool]]  # label, whether it is a train image


def rows() -> Rows:
    """Every image once, with interleaved classes, so that the order does not reveal the label."""
    pairs = [(label, number < TRAIN) for number in range(TRAIN + TEST) for label in range(CLASSES)]
    return sorted(pairs, key=lambda pair: not pair[1])


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """`jpeg(seed, size=(48, 36), **save)` -> bytes of a smooth random image."""

    def make(
        seed: int, size: tuple[int, int] = (48, 36), mode: str = "RGB", **save: object
    ) -> bytes:
        noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode)
        out = io.BytesIO()
        image.save(out, **{"format": "JPEG", "quality": 90, **save})
        return out.getvalue()

    return make


@pytest.fixture(scope="session")
def small_probe() -> tuple[str, ...]:
    """Overrides of the smallest probe: kNN on a random model and twelve synthetic birds."""
    return (
        "backbone=vit",
        "backbone.size=mini",
        "backbone.pretrained=false",
        "head=knn",
        "head.k=1",
        "runtime.num_workers=0",
        "dataset.generator.classes=2",
        "dataset.generator.train_per_class=4",
        "dataset.generator.test_per_class=2",
        "dataset.generator.side=64",
    )


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    """Writes dataset copies below a folder whose name has a space, `=` and an umlaut."""
    return Copies(tmp_path / "größe = 3")


class Copies:
    """Each method writes one dataset in one layout and returns its dataset root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def cars(self, layout: str = "devkit", labels: str | None = "devkit", nested: str = "") -> Path:
        """layout: "whole" or "devkit"; labels: folder of the test labels, or None.

        nested: prefix of each image folder; "{}" stands for the name of that folder ("{}/").
        """
        if layout == "whole":
            return self._cars_whole(nested)
        mat_of = {True: [], False: []}
        for label, train in rows():
            name = f"{len(mat_of[train]) + 1:05d}.jpg"
            folder = "cars_train" if train else "cars_test"
            self.image(f"{nested.format(folder)}{folder}/{name}", label)
            mat_of[train].append((*_corners(), np.uint8(label + 1), name))
        self.mat("devkit/cars_meta.mat", class_names=cell(CARS, row=True))
        fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        self.mat("devkit/cars_train_annos.mat", annotations=struct(fields, mat_of[True]))
        unlabelled = [(*row[:4], row[5]) for row in mat_of[False]]
        plain = struct((*fields[:4], "fname"), unlabelled)
        self.mat("devkit/cars_test_annos.mat", annotations=plain)
        if labels is not None:
            labelled = struct(fields, mat_of[False])
            self.mat(f"{labels}/cars_test_annos_withlabels.mat", annotations=labelled)
        return self.root

    def _cars_whole(self, nested: str) -> Path:
        fields = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
        table = []
        for number, (label, train) in enumerate(sorted(rows()), start=1):
            name = f"car_ims/{number:06d}.jpg"
            self.image(f"{nested.format('car_ims')}{name}", label)
            table.append((name, *_corners(), np.uint8(label + 1), np.uint8(not train)))
        names = cell(CARS, row=True)
        self.mat("cars_annos.mat", annotations=struct(fields, table), class_names=names)
        return self.root

    def dogs(self, lists: str = "lists", boxes: bool = True, nested: str = "") -> Path:
        """lists: the folder of the .mat files, "." for the root."""
        files: dict[bool, list[str]] = {True: [], False: []}
        labels: dict[bool, list[float]] = {True: [], False: []}
        for number, (label, train) in enumerate(rows()):
            name = f"{DOGS[label]}/{DOGS[label][:9]}_{number}"
            self.image(f"{nested.format('images')}Images/{name}.jpg", label)
            if boxes:
                self.text(f"{nested.format('annotation')}Annotation/{name}", ANNOTATION)
            files[train].append(f"{name}.jpg")
            labels[train].append(label + 1)
        for part, train in (("train_list", True), ("test_list", False)):
            self.mat(
                f"{lists}/{part}.mat",
                file_list=cell(files[train]),
                annotation_list=cell([name[:-4] for name in files[train]]),
                labels=np.array(labels[train], dtype=np.float64)[:, None],
            )
        return self.root

    def nabirds(self, below: str = "nabirds") -> Path:
        """Class numbers have gaps; classes.txt also names inner nodes, one like its own child."""
        tree = {0: "Birds", 22: "Perching Birds", 81: "Wood Duck", 314: "Wood Duck (Breeding male)"}
        tree |= {613: "Wood Duck (Female/Eclipse male)", 817: "Black-capped Chickadee"}
        tree |= {900: "Black-capped Chickadee"}
        parent = {81: 0, 22: 0, 314: 81, 613: 81, 900: 22, 817: 900}
        number = (314, 613, 817)
        text = {name: [] for name in ("images", "image_class_labels", "train_test_split")}
        text |= {name: [] for name in ("bounding_boxes", "sizes", "parts/part_locs")}
        for place, (label, train) in enumerate(rows()):
            image = str(uuid.UUID(int=place + (label << 96) + (1 << 120)))
            path = f"{number[label]:04d}/{image.replace('-', '')}.jpg"
            self.image(f"{below}/images/{path}", label)
            for name, value in (
                ("images", path),
                ("image_class_labels", number[label]),
                ("train_test_split", int(train)),
                ("bounding_boxes", "5 6 20 30"),
                ("sizes", f"{WIDTH} {HEIGHT}"),
                ("parts/part_locs", "0 7 8 1"),
            ):
                text[name].append(f"{image} {value}")
        text["classes"] = [f"{node} {name}" for node, name in tree.items()]
        text["hierarchy"] = [f"{child} {above}" for child, above in parent.items()]
        text["parts/parts"] = ["0 bill", "1 crown"]
        for name, lines in text.items():
            self.text(f"{below}/{name}.txt", "\n".join(lines) + "\n")
        return self.root

    def inat2017(self, below: str = ".", annotations: str = ".", boxes: bool = False) -> Path:
        """Annotations are in another order than the images; image ids do not start at 0."""
        for part, train in (("train", True), ("val", False)):
            images, marks, drawn = [], [], []
            for place, (label, is_train) in enumerate(rows()):
                if is_train != train:
                    continue
                name = f"train_val_images/{BRANCHES[label]}/{SPECIES[label]}/{place:032x}.jpg"
                self.image(f"{below}/{name}", label)
                size = {"width": WIDTH, "height": HEIGHT}
                images.append({"id": 1000 - place, "file_name": name, **size, "license": 3})
                marks.append({"id": place, "image_id": 1000 - place, "category_id": label})
                if label:
                    drawn += [{"image_id": 1000 - place, "bbox": [x, 6, 20, 30]} for x in (5, 9)]
            pairs = enumerate(zip(SPECIES, BRANCHES, strict=True))
            categories = [{"id": k, "name": n, "supercategory": b} for k, (n, b) in pairs]
            document = {"info": {"year": 2017}, "images": images, "annotations": marks[::-1]}
            document |= {"categories": categories, "licenses": [{"id": 3, "name": "[é]"}]}
            self.text(f"{annotations}/{part}2017.json", json.dumps(document))
            if boxes:
                self.text(
                    f"{annotations}/{part}_2017_bboxes.json", json.dumps({"annotations": drawn})
                )
        return self.root

    def table(self, kind: str = "csv", split: bool = True) -> Path:
        """Returns the table file; its paths are relative to its folder."""
        lines = []
        for place, (label, train) in enumerate(rows()):
            name = f"bilder/é {place}=.jpg"
            self.image(name, label)
            lines.append((name, LABELS[label], "train" if train else "test")[: 2 + split])
        file = self.root / f"birds.{kind}"
        names = ("path", "label", "split")[: 2 + split]
        if kind == "parquet":
            columns = zip(*lines, strict=True)
            pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), file)
            return file
        with file.open("w", newline="", encoding="utf-8") as out:
            csv.writer(out, delimiter="\t" if kind == "tsv" else ",").writerows([names, *lines])
        return file

    def image(self, path: str, label: int) -> None:
        """Write an image whose brightness encodes its class."""
        rng = np.random.default_rng(list(path.encode()))  # no two images are equal
        noise = rng.integers(0, 60, (HEIGHT, WIDTH, 3)) + 80 * label
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.astype(np.uint8)).save(file, "JPEG")

    def text(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def mat(self, path: str, **values: np.ndarray) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        savemat(file, values)


ANNOTATION = f"""<annotation>
  <folder>02085620</folder><filename>%s</filename>
  <size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>
  <object><name>dog</name>
    <bndbox><xmin>5</xmin><ymin>6</ymin><xmax>25</xmax><ymax>36</ymax></bndbox></object>
  <object><name>dog</name>
    <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></object>
</annotation>"""


def cell(texts: Sequence[str], row: bool = False) -> np.ndarray:
    """A MATLAB cell array of texts, as a column or a row."""
    cells = np.empty(len(texts), dtype=object)
    cells[:] = texts
    return cells[None, :] if row else cells[:, None]


def struct(fields: Sequence[str], table: Sequence[Sequence[object]]) -> np.ndarray:
    """A 1 x N MATLAB struct array; numbers are 1 x 1 arrays of their type."""
    array = np.empty((1, len(table)), dtype=[(name, object) for name in fields])
    for place, row in enumerate(table):
        array[0, place] = tuple(v if isinstance(v, str) else np.array([[v]]) for v in row)
    return array


def _corners() -> tuple[np.uint8, np.uint8, np.uint16, np.uint8]:
    return np.uint8(5), np.uint8(6), np.uint16(25), np.uint8(36)


# --- child processes; twenty forks cost less than one start of Python ---


@pytest.fixture
def forked() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Run a function in a forked child -> its pid. Remaining children are killed at teardown."""
    pids: list[int] = []

    def start(work: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        pids.append(pid)
        return pid

    yield start
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def ended() -> Callable[[int], int]:
    """Wait for a child -> its exit code; negative if a signal ended it."""
    return lambda pid: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# --- a browser for the HTML pages ---

CHROMIUM = Path("/usr/bin/chromium")
PICTURES = "FGVC_PICTURES"  # a folder for pictures of the pages that the tests open


@dataclass
class Opened:
    """A page in a browser. console: messages of its console. requests: URLs that it requested."""

    page: Any
    console: list[str]
    requests: list[str]

    def picture(self, name: str) -> None:
        """Save the whole page as $FGVC_PICTURES/NAME.png, for people to look at."""
        if folder := os.environ.get(PICTURES):
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)

    def colours(self) -> tuple[int, int]:
        """Brightness of background and text, 0..255."""
        script = "name => getComputedStyle(document.body)[name].match(/\\d+/g).slice(0, 3)"
        paper, ink = (self.page.evaluate(script, name) for name in ("backgroundColor", "color"))
        return sum(map(int, paper)) // 3, sum(map(int, ink)) // 3

    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        script = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return self.page.evaluate(script)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Callable[..., Opened]]:
    """opened(file, scheme="light", width=1280) -> the file in a browser window; 390: a phone."""
    pages = []

    def start(file: Path, scheme: str = "light", width: int = 1280) -> Opened:
        page = chromium.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        pages.append(page)
        browser_page = Opened(page, [], [])
        page.on("console", lambda message: browser_page.console.append(message.text))
        page.on("pageerror", lambda error: browser_page.console.append(str(error)))
        page.on("request", lambda request: browser_page.requests.append(request.url))
        page.goto(file.as_uri())
        return browser_page

    yield start
    for page in pages:
        page.close()
