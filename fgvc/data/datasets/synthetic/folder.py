"""Generator settings -> a folder in the layout of CUB-200-2011, complete or absent.

Every image has its own random stream, (seed, class, split, index), so the bytes do not depend on
the number of processes or their order.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fgvc import untrusted
from fgvc.config.schema import Generator
from fgvc.data.cub_files import INDEX_FILES
from fgvc.data.datasets.synthetic.bird import PARTS
from fgvc.data.datasets.synthetic.scene import Drawing, draw_scene
from fgvc.data.datasets.synthetic.species import Code, Species, species
from fgvc.parallel import signals
from fgvc.store import temporary_files
from fgvc.store.atomic import json_bytes, new_folder
from fgvc.store.disk_errors import write_bytes
from fgvc.store.file_lock import lock
from fgvc.store.hashing import sha256_bytes, sha256_json
from fgvc.types import TEST, TRAIN, Progress, UserError
from fgvc.untrusted import MIB

VERSION = 1  # raise it whenever the same settings give other bytes
JPEG_QUALITY = 92
MIN_POOL_IMAGES = 240  # fewer are drawn faster than a second process starts
SETTINGS_FILE = "generator.json"
MAX_PIXELS = 20_000_000_000  # of a dataset: a few gigabytes of JPEG, an hour of drawing
MAX_FILE_BYTES = 1024 * MIB  # bytes of an index file

LICENSE = """\
CC0 1.0 Universal (SPDX: CC0-1.0)

These pictures and their index files were drawn by the program fgvc. Whoever caused them to be drawn
waives all rights in them worldwide, as far as the law allows: copy, change and share them for any
purpose without asking. They come without any warranty.
Full text: https://creativecommons.org/publicdomain/zero/1.0/legalcode
"""

APPROVAL = """\
# Approval

- What: synthetic birds of invented species, drawn by fgvc's generator, version {version}.
- Whose: no person is shown, and no photograph, drawing or other work of anyone else went into them.
- Licence: CC0-1.0, see LICENSE.
- Approved by the project for tests, demonstrations and smoke runs. A number measured on them says
  nothing about real birds.
- Filtering: none. Settings and digest: {settings}.
"""
# names in the folder
DRAWN_NAMES = (
    *(*INDEX_FILES, "bounding_boxes.txt", "parts"),
    *("images", "LICENSE", "APPROVAL.md", SETTINGS_FILE),
)


@dataclass(frozen=True)
class DrawingJob:
    """An image to draw: its path and everything that determines its bytes."""

    path: Path
    code: Code
    stream: tuple[int, int, int, int]  # seed, class, split, index
    side: int


# box, parts, and SHA256 of the file
Row = tuple[tuple[int, ...], dict[str, tuple[float, float, bool]], str]


def write(
    root: Path,
    generator: Generator,
    progress: Progress | None = None,
    notify: Callable[[str], None] = warnings.warn,
    redraw: bool = False,
) -> Path:
    """Draw the dataset into `root`, unless it is there already; returns `root`.

    Args:
        root: the folder to create, with its parents.
        generator: number of classes and images, size, seed.
        progress: advanced by one per image.
        notify: called with one line if a damaged dataset is drawn again.
        redraw: the caller knows that an image is damaged.

    Raises:
        UserError: root holds other files, or the settings cannot be drawn.
        OSError: the disk fails.
    """
    settings = _check_settings(generator)
    if not redraw and _find_damage(root, settings) is None:
        return root
    with lock(root.with_name(f".{root.name}.lock"), wait=True):
        temporary_files.remove_stale(root.parent)
        damage = "an image is not as it was drawn" if redraw else _find_damage(root, settings)
        if damage is None:
            return root
        if damage:
            _require_synthetic(root)
            notify(f"{root}: damaged synthetic birds ({damage}): drawn again")
        with new_folder(root, replace=bool(damage)) as folder:
            _draw_dataset(folder, generator, settings, progress)
    return root


def image_digests(root: Path) -> dict[str, str]:
    """{path: SHA256} of the images as drawn, for a dataset that `write` has verified."""
    return json.loads(untrusted.read_bytes(root / SETTINGS_FILE, MAX_FILE_BYTES))["pictures"]


def draw_file(job: DrawingJob) -> Row:
    """Draw an image, save it, and return its box, part locations and SHA256."""
    drawing = render(job.code, job.stream, job.side)
    data = io.BytesIO()
    drawing.image.save(data, "JPEG", quality=JPEG_QUALITY)
    write_bytes(job.path, data.getvalue())
    return drawing.box, drawing.parts, sha256_bytes(data.getvalue())


def render(code: Code, stream: tuple[int, int, int, int], side: int) -> Drawing:
    """Draw the image of a random stream: (seed, class, split, index)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
    return draw_scene(code, rng, side)


def _check_settings(generator: Generator) -> dict[str, int]:
    values = asdict(generator)
    if values["version"] != VERSION:
        raise UserError(
            f"dataset.generator.version={values['version']}: this program draws version {VERSION}; "
            f"set dataset.generator.version={VERSION}"
        )
    count = generator.classes * (generator.train_per_class + generator.test_per_class)
    if (pixels := count * generator.side**2) > MAX_PIXELS:  # a checkpoint may name it
        raise UserError(
            f"dataset.generator: {count} images of {generator.side} pixels a side are {pixels} "
            f"pixels, more than {MAX_PIXELS}; draw fewer or smaller ones"
        )
    if values["seed"] < 0:
        raise UserError(f"dataset.generator.seed={values['seed']}: set it to 0 or more")
    return values


