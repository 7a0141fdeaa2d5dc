"""Generator settings -> drawings of invented bird species, in the layout of CUB-200-2011.

Classes differ only in their parts; everything else in an image is drawn independently of the class.
    species.py  number of classes, seed -> attributes of the parts per species
    bird.py     attributes -> coloured polygons
    scene.py    polygons, random stream -> image, box, part locations
    folder.py   settings -> folder
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fgvc.config import schema
from fgvc.data.dataset_spec import DatasetSpec, root_of
from fgvc.data.datasets import cub
from fgvc.data.index import Index
from fgvc.types import Progress, UserError


def settings(conf: schema.Dataset) -> schema.Generator:
    """The settings of the generator; UserError if there are none."""
    if conf.generator is None:
        raise UserError("dataset.generator=null: reader synthetic needs the generator's settings")
    return conf.generator


def _read(conf: schema.Dataset, progress: Progress | None, _: Path | None) -> Index:
    # imported here because no other dataset needs to draw
    from fgvc.data.datasets.synthetic import folder, species

    generator = settings(conf)
    notes: list[str] = []
    folder.write(root_of(conf), generator, progress, notes.append)
    index = cub.read(root_of(conf), partial=False)
    return replace(index, hierarchy=species.hierarchy(generator), notes=(*index.notes, *notes))


def _counts(conf: schema.Dataset) -> schema.OfficialCounts:
    generator = settings(conf)
    return schema.OfficialCounts(
        classes=generator.classes,
        train=generator.classes * generator.train_per_class,
        test=generator.classes * generator.test_per_class,
    )


DATASET = DatasetSpec(
    _read,
    counts=_counts,
    drawn=True,
    layout_fix="delete the folder, and its images are drawn again",
    download_steps="synthetic birds are drawn when first needed; remove dataset.download=true",
)
