"""A delimited text or JSON lines -> names of the columns, and their cells as text."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fgvc import untrusted
from fgvc.data.image_formats import HEAD_BYTES, READABLE, kind_of, with_article
from fgvc.types import UserError

DELIMITERS = ",\t;|"
JSON_LINES = (".jsonl", ".ndjson")
Rows = Callable[[], Iterator[tuple[int, list[str]]]]  # line number and cells
# first bytes of files that people rename or mistake for a table: what they are, and the way out
# beside the kinds of `formats`
_OTHER_FORMATS = (
    (b"\xd0\xcf\x11\xe0", "an Excel workbook (.xls)", "save it as CSV UTF-8"),
    (b"ARROW1", "an Arrow or Feather file", "write it as Parquet"),
    (b"\x80\x04", "a Python pickle", "save the table as CSV"),
    (b"\x80\x05", "a Python pickle", "save the table as CSV"),
)
_EXPORTABLE = ("SQLite database", "HDF5 file")
_REFUSED_KINDS = ("HTML page", "PDF", *_EXPORTABLE, *READABLE)


class TextTable:
    """The rows of a text; blank lines are passed over.

    names: of the columns. lines: per row, its line number; filled by `columns`.
    """

    def __init__(self, file: Path) -> None:
        """Decode the file and read its first row.

        Raises:
            UserError: something else than a text, or no UTF-8 (UTF-16 with its mark is read).
        """
        refuse_other_formats(file)
        self.file = file
        self.lines: list[int] = []
        # not splitlines(): names may hold the other line separators of Unicode
        lines = _decode(file).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        read = _read_json_lines if file.suffix.lower() in JSON_LINES else _read_delimited
        self.names, self._read = read(file, lines)

    def columns(self, places: Sequence[int]) -> list[list[str]]:
        """The cells of these columns, without spaces around them; "" where a row has none."""
        columns: list[list[str]] = [[] for _ in places]
        self.lines = []
        wanted = tuple(zip(columns, places, strict=True))
        for line, row in self._read():
            self.lines.append(line)
            for column, place in wanted:
                column.append(row[place].strip() if place < len(row) else "")
        return columns

    def first(self, place: int) -> str:
        """The cell of the first row; "" where there is none."""
        _, row = next(self._read(), (0, []))
        return row[place].strip() if place < len(row) else ""

    def all_pass(self, places: Sequence[int], test: Callable[[str], bool]) -> list[int]:
        """Those of the columns whose cells all pass a test (empty cells aside), if any do."""
        alive, filled = list(places), set()
        for _, row in self._read():
            cells = {place: row[place].strip() for place in alive if place < len(row)}
            filled |= {place for place, cell in cells.items() if cell}
            alive = [place for place in alive if not cells.get(place) or test(cells[place])]
            if not alive:
                break
        return [place for place in alive if place in filled]

    def where(self, row: int) -> str:
        """A row as an editor counts it, for a message."""
        return f"{self.file}:{self.lines[row]}"


def _decode(file: Path) -> str:
    data = untrusted.read_bytes(file, untrusted.LIST)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if wide:
            raise UserError(f"{file}: damaged UTF-16 text; save it as UTF-8") from None
        line = len(re.findall(rb"\r\n|\r|\n", data[: error.start])) + 1
        raise UserError(
            f"{file}:{line}: not UTF-8 text; save the table as UTF-8 (Excel: CSV UTF-8)"
        ) from None
    if "\0" in text:
        raise UserError(f"{file}: holds NUL bytes, as UTF-16 or binary data do; save it as UTF-8")
    return text


def _read_delimited(file: Path, lines: Sequence[str]) -> tuple[list[str], Rows]:
    """The header, and a function that reads the rows after it."""
    start = next((place for place, line in enumerate(lines) if line.strip()), 0)
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
        following = rows()
        next(following, None)  # the header
        for line, row in following:
            if len(row) > len(names) and any(map(str.strip, row[len(names) :])):
                raise UserError(
                    f"{file}:{line}: {len(row)} cells in {len(names)} columns; "
                    "a cell with the delimiter in it is quoted, and a column of row names has a "
                    "name too"
                )
            yield line, row

    return names, checked


def _read_json_lines(file: Path, lines: Sequence[str]) -> tuple[list[str], Rows]:
    """The keys of all rows, and a function that reads their values."""

    def objects() -> Iterator[tuple[int, dict[str, object]]]:
        for line, row in enumerate(lines, start=1):
            if not row.strip():
                continue
            try:
                value = untrusted.parse_json(row)
                if "\\u" in row:
                    _check_text(value)
            except ValueError as error:
                raise UserError(f"{file}:{line}: no JSON ({error})") from None
            if not isinstance(value, dict):
                raise UserError(f"{file}:{line}: no JSON object; each line is one row")
            yield line, value

    names = list(dict.fromkeys(name for _, row in objects() for name in row))

    def rows() -> Iterator[tuple[int, list[str]]]:
        for line, row in objects():
            yield line, ["" if (cell := row.get(name)) is None else str(cell) for name in names]

    return names, rows


def _check_text(value: object) -> None:
    """ValueError for what no file name and no record can hold: NUL, or half a surrogate pair."""
    pairs = value.items() if isinstance(value, dict) else ()
    for text in (text for pair in pairs for text in pair if isinstance(text, str)):
        text.encode()
        if "\0" in text:
            raise ValueError("a NUL character")


def refuse_other_formats(file: Path) -> None:
    """Refuse what is no text, by its first bytes; name it and the way out."""
    with untrusted.open_regular(file) as source:
        head = source.read(HEAD_BYTES)
    for start, what, way_out in _OTHER_FORMATS:
        if head.startswith(start):
            raise UserError(f"dataset.table={file}: is {what}; {way_out}")
    kind = kind_of(head)
    if kind == "ZIP archive":
        raise UserError(
            f"dataset.table={file}: is an Excel workbook or another ZIP archive; "
            "save the workbook as CSV UTF-8, or unpack the archive"
        )
    if kind is not None and ("archive" in kind or kind in _REFUSED_KINDS):
        way_out = "unpack it" if "archive" in kind else "set dataset.table= to a table"
        if kind in _EXPORTABLE:
            way_out = "export the rows as CSV"
        raise UserError(f"dataset.table={file}: is {with_article(kind)}, not a table; {way_out}")
    if kind == "Git LFS pointer":
        raise UserError(f"dataset.table={file}: is a Git LFS pointer; fetch it with git lfs pull")
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if file.suffix.lower() not in JSON_LINES and re.match(rb'\{\s*"|\[\s*[{\[]|\{\s*$', start):
        raise UserError(
            f"dataset.table={file}: is JSON; save it as CSV, or call JSON lines "
            f"(an object per line) {file.with_suffix('.jsonl').name}"
        )
