"""A dataset of iNaturalist 2017's shape -> growth and memory of everything that reads its index.

Each work runs in its own process, on two copies of different sizes (see inat_copy). Its CPU time
per image must not grow with the number of images. Its peak memory, torch and other imports
included, is extrapolated to all 675,170 images where the copies are smaller. `index_full` measures
the full size; FGVC_INAT_COPY names a folder with a full copy, otherwise it takes minutes to write.

python -m benchmarks.index WORK ROOT FOLDER   # the child process
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import inat_copy
from benchmarks.side_by_side import Row, peak_mib
from fgvc.config import schema
from fgvc.types import Progress

TOTAL = inat_copy.TRAIN + inat_copy.TEST
FULL_COPY = "FGVC_INAT_COPY"
GROWTH = 1.3  # CPU time per image on the large copy over that on the small copy
START_SECONDS = 20.0  # wall time at full size
ARCHIVE, UNPACKED = "images.tar.gz", "unpacked"


@dataclass(frozen=True)
class Measurement:
    """What a child process measured, without the imports in the times."""

    wall: float
    cpu: float
    mib: float


def rows(folder: Path) -> Iterator[Row]:
    """At a 64th and a 16th of the size."""
    yield from _measure_rows(folder, (64, 16))


def full_rows(folder: Path) -> Iterator[Row]:
    """At a 16th of the size and at full size."""
    yield from _measure_rows(folder, (16, 1))


def _measure_rows(folder: Path, divisors: tuple[int, int]) -> Iterator[Row]:
    roots, counts = [], []
    for divisor in divisors:
        root, copy = folder / f"inat-{divisor}", os.environ.get(FULL_COPY)
        if divisor == 1 and copy is not None:
            root, count = Path(copy), TOTAL
        else:
            count = inat_copy.make(root, divisor)
        roots.append(root)
        counts.append(count)
    for work, (name, _, mib) in WORKS.items():
        small, large = (_measure(work, root, folder) for root in roots)
        scale = counts[1] / counts[0]
        sizes = f"{counts[1]:,} against {counts[0]:,} images"
        yield Row(
            f"{name}: growth of the CPU time per image",
            "a smaller copy",
            large.cpu / small.cpu / scale,
            GROWTH,
            sizes,
            upper_bound=True,
            ours=f"{large.cpu:.2f} s",
            limit=f"{small.cpu:.2f} s",
        )
        per_image = (large.mib - small.mib) / (counts[1] - counts[0])
        detail = f"{per_image * 2**20:.0f} bytes per image"
        if counts[1] < TOTAL:
            detail += f"; extrapolated from {sizes}"
        yield Row(
            f"{name}, {TOTAL:,} images: peak memory, MiB",
            "–",
            large.mib + per_image * (TOTAL - counts[1]),
            mib,
            detail,
            upper_bound=True,
            ours=f"{large.mib:.0f} MiB",
            limit=f"{small.mib:.0f} MiB",
        )
        if work == "start":
            seconds = large.wall * TOTAL / counts[1]
            detail = f"{large.wall:.2f} s for {counts[1]:,} images"
            title = f"{name}, {TOTAL:,} images: seconds"
            yield Row(title, "–", seconds, START_SECONDS, detail, upper_bound=True)


def _measure(work: str, root: Path, folder: Path, rounds: int = 2) -> Measurement:
    """The least of two rounds; the first start hashes every file, the second only checks states."""
    command = [sys.executable, "-m", "benchmarks.index", work, str(root), str(folder / root.name)]
    once = work in ("doctor", "unpack")  # they take long and store nothing
    found = []
    for _ in range(1 if once else rounds):
        result = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(Measurement(*map(float, result.stdout.split()[-3:])))
    return min(found, key=lambda measurement: measurement.cpu)


# --- the child process: each function is called with the copy and a folder of its own ---


def _conf(root: Path, folder: Path) -> schema.Dataset:
    from fgvc.config.compose import composed, typed

    overrides = ["dataset=inat2017", f"dataset.root={root}", "dataset.partial=true"]
    return typed(composed([*overrides, f"runtime.cache_root={folder / 'cache'}"])).dataset


def _prepare_start(root: Path, folder: Path) -> Callable[[], object]:
    import fgvc.task.probe  # noqa: F401 as in a run
    from fgvc.data import dataset

    conf = _conf(root, folder)

    def start() -> None:
        loaded = dataset.load(conf, folder / "cache")
        _ = loaded.manifest.digest, loaded.split_digest

    return start


def _prepare_tiny(root: Path, folder: Path) -> Callable[[], object]:
    from fgvc.data import dataset

    conf = replace(_conf(root, folder), subset="tiny")
    return lambda: dataset.load(conf, folder / "cache")


def _prepare_split(root: Path, folder: Path) -> Callable[[], object]:
    from fgvc.data import dataset, split

    index = dataset.read(_conf(root, folder))
    return lambda: split.carve(index, 0.1, 0)


def _prepare_doctor(root: Path, folder: Path) -> Callable[[], object]:
    from fgvc.data import doctor

    @contextlib.contextmanager
    def bar(title: str, total: int | None, unit: str) -> Iterator[Progress]:
        yield _quiet

    conf = _conf(root, folder)
    return lambda: doctor.examine(conf, 2, bar, folder / "cache")


def _prepare_dry_run(root: Path, folder: Path) -> Callable[[], object]:
    from fgvc.run import main

    command = ["dataset=inat2017", f"dataset.root={root}", "dataset.partial=true"]
    command += ["backbone=vit_tiny", "backbone.pretrained=false", "runtime.dry_run=true"]
    command += [f"runtime.{name}_root={folder / name}" for name in ("cache", "output", "data")]

    def dry_run(*more: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert main([*command, *more]) == 0

    dry_run("dataset=synthetic", "dataset.partial=false", "dataset.root=null")  # imports
    return dry_run


def _prepare_unpack(root: Path, folder: Path) -> Callable[[], object]:
    """Verify the archive of all images by its md5, and unpack it."""
    from fgvc.data.doctor.archives import difference
    from fgvc.data.download.unpack import unpack

    folder.mkdir(parents=True, exist_ok=True)
    file, target = folder / ARCHIVE, folder / UNPACKED
    if not file.is_file():
        with tarfile.open(file, "w:gz", compresslevel=1) as archive:
            for image in (root / "train_val_images").rglob("*.jpg"):
                archive.add(image, image.relative_to(root))
                archive.members = []  # pyright: ignore[reportAttributeAccessIssue] a KiB each
    target.mkdir()
    conf = schema.Archive(file.name, None, file.stat().st_size, "0" * 32, None)

    def verify_and_unpack() -> None:
        assert "md5 is" in str(difference(file, conf, _quiet))  # of the whole file
        unpack(file, target, _quiet)

    return verify_and_unpack


def _quiet(n: int, note: str = "") -> None:
    pass


# work -> its name in the table, its preparation, and its bound in MiB
WORKS: dict[str, tuple[str, Callable[[Path, Path], Callable[[], object]], float]] = {
    "start": ("start of a run", _prepare_start, 1024),
    "tiny": ("dataset.subset=tiny", _prepare_tiny, 1024),
    "split": ("carving validation", _prepare_split, 1024),
    "dry_run": ("dry run", _prepare_dry_run, 1024),
    "doctor": ("task=doctor", _prepare_doctor, 1024),
    "unpack": ("md5 and unpacking of an archive", _prepare_unpack, 1024),
}


def _child(work: str, root: Path, folder: Path) -> None:
    function = WORKS[work][1](root, folder)
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    print(time.perf_counter() - wall, time.process_time() - cpu, peak_mib())


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
