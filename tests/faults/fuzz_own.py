"""Doors for the fuzz: pictures, archives, caches, the command line and YAML files.

A cache must never give another answer than the computation whose result it keeps: its door writes
the damaged bytes in the place of a sound cache, and compares.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fgvc.config.errors import ConfigError
from fgvc.data import manifest
from fgvc.data.datasets import folder
from fgvc.data.decode import decode
from fgvc.data.download.unpack import unpack
from fgvc.run import main
from fgvc.store.array_cache import cached_arrays
from fgvc.store.feature_cache import FeatureCache
from fgvc.store.file_lock import holder
from fgvc.types import Features
from tests.jobs import shard_by_shard

Seeds = list[bytes]


# --- pictures ---


def _picture(mode: str, kind: str, size: tuple[int, int] = (24, 16), **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize(size)
    if mode == "I;16":
        wide = np.arange(size[0] * size[1], dtype=np.uint16).reshape(size[1], size[0]) * 97
        picture = Image.fromarray(wide)
    else:
        picture = picture.convert(mode)
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def jpegs() -> Seeds:
    turned = _picture("RGB", "JPEG", exif=_turned().tobytes())
    progressive = _picture("RGB", "JPEG", progressive=True)
    return [turned, progressive, _picture("L", "JPEG"), _picture("CMYK", "JPEG")]


def pngs() -> Seeds:
    modes = ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")
    return [*(_picture(mode, "PNG") for mode in modes), _picture("P", "PNG", transparency=3)]


def other_pictures() -> Seeds:
    kinds = (("RGB", "BMP"), ("P", "GIF"), ("RGB", "TIFF"), ("RGB", "WEBP"), ("RGB", "PPM"))
    deep = [_picture("I;16", "TIFF"), _picture("RGB", "TIFF", compression="tiff_lzw")]
    return [*(_picture(mode, kind) for mode, kind in kinds), *deep]


def read_picture(file: Path) -> None:
    pixels_3HW = decode(file.read_bytes(), str(file))
    assert pixels_3HW.shape[0] == 3
    assert pixels_3HW.numel() > 0


# --- archives ---


def tars() -> Seeds:
    archives = []
    for mode in ("w", "w:gz", "w:xz", "w:bz2"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode) as archive:
            for name, data in (("a/b.txt", b"bird" * 20), ("a/é.txt", b""), ("c", b"x" * 600)):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        archives.append(out.getvalue())
    return archives


def zips() -> Seeds:
    archives = []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            for name, data in (("a/b.txt", b"bird" * 20), ("a/é.txt", b""), ("c/", b"")):
                archive.writestr(name, data)
        archives.append(out.getvalue())
    return archives


def read_archive(file: Path) -> None:
    """As the download does: what a refused archive left is removed by its caller."""
    target = file.parent / "unpacked"
    target.mkdir()
    try:
        unpack(file, target, lambda n, note="": None)
        assert all(path.resolve().is_relative_to(target) for path in target.rglob("*"))
    finally:
        shutil.rmtree(target)


# --- caches ---

ROWS = np.arange(6)


def _features(row_n: np.ndarray) -> Features:
    return Features((row_n[:, None] * np.ones(3)).astype(np.float32), row_n)


def _cached(file: Path) -> Features:
    cache = FeatureCache(file.parent / "features", lambda note: None)
    return cache.get({"model": "m"}, ROWS, shard_by_shard(_features), shard_rows=6)


def _result() -> dict[str, np.ndarray]:
    return {"weight": np.arange(12, dtype=np.float32).reshape(3, 4), "step": np.array([7])}


def _memo(file: Path) -> dict[str, np.ndarray]:
    return dict(cached_arrays(file.parent / "memo", {"model": "m"}, _result, lambda note: None))


def _pictures(root: Path) -> None:
    for name in ("train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (len(name), ord(name[-5]), 0)).save(file)
        os.utime(file, ns=(10**18, 10**18))


def _manifest(file: Path) -> str:
    root = file.parent / "data"
    _pictures(root)
    index = folder.read(root, 0.2, 0)
    return manifest.build(index, file.parent / "cache").digest


def _replaced(pattern: str, read: Callable[[Path], object]) -> Callable[[Path], object]:
    """A door of a cache: its file is replaced by the input, and the answer must stay."""

    def door(file: Path) -> None:
        sound = read(file)
        with _cleared(file):
            for place in sorted(file.parent.glob(pattern)):
                original = place.read_bytes()
                place.chmod(0o644)
                place.write_bytes(file.read_bytes())
                again = read(file)
                assert _same(again, sound), f"another answer from a damaged {place.name}"
                place.write_bytes(original)

    return door


@contextlib.contextmanager
def _cleared(file: Path) -> Iterator[None]:
    """A cache that refuses may stay as it is: only its temporaries would be left behind."""
    try:
        yield
    finally:
        for path in file.parent.iterdir():
            if path != file and not list(path.rglob("*.tmp")):
                shutil.rmtree(path)


def _same(first: object, second: object) -> bool:
    if isinstance(first, Features) and isinstance(second, Features):
        return np.array_equal(first.x_ND, second.x_ND) and np.array_equal(first.row_N, second.row_N)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            np.array_equal(value, second[name]) for name, value in first.items()
        )
    return first == second


def _seed_of(pattern: str, read: Callable[[Path], object]) -> Callable[[], Seeds]:
    """The bytes of the cache as `read` writes it."""

    def make() -> Seeds:
        import tempfile

        with tempfile.TemporaryDirectory() as name:
            read(Path(name) / "input")
            return [path.read_bytes() for path in sorted(Path(name).glob(pattern))]

    return make


def read_lock(file: Path) -> object:
    return holder(file)


# --- the command line ---

COMMANDS = (
    "backbone=vit_tiny\nhead=knn\nhead.k=3\nresolution=r224",
    "-m\nseed=0,1,2\nhead=linear,knn\nsweep=null",
    "task=train\ntask.epochs=3\ntask.learning_rate=5e-4\nrecipe=transfg",
    "experiment=smoke\n+dataset.root='a b'\n++seed=3",
    "~head\nhead@x=linear\nbackbone.size=large",
    "-m\nseed=range(0,3)\nhead.k=choice(1,2)\ntask.learning_rate=interval(1e-4,1)",
    "--cfg\njob\n-p\nhead",
    "dataset=folder\ndataset.root=/x/y\ndataset.val_fraction=0.2\nhydra/launcher=joblib",
    "task=report\nruntime.output_root=${oc.env:HOME}\nruntime.run_id=a=b",
)
EXPERIMENT = b"""# @package _global_
# Do selected patches help?
defaults:
  - override /dataset: cub
  - override /backbone: dinov2
  - override /resolution: r448
