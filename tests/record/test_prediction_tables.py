"""predictions.parquet by row groups, compared with pyarrow's own writer of the whole table."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fgvc import metrics
from fgvc.record import prediction_tables
from fgvc.types import Manifest

N, C = 50, 7


@pytest.fixture
def manifest():
    sha256 = tuple(f"{row:064x}" for row in range(N))
    path = tuple(f"é {row}.jpg" for row in range(N))
    return Manifest(Path(), path, np.arange(N) % C, np.zeros(N, np.uint8), sha256)


def splits(manifest, keep):
    logits_NC = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
    logits_NC[3] = -np.inf
    parts = {"val": np.arange(20, N), "test": np.arange(20)}
    return {
        name: metrics.from_logits(row_N, manifest.label_N[row_N], logits_NC[row_N], keep)
        for name, row_N in parts.items()
    }


def written(manifest, predictions):
    out = io.BytesIO()
    prediction_tables.write_predictions(out, manifest, predictions)
    return out.getvalue()


@pytest.mark.parametrize("keep", [True, False])
def test_row_groups_hold_the_rows_of_one_table(manifest, monkeypatch, keep):
    predictions = splits(manifest, keep)
    whole = written(manifest, predictions)
    table = pq.read_table(io.BytesIO(whole))
    rows = [
        prediction_tables._rows(manifest, split, predictions[split], slice(None))
        for split in predictions
    ]
    again = io.BytesIO()
    pq.write_table(pa.concat_tables(rows), again, compression="zstd", store_schema=True)
    assert whole == again.getvalue()
    assert ("logits" in table.column_names, "entropy" in table.column_names) == (keep, not keep)
    assert table["split"].to_pylist() == ["val"] * 30 + ["test"] * 20
    assert [name for name in table.column_names if table[name].null_count] == [
        *("confidence", "label_logprob", "topk_labels", "topk_scores"),
        "logits" if keep else "entropy",
    ]
    monkeypatch.setattr(prediction_tables, "GROUP_ROWS", 8)
    monkeypatch.setattr(prediction_tables, "GROUP_CELLS", 8 * C)
    data = written(manifest, predictions)
    file = pq.ParquetFile(io.BytesIO(data))
    groups = [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)]
    assert groups == [8, 8, 8, 6, 8, 8, 4]
    assert prediction_tables.read_predictions(data).equals(table)
    assert prediction_tables.read_predictions(data, ["pred"]).equals(table.select(["pred"]))


def test_a_table_of_many_rows_is_read(manifest, monkeypatch):
    """The limit on unpacked bytes lets through what fgvc writes, also beyond the minimum limit."""
    data = written(manifest, splits(manifest, False))
    monkeypatch.setattr(prediction_tables, "MIN_LIMIT", 0)
    assert prediction_tables.read_predictions(data).num_rows == N
