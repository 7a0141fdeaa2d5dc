"""The gate: only a passed check of this environment opens it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fgvc.record import env_stamp, stack_check
from fgvc.record.stack_check import FAILED, NOT_TRIED, PASSED, Outcome
from fgvc.store.hashing import canonical_json, sha256_bytes
from fgvc.types import UserError


@pytest.fixture(autouse=True)
def _environment_as_it_is():
    """Other tests cache its hash without git, conda or a package."""
    env_stamp.environment_hash.cache_clear()


GOOD = (Outcome("tensorboard", PASSED, 1.25, "read back"), Outcome("app", PASSED, 9.0, "served"))


def test_a_passed_check_opens_the_gate(tmp_path):
    assert stack_check.passed_check(tmp_path) is None
    record = stack_check.make_record(GOOD)
    file = stack_check.save(tmp_path, record)
    assert file == tmp_path / "stack" / f"{env_stamp.environment_hash()['env_hash']}.json"
    assert (
        stack_check.passed_check(tmp_path)
        == stack_check.require(tmp_path, "backbone=clip")
        == record
    )
    assert record["steps"]["tensorboard"] == {
        "result": "passed",
        "seconds": 1.2,
        "says": "read back",
    }
    assert {*env_stamp.PACKAGES, "python_version", "platform", "checked", "env_hash"} <= set(record)
    assert record["torch_version"] is not None


def test_without_a_check_the_way_out_is_printed(tmp_path):
    with pytest.raises(UserError) as refused:
        stack_check.require(tmp_path, "backbone=clip")
    line = str(refused.value)
    assert line.startswith("backbone=clip: ")
    assert "python -m fgvc.run task=check" in line
    assert "runtime.stack_check=false" in line
    assert "\n" not in line


def test_a_failed_check_closes_the_gate_again_and_names_its_steps(tmp_path):
    stack_check.save(tmp_path, stack_check.make_record(GOOD))
    bad = (*GOOD, Outcome("database", FAILED, 2.0, "no"), Outcome("export", NOT_TRIED, 0.0, "x"))
    stack_check.save(tmp_path, stack_check.make_record(bad))
    assert stack_check.passed_check(tmp_path) is None
    with pytest.raises(UserError, match=r"failed its last check \(database, export\)"):
        stack_check.require(tmp_path, "backbone=siglip2")


def change_steps(text: str, steps: object) -> str:
    """The file with other steps and a matching digest."""
    value = {**json.loads(text)["value"], "steps": steps}
    return json.dumps({"sha256": sha256_bytes(canonical_json(value)), "value": value})


@pytest.mark.fault(50)
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace(env_stamp.environment_hash()["env_hash"], "0" * 64),
        lambda text: text.replace('"passed": true', '"passed": "yes"'),
        lambda text: change_steps(text, ["app"]),
        lambda text: change_steps(text, {"app": {}}),
    ],
)
def test_a_damaged_record_counts_as_none(tmp_path, damage):
    file = stack_check.save(tmp_path, stack_check.make_record(GOOD))
    file.write_text(damage(file.read_text()))
    assert stack_check.passed_check(tmp_path) is None
    with pytest.raises(UserError, match="has not been checked"):
        stack_check.require(tmp_path, "backbone=dinov2")


def test_bytes_that_are_no_text_count_as_none(tmp_path):
    file = stack_check.save(tmp_path, stack_check.make_record(GOOD))
    file.write_bytes(b"\xff\xfe")
    assert stack_check.passed_check(tmp_path) is None


def test_a_home_folder_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    stack_check.save(Path("~/cache"), stack_check.make_record(GOOD))
    assert (tmp_path / "cache" / "stack").is_dir()
    assert stack_check.passed_check(Path("~/cache")) is not None


def test_asking_the_gate_imports_nothing_heavy(tmp_path):
    stack_check.save(tmp_path, stack_check.make_record(GOOD))
    program = (
        "import sys; from pathlib import Path; from fgvc.record import stack_check; "
        f"assert stack_check.passed_check(Path({str(tmp_path)!r})) is not None; "
        "heavy = {'torch', 'numpy', 'fiftyone', 'tensorboard', 'psutil'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_environment_is_the_same_after_any_import():
    program = (
        "from fgvc.record import env_stamp; before = env_stamp.environment_hash(); "
        "env_stamp.environment_hash.cache_clear(); import setuptools, sys; "
        "assert any('_vendor' in folder for folder in sys.path), sys.path; "
        "after = env_stamp.environment_hash(); assert before == after, (before, after)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
