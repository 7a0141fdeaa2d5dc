"""Predictions of one or two splits -> predictions.parquet, per_class.csv, confusion.csv and .svg.

Every number of metrics.json follows from predictions.parquet alone. In the CSV files, names that a
spreadsheet would read as formulas start with an apostrophe; `fgvc.untrusted.escape.uncell` removes
it.
N images, C classes, K top predictions per image.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fgvc import metrics, untrusted
from fgvc.types import LabelMap, Manifest, Predictions, nfc
from fgvc.untrusted import ARRAYS, MIB
from fgvc.untrusted.escape import csv_text, uncell

TOP = 5
WORST = 10  # confused pairs that metrics.json lists
# limit of the unpacked bytes of a table: per byte of its file, and the minimum for any file. A row
# has 32 incompressible bytes, its sha256, and at most 5,000 unpacked bytes.
MAX_RATIO, MIN_LIMIT = 200, 64 * MIB
ROWS = 512  # read at a time
LOGITS_UP_TO = 1000  # classes; with more, logits take kilobytes per image and are not written


def predictions_table(manifest: Manifest, splits: Mapping[str, Predictions]) -> pa.Table:
    """One row per image and split, in the given order.

    Columns: path (relative to the root), sha256 (of the file, in hexadecimal), split, label, pred
    (class indices; -1: the image is unreadable, which counts as wrong), confidence and
    label_logprob (float64; null if unreadable), topk_labels, topk_scores (probabilities), and
    logits (float32) up to LOGITS_UP_TO classes.
    """
    tables = [_rows(manifest, split, predictions) for split, predictions in splits.items()]
    return pa.concat_tables(tables)


def predictions_digest(path: Sequence[str], pred_N: np.ndarray) -> str:
    """SHA256 of (`nfc` path, predicted class) sorted by path: equal predictions in any order."""
    running = hashlib.sha256()
    for name, label in sorted(zip(map(nfc, path), pred_N.tolist(), strict=True)):
        running.update(f"{name}\0{label}\n".encode())
    return running.hexdigest()


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file; the same table gives the same bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", store_schema=True)
    return sink.getvalue()


def read_predictions(source: bytes | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The columns of an untrusted predictions.parquet; None: all columns.

    Raises:
        OSError, pa.ArrowException: not a Parquet file.
        ValueError: it unpacks to implausibly many bytes; a value that is stored once can be
            repeated in a million rows.
    """
    data = source if isinstance(source, bytes) else untrusted.read_bytes(source, ARRAYS)
    limit = max(len(data) * MAX_RATIO, MIN_LIMIT)
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        groups = [file.metadata.row_group(index) for index in range(file.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > limit:
            raise ValueError(f"it unpacks to more than {limit} bytes")
        batches, unpacked = [], 0
        for batch in file.iter_batches(ROWS, columns=columns, use_threads=False):
            unpacked += batch.nbytes
            if unpacked > limit:
                raise ValueError(f"it unpacks to more than {limit} bytes")
            batches.append(batch)
        schema = file.schema_arrow
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns])
    return pa.Table.from_batches(batches, schema)


def class_rows_csv(rows: Sequence[metrics.ClassRow], labelmap: LabelMap) -> str:
    """per_class.csv: index, id, name and the numbers of `metrics.per_class`, a line per class."""
    scores = ("precision", "recall", "f1", "support", "predicted", "recall_low", "recall_high")
    classes = enumerate(zip(rows, labelmap.ids, labelmap.names, strict=True))
    lines = [(index, *names, *map(row.__getitem__, scores)) for index, (row, *names) in classes]
    return csv_text([("index", "id", "name", *scores), *lines])


def read_class_rows(source: bytes | Path) -> list[dict[str, Any]]:
    """Index, name, recall and support of the classes with test images, from per_class.csv."""
    data = source if isinstance(source, bytes) else untrusted.read_bytes(source, ARRAYS)
    kinds = {"index": int, "name": uncell, "recall": float, "support": int}
    rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
    read = [{key: kind(row[key]) for key, kind in kinds.items()} for row in rows]
    return [row for row in read if row["support"]]


