"""The commit in the stamp: None outside a checkout; with a reason if Git fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fgvc.record import env_stamp
from fgvc.run import main
from tests.narrow import not_none


@pytest.fixture(autouse=True)
def clean_home(monkeypatch, tmp_path):
    """Only the Git configuration that a test writes."""
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path) -> Path:
    """A repository with one commit, in a folder whose name needs quotes."""
    folder = tmp_path / "my checkout"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.py").write_text("1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "one")
    return folder


def disown(folder: Path, monkeypatch) -> None:
    """Make the checkout belong to another user; for real if the tests run as root."""
    if os.getuid() != 0:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # Git's own switch for its tests
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)


def test_a_checkout_of_another_user_is_reported_with_a_working_fix(checkout, monkeypatch):
    commit = git(checkout, "rev-parse", "HEAD")
    assert env_stamp.git_state(checkout) == env_stamp.GitState(commit, False, None)
    disown(checkout, monkeypatch)
    state = env_stamp.git_state(checkout)
    assert (state.commit, state.dirty, state.patch) == (None, None, None)
    fix = not_none(state.error).partition(": ")[2]
    assert fix == f"git config --global --add safe.directory '{checkout}'"
    assert state.notes == (f"the stamp lacks the commit: {state.error}",)
    subprocess.run(fix, shell=True, check=True)
    assert env_stamp.git_state(checkout) == env_stamp.GitState(commit, False, None)


@pytest.mark.fault(36)
@pytest.mark.parametrize(
    ("file", "text", "commit"),
    [
        ("HEAD", "rubbish\n", False),
        ("config", "[broken\n", False),
        ("index", "rubbish", True),  # the commit is known, the changes since are not
    ],
)
def test_a_damaged_repository_is_reported(checkout, file, text, commit):
    head = git(checkout, "rev-parse", "HEAD")
    (checkout / ".git" / file).write_text(text)
    state = env_stamp.git_state(checkout)
    assert (state.commit, state.dirty, state.patch) == (head if commit else None, None, None)
    assert not_none(state.error).startswith(f"git cannot read {checkout} (")
    lacks = "the changes since the commit" if commit else "the commit"
    assert state.notes[0].startswith(f"the stamp lacks {lacks}: ")


def test_a_repository_without_a_commit_is_reported(tmp_path):
    git(tmp_path, "init", "-q")
    error = not_none(env_stamp.git_state(tmp_path).error)
    assert error.startswith(f"git cannot read {tmp_path} (")


@pytest.mark.fault(36)
def test_outside_a_checkout_or_without_git_all_is_none_without_an_error(
    checkout, tmp_path, monkeypatch
):
    inside = checkout / "vendored"  # of somebody else's repository
    inside.mkdir()
    empty = env_stamp.GitState(None, None, None, None)
    assert env_stamp.git_state(inside) == env_stamp.git_state(tmp_path) == empty
    disown(checkout, monkeypatch)
    assert env_stamp.git_state(inside) == empty
    monkeypatch.setenv("PATH", str(tmp_path))
    assert env_stamp.git_state(checkout) == empty


def test_a_git_error_is_printed_recorded_and_shown_by_the_audit(
    checkout, monkeypatch, tmp_path, capfd, small_probe
):
    disown(checkout, monkeypatch)
    monkeypatch.setattr(env_stamp.git_state, "__defaults__", (checkout,))
    names = ("data", "cache", "output", "multirun", "weights")
    places = [f"runtime.{name}_root={tmp_path / name}" for name in names]
    assert main([*small_probe, *places]) == 0
    fix = f"git config --global --add safe.directory '{checkout}'"
    output = " ".join(capfd.readouterr().out.split())
    assert f"note: the stamp lacks the commit: git refuses {checkout}" in output
    assert fix in output
    (file,) = (tmp_path / "output").glob("*/*/*/env_stamp.json")
    stamp = json.loads(file.read_text())
    assert stamp["git_commit"] is None
    assert stamp["git_error"].endswith(fix)
    audit = tmp_path / "audit.json"
    assert main(["task=audit", f"run={file.parent}", *places, f"task.output={audit}"]) == 0
    (check,) = [check for check in json.loads(audit.read_text())["checks"] if check["id"] == "code"]
    assert check["state"] != "pass"
    assert fix in check["evidence"]
    shutil.rmtree(tmp_path / "output")