seed: 3
dataset: &d
  val_fraction: 0.2
backbone: {size: base}
"""


def read_command(file: Path) -> None:
    """Compose it as far as a dry run does; no exception, no traceback."""
    words = [word for word in os.fsdecode(file.read_bytes()).split("\n") if "\0" not in word]
    _composed(words)


def _composed(words: list[str]) -> None:
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main([*words, "runtime.dry_run=true"])
        except SystemExit as end:
            code = end.code
    assert "Traceback" not in errors.getvalue(), errors.getvalue()[-300:]
    assert code in (0, 2), f"a wrong command ends with {code}: {errors.getvalue()[-300:]}"
    if code == 2:
        raise ConfigError(errors.getvalue().strip().splitlines()[-1])


def read_experiment(file: Path) -> None:
    _composed([f"experiment='{file}'"])


SHARD = "features/*/00000.safetensors"
DOORS: dict[str, tuple[Callable[[], Seeds], Callable[[Path], object], str]] = {
    "jpeg": (jpegs, read_picture, ".jpg"),
    "png": (pngs, read_picture, ".jpg"),
    "other pictures": (other_pictures, read_picture, ".jpg"),
    "tar": (tars, read_archive, ".tar"),
    "zip": (zips, read_archive, ".zip"),
    "features": (_seed_of(SHARD, _cached), _replaced(SHARD, _cached), ".safetensors"),
    "features index": (
        _seed_of("features/*/*.json", _cached),
        _replaced("features/*/done.json", _cached),
        ".json",
    ),
    "memo": (
        _seed_of("memo/*.safetensors", _memo),
        _replaced("memo/*.safetensors", _memo),
        ".safetensors",
    ),
    "manifest": (
        _seed_of("cache/manifests/*.digests", _manifest),
        _replaced("cache/manifests/*.digests", _manifest),
        ".digests",
    ),
    "lock": (lambda: [b"pid 12 on host since 2026-11-29T10:00:00", b""], read_lock, ".lock"),
    "command line": (lambda: [command.encode() for command in COMMANDS], read_command, ".txt"),
    "experiment YAML": (lambda: [EXPERIMENT], read_experiment, ".yaml"),
}