def confusion_csv(matrix: np.ndarray, names: Sequence[str]) -> str:
    """The full matrix: a line per true class, a column per predicted class.

    If there are unreadable images, a last column counts them.
    """
    classes = len(names)
    columns = [*names, "(unreadable)"] if matrix[:, classes:].any() else list(names)
    counts = matrix[:, : len(columns)].tolist()
    lines = [(name, *row) for name, row in zip(names, counts, strict=True)]
    return csv_text([("true \\ predicted", *columns), *lines])


def confusion_plot(
    matrix: np.ndarray, names: Sequence[str], model: str, dataset: str, partial: bool
) -> str:
    """The text of confusion.svg, with the most confused pairs.

    Args:
        model: name and size of the backbone.
        partial: whether the run read a partial copy of the dataset.
    """
    from fgvc.html import confusion
    from fgvc.html.class_names import display_names

    title = f"{model} on {dataset}{' (partial copy)' if partial else ''}, test"
    worst = metrics.worst_pairs(matrix, confusion.PAIRS)
    pairs = [(pair["label"], pair["pred"], pair["count"]) for pair in worst]
    return confusion.confusion_svg(matrix, display_names(names), title, pairs)


def _rows(manifest: Manifest, split: str, predictions: Predictions) -> pa.Table:
    logits_NC, label_N = predictions.logits_NC, predictions.label_N
    readable_N = metrics.readable(logits_NC)
    finite_NC = np.where(readable_N[:, None], logits_NC, 0)
    logprob_NC = metrics.log_probabilities(finite_NC)
    top_NK = metrics.topk(finite_NC, min(TOP, logits_NC.shape[1]))
    score_NK = np.exp(np.take_along_axis(logprob_NC, top_NK, axis=1))
    label_logprob_N = logprob_NC[np.arange(len(label_N)), label_N]
    rows = predictions.row_N.tolist()
    columns = {
        "path": _strings([manifest.path[row] for row in rows]),
        "sha256": _strings([str(manifest.sha256[row]) for row in rows]),
        "split": _strings(len(rows) * [split]),
        "label": _numbers(pa.int32(), label_N),
        "pred": _numbers(pa.int32(), np.where(readable_N, top_NK[:, 0], metrics.UNREADABLE)),
        "confidence": _numbers(pa.float64(), score_NK[:, 0], readable_N),
        "label_logprob": _numbers(pa.float64(), label_logprob_N, readable_N),
        "topk_labels": _lists(pa.int32(), top_NK, readable_N),
        "topk_scores": _lists(pa.float64(), score_NK, readable_N),
    }
    if logits_NC.shape[1] <= LOGITS_UP_TO:
        columns["logits"] = _lists(pa.float32(), logits_NC, readable_N)
    return pa.table(columns)


# Columns are made from buffers: pa.array imports pandas where it is installed, which takes longer
# than writing the table.


def _strings(texts: list[str]) -> pa.Array:
    encoded = [text.encode() for text in texts]
    return pa.StringArray.from_buffers(
        len(encoded), _offsets([len(text) for text in encoded]), pa.py_buffer(b"".join(encoded))
    )


def _numbers(kind: pa.DataType, value_N: np.ndarray, valid_N: np.ndarray | None = None) -> pa.Array:
    values = np.ascontiguousarray(value_N, kind.to_pandas_dtype())
    buffers = [None if valid_N is None else _bitmap(valid_N), pa.py_buffer(values)]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _lists(kind: pa.DataType, value_NK: np.ndarray, valid_N: np.ndarray) -> pa.Array:
    """A list per row; null where `valid_N` is false."""
    buffers = [_bitmap(valid_N), _offsets(valid_N * value_NK.shape[1])]
    values = _numbers(kind, value_NK[valid_N].ravel())
    return pa.Array.from_buffers(pa.list_(kind), len(valid_N), buffers, children=[values])


def _offsets(length_N: Sequence[int] | np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.cumsum([0, *length_N]).astype(np.int32))


def _bitmap(valid_N: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(valid_N, bitorder="little"))
