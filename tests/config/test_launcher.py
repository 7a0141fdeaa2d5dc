"""Launchers: an invalid launcher is refused before anything is written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fgvc.config.compose import conf_dir, register_schema
from fgvc.config.schema.launcher import LAUNCHERS
from fgvc.run import main

SLURM = "hydra/launcher=submitit_slurm"
MESSAGES = {
    "-m hydra/launcher=jobli": "did you mean joblib?",
    "-m hydra/launcher=joblib,serial": "one launcher for all jobs",
    "-m ~hydra/launcher": "not deleted",
    "hydra/launcher=joblib": "add -m",
    "-m hydra/launcher=joblib hydra.launcher.n_job=3": "did you mean n_jobs?",
    "-m hydra/launcher=joblib hydra.launcher.n_jobs=1,2": "one launcher for all jobs",
    "-m hydra/launcher=joblib hydra.launcher.n_jobs=two": "n_jobs=two",
    "-m hydra/launcher=submitit_local hydra.launcher.n_jobs=0": "must be at least 1",
    "-m hydra/launcher=joblib hydra.launcher._target_=os.system": "unknown config key",
    "-m hydra.launcher.n_jobs=3": "needs hydra/launcher=joblib or submitit_local",
    f"-m {SLURM} hydra.launcher.tasks_per_node=2": "did you mean gpus_per_node?",
    f"-m {SLURM} hydra.launcher.additional_parameters=3": "additional_parameters=3",
    f"-m {SLURM}": "no sbatch on this machine",
}


@pytest.mark.parametrize("command", MESSAGES)
def test_an_invalid_launcher_is_refused_in_one_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no cluster
    code = main([*command.split(), "backbone=vit_tiny", "backbone.pretrained=false"])
    output = capsys.readouterr().err
    assert code == 2
    assert output.startswith("fgvc: ")
    assert output.count("\n") == 1
    assert MESSAGES[command] in output
    assert list(tmp_path.iterdir()) == []


def test_the_keys_of_slurm_are_accepted_with_sbatch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(bin_folder))
    keys = ["partition=gpu", "gpus_per_node=1", "timeout_min=60", 'constraint="a|b"']
    more = "+hydra.launcher.additional_parameters.nodelist=n7"
    launcher = [SLURM, *(f"hydra.launcher.{key}" for key in keys), more]
    vit = ["backbone=vit_tiny", "backbone.pretrained=false", "runtime.dry_run=true"]
    assert main(["-m", *launcher, *vit, "seed=0,1"]) == 0
    output = capsys.readouterr().out
    assert "2 jobs" in output
    assert "hydra" not in output


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_composes_to_the_keys_of_its_dataclass(name, recwarn):
    """Also without a warning of Hydra's."""
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", [f"hydra/launcher={name}"], return_hydra_config=True)
    node = OmegaConf.to_container(cfg.hydra.launcher, resolve=False)
    fixed = {"_target_"} | ({"submitit_folder"} if name.startswith("submitit") else set())
    assert isinstance(node, dict)
    assert set(node) - fixed == {item.name for item in dataclasses.fields(LAUNCHERS[name])}
    assert [str(warning.message) for warning in recwarn] == []


def test_every_launcher_has_a_file_and_a_first_line():
    files = {file.stem: file for file in Path(conf_dir(), "hydra", "launcher").glob("*.yaml")}
    assert set(files) == set(LAUNCHERS)
    for file in files.values():
        assert file.read_text().startswith("# ")
