"""Parquet files -> names of the columns, their cells as text, and the images inside.

Several files are shards of one table, as Hugging Face writes them. Whole numbers whose names the
file's Hugging Face metadata holds (ClassLabel) become these names.
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
from fgvc.data.index import list_first
from fgvc.types import UserError

MAX_ROWS = 50_000_000  # of a file
BATCH_ROWS = 4096  # cells of text read at a time
MAX_CELL = 1 << 16  # bytes of a cell of text
MAX_RATIO, MIN_LIMIT = (
    50,
    1 << 26,
)  # bytes of all images: for each byte of their file, and of any file
_TEXT_TYPES = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_boolean,
)
_BINARY_TYPES = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
    pa.types.is_fixed_size_binary,
)


@dataclass(frozen=True)
class ImageCell:
    """An image cell. data: its bytes; path: the name that it had; either may be None."""

    data: bytes | None
    path: str | None


class ParquetTable:
    """The rows of one or several Parquet files of the same columns.

    names: of the columns. counts: rows per file.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Read the files' schemas.

        Raises:
            UserError: a file is damaged or no Parquet, or lacks columns of the first.
        """
        self.files = tuple(files)
        opened = [_read_schema(file) for file in files]
        self.counts = [count for count, _ in opened]
        self.schemas = [schema for _, schema in opened]
        self.names = list(self.schemas[0].names)
        for file, schema in zip(files, self.schemas, strict=True):
            if missing := [name for name in self.names if name not in schema.names]:
                raise UserError(
                    f"dataset.table={file}: has no column {list_first(missing)}, which {files[0]} has; "
                    "set dataset.table= to the files of one table"
                )
        self.class_names = [
            _class_names(file, schema) for file, schema in zip(files, self.schemas, strict=True)
        ]

    def __len__(self) -> int:
        return sum(self.counts)

    def holds_text(self, place: int) -> bool:
        """Whether a column can be read as text: strings, whole numbers, true and false."""
        return all(
            _is_text(_value_type(schema.field(self.names[place]).type)) for schema in self.schemas
        )

    def holds_numbers(self, place: int) -> bool:
        """Whether a column holds numbers with a fraction, as pandas writes flags with gaps."""
        kinds = (_value_type(schema.field(self.names[place]).type) for schema in self.schemas)
        return all(_is_text(kind) or pa.types.is_floating(kind) for kind in kinds)

    def holds_images(self, place: int) -> bool:
        """Whether a column holds encoded images: bytes, or a struct of bytes and path."""
        return all(_is_image(schema.field(self.names[place]).type) for schema in self.schemas)

    def kind(self, place: int) -> str:
        """What a column holds, for a message."""
        return str(_value_type(self.schemas[0].field(self.names[place]).type))

    def columns(self, places: Sequence[int]) -> list[list[str]]:
        """The cells of these columns as text; "" where there is none."""
        return [list(self._texts(self.names[place])) for place in places]

    def first(self, place: int) -> str:
        """The text of the first row; "" where there is none."""
        return next(self._texts(self.names[place]), "") if self.holds_text(place) else ""

    def all_pass(self, places: Sequence[int], test: Callable[[str], bool]) -> list[int]:
        """Those of the columns whose cells all pass a test (empty cells aside), if any do."""
        passed = []
        for place in filter(self.holds_numbers, places):  # text too
            filled = 0
            for cell in self._texts(self.names[place]):
                if cell and not test(cell):
                    break
                filled += bool(cell)
            else:
                passed += [place] if filled else []
        return passed

    def pictures(self, place: int, file: int) -> Iterator[ImageCell]:
        """The image cells of one file, a single cell in memory at a time.

        Raises:
            UserError: more bytes come out than the size of the file makes plausible: one cell that
                is stored once can stand in a million rows.
        """
        name, spent = self.names[place], 0
        most = max(self.files[file].stat().st_size * MAX_RATIO, MIN_LIMIT)
        with _open_parquet(self.files[file]) as source:
            for batch in source.iter_batches(1, columns=[name], use_threads=False):
                for cell in batch.column(0).to_pylist():
                    picture = _image_cell(cell)
                    spent += len(picture.data or b"") + len(picture.path or "")
                    if spent > most:
                        raise UserError(
                            f"dataset.table={self.files[file]}: column {name} unpacks to more than "
                            f"{most} bytes, which its size does not make plausible; save the "
                            "pictures as files, and name them in the table"
                        )
                    yield picture

    def image_paths(self, place: int) -> list[str]:
        """The paths in image cells that hold no bytes.

        Raises:
            UserError: a cell that does.
        """
        paths: list[str] = []
        for file in range(len(self.files)):
            for picture in self.pictures(place, file):
                if picture.data is not None:
                    raise UserError(
                        f"{self.where(len(paths))}: column {self.names[place]} holds image bytes, "
                        "but only a path in the rows before; write one of them in every row"
                    )
                paths.append((picture.path or "").strip())
        return paths

    def where(self, row: int) -> str:
        """A row by its file and its number there, from 1, for a message."""
        for file, count in zip(self.files, self.counts, strict=True):
            if row < count:
                return f"{file}:{row + 1}"
            row -= count
        raise IndexError(row)

    def _texts(self, name: str) -> Iterator[str]:
        for file, classes in zip(self.files, self.class_names, strict=True):
            text = _class_name_of(classes[name]) if name in classes else _cell_text
            with _open_parquet(file, name) as source:
                rows = 0
                for batch in source.iter_batches(BATCH_ROWS, columns=[name], use_threads=False):
                    _check_lengths(batch.column(0), file, name)
                    yield from map(text, _cells(batch, f"{file}:{rows + 1}", name))
                    rows += len(batch)
                if rows != source.metadata.num_rows:
                    raise UserError(
                        f"dataset.table={file}: a damaged Parquet file: column {name} has {rows} "
                        f"rows of {source.metadata.num_rows}"
                    )


@contextmanager
def _open_parquet(file: Path, text: str | None = None) -> Iterator[pq.ParquetFile]:
    """A file whose damage is one line that names it; checksums are verified where it has them.

    Args:
        text: a column whose distinct cells are held once, as a dictionary, where it is of text.
    """
    names = None if text is None else [text]
    try:
        with pq.ParquetFile(
            untrusted.require_regular(file), page_checksum_verification=True, read_dictionary=names
        ) as opened:
            yield opened
    except UserError:
        raise
    except Exception as error:  # a damaged file raises whatever its layer happens to raise
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of pyarrow
        reason = " ".join(str(error).split())
        raise UserError(
            f"dataset.table={file}: no Parquet file, or a damaged one ({reason})"
        ) from None


def _check_lengths(cells: pa.Array, file: Path, name: str) -> None:
    """Refuse a cell of text that no path or label can be.

    Raises:
        UserError: names the column and the bytes.
    """
    held = cells.dictionary if isinstance(cells, pa.DictionaryArray) else cells
    if not any(is_kind(held.type) for is_kind in _TEXT_TYPES[:2]) or not len(held):
        return
    lengths = pc.call_function("binary_length", [held])
    longest = pc.call_function("max", [lengths]).as_py() or 0
    if longest > MAX_CELL:
        raise UserError(
            f"dataset.table={file}: column {name} has a cell of {longest} bytes, more than the "
            f"{MAX_CELL} of a path or label; correct the table"
        )


def _cells(batch: pa.RecordBatch, where: str, name: str) -> list[Any]:
    """The cells of a column as plain values.

    Raises:
        UserError: text that is not UTF-8.
    """
    try:
        return batch.column(0).to_pylist()
    except UnicodeDecodeError:
        row = int(where.rpartition(":")[2]) + _first_not_utf8(batch.column(0))
        raise UserError(
            f"{where.rpartition(':')[0]}:{row}: column {name} holds bytes that are not UTF-8 "
            "text; write the table again with text in UTF-8"
        ) from None


def _first_not_utf8(column: pa.Array) -> int:
    for row, cell in enumerate(column):
        try:
            cell.as_py()
        except UnicodeDecodeError:
            return row
    return 0


def _read_schema(file: Path) -> tuple[int, pa.Schema]:
    """Number of rows and columns of a file."""
    with _open_parquet(file) as opened:
        count, schema = opened.metadata.num_rows, opened.schema_arrow
        schema.names  # noqa: B018 - a name that is not UTF-8 fails here, where the file is named
    if not 0 <= count <= MAX_ROWS:
        raise UserError(f"dataset.table={file}: {count} rows, not 0 to {MAX_ROWS}")
    return count, schema


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if isinstance(kind, pa.DictionaryType) else kind


def _is_text(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _TEXT_TYPES)


def _is_bytes(kind: pa.DataType) -> bool:
    return any(is_kind(kind) for is_kind in _BINARY_TYPES)


def _is_image(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return _is_bytes(kind)
    return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)


def _image_cell(cell: Any) -> ImageCell:
    if isinstance(cell, Mapping):
        return ImageCell(cell.get("bytes"), cell.get("path"))
    return ImageCell(cell, None)


def _cell_text(cell: object) -> str:
    return "" if cell is None else str(cell).strip()


def _class_name_of(names: Sequence[str]) -> Callable[[object], str]:
    """Number of a class -> its name; -1 is how Hugging Face writes that there is no label."""

    def text(cell: object) -> str:
        if not isinstance(cell, int):
            return _cell_text(cell)
        if cell == -1:
            return ""
        return names[cell] if 0 <= cell < len(names) else str(cell)

    return text


def _class_names(file: Path, schema: pa.Schema) -> dict[str, list[str]]:
    """{column: names of its classes} of the metadata that Hugging Face's `datasets` writes.

    Raises:
        UserError: metadata that is no JSON: labels would silently be numbers.
    """
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
