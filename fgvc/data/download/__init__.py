"""dataset.download=true: the archives of a dataset -> its folder, complete or absent.

Archives are downloaded and unpacked in a hidden folder beside dataset.root, which is then renamed
to the root. An interrupted download is resumed by the next one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from fgvc.config import schema
from fgvc.data.dataset_spec import readers
from fgvc.data.doctor.archives import difference
from fgvc.data.download.http import download
from fgvc.data.download.unpack import UnpackError, unpack
from fgvc.store.atomic import sync_folder
from fgvc.store.file_lock import lock
from fgvc.types import Progress, UserError


def fetch(conf: schema.Dataset, progress: Progress) -> str:
    """Download, verify and unpack a dataset; archives beside the root are used if they verify.

    Args:
        progress: advanced by MiB downloaded and by MiB unpacked.

    Returns:
        One line on what was done. A root that is not empty is left unchanged.

    Raises:
        UserError: no host serves it (the message lists the manual steps), all tries failed, the
            disk is too small, or an archive is damaged or unsafe.
    """
    if conf.root is None or not conf.archives or any(a.url is None for a in conf.archives.values()):
        steps = readers()[conf.reader].download_steps.format(root=conf.root)
        raise UserError(f"dataset.download=true: {steps}")
    root = Path(conf.root).expanduser()
    if _is_occupied(root):
        return f"{root}: not empty, nothing downloaded; move it away to download again"
    with lock(root.with_name(f".{root.name}.lock"), wait=True):
        if _is_occupied(root):  # by another process, while this one waited
            return f"{root}: downloaded by another process"
        work_folder = root.with_name(f".{root.name}.download")
        try:
            return _fetch(conf, root, work_folder, progress)
        finally:
            with suppress(OSError):  # not empty: a partial download that can be resumed
                work_folder.rmdir()


def _fetch(conf: schema.Dataset, root: Path, work_folder: Path, progress: Progress) -> str:
    work_folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []  # verified: from beside the root, or downloaded
    for archive in conf.archives.values():
        if archive.sha256 is None and archive.md5 is None:
            raise UserError(
                f"dataset.archives: {archive.file} has neither sha256 nor md5 to verify it; give "
                "one"
            )
        places = (root.parent / archive.file, work_folder / archive.file)
        valid = (f for f in places if f.is_file() and not difference(f, archive, progress))
        files.append(next(valid, None) or download(archive, places[1], progress))
    tree = work_folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    try:
        for file in files:
            unpack(file, tree, progress)
        if root.exists():
            root.rmdir()
        tree.rename(root)
    except UnpackError:
        _remove(file for file in files if file.parent == work_folder)
        raise
    finally:
        shutil.rmtree(tree, ignore_errors=True)
    sync_folder(root.parent)
    _remove(file for file in files if file.parent == work_folder)
    return f"{root}: downloaded, verified and unpacked ({', '.join(file.name for file in files)})"


def _remove(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _is_occupied(root: Path) -> bool:
    return root.exists() and (not root.is_dir() or any(root.iterdir()))
