"""A user's own folder of options, by --config-dir or hydra.searchpath: composed, named, hashed."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc.config.compose import config_hash
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.option_files import options, own_folders, search_path_override
from fgvc.config.overrides import expand_jobs, normalized
from fgvc.config.schema import chosen_checkpoint
from fgvc.config.sweep_expansion import expand_sweep
from fgvc.run import main

ROW = "{model: vit_small_patch16_224, patch: 16, width: 64, native: 224, architecture: {depth: 2}}"
FILES = {
    "dataset/pond.yaml": "defaults: [cub, _self_]\nname: pond\nval_fraction: 0.2\n",
    "backbone/pond_vit.yaml": (
        f"defaults: [vit, _self_]\ncheckpoint: pond\ncheckpoints:\n  pond: {ROW}\n"
    ),
    "head/near.yaml": "defaults: [knn, _self_]\nk: 3\n",
    "experiment/pond_near.yaml": (
        "# @package _global_\n"
        "defaults: [override /dataset: pond, override /backbone: pond_vit, override /head: near]\n"
        "seed: 7\n"
    ),
    "sweep/pond_seeds.yaml": (
        "# @package _global_\n"
        "hydra:\n  mode: MULTIRUN\n"
        "  sweeper: {params: {experiment: pond_near, head.k: '1,5'}}\n"
    ),
}
SPELLED_OUT = (
    "dataset=cub",
    "dataset.name=pond",
    "dataset.val_fraction=0.2",
    "backbone=vit",
    "backbone.checkpoint=pond",
    f"backbone.checkpoints.pond={ROW}",
    "head=knn",
    "head.k=3",
    "seed=7",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        path = tmp_path / "my conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "my conf"


def jobs(*arguments):
    """The jobs of a command, as `main` expands it."""
    words = [normalized(word) for word in search_path_override(arguments)]
    overrides, named = expand_sweep(expand_experiment(words))
    return expand_jobs(overrides, named, named)[0]


def hash_of(*arguments):
    (job,) = jobs(*arguments)
    return config_hash(job.plain)


@pytest.mark.parametrize(
    "flag",
    [
        ("--config-dir", "my conf"),
        ("--config-dir=my conf",),
        ("-cd", "my conf"),
        ("hydra.searchpath=['my conf']",),
        ("+hydra.searchpath=my conf",),
        ("hydra.searchpath=['file://{folder}']",),
    ],
)
def test_own_options_are_hashed_by_content(flag, folder):
    flag = [word.format(folder=folder) for word in flag]
    assert hash_of("experiment=pond_near", *flag) == hash_of(*SPELLED_OUT)
    assert hash_of(*flag, "experiment=pond_near", "head.k=4") == hash_of(*SPELLED_OUT, "head.k=4")


def test_each_own_option_composes_alone(folder):
    (job,) = jobs("--config-dir", "my conf", "backbone=pond_vit", "head=near", "dataset=pond")
    assert chosen_checkpoint(job.conf.backbone).model == "vit_small_patch16_224"
    assert (job.conf.head.k, job.conf.dataset.name) == (3, "pond")
    # an option that names no size takes that of a sweep
    (folder / "backbone" / "pond_wide.yaml").write_text("defaults: [vit, _self_]\npatch: 16\n")
    (folder / "sweep" / "sizes.yaml").write_text(
        "# @package _global_\nhydra:\n  mode: MULTIRUN\n"
        "  sweeper: {params: {backbone: pond_wide, backbone.size: 'small,base'}}\n"
    )
    sizes = [job.conf.backbone.size for job in jobs("sweep=sizes", "--config-dir", "my conf")]
    assert sizes == ["small", "base"]


def test_an_option_may_be_called_hydra(folder):
    (folder / "dataset" / "hydra.yaml").write_text("defaults: [pond, _self_]\nname: hydra\n")
    overlay = "# @package _global_\ndefaults: [override /dataset: hydra]\n"
    (folder / "experiment" / "hydra_near.yaml").write_text(overlay)
    (job,) = jobs("--config-dir", "my conf", "experiment=hydra_near")
    assert job.conf.dataset.name == "hydra"


def test_folders_add_up(folder, tmp_path):
    (tmp_path / "more" / "head").mkdir(parents=True)
    (tmp_path / "more" / "head" / "far.yaml").write_text("defaults: [near, _self_]\nk: 50\n")
    (job,) = jobs("--config-dir", "more", "hydra.searchpath=['my conf']", "head=far")
    assert job.conf.head.k == 50
    (override,) = search_path_override(["-cd", "more", "hydra.searchpath=['my conf']"])
    assert {"near", "far"} <= set(options("head", [override]))
    assert {"near", "far"}.isdisjoint(options("head"))


def test_an_own_sweep_expands(folder):
    swept = jobs("sweep=pond_seeds", "--config-dir", "my conf", "seed=1")
    assert [(job.conf.head.k, job.conf.seed) for job in swept] == [(1, 1), (5, 1)]
    assert all(own_folders(job.overrides) for job in swept)  # Hydra reads it again


def test_the_config_is_printed(folder, capsys):
    command = ["experiment=pond_near", "--config-dir", "my conf", "--cfg", "job"]
    assert main([*command, "-p", "dataset.val_fraction"]) == 0
    assert capsys.readouterr().out == "0.2\n"
    assert main(["--info", "searchpath", "--config-dir", "my conf"]) == 0
    assert "my conf" in capsys.readouterr().out
    # the value of --info is optional
    for arguments in (["--config-dir", "my conf", "--info"], ["--info", "--config-dir=my conf"]):
        assert main(arguments) == 0
        assert "my conf" in capsys.readouterr().out


def test_a_folder_without_options_is_not_walked(folder, monkeypatch, capsys):
    """It may be a home folder, or a disk whose files come and go."""

    def vanish(path, pattern):
        raise FileNotFoundError(2, "No such file or directory", "my conf/gone")

    monkeypatch.setattr(Path, "rglob", vanish)
    assert main(["-cd", "my conf/dataset"]) == 2
    assert "holds no option" in capsys.readouterr().err
    assert main(["-cd", "my conf"]) == 2
    expected = "fgvc: hydra.searchpath=my conf: my conf/gone: No such file or directory\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dataset=pnod"], ("dataset=pnod: ", "pond?", "cub, ", "pond, ")),
        (["sweep=pond_seds"], ("sweep=pond_seds: ", "pond_seeds")),
        (["head=near", "head.kk=3"], ("head.kk", "head.k")),
        (["-cd", "nowhere"], ("hydra.searchpath=nowhere: ",)),
        (["-cd"], ("hydra.searchpath=: ",)),
        (["-cd", "my conf/dataset"], ("hydra.searchpath=my conf/dataset: ", "dataset/NAME.yaml")),
        (["hydra.searchpath=[3]"], ("hydra.searchpath=[3]: ",)),
        (["-m", "hydra.searchpath=[a],[b]"], ("hydra.searchpath=[a],[b]: ",)),
        (["hydra.searchpath=[pkg://json]"], ("hydra.searchpath=pkg://json: ",)),
    ],
)
def test_a_wrong_folder_or_option_is_one_line(arguments, words, folder, capsys):
    own = [] if any("search" in word or "-cd" in word for word in arguments) else ["-cd", "my conf"]
    assert main(["runtime.dry_run=true", *own, *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fgvc: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("dataset/cub.yaml", "name: cub\n", "dataset/cub.yaml"),
        ("head/odd.yaml", "k: [1\n", "head/odd.yaml"),
        ("recipe/odd.yaml", "x: !!python/object:os.system {}\n", "recipe/odd.yaml"),
        ("head/odd.yaml", "- k\n", "mapping"),
        # settings of Hydra, which can name code
        ("experiment/odd.yaml", "hydra:\n  launcher: {_target_: os.system}\n", "hydra.*"),
        ("sweep/odd.yaml", "hydra: {mode: MULTIRUN, sweeper: {_target_: os.system}}\n", "hydra.*"),
        ("head/deep/odd.yaml", "# @package hydra.launcher\n_target_: os.system\n", "hydra.*"),
        ("other/odd.yaml", "defaults: [override /hydra/launcher: joblib]\n", "hydra.*"),
        ("head/odd.yaml", "defaults: [knn, /x@hydra.launcher: y]\n", "hydra.*"),
    ],
)
def test_a_file_that_is_not_read_is_named(name, text, word, folder, capsys):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    assert main(["--config-dir", "my conf", "runtime.dry_run=true"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fgvc: hydra.searchpath=my conf: ")
    assert word in line
