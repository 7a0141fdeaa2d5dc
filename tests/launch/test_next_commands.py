"""The closing lines of a run: commands that compose and mean this run, in 80 columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fgvc.launch.next_commands import IMAGE, next_commands
from fgvc.run import main
from fgvc.untrusted import shell

HASH = "ab9e986feed41042" * 4
RUN = ("20260102T000000Z-bbbbbb", HASH[:16], "12345678aaaaaaaa")
OTHER = ("20260101T000000Z-aaaaaa", "fd4717b8bf7192dd", "99d8951f57f9d634")


def write_run(root: Path, names: tuple[str, ...], day: int = 1, key: str = "same") -> Path:
    folder = root / Path(*names)
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"updated": f"2026-01-0{day}"}))
    (folder / "artifacts.json").write_text("{}")
    (folder / "metrics.json").write_text(json.dumps({"comparability_key": key}))
    return folder


def commands(lines: list[str]) -> list[list[str]]:
    """The overrides of the printed commands."""
    assert lines[0] == "next:"
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines[1:]).replace(" \\\n", " ")
    words = [shell.split(line.strip()) for line in text.splitlines()]
    assert all(tuple(line[:3]) == shell.PROGRAM for line in words)
    return [line[3:] for line in words]


@pytest.mark.parametrize("place", ["outputs", "a rather long name of a folder for the outputs"])
def test_each_command_composes_and_means_this_run(place, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    root = Path(place)
    run, other = write_run(root, RUN), write_run(root, OTHER)
    write_run(root, ("third", "0" * 16, "1" * 16), day=9, key="another")
    (tmp_path / "PICTURE.jpg").touch()
    words = commands(next_commands(RUN[0], HASH, root, is_default=place == "outputs"))
    tasks = ["predict", "view", "compare", "report"]
    assert [line[0] for line in words] == [f"task={task}" for task in tasks]
    for line, task in zip(words, tasks, strict=True):
        assert main([*line, "runtime.dry_run=true"]) == 0
        out = " ".join(capfd.readouterr().out.split())
        assert f"task={task}" in out
        assert (str(run) in out) == (task != "report")
        assert (str(other) in out) == (task == "compare")


def test_a_run_evaluated_again_has_names_of_its_own(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_run(Path("outputs"), RUN)
    again = write_run(Path("outputs"), ("20260103T000000Z-cccccc", *RUN[1:]), day=3)
    lines = next_commands("20260103T000000Z-cccccc", None, Path("outputs"), True)
    predict, view, compare, _ = commands(lines)
    assert len(lines) == 5  # each command on its own line
    assert predict[1:] == ["checkpoint=12345678", IMAGE]  # the same bytes
    assert view[1:] == ["run=20260103T000000Z"]
    assert main([*compare, "runtime.dry_run=true"]) == 0
    assert f"run={again} against=outputs/{'/'.join(RUN)}" in " ".join(
        capfd.readouterr().out.split()
    )


def test_without_a_comparable_run_there_is_nothing_to_compare(tmp_path):
    write_run(tmp_path, RUN)
    write_run(tmp_path, OTHER, key="another")
    words = commands(next_commands(RUN[0], HASH, tmp_path, True))
    assert [line[0] for line in words] == ["task=predict", "task=view", "task=report"]
    assert next_commands(RUN[0], "0" * 64, tmp_path, True) == []  # it ended before its record
