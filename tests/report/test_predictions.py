"""Test images of a run: sorted by path whatever the order and the form of the names."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fgvc.report import predictions
from fgvc.report.run_rows import read_run
from fgvc.types import nfc


@pytest.mark.parametrize("seed", range(3))
def test_the_rows_are_those_of_a_sort_by_path_label_and_prediction(forge, seal, seed):
    run, rng = forge("a", right=np.ones(60, bool)), np.random.default_rng(seed)
    names = [unicodedata.normalize("NFD", f"é{k}.jpg") if k % 3 else f"z{k}.jpg" for k in range(40)]
    path = [names[k] for k in rng.permutation(np.arange(60) % 40)]  # some twice
    split = [str(name) for name in rng.choice(["val", "test"], 60)]
    label, pred = rng.integers(0, 6, 60), rng.integers(0, 6, 60)
    table = {"path": path, "split": split, "label": label, "pred": pred}
    pq.write_table(pa.table(table), run / "predictions.parquet")
    rows = zip(map(nfc, path), split, label.tolist(), pred.tolist(), strict=True)
    expected = sorted((name, a, b) for name, of, a, b in rows if of == "test")
    hits = sum(a == b for _, a, b in expected)
    numbers = {"n": len(expected), "top1": hits / len(expected)}
    run = forge("b", source=run, numbers={"test": numbers})
    paths, label_N, pred_N = predictions.read_test_rows(read_run(run))
    assert list(zip(paths, label_N.tolist(), pred_N.tolist(), strict=True)) == expected
    assert label_N.dtype == pred_N.dtype == np.int64
