"""A run that keeps no logits has the numbers, curves and predictions of one that keeps them."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fgvc.metrics import predictions
from fgvc.report.audit import run_audit
from tests.jobs import MINI
from tests.narrow import not_none

PROBE = (*MINI, "head=knn", "head.k=3")


def curves(folder):
    events = EventAccumulator(str(folder / "tb"), size_guidance={"tensors": 0}).Reload()
    tags = events.PluginTagToContent("pr_curves")
    return {tag: events.Tensors(tag)[0].tensor_proto.SerializeToString() for tag in tags}


@pytest.mark.parametrize("cells", [2**21, 7])
def test_the_record_is_the_same_without_logits(finished, run, monkeypatch, cells):
    kept = not_none(finished(*PROBE).folder)
    monkeypatch.setattr(predictions, "LOGITS_UP_TO", 5)
    monkeypatch.setattr(predictions, "BLOCK_CELLS", cells)
    folder = not_none(run(*PROBE).folder)
    names = ("per_class.csv", "confusion.csv", "confusion.svg")
    assert [(folder / name).read_bytes() for name in names] == [
        (kept / name).read_bytes() for name in names
    ]
    numbers, expected = (json.loads((each / "metrics.json").read_text()) for each in (folder, kept))
    for key in ("val", "test", "worst_pairs", "predictions_digest"):
        assert numbers[key] == expected[key], key
    table, full = (pq.read_table(each / "predictions.parquet") for each in (folder, kept))
    assert table.drop_columns(["entropy"]).equals(full.drop_columns(["logits"]))
    assert curves(folder) == curves(kept) != {}
    found = {check.id: check for check in run_audit(folder)[1]}
    assert [check.id for check in found.values() if check.state == "FAIL"] == []
    assert "samples follow" in found["viewer-follows"].evidence
