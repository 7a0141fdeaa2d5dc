"""A dataset on disk -> Examination: what is wrong with it and how to fix it (task=doctor).

definition checks the index; images reads each image once, for geometry, exact_duplicates and
near_duplicates; archives checks the downloads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import islice
from pathlib import Path

from fgvc.config import schema
from fgvc.data import dataset
from fgvc.data.dataset_spec import readers
from fgvc.data.doctor import archives, definition, exact_duplicates, geometry, images
from fgvc.data.doctor.finding import ERROR, NOTE, Examination, Finding
from fgvc.data.find_root import named_root
from fgvc.types import Progress

__all__ = ["ERROR", "NOTE", "Examination", "Finding", "examine"]

MAX_UNINDEXED = 50_000
ProgressBar = Callable[[str, int | None, str], AbstractContextManager[Progress]]


def examine(
    conf: schema.Dataset, threads: int, bar: ProgressBar, cache_root: Path | None = None
) -> Examination:
    """Check a copy against its definition.

    Nothing is written, except that synthetic birds are drawn and images inside a table are unpacked
    into the cache. If the reader refuses the copy, its images and archives are still checked.

    Args:
        threads: number of images decoded in parallel.
        bar: `bar(title, total, unit)` -> a context manager that gives a Progress.
        cache_root: where images inside a table are unpacked; None: they are not examined.
    """
    with bar(conf.name, None, "files") as progress:
        index, findings = definition.read(conf, progress, cache_root)
    folder, facts, partial = named_root(conf.root, conf.table), {}, conf.partial
    root = folder if index is None else index.root
    with bar("archives", None, "MiB") as progress:
        facts["archives"], more = archives.check_archives(conf, (folder, root), progress)
    findings += more
    if index is not None:
        path = index.path
        partial, more = definition.check_index(conf, index)
        findings += more + definition.unlisted_images(conf, index)
        facts["counts"] = definition.compare_counts(conf, index)
    else:  # bounded, because the root may be any folder
        path = tuple(islice(definition.images_below(root), MAX_UNINDEXED))
    with bar("images", len(path), "images") as progress:
        image_table = images.read_images(root, path, threads, progress, conf.max_pixels)
    restore = dataset.files_policy(conf).restore
    findings += images.check_files(path, image_table, restore)
    if index is not None:
        findings += geometry.check_geometry(index, image_table)
        findings += exact_duplicates.check_duplicates(index, image_table)
    facts["pictures"] = images.summarize(image_table)
    caveat = readers()[conf.reader].caveat
    findings.sort(key=lambda finding: finding.severity != ERROR)  # stable: errors first
    return Examination(conf.name, conf.reader, str(root), partial, tuple(findings), facts, caveat)
