"""checkpoint=, run= and against=: the one complete record at or below a path."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fgvc.config.errors import ConfigError
from fgvc.config.weight_files.run_folder import checkpoint_in
from fgvc.record import checkpoint
from fgvc.record.find_run import find_run
from fgvc.run import main
from fgvc.types import UserError


@pytest.fixture
def alone(runs, tmp_path) -> Path:
    """outputs/RUN/CONFIG/CHECKPOINT with nothing beside it; returns the innermost folder."""
    run = runs()
    return shutil.copytree(run, tmp_path / "outputs" / Path(*run.parts[-3:]))


@pytest.mark.parametrize("up", range(4))
def test_a_folder_with_one_run_below_is_that_run(alone, up, capfd):
    folder = [alone, *alone.parents][up]
    assert find_run(folder, "run") == alone
    assert checkpoint.locate(folder) == alone / "ckpt.bin"
    out = capfd.readouterr().out
    assert out == ("" if up == 0 else out)
    if up:
        assert out.count(f"{alone}, the only complete run there") == 2
        assert out.startswith(f"note: run={folder}: ")


def test_a_file_of_a_run_means_its_folder(alone):
    assert find_run(alone / "report.html", "run") == alone
    assert find_run(alone / "ckpt.bin", "run") == alone
    assert checkpoint.locate(alone / "ckpt.bin") == alone / "ckpt.bin"


@pytest.mark.parametrize("key", ["checkpoint", "run"])
def test_several_runs_are_refused_and_listed(real, key):
    sweep = real / "first"
    with pytest.raises(UserError) as caught:
        find_run(sweep, key)
    line = str(caught.value)
    assert line.startswith(f"{key}={sweep}: 8 complete runs are below it; choose one: ")
    assert line.endswith(" and 4 more")
    first = line.partition("choose one: ")[2].partition(",")[0]
    assert find_run(sweep / first, key) == sweep / first
    with pytest.raises(UserError, match="complete runs are below it"):
        checkpoint.locate(real)


def test_a_run_in_progress_is_reported_and_is_no_record(alone):
    unfinished = alone.with_name("in-progress")
    alone.rename(unfinished)
    for up in range(3):
        with pytest.raises(UserError, match="in-progress is not finished.*runtime.run_id=first"):
            find_run(unfinished.parents[up], "run")
    assert (
        find_run(unfinished, "run") == unfinished
    )  # given directly: its reader reports the reason


def test_a_run_beside_one_in_progress_is_the_only_result(alone):
    shutil.copytree(alone, alone.with_name("in-progress"))
    assert find_run(alone.parents[2], "run") == alone


def test_weights_and_checkpoints_are_found_by_the_same_rules(alone, real, tmp_path):
    """backbone.weights= and checkpoint= mean the same file of the same folder, or refuse it."""
    export = tmp_path / "export" / "copy"
    export.mkdir(parents=True)
    for name in ("ckpt.bin", "artifacts.json"):
        shutil.copy(alone / name, export)
    unfinished = tmp_path / "b" / "run" / "config" / "in-progress"
    shutil.copytree(alone, unfinished)
    for folder in (alone, *alone.parents[:3], export, export.parent):
        assert checkpoint_in(folder) == checkpoint.locate(folder)
        assert checkpoint_in(folder) is not None
    for folder in (tmp_path / "b", unfinished.parent, real / "first", real):
        with pytest.raises(ConfigError) as weights:
            checkpoint_in(folder)
        with pytest.raises(UserError) as other:
            checkpoint.locate(folder)
        assert str(weights.value).removeprefix("backbone.weights") == str(other.value).removeprefix(
            "checkpoint"
        )


def test_a_path_without_runs_is_returned_unchanged(tmp_path):
    assert find_run(tmp_path, "run") == tmp_path
    with pytest.raises(UserError, match=r"no such file \(a ckpt.bin, or the folder that holds it"):
        checkpoint.locate(tmp_path)


def test_an_export_below_is_a_checkpoint_and_no_run(alone):
    export = alone.parents[2] / "export" / alone.name
    export.mkdir(parents=True)
    for name in ("ckpt.bin", "artifacts.json"):
        shutil.copy(alone / name, export)
    assert checkpoint.locate(export.parent) == export / "ckpt.bin"
    assert (
        checkpoint.locate(alone.parents[2]) == alone / "ckpt.bin"
    )  # a record is preferred to its copies
    assert find_run(export.parent, "run") == export.parent
    assert find_run(alone.parents[2], "run") == alone


def test_the_commands_take_the_folder_of_a_sole_run(alone, forge, output_root, tmp_path, capfd):
    """audit, compare and prune, each with the folder two levels up, and with task.output."""
    other = forge("second", numbers={"notes": ["another"]})
    root = f"runtime.output_root={tmp_path / 'outputs'}"
    run, against = f"run={alone.parents[1]}", f"against={other.parents[1]}"
    prefix = f"run={alone.name[:8]}"  # of the checkpoint id
    assert main(["task=audit", prefix, root, f"task.output={tmp_path / 'audits'}"]) == 0
    assert f"note: {prefix}: {alone}" in capfd.readouterr().err
    (file,) = (tmp_path / "audits").iterdir()
    assert file.name == f"{'_'.join(alone.parts[-3:])}.json"
    assert main(["task=compare", run, against, root, f"task.output={tmp_path}/both/"]) == 0
    page, file = sorted((tmp_path / "both").iterdir())
    stem = f"compare_{alone.name}_{other.name}"
    assert (page.name, file.name) == (f"{stem}.html", f"{stem}.json")
    assert json.loads(file.read_text())["identical"]
    assert main(["task=prune", run, root, "task.pin=release"]) == 0
    assert "release" in json.loads((alone / "retention.json").read_text())["pinned_by"]
    table = tmp_path / "table" / "baselines.csv"
    assert main(["task=report", root, f"task.output={table}"]) == 0
    assert table.is_file()
    assert "complete runs" not in capfd.readouterr().err
    assert main(["task=audit", run, root, f"task.output={alone}"]) == 1
    assert "is a run, which is never changed" in capfd.readouterr().err
