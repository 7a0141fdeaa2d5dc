"""dataset= axis: what a dataset is, where it lies, and what must be known of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from fgvc.config.schema.fields import bounded, card, declared, later, one_of, place


@dataclass
class Card:
    """Provenance of a dataset, carried into every record and table."""

    source: str = MISSING
    citation: str = MISSING
    license: str = MISSING  # and the terms of use
    approval: str = MISSING
    filtering: str = MISSING
    contamination: str = MISSING  # who may have seen the test images before
    split: str = "not recorded"  # which images train, which test, and where validation comes from
    label_noise: str = "not recorded"


@dataclass
class OfficialCounts:
    """What a complete copy holds; 0 where the dataset has no official number."""

    classes: int = MISSING
    train: int = MISSING
    test: int = MISSING


@dataclass
class Generator:
    """Settings of the synthetic birds; null for datasets that lie on disk already."""

    version: int = bounded(1, 1)
    classes: int = bounded(2, 64)
    train_per_class: int = bounded(2, 10_000)
    test_per_class: int = bounded(1, 10_000)
    side: int = bounded(64, 1024)  # pixels of the longer side of a picture
    seed: int = MISSING


@dataclass
class Archive:
    """A file that a dataset is handed out in: a row of dataset.archives.

    url: null where no host serves it any more. bytes, md5, sha256: null where not known.
    """

    file: str = MISSING
    url: str | None = MISSING
    bytes: int | None = MISSING
    md5: str | None = MISSING
    sha256: str | None = MISSING


@dataclass
class Dataset:
    """dataset= axis."""

    name: str = MISSING
    reader: str = one_of(
        "cub", "cars", "dogs", "nabirds", "inat2017", "folder", "table", "synthetic"
    )
    root: str | None = place()  # null: reader table, the folder of the table
    table: str | None = place(None)  # reader table: the file
    path_column: str | None = later(None)  # reader table; null: the column with a usual name
    label_column: str | None = later(None)  # likewise
    split_column: str | None = later(None)  # likewise
    partial: bool = declared()
    subset: str | None = field(default=MISSING, metadata={"choices": (None, "tiny")})
    split_seed: int = bounded(0)
    val_fraction: float = bounded(0.0, 0.9)
    test_fraction: float = bounded(0.0, 0.9)  # folder: of one folder without train/ and test/
    prompts: list[str] = MISSING  # a class name goes into each {}; hashed where text is read
    on_bad_image: str = one_of("error", "skip")
    accept_altered: bool = declared(False)  # files may differ from when they were first hashed
    box_crop: bool = later(False)  # pictures are cut to their bounding boxes first
    # of a picture; a larger one is refused: decoding takes about 16 bytes of memory per pixel
    max_pixels: int = later(64_000_000, bounds=(1, 178_956_970))
    official: OfficialCounts = field(default_factory=OfficialCounts)
    generator: Generator | None = MISSING
    archives: dict[str, Archive] = field(default_factory=dict, metadata={"card": True})
    download: bool = card(False)  # true: task=doctor fetches the archives first
    card: Card = card()  # noqa: RUF009 - a field, as dataclasses.field would make it
