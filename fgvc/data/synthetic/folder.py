"""Generator settings -> a folder in the layout of CUB-200-2011: whole or absent, the same bytes.

Every picture has a random stream of its own, (seed, class, split, index), so the number of
processes and their order leave no trace.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fgvc import untrusted
from fgvc.config.schema import Generator
from fgvc.data.synthetic.bird import PARTS
from fgvc.data.synthetic.scene import Picture, picture
from fgvc.data.synthetic.species import Code, Species, species
from fgvc.store.atomic import json_bytes, sync_folder
from fgvc.store.digest import sha256_bytes
from fgvc.store.lock import lock
from fgvc.types import TEST, TRAIN, Progress, UserError

VERSION = 1  # of the drawing: moves whenever the same settings give other bytes
QUALITY = 92
POOL_FROM = 240  # pictures; fewer are drawn sooner than a second process has started
SETTINGS = "generator.json"

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


@dataclass(frozen=True)
class Job:
    """One picture to draw: where it goes and all that decides its bytes."""

    path: Path
    code: Code
    stream: tuple[int, int, int, int]  # seed, class, split, index
    side: int

    @property
    def split(self) -> int:
        return self.stream[2]


Row = tuple[tuple[int, ...], dict[str, tuple[float, float, bool]]]  # box, parts


def write(root: Path, generator: Generator, progress: Progress | None = None) -> Path:
    """Draw the dataset into `root`, or find it there.

    Args:
        root: the folder to make; its parents are made where missing.
        generator: how many classes and pictures, how large, which seed.
        progress: advanced by one a picture.

    Returns:
        root.

    Raises:
        UserError: root holds something else, or no such generator version or seed exists.
        OSError: the disk refuses.
    """
    root, settings = Path(root), _settings(generator)
    if _complete(root, settings):
        return root
    with lock(root.with_name(f".{root.name}.lock"), wait=True):
        if not _complete(root, settings):
            with _whole_folder(root) as folder:
                _fill(folder, generator, settings, progress or _silent)
    return root


def draw(job: Job) -> Row:
    """Draw one picture, save it, and return its box and part locations."""
    drawn = render(job.code, job.stream, job.side)
    drawn.image.save(job.path, "JPEG", quality=QUALITY)
    return drawn.box, drawn.parts


def render(code: Code, stream: tuple[int, int, int, int], side: int) -> Picture:
    """The picture of a random stream: (seed, class, split, index)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
    return picture(code, rng, side)


def _settings(generator: Generator) -> dict[str, int]:
    values = {each.name: getattr(generator, each.name) for each in fields(Generator)}
    if values["version"] != VERSION:
        raise UserError(
            f"dataset.generator.version={values['version']}: this program draws version {VERSION}; "
            f"set dataset.generator.version={VERSION}"
        )
    if values["seed"] < 0:
        raise UserError(
            f"dataset.generator.seed={values['seed']}: must be 0 or more; choose another"
        )
    return values


def _complete(root: Path, settings: dict[str, int]) -> bool:
    """Whether root holds this very dataset; False where nothing is there yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = untrusted.read_json(root / SETTINGS)
        same = found == _stamp(
            settings,
            {name: untrusted.read_bytes(root / name, untrusted.PICTURE) for name in found["files"]},
        )
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise UserError(
            f"dataset.root={root}: holds other things than the synthetic birds asked for; "
            "choose another dataset.root=... or move that folder away"
        )
    return True


def _stamp(settings: dict[str, int], files: dict[str, bytes]) -> dict[str, object]:
    """What generator.json says: the settings, and a digest of every index file."""
    return {
        "settings": settings,
        "files": {name: sha256_bytes(files[name]) for name in sorted(files)},
    }


@contextmanager
def _whole_folder(root: Path) -> Iterator[Path]:
    """A folder beside root that takes its name when the block ends well; needs root's lock."""
    folder = root.with_name(f".{root.name}.unfinished")
    # whoever left it is dead: the living hold the lock
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
        folder.replace(root)
        sync_folder(root.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fill(folder: Path, generator: Generator, settings: dict[str, int], progress: Progress) -> None:
    kinds = species(generator.classes, generator.seed)
    jobs = _jobs(folder / "images", kinds, generator)
    for parent in {job.path.parent for job in jobs}:
        parent.mkdir(parents=True)
    rows = []
    for row in _drawn(jobs):
        rows.append(row)
        progress(1)
    files = {name: text.encode() for name, text in _index(kinds, jobs, rows).items()}
    (folder / "parts").mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (folder / "LICENSE").write_text(LICENSE)
    (folder / "APPROVAL.md").write_text(APPROVAL.format(version=VERSION, settings=SETTINGS))
    (folder / SETTINGS).write_bytes(json_bytes(_stamp(settings, files)))


def _jobs(images: Path, kinds: tuple[Species, ...], generator: Generator) -> list[Job]:
    """In the order of the index: by class, training pictures first."""
    counts = {TRAIN: generator.train_per_class, TEST: generator.test_per_class}
    jobs = []
    for label, kind in enumerate(kinds):
        name = kind.name.replace(" ", "_")
        streams = [(label, split, row) for split, n in counts.items() for row in range(n)]
        for number, stream in enumerate(streams, start=1):
            path = images / _folder(label, kind) / f"{name}_{number:04d}.jpg"
            jobs.append(Job(path, kind.code, (generator.seed, *stream), generator.side))
    return jobs


def _drawn(jobs: list[Job]) -> Iterator[Row]:
    """The rows of all jobs, in their order."""
    workers = min(os.cpu_count() or 1, len(jobs) // (POOL_FROM // 2))
    if workers < 2:
        yield from map(draw, jobs)
        return
    # spawned, as a fork beside torch's threads can hang
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(draw, jobs, chunksize=8)


def _index(kinds: tuple[Species, ...], jobs: list[Job], rows: list[Row]) -> dict[str, str]:
    """File name -> text, in the words of CUB-200-2011: ids count from 1, split 1 is training."""
    images = [f"{job.path.parent.name}/{job.path.name}" for job in jobs]
    return {
        "images.txt": _numbered(images),
        "image_class_labels.txt": _numbered(job.stream[1] + 1 for job in jobs),
        "train_test_split.txt": _numbered(int(job.split == TRAIN) for job in jobs),
        "classes.txt": _numbered(_folder(label, kind) for label, kind in enumerate(kinds)),
        "bounding_boxes.txt": _numbered(" ".join(map(str, box)) for box, _ in rows),
        "parts/parts.txt": _numbered(PARTS),
        "parts/part_locs.txt": "".join(
            f"{image} {part} {x} {y} {int(visible)}\n"
            for image, (_, parts) in enumerate(rows, start=1)
            for part, (x, y, visible) in enumerate((parts[name] for name in PARTS), start=1)
        ),
    }


def _folder(label: int, kind: Species) -> str:
    return f"{label + 1:03d}.{kind.name.replace(' ', '_')}"


def _numbered(values: Iterable[object]) -> str:
    return "".join(f"{number} {value}\n" for number, value in enumerate(values, start=1))


def _silent(n: int, note: str = "") -> None:
    """Progress for nobody."""
