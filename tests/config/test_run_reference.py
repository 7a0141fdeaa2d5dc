"""checkpoint=, run= and against= as a prefix of a run folder's names, or as `last`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fgvc.config.errors import ConfigError
from fgvc.config.run_reference import complete_runs, find, reference, resolve_runs
from fgvc.run import main

FIRST = ("20260101T000000Z-aaaaaa", "c0ffee0000000001", "0123456700000001")
SECOND = ("20260102T000000Z-bbbbbb", "c0ffee0000000001", "0123456799999999")
EVAL = ("20260103T000000Z-cccccc", "c0ffee0000000001", "0123456799999999")  # of SECOND
SWEEP = (
    ("A", "dead000000000001", "1e10000000000001"),
    ("A", "dead000000000002", "feed000000000002"),
)
ALL = (FIRST, SECOND, EVAL, *SWEEP)


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """outputs/ with five complete runs and one in progress; SECOND was sealed last."""
    monkeypatch.chdir(tmp_path)
    for names in ALL:
        folder = tmp_path / "outputs" / Path(*names)
        folder.mkdir(parents=True)
        day = 9 if names == SECOND else ALL.index(names)
        (folder / "status.json").write_text(json.dumps({"updated": f"2026-01-0{day}"}))
        (folder / "artifacts.json").write_text("{}")
    unfinished = tmp_path / "outputs" / "20260104T000000Z-dddddd" / "beef" / "in-progress"
    unfinished.mkdir(parents=True)
    (unfinished / "status.json").write_text(json.dumps({"updated": "2027"}))
    return Path("outputs")


def path_of(names: tuple[str, ...]) -> str:
    return str(Path("outputs", *names))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("20260101", FIRST),
        ("20260102T000000Z-bbbbbb", SECOND),
        ("01234567000", FIRST),
        ("dead000000000002", SWEEP[1]),
        ("feed", SWEEP[1]),
        ("A/dead000000000001", SWEEP[0]),
        ("c0ffee/01234567000", FIRST),
        ("1e10", SWEEP[0]),  # a number for Hydra
        ('"feed"', SWEEP[1]),
        ("last", SECOND),
    ],
)
def test_a_unique_prefix_or_last_becomes_the_path_of_the_run(outputs, text, names):
    arguments, notes = resolve_runs(["task=audit", f"run={text}"])
    assert arguments == ["task=audit", f"run={path_of(names)}"]
    assert notes == [f"run={text.strip(chr(34))}: {path_of(names)}"]


def test_a_path_has_precedence_and_is_kept(outputs, tmp_path):
    (tmp_path / "feed").mkdir()
    for text in ("feed", "outputs/A", "outputs", "/nowhere", "a b", "[x]"):
        assert resolve_runs([f"run={text}"]) == ([f"run={text}"], [])


def test_against_last_is_the_newest_other_run(outputs):
    others = {"last": SWEEP[1], "20260101": SECOND, path_of(SECOND): SWEEP[1]}
    for run, names in others.items():
        arguments, _ = resolve_runs(["against=last", f"run={run}"])
        assert arguments[0] == f"against={path_of(names)}"


def test_the_values_of_a_sweep_are_resolved_one_by_one(outputs):
    arguments, notes = resolve_runs(["checkpoint=feed,outputs/A,last"])
    assert arguments == [f"checkpoint={path_of(SWEEP[1])},outputs/A,{path_of(SECOND)}"]
    assert len(notes) == 2


def test_equal_checkpoints_are_one_checkpoint_and_two_runs(outputs):
    assert resolve_runs(["checkpoint=01234567999"])[0] == [f"checkpoint={path_of(SECOND)}"]
    with pytest.raises(ConfigError, match="2 complete runs"):
        resolve_runs(["run=01234567999"])


def test_an_ambiguous_prefix_lists_references_that_are_unique(outputs):
    with pytest.raises(ConfigError) as error:
        resolve_runs(["run=A"])
    message = str(error.value)
    assert message.startswith("run=A: 2 complete runs below outputs begin with it; choose one: ")
    runs = complete_runs(outputs)
    listed = message.partition("choose one: ")[2].split(", ")
    assert [find(text, runs)[0].names for text in listed] == list(SWEEP)
    for run in runs:  # each run has a reference, also for its checkpoint
        assert find(reference(run, runs), runs) == [run]
        text = reference(run, runs, "checkpoint")
        assert {other.names[2] for other in find(text, runs)} == {run.names[2]}
        assert len(text) <= 16


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("task=audit run=20270101", "nearest: 20260101T000000Z-aaaaaa; last means the newest run"),
        ("task=audit run=xyz", "no run below outputs has a name that begins with it; last"),
        ("task=audit run=last runtime.output_root=empty", "no complete run is below empty"),
        ("task=eval checkpoint=c0ffee", "choose one: 012345670000, 20260102T000000Z, "),
        ("task=eval checkpoint=outputs", "checkpoint=outputs: 5 complete runs are below it"),
        ("task=audit run=outputs/20260104T000000Z-dddddd", "is not finished"),
    ],
)
def test_what_means_no_single_run_is_a_wrong_command(outputs, command, message, capfd):
    assert main(command.split()) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("value", ["null", "${x}", "[a]", "a,b", "", "ü b", "${oc.env:NOPE_1}"])
def test_a_wrong_output_root_is_reported_as_such(outputs, value, capfd):
    command = ["task=predict", "checkpoint=last", "image=x.jpg", f"runtime.output_root={value}"]
    assert main(command) == 2
    assert capfd.readouterr().err.startswith("fgvc: runtime.output_root")


def test_null_is_no_prefix(outputs):
    assert resolve_runs(["task=prune", "run=null"]) == (["task=prune", "run=null"], [])


def test_the_only_run_has_nothing_to_be_compared_with(tmp_path, monkeypatch, outputs):
    arguments = ["run=last", "against=last", "runtime.output_root=outputs/alone"]
    folder = Path("outputs/alone", *FIRST)
    folder.mkdir(parents=True)
    for name in ("status.json", "artifacts.json"):
        (folder / name).write_text("{}")
    with pytest.raises(ConfigError, match="no other complete run is below outputs/alone"):
        resolve_runs(arguments)
