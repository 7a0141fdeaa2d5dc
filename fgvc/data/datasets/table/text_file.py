"""A delimited text or JSON lines -> column names and cells as text."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fgvc import untrusted
from fgvc.data.datasets.table.columns import DatasetTable
from fgvc.data.image_formats import READABLE
from fgvc.types import UserError
from fgvc.untrusted.file_format import HEAD_BYTES, kind_of, with_article

DELIMITERS = ",\t;|"
JSON_LINES = (".jsonl", ".ndjson")
Rows = Callable[[], Iterator[tuple[int, list[str]]]]  # line number and cells
# kinds of files that are mistaken for tables, and what to do; archives are unpacked
_WAYS_OUT = {
    **dict.fromkeys(("HTML page", "PDF", *READABLE), "set dataset.table= to a table"),
    "Excel workbook (.xls)": "save it as CSV UTF-8",
    "Arrow or Feather file": "write it as Parquet",
    "Python pickle": "save the table as CSV",
    "SQLite database": "export the rows as CSV",
    "HDF5 file": "export the rows as CSV",
    "Git LFS pointer": "fetch it with git lfs pull",
}


class TextTable(DatasetTable):
    """The rows of a text file; blank lines are skipped."""

    def __init__(self, file: Path) -> None:
        """Decode the file, UTF-8 or marked UTF-16, and read a row; UserError: another format."""
        check_format(file)
        self.file = file
        # not splitlines(): names may hold the other line separators of Unicode
        lines = _decode(file).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        read = _read_json_lines if file.suffix.lower() in JSON_LINES else _read_delimited
        self.names, self._read = read(file, lines)

    def cells(self, column: int) -> Iterator[str]:
        for _, row in self._read():
            yield row[column].strip() if column < len(row) else ""

    def where(self, row: int) -> str:
        line, _ = next(itertools.islice(self._read(), row, None))
        return f"{self.file}:{line}"


def _decode(file: Path) -> str:
    data = untrusted.read_bytes(file, untrusted.LIST)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", data[: error.start])) + 1
        reason = f"{file}:{line}: not UTF-8 text; save the table as UTF-8 (Excel: CSV UTF-8)"
        if wide:
            reason = f"{file}: damaged UTF-16 text; save it as UTF-8"
        raise UserError(reason) from None
    if "\0" in text:
        raise UserError(f"{file}: holds NUL bytes, like UTF-16 or binary data; save it as UTF-8")
    return text


def _read_delimited(file: Path, lines: Sequence[str]) -> tuple[list[str], Rows]:
    """The header, and a function that iterates over the rows after it."""
    start = next((index for index, line in enumerate(lines) if line.strip()), 0)
    stated = re.fullmatch(r"\"?sep=(.)\"?\s*", lines[start], re.IGNORECASE)  # Excel writes this
    start += stated is not None
    unquoted = re.sub(r'"[^"]*"', "", "".join(lines[start : start + 1]))
    delimiter = stated[1] if stated else max(DELIMITERS, key=unquoted.count)

    def rows() -> Iterator[tuple[int, list[str]]]:
        source = (f"{line}\n" for line in itertools.islice(lines, start, None))
        reader = csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            for row in reader:
                if any(map(str.strip, row)):
                    yield reader.line_num + start, row
        except csv.Error as error:
            line = reader.line_num + start
            raise UserError(f"{file}:{line}: {error}; check the quotes of this row") from None

    names = [name.strip() for name in next(rows(), (0, []))[1]]
    while names and not names[-1]:
        names.pop()

    def checked() -> Iterator[tuple[int, list[str]]]:
        for line, row in itertools.islice(rows(), 1, None):  # after the header
            if len(row) > len(names) and any(map(str.strip, row[len(names) :])):
                raise UserError(
                    f"{file}:{line}: {len(row)} cells in {len(names)} columns; "
                    "a cell that contains the delimiter is quoted, and a column of row names needs "
                    "a name"
                )
            yield line, row

    return names, checked


def _read_json_lines(file: Path, lines: Sequence[str]) -> tuple[list[str], Rows]:
    """The keys of all rows, and a function that iterates over their values."""

    def objects() -> Iterator[tuple[int, dict[str, object]]]:
        for line, row in enumerate(lines, start=1):
            if not row.strip():
                continue
            try:
                value = untrusted.parse_json(row)
            except ValueError as error:
                raise UserError(f"{file}:{line}: no JSON ({error})") from None
            if not isinstance(value, dict):
                raise UserError(f"{file}:{line}: not a JSON object; each line is one row")
            if any("\0" in str(text) for pair in value.items() for text in pair):
                raise UserError(f"{file}:{line}: no JSON of a table (a NUL character)")
            yield line, value

    names = list(dict.fromkeys(name for _, row in objects() for name in row))

    def rows() -> Iterator[tuple[int, list[str]]]:
        for line, row in objects():
            yield line, ["" if (cell := row.get(name)) is None else str(cell) for name in names]

    return names, rows


def check_format(file: Path) -> None:
    """Raise if the first bytes belong to another format; the message says how to convert it."""
    with untrusted.open_regular(file) as source:
        head = source.read(HEAD_BYTES)
    is_pickle = head.startswith((b"\x80\x04", b"\x80\x05"))
    kind = "Python pickle" if is_pickle else kind_of(head) or ""
    way_out = "unpack it" if "archive" in kind else _WAYS_OUT.get(kind)
    if kind == "ZIP archive":
        raise UserError(
            f"dataset.table={file}: is an Excel workbook or another ZIP archive; "
            "save the workbook as CSV UTF-8, or unpack the archive"
        )
    if way_out is not None:
        raise UserError(f"dataset.table={file}: is {with_article(kind)}, not a table; {way_out}")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if file.suffix.lower() not in JSON_LINES and re.match(rb'\{\s*"|\[\s*[{\[]|\{\s*$', start):
        raise UserError(
            f"dataset.table={file}: is JSON; save it as CSV, or call JSON lines "
            f"(an object per line) {file.with_suffix('.jsonl').name}"
        )
