"""Runs on files and classes with awkward names."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest

from tests.faults.steps import (
    folder_run,
)


@pytest.mark.fault(39)
def test_awkward_names_work_end_to_end(run, pictures):
    ran = folder_run(run, pictures)
    assert ran.code == 0, ran.err
    names = [row["name"] for row in ran.json("labelmap.json")["classes"]]
    assert set(names) == {"Pie grièche", "a=b, c", "Ram C∕V 'x'"}
    assert ran.json("metrics.json")["test"]["top1"] > 0.8
    paths = set(pq.read_table(ran.folder / "predictions.parquet")["path"].to_pylist())
    assert "test/a=b, c/é 0=.jpg" in paths
    assert all((pictures / path).is_file() for path in paths)


@pytest.mark.parametrize("split", ["train", "test"])
def test_folders_called_train_and_test_in_any_case(run, pictures, split):
    (pictures / split).rename(pictures / split.capitalize())
    ran = folder_run(run, pictures)
    assert ran.code == 0, ran.err
    assert len(ran.json("labelmap.json")["classes"]) == 3
