"""Generator settings -> a folder in the layout of CUB-200-2011: whole or absent, the same bytes.

Every picture has a random stream of its own, (seed, class, split, index), so the number of
processes and their order leave no trace.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from fgvc import untrusted
from fgvc.config.schema import Generator
from fgvc.data.datasets.synthetic.bird import PARTS
from fgvc.data.datasets.synthetic.scene import Drawing, draw_scene
from fgvc.data.datasets.synthetic.species import Code, Species, species
from fgvc.parallel import signals
from fgvc.store import temporary_files
from fgvc.store.atomic import json_bytes, new_folder
from fgvc.store.disk_errors import write_bytes
from fgvc.store.file_lock import lock
from fgvc.store.hashing import canonical_json, sha256_bytes
from fgvc.types import TEST, TRAIN, Progress, UserError
from fgvc.untrusted import MIB

VERSION = 1  # of the drawing: moves whenever the same settings give other bytes
JPEG_QUALITY = 92
MIN_POOL_IMAGES = 240  # pictures; fewer are drawn sooner than a second process has started
SETTINGS_FILE = "generator.json"
MAX_PIXELS = 20_000_000_000  # of a whole dataset: a few gigabytes of JPEG, an hour of drawing
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


INDEX_FILES = (
    "images.txt",
    "image_class_labels.txt",
    "train_test_split.txt",
    "classes.txt",
    "bounding_boxes.txt",
    "parts/parts.txt",
    "parts/part_locs.txt",
)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=2)


@dataclass(frozen=True)
class DrawingJob:
    """One picture to draw: where it goes and all that decides its bytes."""

    path: Path
    code: Code
    stream: tuple[int, int, int, int]  # seed, class, split, index
    side: int

    @property
    def split(self) -> int:
        return self.stream[2]


# box, parts, and the SHA256 of the picture's file
Row = tuple[tuple[int, ...], dict[str, tuple[float, float, bool]], str]
DRAWN_NAMES = ("images", "parts", "LICENSE", "APPROVAL.md", SETTINGS_FILE)  # and the index files


def write(
    root: Path,
    generator: Generator,
    progress: Progress | None = None,
    on_note: Callable[[str], None] = _warn,
    redraw: bool = False,
) -> Path:
    """Draw the dataset into `root`, or find it there.

    Args:
        root: the folder to make; its parents are made where missing.
        generator: how many classes and pictures, how large, which seed.
        progress: advanced by one a picture.
        on_note: called with one line if the dataset there is damaged, and thus drawn again.
        redraw: the caller knows that a picture is damaged.

    Returns:
        root.

    Raises:
        UserError: root holds something else, or no such generator version or seed exists.
        OSError: the disk refuses.
    """
    root, settings = Path(root), _check_settings(generator)
    if not redraw and _find_damage(root, settings) is None:
        return root
    with lock(root.with_name(f".{root.name}.lock"), wait=True):
        temporary_files.remove_stale(root.parent)
        fault = "a picture is not as it was drawn" if redraw else _find_damage(root, settings)
        if fault is not None:
            if fault:
                _check_ours(root)
                on_note(f"{root}: damaged synthetic birds ({fault}): drawn again")
            with new_folder(root, replace=bool(fault)) as folder:
                _draw_dataset(folder, generator, settings, progress or _silent)
    return root


def image_digests(root: Path) -> dict[str, str]:
    """SHA256 of each picture as it was drawn, by its path in a dataset that `write` found whole."""
    return json.loads(untrusted.read_bytes(root / SETTINGS_FILE, MAX_FILE_BYTES))["pictures"]


def draw_file(job: DrawingJob) -> Row:
    """Draw one picture, save it, and return its box, its part locations and its SHA256."""
    drawn = render(job.code, job.stream, job.side)
    data = io.BytesIO()
    drawn.image.save(data, "JPEG", quality=JPEG_QUALITY)
    write_bytes(job.path, data.getvalue())
    return drawn.box, drawn.parts, sha256_bytes(data.getvalue())


def render(code: Code, stream: tuple[int, int, int, int], side: int) -> Drawing:
    """The picture of a random stream: (seed, class, split, index)."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(stream)))
    return draw_scene(code, rng, side)


def _check_settings(generator: Generator) -> dict[str, int]:
    values = {each.name: getattr(generator, each.name) for each in fields(Generator)}
    if values["version"] != VERSION:
        raise UserError(
            f"dataset.generator.version={values['version']}: this program draws version {VERSION}; "
            f"set dataset.generator.version={VERSION}"
        )
    count = generator.classes * (generator.train_per_class + generator.test_per_class)
    if (pixels := count * generator.side**2) > MAX_PIXELS:  # a checkpoint may ask for it
        raise UserError(
            f"dataset.generator: {count} pictures of {generator.side} pixels a side are {pixels} "
            f"pixels, more than {MAX_PIXELS}; draw fewer or smaller ones"
        )
    if values["seed"] < 0:
        raise UserError(
            f"dataset.generator.seed={values['seed']}: must be 0 or more; choose another"
        )
    return values


