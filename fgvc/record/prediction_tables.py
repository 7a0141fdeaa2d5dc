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
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fgvc import metrics, untrusted
from fgvc.types import ConfusionCounts, Hierarchy, LabelMap, Manifest, Predictions, nfc
from fgvc.untrusted import ARRAYS, MIB
from fgvc.untrusted.escape import csv_text, uncell

WORST = 10  # confused pairs that metrics.json lists
# limit of the unpacked bytes of a table: per byte of its file, and the minimum for any file. A row
# has 32 incompressible bytes, its sha256, and at most 5,000 unpacked bytes.
MAX_RATIO, MIN_LIMIT = 200, 64 * MIB
ROWS = 512  # read at a time
GROUP_ROWS, GROUP_CELLS = 2**16, 2**24  # rows of a row group; with logits, its rows x classes
MATRIX_UP_TO = 1000  # classes; 5,089 have 26 million cells, nearly all of them 0


def write_predictions(
    file: IO[bytes], manifest: Manifest, splits: Mapping[str, Predictions]
) -> None:
    """Write predictions.parquet, one row per image and split, in the given order.

    Columns: path (relative to the root), sha256 (of the file, in hexadecimal), split, label, pred
    (class indices; -1: the image is unreadable, which counts as wrong), confidence and
    label_logprob (float64; null if unreadable), topk_labels, topk_scores (probabilities), and
    logits (float32) if they are kept, otherwise entropy (float64, nats).
    The same predictions give the same bytes; one row group is in memory at a time.
    """
    groups = _row_groups(manifest, splits)
    first = next(groups)
    with pq.ParquetWriter(file, first.schema, compression="zstd", store_schema=True) as writer:
        for group in itertools.chain([first], groups):
            writer.write_table(group)


def _row_groups(manifest: Manifest, splits: Mapping[str, Predictions]) -> Iterator[pa.Table]:
    logits = [predictions.logits_NC for predictions in splits.values()]
    most = GROUP_ROWS if logits[0] is None else max(1, GROUP_CELLS // logits[0].shape[1])
    group: list[pa.Table] = []
    for split, predictions in splits.items():
        for start in range(0, len(predictions.row_N), most):
            table = _rows(manifest, split, predictions, slice(start, start + most))
            if sum(map(len, group)) + len(table) > most:
                yield pa.concat_tables(group)
                group = []
            group.append(table)
    yield pa.concat_tables(group)


def predictions_digest(path: Sequence[str], pred_N: np.ndarray) -> str:
    """SHA256 of (`nfc` path, predicted class) sorted by path: equal predictions in any order."""
    running = hashlib.sha256()
    for name, label in sorted(zip(map(nfc, path), pred_N.tolist(), strict=True)):
        running.update(f"{name}\0{label}\n".encode())
    return running.hexdigest()


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


def confusion_csv(counts: ConfusionCounts, names: Sequence[str]) -> str:
    """The confusion matrix, with the dataset's own names.

    Up to MATRIX_UP_TO classes the full matrix: a line per true class, a column per predicted class,
    and if there are unreadable images a last column that counts them. With more classes nearly all
    cells are 0, and a line stands for each nonzero cell: index and name of both classes, and count.
    """
    if counts.classes > MATRIX_UP_TO:
        pred_names, indices = [*names, "(unreadable)"], [*range(len(names)), metrics.UNREADABLE]
        columns = (values.tolist() for values in (counts.truth_V, counts.pred_V, counts.count_V))
        cells = [
            (truth, names[truth], indices[pred], pred_names[pred], count)
            for truth, pred, count in zip(*columns, strict=True)
        ]
        return csv_text([("true_index", "true", "predicted_index", "predicted", "count"), *cells])
    matrix = counts.dense()
    columns = [*names, "(unreadable)"] if matrix[:, -1].any() else list(names)
    lines = [
        (name, *row) for name, row in zip(names, matrix[:, : len(columns)].tolist(), strict=True)
    ]
    return csv_text([("true \\ predicted", *columns), *lines])


def confusion_plot(
    counts: ConfusionCounts,
    names: Sequence[str],
    hierarchy: Hierarchy | None,
    model: str,
    dataset: str,
    partial: bool,
) -> str:
    """The text of confusion.svg, with the most confused pairs.

    Args:
        hierarchy: of the classes; with more than MATRIX_UP_TO classes the plot shows its
            super-categories.
        model: name and size of the backbone.
        partial: whether the run read a partial copy of the dataset.
    """
    from fgvc.html import confusion
    from fgvc.html.class_names import display_names

    title = f"{model} on {dataset}{' (partial copy)' if partial else ''}, test"
    worst = metrics.worst_pairs(counts, confusion.PAIRS)
    pairs = [(pair["label"], pair["pred"], pair["count"]) for pair in worst]
    groups = confusion.drawn_groups(hierarchy) if counts.classes > MATRIX_UP_TO else None
    return confusion.confusion_svg(counts, display_names(names), title, pairs, groups)


def read_hierarchy(labelmap: Mapping[str, Any]) -> Hierarchy | None:
    """The tree of labelmap.json above the classes; None if the dataset has none.

    Raises:
        ValueError: not one chain per class, or a node without a name.
    """
    if "parents" not in labelmap:
        return None
    hierarchy = Hierarchy(tuple(map(tuple, labelmap["parents"])), labelmap["nodes"])
    named = all(node in hierarchy.names for chain in hierarchy.chain for node in chain)
    if len(hierarchy.chain) != len(labelmap["classes"]) or not named:
        raise ValueError("labelmap.json: its tree does not fit its classes")
    return hierarchy


def _rows(manifest: Manifest, split: str, predictions: Predictions, part: slice) -> pa.Table:
    top_NK, label_N = predictions.top_NK[part], predictions.label_N[part]
    score_NK, pred_N = predictions.score_NK[part], predictions.pred_N[part]
    readable_N, rows = pred_N != metrics.UNREADABLE, predictions.row_N[part].tolist()
    columns = {
        "path": _strings([manifest.path[row] for row in rows]),
        "sha256": _strings([str(manifest.sha256[row]) for row in rows]),
        "split": _strings(len(rows) * [split]),
        "label": _numbers(pa.int32(), label_N),
        "pred": _numbers(pa.int32(), pred_N),
        "confidence": _numbers(pa.float64(), score_NK[:, 0], readable_N),
        "label_logprob": _numbers(pa.float64(), predictions.label_logprob_N[part], readable_N),
        "topk_labels": _lists(pa.int32(), top_NK, readable_N),
        "topk_scores": _lists(pa.float64(), score_NK, readable_N),
    }
    if predictions.logits_NC is None:
        columns["entropy"] = _numbers(pa.float64(), predictions.entropy_N[part], readable_N)
    else:
        columns["logits"] = _lists(pa.float32(), predictions.logits_NC[part], readable_N)
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
