"""dataset= axis: the chosen dataset on disk -> types.Dataset, verified and split.

conf -> reader -> Index, sorted by path -> counts and coverage -> Manifest (digests) -> Split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial as partial_of
from pathlib import Path

from fgvc.config import schema
from fgvc.data import manifest, recognize_dataset, subset
from fgvc.data.datasets import cars, cub, dogs, folder, inat2017, nabirds, table
from fgvc.data.index import Index, check_boxes, check_counts, check_coverage, sorted_by_path
from fgvc.data.split import carve
from fgvc.data.split_source import FROM_DATA, describe, source_notes
from fgvc.types import ABSENT, Dataset, Manifest, Progress, UserError

USER_READERS = ("folder", "table")  # readers of a user's own images
Reader = Callable[[schema.Dataset, Progress | None, Path | None], Index]


def load(
    conf: schema.Dataset,
    cache_root: Path,
    progress: Progress | None = None,
    remember: bool = True,
    suggest_skip: bool = True,
) -> Dataset:
    """Read a dataset and verify it against its definition.

    Args:
        conf: the `dataset` node of a config.
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
    approval = (conf.card.approval,) if conf.reader == "synthetic" else ()
    crop_notes = check_boxes(index) if conf.box_crop else ()
    coverage_notes = check_coverage(index)
    file_notes: list[str] = []
    policy = replace(files_policy(conf), suggest_skip=suggest_skip)
    build = partial_of(manifest.build, index, cache_root, progress, remember=remember)
    if conf.reader == "synthetic" and remember and not conf.accept_altered:
        images = _synthetic_manifest(conf, build, policy, file_notes.append, progress)
    else:
        images = build(policy=policy, on_note=file_notes.append)
    images = replace(images, cropped=conf.box_crop, max_pixels=conf.max_pixels)
    split = carve(index, fraction, conf.split_seed)
    from_splits = source_notes(index, conf)
    test_notes = from_splits if index.test_source == "val" else ()
    warnings = index.warnings + test_notes + crop_notes + coverage_notes
    warnings += manifest.duplicate_notes(images)
    notes = approval + index.notes + (() if test_notes else from_splits) + count_notes
    return Dataset(
        name=conf.name,
        manifest=images,
        labelmap=index.labelmap,
        split=split,
        partial=partial,
        notes=notes + tuple(file_notes) + warnings,
        warnings=warnings,
        card=_card(conf.card, describe(index, conf)),
        subset=subset.describe(images, split, index.labelmap) if conf.subset else None,
        hierarchy=index.hierarchy,
        test_source=index.test_source,
    )


def _synthetic_manifest(
    conf: schema.Dataset,
    build: Callable[..., Manifest],
    policy: manifest.Policy,
    on_note: Callable[[str], None],
    progress: Progress | None,
) -> Manifest:
    """The manifest of the synthetic birds; if a file is damaged, they are drawn again first."""
    from fgvc.data.datasets import synthetic

    root = _root(conf)
    try:
        images, drawn_sha256 = build(policy=policy, on_note=on_note), synthetic.image_digests(root)
        rows = zip(images.path, images.sha256, strict=True)
        if all(sha256 in (drawn_sha256[path], ABSENT) for path, sha256 in rows):
            return images
    except manifest.FilesError:
        pass
    synthetic.write(root, _generator(conf), progress, on_note, redraw=True)
    return build(policy=replace(policy, rehash=True))


def read(
    conf: schema.Dataset, progress: Progress | None = None, cache_root: Path | None = None
) -> Index:
    """Read the dataset's own files into an index that is sorted by path.

    Args:
        conf: the `dataset` node of a config.
        progress: advanced by images generated or unpacked.
        cache_root: as in `load`; None: images inside a table are counted but not unpacked.

    Raises:
        UserError: the reader is unknown, or files are missing or contradict each other.
    """
    if conf.reader not in READERS:
        raise UserError(f"dataset.reader={conf.reader}: one of {', '.join(READERS)}")
    try:
        return sorted_by_path(READERS[conf.reader](conf, progress, cache_root))
    except UserError as error:
        advice = None if conf.root is None else recognize_dataset.advice(_root(conf), conf.reader)
        if advice is None:
            raise
        reason, semicolon, _ = str(error).rpartition("; ")
        raise UserError(f"{reason if semicolon else error}; {advice}") from error


