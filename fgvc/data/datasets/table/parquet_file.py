"""Parquet files -> column names, cells as text, and the images inside.

Several files are shards of one table, as Hugging Face writes them. Integers of a ClassLabel column
become the class names of the file's Hugging Face metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fgvc import untrusted
from fgvc.data.datasets.table.columns import DatasetTable
from fgvc.data.index import list_first
from fgvc.types import UserError

MAX_ROWS = 50_000_000  # of a file
BATCH_ROWS = 4096  # rows of text read at a time
MAX_CELL = 1 << 16  # bytes of a cell of text
MAX_RATIO, MIN_LIMIT = 50, 1 << 26  # bytes of all images: per byte of the file; for any file
_STRINGS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_TEXT_TYPES = (*_STRINGS, pa.types.is_integer, pa.types.is_boolean)
_BINARY_TYPES = (
    *(pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view),
    pa.types.is_fixed_size_binary,
)


@dataclass(frozen=True)
class ImageCell:
    """An image cell: its bytes and its original name, either of which may be None."""

    data: bytes | None
    path: str | None


class ParquetTable(DatasetTable):
    """The rows of one or several Parquet files with the same columns. counts: rows per file."""

    def __init__(self, table: Path, files: Sequence[Path]) -> None:
        """Read the schemas; UserError: a file is damaged, or lacks columns of the first file."""
        self.file, self.files = table, tuple(files)
        self.counts: list[int] = []
        self.schemas: list[pa.Schema] = []
        self.class_names: list[dict[str, list[str]]] = []
        for file in files:
            with _open_parquet(file) as parquet:
                count, schema = parquet.metadata.num_rows, parquet.schema_arrow
                names = list(schema.names)  # a name that is not UTF-8 fails here
            if not 0 <= count <= MAX_ROWS:
                raise UserError(f"dataset.table={file}: {count} rows, not 0 to {MAX_ROWS}")
            if not self.schemas:
                self.names = names
            if missing := [name for name in self.names if name not in names]:
                raise UserError(
                    f"dataset.table={file}: has no column {list_first(missing)}, but {files[0]} "
                    "has; set dataset.table= to the files of one table"
                )
            self.counts.append(count)
            self.schemas.append(schema)
            self.class_names.append(_class_names(file, schema))

    def __len__(self) -> int:
        return sum(self.counts)

    def _types(self, column: int) -> list[pa.DataType]:
        """Type of a column in each file; of a dictionary, the type of its values."""
        kinds = [schema.field(self.names[column]).type for schema in self.schemas]
        return [kind.value_type if isinstance(kind, pa.DictionaryType) else kind for kind in kinds]

    def holds_text(self, column: int) -> bool:
        """Whether a column can be read as text: strings, integers, booleans."""
        return all(_is_any(kind, _TEXT_TYPES) for kind in self._types(column))

    def holds_numbers(self, column: int) -> bool:
        """Whether a column holds text or floats; pandas writes flags with gaps as floats."""
        kinds = (*_TEXT_TYPES, pa.types.is_floating)
        return all(_is_any(kind, kinds) for kind in self._types(column))

    def holds_images(self, column: int) -> bool:
        """Whether a column holds encoded images: bytes, or a struct of bytes and path."""
        return all(
            any(field.name == "bytes" and _is_any(field.type, _BINARY_TYPES) for field in kind)
            if pa.types.is_struct(kind)
            else _is_any(kind, _BINARY_TYPES)
            for kind in self._types(column)
        )

    def kind(self, column: int) -> str:
        return str(self._types(column)[0])

    def images(self, column: int, file: int) -> Iterator[ImageCell]:
        """Yield the image cells of one file, with a single cell in memory at a time.

        Raises:
            UserError: the images have more bytes than the size of the file makes plausible: a cell
                that is stored once can occur in a million rows.
        """
        name, spent = self.names[column], 0
        most = max(self.files[file].stat().st_size * MAX_RATIO, MIN_LIMIT)
        with _open_parquet(self.files[file]) as source:
            for batch in source.iter_batches(1, columns=[name], use_threads=False):
                for cell in batch.column(0).to_pylist():
                    named = cell if isinstance(cell, Mapping) else {"bytes": cell}
                    image_cell = ImageCell(named.get("bytes"), named.get("path"))
                    spent += len(image_cell.data or b"") + len(image_cell.path or "")
                    if spent > most:
                        raise UserError(
                            f"dataset.table={self.files[file]}: column {name} unpacks to more than "
                            f"{most} bytes, which its size does not make plausible; save the "
                            "images as files, and name them in the table"
                        )
                    yield image_cell

    def image_paths(self, column: int) -> list[str]:
        """The paths in image cells without bytes; UserError: a cell holds bytes."""
        paths: list[str] = []
        for file in range(len(self.files)):
            for image_cell in self.images(column, file):
                if image_cell.data is not None:
                    raise UserError(
                        f"{self.where(len(paths))}: column {self.names[column]} holds image bytes, "
                        "but only a path in the rows before; write one of them in every row"
                    )
                paths.append((image_cell.path or "").strip())
        return paths

    def where(self, row: int) -> str:
        for file, count in zip(self.files, self.counts, strict=True):
            if row < count:
                return f"{file}:{row + 1}"
            row -= count
        raise IndexError(row)

    def cells(self, column: int) -> Iterator[str]:
        name = self.names[column]
        for file, classes in zip(self.files, self.class_names, strict=True):
            # {class number: name}; Hugging Face writes -1 for a missing label
            known = {-1: "", **dict(enumerate(classes[name]))} if name in classes else {}
            with _open_parquet(file, name) as source:
                rows = 0
                for batch in source.iter_batches(BATCH_ROWS, columns=[name], use_threads=False):
                    _check_lengths(batch.column(0), file, name)
                    for cell in _cells(batch, file, rows + 1, name):
                        text = "" if cell is None else str(cell).strip()
                        yield known.get(cell, text) if isinstance(cell, int) else text
                    rows += len(batch)
                if rows != source.metadata.num_rows:
                    raise UserError(
                        f"dataset.table={file}: a damaged Parquet file: column {name} has {rows} "
                        f"rows of {source.metadata.num_rows}"
                    )


@contextmanager
def _open_parquet(file: Path, text: str | None = None) -> Iterator[pq.ParquetFile]:
    """Open a file and verify its checksums, if any; damage becomes a UserError that names it.

    Args:
        text: a text column to read as a dictionary, which keeps each distinct cell once.
    """
    names = None if text is None else [text]
    try:
        with pq.ParquetFile(
            untrusted.require_regular(file), page_checksum_verification=True, read_dictionary=names
        ) as parquet:
            yield parquet
    except UserError:
        raise
    except Exception as error:  # pyarrow may raise anything on a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise  # from the disk, not from pyarrow
        reason = " ".join(str(error).split())
        raise UserError(
            f"dataset.table={file}: no Parquet file, or a damaged one ({reason})"
        ) from None


def _check_lengths(cells: pa.Array, file: Path, name: str) -> None:
    """Check the length of text cells; UserError: a cell is too long for a path or a label."""
    texts = cells.dictionary if isinstance(cells, pa.DictionaryArray) else cells
    if not _is_any(texts.type, _STRINGS[:2]) or not len(texts):
        return
    lengths = pc.call_function("binary_length", [texts])
    longest = pc.call_function("max", [lengths]).as_py() or 0
    if longest > MAX_CELL:
        raise UserError(
            f"dataset.table={file}: column {name} has a cell of {longest} bytes, more than the "
            f"{MAX_CELL} of a path or label; correct the table"
        )


def _cells(batch: pa.RecordBatch, file: Path, first_row: int, name: str) -> list[Any]:
    """The cells of a column as plain values; UserError: text that is not UTF-8."""
    column = batch.column(0)
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        pass
    for row, cell in enumerate(column, start=first_row):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            raise UserError(
                f"{file}:{row}: column {name} holds bytes that are not UTF-8 text; write the table "
                "again with text in UTF-8"
            ) from None
    raise AssertionError("every cell is UTF-8")


def _is_any(kind: pa.DataType, types: Sequence[Callable[[pa.DataType], bool]]) -> bool:
    return any(is_type(kind) for is_type in types)


def _class_names(file: Path, schema: pa.Schema) -> dict[str, list[str]]:
    """{column: class names} of Hugging Face metadata; UserError: it is damaged."""
    try:
        about = untrusted.parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
    except ValueError as error:
        raise UserError(
            f"dataset.table={file}: damaged Hugging Face metadata in its schema ({error}); write "
            "the file again, in pyarrow with table.replace_schema_metadata(None)"
        ) from None
    try:
        features = about["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict)
            and feature.get("_type") == "ClassLabel"
            and isinstance(feature["names"], list)
        }
    except (KeyError, TypeError, AttributeError):
        return {}
