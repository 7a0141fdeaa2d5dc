"""dataset.download=true: the archives of a dataset -> its folder, whole or not at all.

Archives arrive in a hidden folder beside dataset.root, are unpacked there, and take the root's name
in one step. What had arrived of an interrupted download is used by the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fgvc.config import schema
from fgvc.data.doctor.archives import difference
from fgvc.data.download.http import download
from fgvc.data.download.unpack import UnpackError, unpack
from fgvc.store.atomic import sync_folder
from fgvc.store.file_lock import lock
from fgvc.types import Progress, UserError

MANUAL_STEPS = {
    "cars": (
        "no host serves Stanford Cars any more. 1) get cars_train.tgz, cars_test.tgz, "
        "car_devkit.tgz and cars_test_annos_withlabels.mat from someone who has them; 2) unpack "
        "the three into {root}; 3) put the .mat file beside them; 4) run task=doctor dataset=cars, "
        "which holds archives that lie there against their known md5"
    ),
    "nabirds": (
        "NABirds is given out for a form. 1) agree to the terms at "
        "https://dl.allaboutbirds.org/nabirds and take nabirds.tar.gz; 2) unpack it into {root}; "
        "3) run task=doctor dataset=nabirds, which holds the archive, where it lies beside the "
        "folder, against its known md5"
    ),
    "synthetic": "synthetic birds are drawn when a task first needs them: drop dataset.download",
}


def fetch(conf: schema.Dataset, progress: Progress) -> str:
    """Download, verify and unpack a dataset; archives that lie beside the root are used.

    Args:
        progress: advanced by MiB, of what arrives and of what is unpacked.

    Returns:
        One line on what was done; a root that holds anything is left as it is.

    Raises:
        UserError: no host serves it (with the steps by hand), every try failed, the disk is too
            small, or an archive is not what it should be.
    """
    if conf.root is None or not conf.archives or any(a.url is None for a in conf.archives.values()):
        raise UserError(_manual_steps(conf))
    root = Path(conf.root).expanduser()
    if _is_occupied(root):
        return _occupied_message(root)
    with lock(root.with_name(f".{root.name}.lock"), wait=True):
        if _is_occupied(root):
            return _occupied_message(root)
        work = root.with_name(f".{root.name}.download")
        try:
            return _fetch(conf, root, work, progress)
        finally:
            with suppress(OSError):  # what can be resumed stays in it
                work.rmdir()


def _fetch(conf: schema.Dataset, root: Path, work: Path, progress: Progress) -> str:
    work.mkdir(parents=True, exist_ok=True)
    files = [_get_archive(archive, root, work, progress) for archive in conf.archives.values()]
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    try:
        for file in files:
            unpack(file, tree, progress)
        if root.exists():
            root.rmdir()
        tree.rename(root)
    except UnpackError:
        _remove(file for file in files if file.parent == work)
        raise
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    sync_folder(root.parent)
    _remove(file for file in files if file.parent == work)
    return f"{root}: downloaded, verified and unpacked ({', '.join(file.name for file in files)})"


def _get_archive(archive: schema.Archive, root: Path, work: Path, progress: Progress) -> Path:
    """The verified archive: one that lies beside the root, or else a downloaded one."""
    if archive.sha256 is None and archive.md5 is None:
        raise UserError(
            f"dataset.archives: {archive.file} has neither sha256 nor md5: nothing to verify "
            "it by; give one of them"
        )
    for file in (root.parent / archive.file, work / archive.file):
        if file.is_file() and difference(file, archive, progress) is None:
            return file
    return download(archive, work / archive.file, progress)


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _is_occupied(root: Path) -> bool:
    return root.exists() and (not root.is_dir() or any(root.iterdir()))


def _occupied_message(root: Path) -> str:
    return f"{root}: holds something already, nothing downloaded; move it away to download again"


def _manual_steps(conf: schema.Dataset) -> str:
    steps = MANUAL_STEPS.get(conf.reader, "a dataset of your own is nowhere to be downloaded from")
    return f"dataset.download=true: {steps.format(root=conf.root)}"
