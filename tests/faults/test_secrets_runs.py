"""Runs outside a checkout and in a dirty one: null or dirty in the stamp, and the run continues."""

from __future__ import annotations

import subprocess

import pytest

from tests.faults.steps import (
    SMALL,
)
from tests.narrow import not_none


@pytest.mark.fault(36)
def test_outside_a_git_checkout_the_run_continues(run, monkeypatch, tmp_path):
    """No git, no conda, no nvidia-smi: null in the stamp."""
    from fgvc.record import env_stamp

    monkeypatch.setattr(env_stamp, "CODE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(env_stamp.git_state, "__defaults__", (tmp_path,))
    ran = run(*SMALL)
    assert ran.code == 0, ran.err
    stamped = ran.json("env_stamp.json")
    assert stamped["git_commit"] is None
    assert stamped["git_dirty"] is None
    assert stamped["driver_version"] is None
    assert stamped["requirements_checksum"] is None
    assert len(stamped["env_hash"]) == 64
    assert not (ran.folder / "code.patch").exists()


@pytest.mark.fault(36)
def test_a_dirty_tree_is_stamped_with_its_patch(tmp_path):
    from fgvc.record.env_stamp import git_state

    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    (tmp_path / "a.txt").write_text("one\n")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *arguments], check=True)
    clean = git_state(tmp_path)
    assert (clean.dirty, clean.patch, len(not_none(clean.commit))) == (False, None, 40)
    (tmp_path / "a.txt").write_text("two\n")
    (tmp_path / "new file.py").write_text("added\n")
    dirty = git_state(tmp_path)
    assert dirty.dirty is True
    patch = not_none(dirty.patch)
    assert b"+two" in patch
    assert b"+added" in patch
    assert dirty.patch_sha256 != clean.patch_sha256
