"""A dataset on disk -> what is wrong with it, and what to do: the examination of task=doctor.

reader -> definition (index) ; pictures (each read once) -> fits, copies ; archives -> Examination.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

from fgvc.config import schema
from fgvc.data import dataset
from fgvc.data.doctor import archives, definition, exact_duplicates, geometry, images
from fgvc.data.doctor.finding import ERROR, NOTE, Examination, Finding, errors_first
from fgvc.data.index import Index
from fgvc.types import Progress

__all__ = ["ERROR", "NOTE", "Examination", "Finding", "examine"]

MAX_UNINDEXED = 50_000
ProgressBar = Callable[[str, int | None, str], AbstractContextManager[Progress]]


def examine(
    conf: schema.Dataset, threads: int, bar: ProgressBar, cache_root: Path | None = None
) -> Examination:
    """Hold a copy against its definition; nothing is written (but synthetic birds
    are drawn, and images inside a table are unpacked into the cache).

    A copy that its reader refuses is looked at as far as that goes: its pictures, its archives.

    Args:
        conf: the `dataset` node of a config.
        threads: pictures decoded at a time.
        bar: `bar(title, total, unit)` -> a context manager that gives a Progress.
        cache_root: where images inside a table are unpacked; None: they are not examined.
    """
    with bar(conf.name, None, "files") as progress:
        index, found = definition.read(conf, progress, cache_root)
    root = index.root if index else definition.dataset_folder(conf)
    facts: dict[str, object] = {}
    with bar("archives", None, "MiB") as progress:
        roots = (definition.dataset_folder(conf), root)
        facts["archives"], wrong = archives.check_archives(conf, roots, progress)
    found += wrong
    partial = conf.partial
    if index is not None:
        partial, more = definition.check_index(conf, index)
        found += more + definition.unlisted_images(conf, index)
        facts["counts"] = definition.compare_counts(conf, index)
    path = index.path if index else _images_below(root)
    with bar("pictures", len(path), "pictures") as progress:
        looks = images.read_images(root, path, threads, progress, conf.max_pixels)
    restore = dataset.files_policy(conf).restore
    found += images.check_files(path, looks, restore) + _across(index, looks)
    facts["pictures"] = images.summarize(looks)
    caveat = definition.CAVEATS.get(conf.reader)
    return Examination(
        conf.name, conf.reader, str(root), partial, errors_first(found), facts, caveat
    )


def _images_below(root: Path) -> tuple[str, ...]:
    """Pictures of a copy without a usable index; bounded, as the root may be anything."""
    return tuple(islice(definition.images_below(root), MAX_UNINDEXED))


def _across(index: Index | None, looks: images.ImageTable) -> list[Finding]:
    """What takes index and pictures together."""
    return (
        []
        if index is None
        else geometry.check_geometry(index, looks) + exact_duplicates.check_duplicates(index, looks)
    )