def files_policy(conf: schema.Dataset) -> manifest.Policy:
    """How to treat files that changed or cannot be read; the files of a user may change."""
    user_files = conf.reader in USER_READERS
    redraw = f"delete {conf.root}, and its images are drawn again"
    restore = {
        "folder": "restore or remove such files",
        "table": "restore such files or remove their rows from the table",
        "synthetic": redraw,
    }
    accept = "restore it, or add dataset.accept_altered=true to accept the files as they are now"
    return manifest.Policy(
        rehash=user_files or conf.accept_altered,
        skip=conf.on_bad_image == "skip",
        restore=restore.get(conf.reader, "unpack the images again"),
        accept=redraw if conf.reader == "synthetic" else accept,
    )


def _cub(conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None) -> Index:
    return cub.read(_root(conf), conf.partial)


def _cars(conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None) -> Index:
    return cars.read(_root(conf), conf.partial)


def _dogs(conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None) -> Index:
    return dogs.read(_root(conf), conf.partial)


def _nabirds(
    conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None
) -> Index:
    return nabirds.read(_root(conf))


def _inat2017(
    conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None
) -> Index:
    return inat2017.read(_root(conf), conf.partial)


def _folder(
    conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None
) -> Index:
    index = folder.read(_root(conf), conf.test_fraction, conf.split_seed)
    return replace(index, notes=index.notes + recognize_dataset.official_note(index.root))


def _table(
    conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None
) -> Index:
    if conf.table is None:
        raise UserError("dataset.table=null: reader table needs dataset.table=FILE")
    root = None if conf.root is None else _root(conf)
    keys = table.Keys(conf.path_column, conf.label_column, conf.split_column)
    file, fraction = Path(conf.table).expanduser(), conf.test_fraction
    return table.read(file, root, fraction, conf.split_seed, keys, cache_root, progress)


def _synthetic(
    conf: schema.Dataset, progress: Progress | None, cache_root: Path | None = None
) -> Index:
    generator = _generator(conf)
    # imported here because no other dataset needs it
    from fgvc.data.datasets import synthetic

    notes: list[str] = []
    synthetic.write(_root(conf), generator, progress, notes.append)
    index = cub.read(_root(conf), partial=False)
    return replace(index, hierarchy=synthetic.hierarchy(generator), notes=(*index.notes, *notes))


READERS: dict[str, Reader] = {
    "cub": _cub,
    "cars": _cars,
    "dogs": _dogs,
    "nabirds": _nabirds,
    "inat2017": _inat2017,
    "folder": _folder,
    "table": _table,
    "synthetic": _synthetic,
}


def _root(conf: schema.Dataset) -> Path:
    if conf.root is None:
        raise UserError(f"dataset.root=null: reader {conf.reader} needs dataset.root=FOLDER")
    if not conf.root.strip():  # for example an unset shell variable
        raise UserError("dataset.root=: an empty path; use dataset.root=. for the current folder")
    return Path(conf.root).expanduser()


def _generator(conf: schema.Dataset) -> schema.Generator:
    if conf.generator is None:
        raise UserError("dataset.generator=null: reader synthetic needs the generator's settings")
    return conf.generator


def expected_counts(conf: schema.Dataset) -> schema.OfficialCounts:
    """The counts of a complete copy; those of synthetic birds follow from their generator."""
    if conf.reader != "synthetic":
        return conf.official
    generator = _generator(conf)
    return schema.OfficialCounts(
        classes=generator.classes,
        train=generator.classes * generator.train_per_class,
        test=generator.classes * generator.test_per_class,
    )


def _card(card: schema.Card, split: str) -> dict[str, str]:
    """The texts of the card; `split` replaces a split text that begins with FROM_DATA."""
    texts = {name: str(value) for name, value in asdict(card).items()}
    return texts | ({"split": split} if texts["split"].startswith(FROM_DATA) else {})
