"""reader=table: a CSV, TSV or Parquet file with a row a picture -> Index.

Columns path and label, and optionally split (train or test); others are passed over. A label is any
text: spaces, slashes, other scripts. N images.
"""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fgvc.data.index import Index, listed, repeated
from fgvc.data.labelmap import named
from fgvc.data.layout import existing, inside
from fgvc.data.split import carved_test
from fgvc.types import TEST, TRAIN, UserError

SPLITS = {"train": TRAIN, "test": TEST}
VALIDATION = ("val", "valid", "validation")
COLUMNS = ("path", "label", "split")
FORMATS = (".csv", ".tsv", ".txt", ".parquet")


def read(file: Path, root: Path | None, test_fraction: float, seed: int) -> Index:
    """Read the table.

    Args:
        file: a name that ends in one of FORMATS.
        root: the folder that paths are relative to; None: the folder of the table.
        test_fraction: share of each class that becomes test where there is no column split.
        seed: of that split.

    Raises:
        UserError: no such file or column, a cell that is empty or means nothing, a path listed
            twice or outside the root, or a class too small to be split.
    """
    root = existing(file.parent if root is None else root)
    names, rows = _rows(file)
    if lacking := [name for name in COLUMNS[:2] if name not in names]:
        raise UserError(
            f"{file}: has no column {listed(lacking)}, only {listed(names) or 'an empty line'}"
        )
    split_given = "split" in names
    cells = list(_cells(file, rows, COLUMNS if split_given else COLUMNS[:2]))
    if not cells:
        raise UserError(f"{file}: lists no picture")
    path = tuple(_on_disk(root, _inside(file, number, row[0])) for number, row in cells)
    if twice := repeated(path):
        raise UserError(f"{file}: path listed twice: {listed(twice)}")
    label = [unicodedata.normalize("NFC", row[1].strip()) for _, row in cells]
    classes = named(set(label))
    index_of = {name: index for index, name in enumerate(classes.names)}
    label_N = np.array([index_of[name] for name in label], dtype=np.int64)
    if split_given:
        split_N = np.array([_part(file, number, row[2]) for number, row in cells], dtype=np.uint8)
    else:
        where = f"{file} has no column split"
        split_N = carved_test(where, path, label_N, classes, test_fraction, seed)
    return Index(root, path, label_N, split_N, classes, notes=_alike(classes.names))


Row = dict[str, str | None]


def _rows(file: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """Names of the columns, and the rows led by their numbers as an editor counts them."""
    if file.suffix.lower() not in FORMATS:
        raise UserError(f"dataset.table={file}: not one of {', '.join(FORMATS)}")
    if not file.is_file():
        raise UserError(f"dataset.table={file}: no such file; set dataset.table=")
    return _parquet(file) if file.suffix.lower() == ".parquet" else _text(file)


def _text(file: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    """A delimited text: whichever of comma, tab and semicolon its first line has most of."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start})") from None
    delimiter = max(",\t;", key=lines[0].count)
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(reader, [])]

    def rows() -> Iterator[tuple[int, Row]]:
        try:
            for row in reader:
                if len(row) > len(names):
                    raise UserError(
                        f"{file}:{reader.line_num}: {len(row)} cells in {len(names)} columns; "
                        "a cell with the delimiter in it is quoted"
                    )
                if any(cell.strip() for cell in row):
                    yield reader.line_num, dict(zip(names, row, strict=False))
        except csv.Error as error:
            raise UserError(f"{file}:{reader.line_num}: {error}") from None

    return names, rows()


def _parquet(file: Path) -> tuple[list[str], Iterator[tuple[int, Row]]]:
    try:
        names = pq.read_schema(file).names
        table = pq.read_table(file, columns=[name for name in COLUMNS if name in names])
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: no Parquet file, or a damaged one ({reason})") from None
    for name in table.column_names:
        kind = table.schema.field(name).type
        kind = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or _number(name, kind)):
            raise UserError(f"{file}: column {name} holds {kind}, not text")
    columns = [table.column(name).to_pylist() for name in table.column_names]
    texts = ([None if cell is None else str(cell) for cell in row] for row in zip(*columns))  # noqa: B905
    rows = (dict(zip(table.column_names, row, strict=True)) for row in texts)
    return names, enumerate(rows, start=1)


def _number(name: str, kind: pa.DataType) -> bool:
    """A label may be a whole number; it is the text of that number then, as in a CSV."""
    return name == "label" and pa.types.is_integer(kind)


def _cells(
    file: Path, rows: Iterator[tuple[int, Row]], names: tuple[str, ...]
) -> Iterator[tuple[int, list[str]]]:
    """The cells of these columns; UserError for one that is empty."""
    for number, row in rows:
        cells = [row.get(name) or "" for name in names]
        if empty := [name for name, cell in zip(names, cells, strict=True) if not cell.strip()]:
            raise UserError(f"{file}:{number}: no {listed(empty)}; fill it in, or remove the row")
        yield number, cells


def _inside(file: Path, number: int, path: str) -> str:
    plain = inside(path)
    if plain is None:
        raise UserError(
            f"{file}:{number}: {path!r} is not below the root: write paths relative to dataset.root"
        )
    return plain


def _part(file: Path, number: int, text: str) -> int:
    name = text.strip().lower()
    if name in VALIDATION:
        raise UserError(
            f"{file}:{number}: split {name}: validation is carved from train "
            "(dataset.val_fraction); call these rows train, or take them out"
        )
    if name not in SPLITS:
        raise UserError(f"{file}:{number}: split {text.strip()!r}: one of {', '.join(SPLITS)}")
    return SPLITS[name]


def _on_disk(root: Path, path: str) -> str:
    """The path as the disk writes it: a table and a copy may compose accents differently."""
    if path.isascii() or (root / path).exists():
        return path
    forms = (unicodedata.normalize(form, path) for form in ("NFC", "NFD"))
    return next((form for form in forms if (root / form).exists()), path)


def _alike(names: tuple[str, ...]) -> tuple[str, ...]:
    """A note on labels that differ in case alone: two classes, and perhaps a slip."""
    twice = set(repeated([name.casefold() for name in names]))
    alike = [name for name in names if name.casefold() in twice]
    if not alike:
        return ()
    return (f"labels that differ only in case are classes of their own: {listed(alike)}",)
