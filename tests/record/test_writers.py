"""A record is written by the writers that are given, in their order, and by no others."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from fgvc import metrics
from fgvc.config.compose import composed, typed
from fgvc.record.run_dir import RunFolder, index_files, open_run
from fgvc.record.tensorboard import Board
from fgvc.record.writers import WRITERS, RunRecord, WriterSpec, files
from fgvc.record.writers import write_record as write
from fgvc.types import Batch, Dataset, LabelMap, Manifest, Split

NAMES = ("Song Sparrow", "Savannah Sparrow", "=SUM(A1)")
LABEL_N = np.array([0, 0, 1, 1, 2, 2, 2, 2])
PRED_N = np.array([0, 1, 1, 1, 2, 2, 0, 2])
DRAWING = (
    "fgvc.html.charts",
    "fgvc.html.render",
    "fgvc.record.fiftyone.dataset",
    "fgvc.record.run_page",
    "fiftyone",
    "jinja2",
    "matplotlib",
    "scipy.linalg",
    "sklearn",
    "tensorboard",
    "torch.utils.tensorboard",
)


class NoImages:
    """The images of a dataset without files: no writer of these tests reads one."""

    root = Path("/data")
    heat_map: Callable[[int], np.ndarray | None] | None = None

    def pixels(self, path: str) -> None:
        raise AssertionError(path)

    def network_views(self, row_N: np.ndarray) -> Iterator[Batch]:
        raise AssertionError(row_N)

    def overlays(self) -> Iterator[tuple[str, dict[str, object], bytes]]:
        yield "00-bird", {"path": "test/0.jpg", "title_px": 20}, b"\x89PNG"


@pytest.fixture
def record(tmp_path, monkeypatch) -> Iterator[RunRecord]:
    """The results of a run on eight images of three classes."""
    monkeypatch.setenv("PATH", str(tmp_path))  # without git, which is slow in a dirty tree
    row_N = np.arange(8)
    paths = tuple(f"test/{row}.jpg" for row in row_N)
    manifest = Manifest(Path("/data/birds"), paths, LABEL_N, np.ones(8, np.uint8), ("0" * 64,) * 8)
    labelmap, none_N = LabelMap(("1", "2", "3"), NAMES), np.empty(0, np.int64)
    logits_NC = np.eye(3, dtype=np.float32)[PRED_N] * 4
    with (
        open_run(tmp_path, "r", "a" * 64, {"config.yaml": "seed: 0\n"}) as run,
        Board(run.path) as board,
    ):
        yield RunRecord(
            run=run,
            conf=typed(composed(["backbone=vit_tiny", "dataset=folder"])),
            task="probe",
            name="vit tiny",
            dataset=Dataset("birds", manifest, labelmap, Split(none_N, none_N, row_N)),
            predictions={"test": metrics.from_logits(row_N, LABEL_N, logits_NC)},
            numbers={"test": {"top1": 0.75}, "cost": {"macs": 7}},
            stamp={},
            checkpoint=({}, {"format": 1}),
            board=board,
            images=NoImages(),
        )


def new_files(run: RunFolder) -> set[str]:
    return set(index_files(run.path)) - {"config.yaml", "run.log", "code.patch"}


def test_two_writers_write_their_files_and_no_others(record):
    before = new_files(record.run)
    write(record, (files.LABEL_MAP, files.CONFUSION))
    declared = {*files.LABEL_MAP.files, *files.CONFUSION.files}
    assert new_files(record.run) - before == declared
    classes = json.loads((record.run.path / "labelmap.json").read_text())["classes"]
    assert [(row["index"], row["id"], row["name"]) for row in classes] == [
        (0, "1", NAMES[0]),
        (1, "2", NAMES[1]),
        (2, "3", NAMES[2]),
    ]
    with (record.run.path / "confusion.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header[1:] == [*NAMES[:2], f"'{NAMES[2]}"]
    counts = Counter(zip(LABEL_N.tolist(), PRED_N.tolist(), strict=True))
    assert {(i, j): int(n) for i, row in enumerate(rows) for j, n in enumerate(row[1:])} == {
        (i, j): counts[i, j] for i in range(3) for j in range(3)
    }


def test_a_writer_from_outside_takes_part_in_the_record(record):
    """Its file is indexed and sealed like the others."""

    def write_count(record: RunRecord) -> None:
        record.run.write_json("count.json", len(record.predictions["test"].row_N))

    counter = WriterSpec(("count.json",), write_count)
    write(record, (files.CHECKPOINT, files.METRICS, counter))
    folder = record.run.seal()
    artifacts = json.loads((folder / "artifacts.json").read_text())
    assert artifacts["count.json"]["bytes"] == (folder / "count.json").stat().st_size
    assert json.loads((folder / "count.json").read_text()) == 8
    assert artifacts["ckpt.bin"]["sha256"].startswith(folder.name)


def test_the_order_is_that_of_the_tuple(record):
    order = []
    specs = [WriterSpec((), lambda record, name=name: order.append(name)) for name in ("b", "a")]
    write(record, specs)
    assert order == ["b", "a"]


def test_a_folder_without_a_checkpoint_is_not_sealed(record):
    write(record, (files.METRICS,))
    with pytest.raises(AssertionError, match=r"ckpt\.bin"):
        record.run.seal()
    assert (record.run.path / "metrics.json").is_file()


def test_an_error_of_one_writer_leaves_the_folder_in_progress(record):
    def fail(record: RunRecord) -> None:
        raise OSError(28, "No space left on device", "x")

    after = []
    failing = WriterSpec((), fail)
    late = WriterSpec((), lambda record: after.append(record))
    with pytest.raises(OSError, match="No space"):
        write(record, (files.CHECKPOINT, failing, late))
    assert after == []
    assert record.run.sealed is None


def test_no_two_writers_claim_a_file():
    files = [file for writer in WRITERS for file in writer.files]
    assert len(files) == len(set(files))


def test_stamp_and_metrics_are_written_after_all_that_takes_long(record):
    """They hold the wall time of the run; TensorBoard shows the stamp, and the page both."""
    names = [file for writer in WRITERS for file in writer.files]
    assert names[-4:] == ["env_stamp.json", "metrics.json", "tb/", "report.html"]
    record.run.clock -= 1000
    write(record, (files.METRICS,))
    numbers = json.loads((record.run.path / "metrics.json").read_text())
    assert numbers == record.timed_numbers
    assert numbers["cost"]["macs"] == 7
    assert 1000 <= numbers["cost"]["seconds"] == record.end["seconds"]


@pytest.mark.slow
def test_a_task_starts_without_what_draws():
    code = "import sys, fgvc.task.probe, fgvc.task.train; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "fgvc.record.writers" in loaded
    assert not set(DRAWING) & set(loaded)
