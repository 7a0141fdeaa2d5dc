"""The commit in the stamp: null in silence outside a checkout, with its reason where Git fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from fgvc.record import env_stamp
from fgvc.run import main


@pytest.fixture(autouse=True)
def clean_home(monkeypatch, tmp_path):
    """No configuration of Git but what a test writes."""
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
    """Make the checkout another user's: really where the tests run as root."""
    if os.getuid() != 0:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # Git's own switch for its tests
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)


def test_a_checkout_of_another_user_is_said_with_a_way_out_that_works(checkout, monkeypatch):
    commit = git(checkout, "rev-parse", "HEAD")
    assert env_stamp.git_state(checkout) == env_stamp.GitState(commit, False, None)
    disown(checkout, monkeypatch)
    found = env_stamp.git_state(checkout)
    assert (found.commit, found.dirty, found.patch) == (None, None, None)
    way = found.error.partition(": ")[2]
    assert way == f"git config --global --add safe.directory '{checkout}'"
    assert found.notes == (f"the stamp lacks the commit: {found.error}",)
    subprocess.run(way, shell=True, check=True)
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
def test_a_damaged_repository_is_said(checkout, file, text, commit):
    known = git(checkout, "rev-parse", "HEAD")
    (checkout / ".git" / file).write_text(text)
    found = env_stamp.git_state(checkout)
    assert (found.commit, found.dirty, found.patch) == (known if commit else None, None, None)
    assert found.error.startswith(f"git cannot read {checkout} (")
    lacks = "the changes since the commit" if commit else "the commit"
    assert found.notes[0].startswith(f"the stamp lacks {lacks}: ")


def test_a_repository_without_a_commit_is_said(tmp_path):
    git(tmp_path, "init", "-q")
    assert env_stamp.git_state(tmp_path).error.startswith(f"git cannot read {tmp_path} (")


@pytest.mark.fault(36)
def test_no_checkout_and_no_git_are_null_in_silence(checkout, tmp_path, monkeypatch):
    inside = checkout / "vendored"  # of somebody else's repository
    inside.mkdir()
    nothing = env_stamp.GitState(None, None, None, None)
    assert env_stamp.git_state(inside) == env_stamp.git_state(tmp_path) == nothing
    disown(checkout, monkeypatch)
    assert env_stamp.git_state(inside) == nothing
    monkeypatch.setenv("PATH", str(tmp_path))
    assert env_stamp.git_state(checkout) == nothing


def test_a_run_prints_and_records_it_and_the_audit_shows_it(
    checkout, monkeypatch, tmp_path, capfd, small_probe
):
    disown(checkout, monkeypatch)
    monkeypatch.setattr(env_stamp.git_state, "__defaults__", (checkout,))
    names = ("data", "cache", "output", "multirun", "weights")
    places = [f"runtime.{name}_root={tmp_path / name}" for name in names]
    assert main([*small_probe, *places]) == 0
    way = f"git config --global --add safe.directory '{checkout}'"
    said = " ".join(capfd.readouterr().out.split())
    assert f"note: the stamp lacks the commit: git refuses {checkout}" in said
    assert way in said
    (file,) = (tmp_path / "output").glob("*/*/*/env_stamp.json")
    stamped = json.loads(file.read_text())
    assert stamped["git_commit"] is None
    assert stamped["git_error"].endswith(way)
    audit = tmp_path / "audit.json"
    assert main(["task=audit", f"run={file.parent}", *places, f"task.output={audit}"]) == 0
    (check,) = [one for one in json.loads(audit.read_text())["checks"] if one["id"] == "code"]
    assert check["state"] != "pass"
    assert way in check["evidence"]
    shutil.rmtree(tmp_path / "output")
