"""dataset= axis: a dataset, its location, its official counts and its provenance."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded, card, declared, later, one_of, place
from fgvc.config.schema.gather import module_names

USER_READERS = ("folder", "table")  # of a user's own images, perhaps with their own splits


@dataclass
class Card:
    """Provenance of a dataset, carried into every record and table."""

    source: str = MISSING
    citation: str = MISSING
    license: str = MISSING  # and the terms of use
    approval: str = MISSING
    filtering: str = MISSING
    contamination: str = MISSING  # models that may have been trained on the test images
    split: str = "not recorded"  # how train, validation and test are divided
    label_noise: str = "not recorded"


@dataclass
class OfficialCounts:
    """Counts of a complete copy; 0 without an official number."""

    classes: int = MISSING
    train: int = MISSING
    test: int = MISSING


@dataclass
class Generator:
    """Settings of the synthetic birds; null for other datasets."""

    version: int = bounded(1, 1)
    classes: int = bounded(2, 64)
    train_per_class: int = bounded(2, 10_000)
    test_per_class: int = bounded(1, 10_000)
    side: int = bounded(64, 1024)  # longer side of an image, in pixels
    seed: int = MISSING


@dataclass
class Archive:
    """An archive that a dataset is distributed in: a row of dataset.archives.

    url: null if no host serves it. bytes, md5, sha256: null if unknown.
    """

    file: str = MISSING
    url: str | None = MISSING
    bytes: int | None = MISSING
    md5: str | None = MISSING
    sha256: str | None = MISSING


@dataclass
class Dataset:
    name: str = MISSING
    reader: str = one_of(*module_names("fgvc.data.datasets"))
    root: str | None = place()  # null (reader table): the folder of the table
    table: str | None = place(None)  # reader table: the file
    path_column: str | None = later(None)  # reader table; null: by its name
    label_column: str | None = later(None)  # likewise
    split_column: str | None = later(None)  # likewise
    partial: bool = declared()
    subset: str | None = field(default=MISSING, metadata={"choices": (None, "tiny")})
    split_seed: int = bounded(0)
    val_fraction: float = bounded(0.0, 0.9)
    test_fraction: float = bounded(0.0, 0.9)  # of folders and tables without a test split
    prompts: list[str] = MISSING  # with {} for the class name; hashed if text is read
    on_bad_image: str = one_of("error", "skip")
    accept_altered: bool = declared(False)  # accept files that changed since they were first hashed
    box_crop: bool = later(False)  # crop images to their bounding boxes first
    # largest image; decoding takes about 16 bytes of memory per pixel
    max_pixels: int = later(64_000_000, bounds=(1, 178_956_970))
    official: OfficialCounts = field(default_factory=OfficialCounts)
    generator: Generator | None = MISSING
    archives: dict[str, Archive] = field(default_factory=dict, metadata={"card": True})
    download: bool = card(False)  # true: task=doctor fetches the archives first
    card: Card = card()  # noqa: RUF009 - a field, as dataclasses.field would make it


def lacks_validation(dataset: Dataset) -> bool:
    """Whether validation has no images. A user's own images may have a validation split, which is
    only known after reading them; the task checks that case."""
    return dataset.val_fraction == 0 and dataset.reader not in USER_READERS
