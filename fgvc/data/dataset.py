"""dataset= axis: the chosen dataset on disk -> types.Dataset, verified and split.

conf -> reader -> Index, sorted by path -> counts and coverage -> Manifest (digests) -> Split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial as partial_of
from pathlib import Path

from fgvc.config import schema
from fgvc.config.schema.dataset import USER_READERS
from fgvc.data import manifest, recognize_dataset, subset
from fgvc.data.dataset_spec import readers, root_of
from fgvc.data.index import Index, check_boxes, check_counts, check_coverage, sorted_by_path
from fgvc.data.split import carve
from fgvc.types import ABSENT, VAL, Dataset, Manifest, Progress, UserError

FROM_DATA = "from the data:"  # a split text of a card that begins so is replaced on reading


def load(
    conf: schema.Dataset,
    cache_root: Path,
    progress: Progress | None = None,
    remember: bool = True,
    suggest_skip: bool = True,
) -> Dataset:
    """Read a dataset and verify it against its definition.

    Args:
        cache_root: folder of the digests of images (manifests/) and of images unpacked from tables
            (tables/).
        progress: advanced by images generated and by images hashed.
        remember: whether to store new digests; otherwise the next call reports changed files again.
        suggest_skip: whether messages may suggest dataset.on_bad_image=skip.

    Raises:
        UserError: the files contradict each other, the official counts or the stored digests.
    """
    index = read(conf, progress, cache_root)
    partial, count_notes = check_counts(index, expected_counts(conf), conf.partial)
    fraction = conf.val_fraction
    if conf.subset:
        index = subset.tiny_subset(index, validation=fraction > 0)
        fraction = subset.val_fraction(index, fraction)
    drawn = readers()[conf.reader].drawn
    approval = (conf.card.approval,) if drawn else ()
    crop_notes = check_boxes(index) if conf.box_crop else ()
    coverage_notes = check_coverage(index)
    file_notes: list[str] = []
    policy = replace(files_policy(conf), suggest_skip=suggest_skip)
    build = partial_of(manifest.build, index, cache_root, progress, remember=remember)
    if drawn and remember and not conf.accept_altered:
        images = _synthetic_manifest(conf, build, policy, file_notes.append, progress)
    else:
        images = build(policy=policy, notify=file_notes.append)
    images = replace(images, cropped=conf.box_crop, max_pixels=conf.max_pixels)
    split = carve(index, fraction, conf.split_seed)
    from_splits = source_notes(index, conf)
    test_notes = from_splits if index.test_source == "val" else ()
    warnings = index.warnings + test_notes + crop_notes + coverage_notes
    warnings += manifest.duplicate_notes(images)
    notes = approval + index.notes + (() if test_notes else from_splits) + count_notes
    card = {name: str(value) for name, value in asdict(conf.card).items()}
    if card["split"].startswith(FROM_DATA):
        card["split"] = _split_text(index, conf)
    return Dataset(
        name=conf.name,
        manifest=images,
        labelmap=index.labelmap,
        split=split,
        partial=partial,
        notes=notes + tuple(file_notes) + warnings,
        warnings=warnings,
        card=card,
        subset=subset.describe(images, split, index.labelmap) if conf.subset else None,
        hierarchy=index.hierarchy,
        test_source=index.test_source,
    )


def _synthetic_manifest(
    conf: schema.Dataset,
    build: Callable[..., Manifest],
    policy: manifest.Policy,
    notify: Callable[[str], None],
    progress: Progress | None,
) -> Manifest:
    """The manifest of the synthetic birds; if a file is damaged, they are drawn again first."""
    from fgvc.data.datasets.synthetic import folder, settings

    root = root_of(conf)
    try:
        images, drawn_sha256 = build(policy=policy, notify=notify), folder.image_digests(root)
        rows = zip(images.path, images.sha256, strict=True)
        if all(sha256 in (drawn_sha256[path], ABSENT) for path, sha256 in rows):
            return images
    except manifest.ImageFilesError:
        pass
    folder.write(root, settings(conf), progress, notify, redraw=True)
    return build(policy=replace(policy, rehash=True))


def read(
    conf: schema.Dataset, progress: Progress | None = None, cache_root: Path | None = None
) -> Index:
    """Read the dataset's own files into an index that is sorted by path.

    Args:
        progress: advanced by images generated or unpacked.
        cache_root: as in `load`; None: images inside a table are counted but not unpacked.

    Raises:
        UserError: the reader is unknown, or files are missing or contradict each other.
    """
    if conf.reader not in readers():
        raise UserError(f"dataset.reader={conf.reader}: one of {', '.join(readers())}")
    try:
        return sorted_by_path(readers()[conf.reader].read(conf, progress, cache_root))
    except UserError as error:
        advice = None if conf.root is None else recognize_dataset.advice(root_of(conf), conf.reader)
        if advice is None:
            raise
        reason, semicolon, _ = str(error).rpartition("; ")
        raise UserError(f"{reason if semicolon else error}; {advice}") from error


def files_policy(conf: schema.Dataset) -> manifest.Policy:
    """How to treat files that changed or cannot be read; the files of a user may change."""
    spec = readers()[conf.reader]
    redraw = f"delete {conf.root}, and its images are drawn again"
    accept = "restore it, or add dataset.accept_altered=true to accept the files as they are now"
    return manifest.Policy(
        rehash=conf.reader in USER_READERS or conf.accept_altered,
        skip=conf.on_bad_image == "skip",
        restore=redraw if spec.drawn else spec.restore,
        accept=redraw if spec.drawn else accept,
    )


def expected_counts(conf: schema.Dataset) -> schema.OfficialCounts:
    """The counts of a complete copy; those of drawn images follow from their generator."""
    counts = readers()[conf.reader].counts
    return conf.official if counts is None else counts(conf)


def source_notes(index: Index, conf: schema.Dataset) -> tuple[str, ...]:
    """Notes if test is not the dataset's own test split, or if it has its own validation split."""
    notes = []
    source = conf.table or index.root  # the images of a Parquet table are in the cache
    if index.test_source == "val":
        notes.append(
            f"test = val: {source} has no test split, thus its validation split is the test; "
            "its numbers are too high if anything was chosen on it"
        )
    if index.test_source == "carved":
        notes.append(
            f"test carved: {source} has no test split, thus a seeded part of each class is the "
            f"test ({_carved(conf)})"
        )
    if val := int((index.split_N == VAL).sum()):
        notes.append(
            f"validation is the dataset's own split of {val} images; "
            f"dataset.val_fraction={conf.val_fraction:g} is not used"
        )
    return tuple(notes)


def _split_text(index: Index, conf: schema.Dataset) -> str:
    """The origin of test and validation, for the card of a dataset."""
    test = {
        "test": "test is its own test split",
        "val": "test is its validation split, because it has no test split",
        "carved": f"test is a seeded part of each class ({_carved(conf)})",
    }[index.test_source]
    validation = f"is carved from train (dataset.val_fraction={conf.val_fraction:g})"
    if (index.split_N == VAL).any():
        validation = "is its own validation split"
    return f"{FROM_DATA} {test}; validation {validation}"


def _carved(conf: schema.Dataset) -> str:
    return f"dataset.test_fraction={conf.test_fraction:g}, dataset.split_seed={conf.split_seed}"