def _find_damage(root: Path, settings: dict[str, int]) -> str | None:
    """None if root holds this very dataset, "" if nothing is there yet, otherwise what is damaged.

    Raises:
        UserError: root holds other things.
    """
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return ""
    try:
        stamp = json.loads(untrusted.read_bytes(root / SETTINGS_FILE, MAX_FILE_BYTES))
        index_files = {
            name: untrusted.read_bytes(root / name, MAX_FILE_BYTES) for name in stamp["files"]
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if _is_synthetic(root):
            return " ".join(str(error).split())
        raise _other_content_error(root) from None
    whole = isinstance(stamp, dict) and stamp.get("sha256") == _checksum(stamp)
    if whole and stamp.get("settings") != settings:
        raise _other_content_error(root)
    if whole and stamp == _stamp(settings, index_files, stamp.get("pictures", {})):
        return None
    if not _is_synthetic(root):
        raise _other_content_error(root)
    return "an index file is not as it was drawn" if whole else f"{SETTINGS_FILE} is damaged"


def _is_synthetic(root: Path) -> bool:
    """Whether the folder holds only files that this module draws, by its licence and its names."""
    try:
        licence = untrusted.read_bytes(root / "LICENSE", MIB)
        names = {path.name for path in root.iterdir()}
    except OSError:
        return False
    index = {name.partition("/")[0] for name in INDEX_FILES}
    return licence == LICENSE.encode() and names <= {*DRAWN_NAMES, *index}


def _check_ours(root: Path) -> None:
    if not _is_synthetic(root):
        raise _other_content_error(root)


def _other_content_error(root: Path) -> UserError:
    return UserError(
        f"dataset.root={root}: holds other things than the synthetic birds asked for; "
        "choose another dataset.root=... or move that folder away"
    )


def _stamp(
    settings: dict[str, int], files: dict[str, bytes], pictures: dict[str, str]
) -> dict[str, object]:
    """What generator.json holds: the settings, and digests of index files, pictures and itself."""
    stamp: dict[str, object] = {
        "settings": settings,
        "files": {name: sha256_bytes(files[name]) for name in sorted(files)},
        "pictures": pictures,
    }
    return {**stamp, "sha256": _checksum(stamp)}


def _checksum(stamp: Mapping[str, object]) -> str:
    content = {name: value for name, value in stamp.items() if name != "sha256"}
    return sha256_bytes(canonical_json(content))


def _draw_dataset(
    folder: Path, generator: Generator, settings: dict[str, int], progress: Progress
) -> None:
    kinds = species(generator.classes, generator.seed)
    jobs = _jobs(folder / "images", kinds, generator)
    for parent in {job.path.parent for job in jobs}:
        parent.mkdir(parents=True)
    rows = []
    for row in _draw_all(jobs):
        rows.append(row)
        progress(1)
    files = {name: text.encode() for name, text in _index_texts(kinds, jobs, rows).items()}
    paths = (job.path.relative_to(folder).as_posix() for job in jobs)
    drawn = dict(zip(paths, (sha256 for _, _, sha256 in rows), strict=True))
    (folder / "parts").mkdir()
    approval = APPROVAL.format(version=VERSION, settings=SETTINGS_FILE)
    stamp = json_bytes(_stamp(settings, files, drawn))
    files |= {"LICENSE": LICENSE.encode(), "APPROVAL.md": approval.encode(), SETTINGS_FILE: stamp}
    for name, data in files.items():
        write_bytes(folder / name, data)


def _jobs(images: Path, kinds: tuple[Species, ...], generator: Generator) -> list[DrawingJob]:
    """In the order of the index: by class, training pictures first."""
    counts = {TRAIN: generator.train_per_class, TEST: generator.test_per_class}
    jobs = []
    for label, kind in enumerate(kinds):
        name = kind.name.replace(" ", "_")
        streams = [(label, split, row) for split, n in counts.items() for row in range(n)]
        for number, stream in enumerate(streams, start=1):
            path = images / _class_folder(label, kind) / f"{name}_{number:04d}.jpg"
            jobs.append(DrawingJob(path, kind.code, (generator.seed, *stream), generator.side))
    return jobs


def _draw_all(jobs: list[DrawingJob]) -> Iterator[Row]:
    """The rows of all jobs, in their order."""
    workers = min(os.cpu_count() or 1, len(jobs) // (MIN_POOL_IMAGES // 2))
    if workers < 2:
        yield from map(draw_file, jobs)
        return
    # spawned, as a fork beside torch's threads can hang
    with ProcessPoolExecutor(workers, get_context("spawn"), signals.ignore) as pool:
        with signals.blocked(tracked=True):
            rows = pool.map(draw_file, jobs, chunksize=8)  # starts the processes
        yield from rows


def _index_texts(
    kinds: tuple[Species, ...], jobs: list[DrawingJob], rows: list[Row]
) -> dict[str, str]:
    """File name -> text, in the words of CUB-200-2011: ids count from 1, split 1 is training."""
    images = [f"{job.path.parent.name}/{job.path.name}" for job in jobs]
    return {
        "images.txt": _number_lines(images),
        "image_class_labels.txt": _number_lines(job.stream[1] + 1 for job in jobs),
        "train_test_split.txt": _number_lines(int(job.split == TRAIN) for job in jobs),
        "classes.txt": _number_lines(
            _class_folder(label, kind) for label, kind in enumerate(kinds)
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


def _silent(n: int, note: str = "") -> None:
    """Progress for nobody."""
