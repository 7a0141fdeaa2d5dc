"""The dataset node of a config, for tests of fgvc/data without Hydra."""

from __future__ import annotations

from pathlib import Path

from fgvc.config import schema


def dataset_conf(reader: str, root: Path | None, **fields: object) -> schema.Dataset:
    """The dataset node, no official counts unless given."""
    values = {
        "name": reader,
        "partial": False,
        "subset": None,
        "split_seed": 0,
        "val_fraction": 0.2,
        "test_fraction": 0.25,
        "on_bad_image": "error",
        "official": schema.OfficialCounts(0, 0, 0),
        "generator": None,
        "archives": {},
        "download": False,
        "card": schema.Card("here", "none", "CC0-1.0", "approved: generated", "none", "none"),
        "root": None if root is None else str(root),
    }
    return schema.Dataset(reader=reader, **{**values, **fields})  # type: ignore[arg-type]


def table_conf(file: Path, root: Path | None = None, **fields: object) -> schema.Dataset:
    """The dataset node of reader=table."""
    return dataset_conf("table", root, table=str(file), **fields)
