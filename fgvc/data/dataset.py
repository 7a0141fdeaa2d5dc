"""dataset= axis: the chosen dataset on disk -> types.Dataset, checked and split.

conf -> reader -> Index, sorted by path -> counts and coverage -> Manifest (digests) -> Split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from fgvc.config import schema
from fgvc.data import cars, cub, dogs, folder, inat2017, manifest, nabirds, subset, table
from fgvc.data.index import Index, check_boxes, check_counts, check_coverage, sorted_by_path
from fgvc.data.split import FROM_DATA, carve, describe, source_notes
from fgvc.types import Dataset, Progress, UserError

Reader = Callable[[schema.Dataset, Progress | None], Index]


def load(conf: schema.Dataset, cache_root: Path, progress: Progress | None = None) -> Dataset:
    """Read a dataset and hold it against its definition.

    Args:
        conf: the `dataset` node of a config.
        cache_root: where digests of pictures are remembered (manifests/).
        progress: advanced by pictures generated and by pictures hashed.

    Raises:
        UserError: the copy contradicts itself, its official counts or its remembered digests.
    """
    index = read(conf, progress)
    partial, count_notes = check_counts(index, official(conf), conf.partial)
    fraction = conf.val_fraction
    if conf.subset:
        index = subset.tiny(index, validation=fraction > 0)
        fraction = subset.val_fraction(index, fraction)
    approval = (conf.card.approval,) if conf.reader == "synthetic" else ()
    crop_notes = check_boxes(index) if conf.box_crop else ()
    coverage_notes = check_coverage(index)
    pictures = manifest.build(index, cache_root, progress)
    if conf.box_crop:
        pictures = replace(pictures, cropped=True)
    split = carve(index, fraction, conf.split_seed)
    from_splits = source_notes(index, conf)
    test_notes = from_splits if index.test_source == "val" else ()
    warnings = test_notes + crop_notes + coverage_notes + manifest.duplicate_notes(pictures)
    notes = approval + index.notes + (() if test_notes else from_splits) + count_notes
    return Dataset(
        name=conf.name,
        manifest=pictures,
        labelmap=index.labelmap,
        split=split,
        partial=partial,
        notes=notes + warnings,
        warnings=warnings,
        card=_card(conf.card, describe(index, conf)),
        subset=subset.describe(pictures, split, index.labelmap) if conf.subset else None,
        hierarchy=index.hierarchy,
        test_source=index.test_source,
    )


def read(conf: schema.Dataset, progress: Progress | None = None) -> Index:
    """Read the dataset's own files into an index that is sorted by path.

    Raises:
        UserError: the reader is unknown, or files are missing or contradict each other.
    """
    if conf.reader not in READERS:
        raise UserError(f"dataset.reader={conf.reader}: one of {', '.join(READERS)}")
    return sorted_by_path(READERS[conf.reader](conf, progress))


def _cub(conf: schema.Dataset, progress: Progress | None) -> Index:
    return cub.read(_root(conf), conf.partial)


def _cars(conf: schema.Dataset, progress: Progress | None) -> Index:
    return cars.read(_root(conf), conf.partial)


def _dogs(conf: schema.Dataset, progress: Progress | None) -> Index:
    return dogs.read(_root(conf), conf.partial)


def _nabirds(conf: schema.Dataset, progress: Progress | None) -> Index:
    return nabirds.read(_root(conf))


def _inat2017(conf: schema.Dataset, progress: Progress | None) -> Index:
    return inat2017.read(_root(conf), conf.partial)


def _folder(conf: schema.Dataset, progress: Progress | None) -> Index:
    return folder.read(_root(conf), conf.test_fraction, conf.split_seed)


def _table(conf: schema.Dataset, progress: Progress | None) -> Index:
    if conf.table is None:
        raise UserError("dataset.table=null: reader table needs dataset.table=FILE")
    root = None if conf.root is None else _root(conf)
    return table.read(Path(conf.table).expanduser(), root, conf.test_fraction, conf.split_seed)


def _synthetic(conf: schema.Dataset, progress: Progress | None) -> Index:
    generator = _generator(conf)
    # imported here: drawing birds is no part of reading any other dataset
    from fgvc.data import synthetic

    synthetic.write(_root(conf), generator, progress)
    index = cub.read(_root(conf), partial=False)
    return replace(index, hierarchy=synthetic.hierarchy(generator))


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
    return Path(conf.root).expanduser()


def _generator(conf: schema.Dataset) -> schema.Generator:
    if conf.generator is None:
        raise UserError("dataset.generator=null: reader synthetic needs the generator's settings")
    return conf.generator


def official(conf: schema.Dataset) -> schema.OfficialCounts:
    """The counts a complete copy has; those of synthetic birds follow from their generator."""
    if conf.reader != "synthetic":
        return conf.official
    made = _generator(conf)
    return schema.OfficialCounts(
        classes=made.classes,
        train=made.classes * made.train_per_class,
        test=made.classes * made.test_per_class,
    )


def _card(card: schema.Card, split: str) -> dict[str, str]:
    """The card's texts; `split` instead of a text that leaves it to the data."""
    texts = {name: str(value) for name, value in asdict(card).items()}
    return texts | ({"split": split} if texts["split"].startswith(FROM_DATA) else {})