def _find_damage(root: Path, settings: dict[str, int]) -> str | None:
    """None if root holds exactly this dataset, "" if it is empty, otherwise the damage."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return ""
    try:
        stamp = json.loads(untrusted.read_bytes(root / SETTINGS_FILE, MAX_FILE_BYTES))
        names = stamp["files"]
        index_files = {name: untrusted.read_bytes(root / name, MAX_FILE_BYTES) for name in names}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        _require_synthetic(root)
        return " ".join(str(error).split())
    whole = isinstance(stamp, dict) and stamp.get("sha256") == _checksum(stamp)
    if whole and stamp == _stamp(settings, index_files, stamp.get("pictures", {})):
        return None
    _require_synthetic(root, other_settings=whole and stamp.get("settings") != settings)
    return "an index file is not as it was drawn" if whole else f"{SETTINGS_FILE} is damaged"


def _require_synthetic(root: Path, other_settings: bool = False) -> None:
    """Raise unless the folder only holds files of this generator, by licence and file names."""
    try:
        licence = untrusted.read_bytes(root / "LICENSE", MIB)
        names = {path.name for path in root.iterdir()}
    except OSError:
        licence, names = b"", set()
    if other_settings or licence != LICENSE.encode() or not names <= set(DRAWN_NAMES):
        raise UserError(
            f"dataset.root={root}: holds something other than the requested synthetic birds; "
            "choose another dataset.root=... or move that folder away"
        ) from None


def _stamp(
    settings: dict[str, int], files: dict[str, bytes], images: dict[str, str]
) -> dict[str, object]:
    """Content of generator.json: the settings, and digests of index files, images and itself."""
    digests = {name: sha256_bytes(files[name]) for name in sorted(files)}
    stamp: dict[str, object] = {"settings": settings, "files": digests, "pictures": images}
    return {**stamp, "sha256": _checksum(stamp)}


def _checksum(stamp: Mapping[str, object]) -> str:
    content = {name: value for name, value in stamp.items() if name != "sha256"}
    return sha256_json(content)


def _draw_dataset(
    folder: Path, generator: Generator, settings: dict[str, int], progress: Progress | None
) -> None:
    all_species = species(generator.classes, generator.seed)
    jobs = _jobs(folder / "images", all_species, generator)
    for parent in {job.path.parent for job in jobs}:
        parent.mkdir(parents=True)
    rows = []
    for row in _draw_all(jobs):
        rows.append(row)
        if progress is not None:
            progress(1)
    files = {name: text.encode() for name, text in _index_texts(all_species, jobs, rows).items()}
    paths = (job.path.relative_to(folder).as_posix() for job in jobs)
    digests = dict(zip(paths, (sha256 for _, _, sha256 in rows), strict=True))
    (folder / "parts").mkdir()
    approval = APPROVAL.format(version=VERSION, settings=SETTINGS_FILE)
    stamp = json_bytes(_stamp(settings, files, digests))
    files |= {"LICENSE": LICENSE.encode(), "APPROVAL.md": approval.encode(), SETTINGS_FILE: stamp}
    for name, data in files.items():
        write_bytes(folder / name, data)


def _jobs(images: Path, all_species: tuple[Species, ...], generator: Generator) -> list[DrawingJob]:
    """All images in the order of the index: by class, training images first."""
    counts = {TRAIN: generator.train_per_class, TEST: generator.test_per_class}
    jobs = []
    for label, kind in enumerate(all_species):
        name = kind.name.replace(" ", "_")
        streams = [(label, split, row) for split, n in counts.items() for row in range(n)]
        for number, stream in enumerate(streams, start=1):
            path = images / _class_folder(label, kind) / f"{name}_{number:04d}.jpg"
            jobs.append(DrawingJob(path, kind.code, (generator.seed, *stream), generator.side))
    return jobs


def _draw_all(jobs: list[DrawingJob]) -> Iterator[Row]:
    """Yield the rows of all jobs, in their order."""
    workers = min(os.cpu_count() or 1, len(jobs) // (MIN_POOL_IMAGES // 2))
    if workers < 2:
        yield from map(draw_file, jobs)
        return
    # spawn, because a fork beside torch's threads can hang
    with ProcessPoolExecutor(workers, get_context("spawn"), signals.ignore) as pool:
        with signals.blocked(tracked=True):
            rows = pool.map(draw_file, jobs, chunksize=8)  # starts the processes
        yield from rows


def _index_texts(
    all_species: tuple[Species, ...], jobs: list[DrawingJob], rows: list[Row]
) -> dict[str, str]:
    """{file name: text} in the format of CUB-200-2011: ids from 1, split 1 is training."""
    images = [f"{job.path.parent.name}/{job.path.name}" for job in jobs]
    return {
        "images.txt": _number_lines(images),
        "image_class_labels.txt": _number_lines(job.stream[1] + 1 for job in jobs),
        "train_test_split.txt": _number_lines(int(job.stream[2] == TRAIN) for job in jobs),
        "classes.txt": _number_lines(
            _class_folder(label, kind) for label, kind in enumerate(all_species)
        ),
        "bounding_boxes.txt": _number_lines(" ".join(map(str, box)) for box, _, _ in rows),
        "parts/parts.txt": _number_lines(PARTS),
        "parts/part_locs.txt": "".join(
            f"{image} {part} {x} {y} {int(visible)}\n"
            for image, (_, parts, _) in enumerate(rows, start=1)
            for part, (x, y, visible) in enumerate((parts[name] for name in PARTS), start=1)
        ),
    }


def _class_folder(label: int, kind: Species) -> str:
    return f"{label + 1:03d}.{kind.name.replace(' ', '_')}"


def _number_lines(values: Iterable[object]) -> str:
    return "".join(f"{number} {value}\n" for number, value in enumerate(values, start=1))
