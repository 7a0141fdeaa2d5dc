"""`make bench`: a failing group loses no rows, and the table is stored with its machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as bench
from benchmarks import inat_copy, index, machine, result_file
from benchmarks.side_by_side import Row
from fgvc.data.datasets import inat2017
from fgvc.data.decode import decode
from fgvc.types import TEST, TRAIN
from tests.narrow import not_none

MET, MISSED = Row("work", "limit", 1.0, 2.0, "", upper_bound=True), Row("slow", "–", 1.0, 2.0, "")


def broken(folder: Path) -> Iterator[Row]:
    yield MISSED
    raise OSError("no such device")


@pytest.fixture
def groups(monkeypatch, tmp_path) -> Path:
    """Three groups, of which the second fails; returns the folder of the results."""
    made = {"first": lambda folder: MET, "second": broken, "last": lambda folder: [MET, MET]}
    monkeypatch.setattr(bench, "GROUPS", {name: bench.Group(made[name]) for name in made})
    write = result_file.write
    monkeypatch.setattr(result_file, "write", lambda *facts: write(*facts, folder=tmp_path))
    monkeypatch.setattr(machine, "SIDE", 32)
    return tmp_path


def test_a_group_that_fails_keeps_the_rows_of_all_groups(groups, capsys):
    assert bench.main([]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(" work ") >= 3
    assert "FAILED" in printed
    assert "3 of 4 rows met their targets" in printed
    assert "failed: second" in printed
    for name in ("first", "second", "last"):
        assert f"{name}: 0 s" in printed
    assert bench.main(["first", "last"]) == 0


def test_the_results_hold_the_machine_and_groups_measured_one_by_one(groups):
    for names in (["first"], ["second"]):
        bench.main(names)
    (file,) = groups.glob("*.json")
    stored = json.loads(file.read_bytes())
    facts = stored["machine"]
    assert {"cpu", "cores", "features", "memory_gib", "torch", "gflops_float32"} <= facts.keys()
    assert list(stored["groups"]) == ["first", "second"]
    first, second = (stored["groups"][name] for name in ("first", "second"))
    assert first["error"] is None
    assert second["error"] == "OSError: no such device"
    assert [row["met"] for row in (*first["rows"], *second["rows"])] == [True, False]
    assert first["commit"] == machine.commit()


def test_an_unknown_group_is_refused():
    with pytest.raises(SystemExit, match="no such; there are extraction"):
        bench.main(["such"])


def test_the_made_copy_has_the_counts_and_the_layout_of_the_original(tmp_path):
    train_C = inat_copy.long_tail(
        inat_copy.CLASSES, inat_copy.TRAIN, inat_copy.TRAIN_RANGE, inat_copy.TRAIN_SPREAD
    )
    assert (train_C.sum(), train_C.min(), train_C.max()) == (579_184, 14, 3000)
    assert sum(inat_copy.BRANCHES.values()) == 5089
    count = inat_copy.make(tmp_path, 1024)
    made = inat2017.read(tmp_path, partial=True)
    assert len(made) == count
    assert [int((made.split_N == split).sum()) for split in (TRAIN, TEST)] == [565, 93]
    assert len(not_none(made.hierarchy).names) > 1
    files = [(tmp_path / path).read_bytes() for path in made.path[:20]]
    assert len(set(files)) == 20
    width, height = not_none(made.size_N2)[0].astype(int).tolist()
    assert decode(files[0], "x").shape == (3, height, width)


def test_rows_of_the_index_extrapolate_memory_and_compare_time_per_image(monkeypatch, tmp_path):
    """1 ms and 1,000 bytes per image, and 100 MiB of imports."""
    sizes = {"inat-64": 10_000, "inat-16": 40_000}
    monkeypatch.setattr(inat_copy, "make", lambda root, divisor: sizes[root.name])

    def measure(work: str, root: Path, folder: Path) -> index.Measurement:
        count = sizes[root.name]
        return index.Measurement(count / 1000, count / 1000, 100 + count * 1000 / 2**20)

    monkeypatch.setattr(index, "_measure", measure)
    rows = {row.work: row for row in index.rows(tmp_path)}
    assert len(rows) == 2 * len(index.WORKS) + 1
    assert rows["task=doctor: growth of the CPU time per image"].value == pytest.approx(1.0)
    peak = rows["task=doctor, 675,170 images: peak memory, MiB"]
    assert peak.value == pytest.approx(100 + 675_170 * 1000 / 2**20)
    assert rows["start of a run, 675,170 images: seconds"].value == pytest.approx(675.17)
