"""What describes a reader, and the readers of fgvc/data/datasets."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgvc.config import schema
from fgvc.config.schema.gather import gather
from fgvc.data.index import Index
from fgvc.types import Progress, UserError


@dataclass(frozen=True)
class DatasetSpec:
    """A `dataset.reader`: a module of fgvc/data/datasets holds its functions and its DATASET.

    Attributes:
        read: (dataset node, progress, folder of unpacked images or None) -> the images in any
            order. Raises UserError: files are missing or contradict each other.
        title: of a published dataset.
        signature: names of files that only this dataset has.
        index_files: the files that `read` needs, beside the images.
        index: what lists its images, in messages; None: `read` lists every image in the folder.
        first_id: the lowest of its class ids, which are numbers.
        counts: (dataset node) -> counts of a complete copy; None: those of the node.
        drawn: whether its images are drawn, not photographed.
        caveat: a warning for readers of any number on it.
        layout_fix, coverage_fix, restore: how to repair a copy whose files cannot be understood,
            whose classes lack images, and whose images changed.
        download_steps: how to get it if no host serves it; {root} is where it belongs.
    """

    read: Callable[[schema.Dataset, Progress | None, Path | None], Index]
    title: str | None = None
    signature: re.Pattern[str] | None = None
    index_files: frozenset[str] = frozenset()
    index: str | None = "index"
    first_id: int | None = None
    counts: Callable[[schema.Dataset], schema.OfficialCounts] | None = None
    drawn: bool = False
    caveat: str | None = None
    layout_fix: str = "restore the official index files"
    coverage_fix: str = "compare the index files"
    restore: str = "unpack the images again"
    download_steps: str = "there is no download for your own dataset"


@functools.cache
def readers() -> Mapping[str, DatasetSpec]:
    return gather("fgvc.data.datasets", "DATASET")


def root_of(conf: schema.Dataset) -> Path:
    """The folder that dataset.root names; UserError: it names none."""
    if conf.root is None:
        raise UserError(f"dataset.root=null: reader {conf.reader} needs dataset.root=FOLDER")
    if not conf.root.strip():  # for example an unset shell variable
        raise UserError("dataset.root=: an empty path; use dataset.root=. for the current folder")
    return Path(conf.root).expanduser()
