"""An error of the disk names the key or the variable that moves the folder."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fgvc.config.compose import composed
from fgvc.record.run_dir import open_run
from fgvc.run import main
from fgvc.store import atomic
from fgvc.store.disk_errors import disk_error_line, missing_home_line
from tests.narrow import not_none


@pytest.fixture
def runtime(monkeypatch, tmp_path):
    """The default places, in a home that is a file: root may write into any folder."""
    (tmp_path / "home").touch()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("FGVC_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    return composed([]).runtime


def error_of(path: Path) -> OSError:
    with pytest.raises(OSError) as caught:
        path.mkdir(parents=True)
    return caught.value


@pytest.mark.fault(14)
def test_the_folder_of_a_key_names_the_key(runtime, tmp_path):
    home = tmp_path / "home"
    line = disk_error_line(error_of(home / ".cache" / "fgvc" / "features"), runtime)
    assert line.startswith(str(home))
    assert line.endswith(
        "; runtime.cache_root=~/.cache/fgvc: give another with runtime.cache_root=PATH (or "
        "FGVC_CACHE=PATH)"
    )
    with pytest.raises(OSError) as caught:
        atomic.write_text(home / ".cache" / "huggingface" / "hub" / "x", "x")
    assert "; HF_HOME=PATH is where weights of the hub are kept" in disk_error_line(
        caught.value, runtime
    )


def test_any_root_is_recognized_and_an_unrelated_error_is_unchanged(runtime, tmp_path):
    for name in ("output_root", "multirun_root"):
        inside = Path(runtime[name]).absolute() / "deep" / "file"
        line = disk_error_line(OSError(errno.EROFS, "Read-only file system", str(inside)), runtime)
        assert f"give another with runtime.{name}=PATH" in line
    plain = OSError(errno.ENOENT, "No such file or directory", str(tmp_path / "birds" / "a.jpg"))
    assert disk_error_line(plain, runtime) == f"{tmp_path}/birds/a.jpg: No such file or directory"
    assert disk_error_line(OSError("no name"), runtime) == "no name"


def test_an_output_root_that_names_itself_is_named_once(runtime, tmp_path):
    (tmp_path / "outputs").touch()
    runtime.output_root = str(tmp_path / "outputs")
    with pytest.raises(OSError) as caught, open_run(tmp_path / "outputs", "a", "0" * 64, {}):
        pass
    assert disk_error_line(caught.value, runtime).count("runtime.output_root") == 1


@pytest.mark.fault(14)
def test_a_run_whose_home_is_no_folder_ends_with_the_key(runtime, capfd, small_probe):
    assert main([*small_probe, "runtime.data_root=birds"]) == 1
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("fgvc: ")
    assert "give another with runtime.cache_root=PATH (or FGVC_CACHE=PATH)" in line


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become a user without an account")
def test_no_home_at_all_names_the_key(runtime, forked, ended, tmp_path):
    """A container's user without HOME and without an entry in the list of users."""

    def work() -> None:
        os.setreuid(54321, 0)
        del os.environ["HOME"]
        with pytest.raises(RuntimeError) as caught:
            Path(runtime.cache_root).expanduser()
        assert missing_home_line(caught.value, runtime) == (
            "runtime.cache_root=~/.cache/fgvc: no home folder is known here. Set HOME, or give "
            "runtime.cache_root=PATH"
        )
        assert missing_home_line(RuntimeError("another"), runtime) is None

    assert ended(forked(work)) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become a user without an account")
def test_a_run_without_a_home_ends_in_one_line(
    runtime, forked, ended, tmp_path, capfd, small_probe
):
    def work() -> None:
        from fgvc.launch.run_job import run_job

        os.setreuid(54321, 0)  # a user without an account, who may still read the tests' folders
        del os.environ["HOME"]
        cfg = composed([*small_probe, "runtime.run_id=a"])
        outcome = run_job(cfg, small_probe, "python")
        line = not_none(outcome.line)
        assert line.startswith("runtime.cache_root=~/.cache/fgvc: no home folder"), outcome
        assert outcome.code == 1

    assert ended(forked(work)) == 0, capfd.readouterr()
