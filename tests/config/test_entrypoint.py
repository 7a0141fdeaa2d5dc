"""The command line: an error is one line, and leaves no files."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fgvc.config.version import version
from fgvc.run import main
from tests.jobs import import_path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "torchvision", "timm", "transformers", "open_clip", "fiftyone", "tensorboard")
HEAVY += ("optuna", "submitit", "joblib")  # of searches and launchers


def fgvc(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fgvc.run", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": import_path(), **env},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.fault(42)
@pytest.mark.parametrize(
    "arguments",
    [
        ["+optim.lrr=1"],
        ["++backbone.pach=14"],
        ["backbone.pach=14"],
        ["backbone=dinov3x"],
        ["seed=one"],
        ["dataset.root=/a=b"],
        ["runtime.run_id=../up"],
        ["-m", "backbone=vit_tiny,vit_tini"],
        ["--resolve"],  # without --cfg it ran a job
        ["--", "seed=1"],
    ],
)
def test_a_wrong_command_ends_with_2_and_leaves_no_folder(arguments, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    stderr = capfd.readouterr().err
    assert stderr.startswith("fgvc: ")
    assert stderr.count("\n") == 1, stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("launcher", ["serial", "joblib"])
def test_operations_run_one_after_another_until_a_signal(launcher, tmp_path, monkeypatch):
    from fgvc.launch import run_job

    monkeypatch.chdir(tmp_path)
    results = iter([run_job.JobResult(1, "failed"), run_job.JobResult(75, "preempted")])
    started = []

    def run(cfg, overrides, command, since):
        assert cfg.runtime.run_id == "x"
        assert since == 5.0
        started.append(overrides)
        return next(results)

    monkeypatch.setattr(run_job, "run_job", run)
    tasks = ["-m", "task=report,doctor,prune", f"hydra/launcher={launcher}", "runtime.run_id=x"]
    assert main(tasks, started=5.0) == 75
    assert started == [[f"task={name}", 'runtime.run_id="x"'] for name in ("report", "doctor")]
    assert list(tmp_path.iterdir()) == []


def test_the_process_exits_with_the_code_of_main(tmp_path):
    process = fgvc("task=eval", cwd=tmp_path)
    assert process.returncode == 2
    assert process.stderr.startswith("fgvc: ")
    assert process.stderr.count("\n") == 1, process.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_command_starts_with_its_process():
    """The wall time of a run counts from there: before its imports."""
    code = (
        "import fgvc.run as r; from fgvc.parallel.process_start import STARTED\n"
        "r.main = lambda arguments, started: print(started == STARTED) or 0\n"
        "r.script()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (0, "True\n"), process.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--cfg", "job"],
        ["--info", "plugins"],
        ["sweep=tune", "runtime.dry_run=true"],
    ],
)
def test_help_and_cfg_import_nothing_heavy(arguments, tmp_path):
    probe = (
        "import sys\n"
        "from fgvc.run import main\n"
        f"code = main({arguments!r})\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": import_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0
    assert process.stderr.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("library", ["onnx", "triton"])
def test_no_library_reports_leaks_when_the_process_ends(library):
    """They do if their objects are frozen."""
    code = (
        f"import sys, {library}; sys.argv = ['fgvc', '--version']; import fgvc.run as r; r.script()"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_help_is_our_own_page_within_80_columns(capfd):
    assert main(["--help"]) == 0
    page = capfd.readouterr().out
    for word in (
        "task=",
        "dataset=",
        "backbone=",
        "dinov2",
        "resolution=",
        "r518",
        "Examples",
        "--config-dir",
    ):
        assert word in page
    assert "Hydra" not in page
    assert max(map(len, page.splitlines())) <= 80


def test_dry_run_shows_the_jobs_and_writes_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["-m", "backbone=vit_tiny", "seed=0,1", "runtime.dry_run=true"]) == 0
    assert "2 jobs" in capfd.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_conf_is_found_from_an_installed_wheel(tmp_path):
    """The unpacked wheel alone, outside the checkout, composes to the same hash."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    site = tmp_path / "site"
    shutil.unpack_archive(next(tmp_path.glob("*.whl")), site, format="zip")
    program = (
        "import json, fgvc.config.compose as c\n"
        "from hydra.core.plugins import Plugins\n"
        "plugins = sorted(cls.__name__ for cls in Plugins.instance().discover()\n"
        "                 if cls.__module__.startswith('hydra_plugins.fgvc.'))\n"
        "results = str(c.conf_dir()), c.config_hash(c.resolved(c.composed([]))), plugins\n"
        "print(json.dumps(results))"
    )
    results = {}
    for name, path in (("wheel", site), ("checkout", ROOT)):
        process = subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(path)},
            capture_output=True,
            text=True,
            check=True,
        )
        results[name] = json.loads(process.stdout)
    assert results["wheel"][0] == str(site / "fgvc" / "conf")
    assert results["wheel"][1] == results["checkout"][1]
    plugins = ["ExactSweeper", "JoblibLauncher", "LocalLauncher", "SlurmLauncher"]
    assert results["wheel"][2] == results["checkout"][2] == plugins


def test_the_fgvc_script_is_the_same_program(tmp_path):
    script = Path(sys.executable).parent / "fgvc"
    process = subprocess.run(
        [script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert process.stdout == fgvc("--help", cwd=tmp_path).stdout


def test_the_version_is_that_of_the_running_code(tmp_path):
    """Not the version of Hydra or of an installed fgvc."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["name"] == "fgvc"
    for command in ([sys.executable, "-m", "fgvc.run"], [Path(sys.executable).parent / "fgvc"]):
        process = subprocess.run(
            [*command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert process.stdout == f"fgvc {project['version']}\n"
        assert process.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_without_a_checkout_the_version_is_that_of_the_package(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "9"\n')
    assert version(tmp_path / "fgvc") == importlib.metadata.version("fgvc")
