"""Two runs of one folder: the second does not wait, mix or overwrite files."""

from __future__ import annotations

import os

import pytest
from PIL import Image

from fgvc.store.file_lock import lock
from tests.faults.steps import (
    SMALL,
    assert_one_line,
    folder_run,
)


@pytest.mark.fault(15)
def test_two_runs_of_one_folder(run, tmp_path):
    first = run("runtime.run_id=same", *SMALL)
    home = first.folder.parent
    with lock(home / ".lock"):
        assert_one_line(run("runtime.run_id=same", *SMALL), str(os.getpid()), ".lock")


@pytest.mark.fault(16)
def test_a_complete_run_is_skipped_never_overwritten(run):
    first = run("runtime.run_id=same", *SMALL)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    second = run("runtime.run_id=same", *SMALL)
    assert second.code == 0
    assert second.folder is None  # nothing new
    assert f"complete already: {first.folder}" in second.out
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == before
    assert not (first.folder.parent / "in-progress").exists()


@pytest.mark.fault(16)
def test_a_complete_run_of_other_data_is_never_mixed_with_it(run, pictures):
    same = "runtime.run_id=same"
    assert folder_run(run, pictures, same).code == 0
    Image.new("RGB", (50, 50), "red").save(pictures / "train" / "a=b, c" / "new.jpg")
    assert_one_line(folder_run(run, pictures, same), "manifest_digest", "runtime.run_id")
