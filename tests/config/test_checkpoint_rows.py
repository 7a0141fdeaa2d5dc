"""Rows of backbone.checkpoints from the command line and overlays, and their hash."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from fgvc.config.checkpoint_rows import published_rows
from fgvc.config.compose import conf_dir, config_hash, hashed, resolved, typed
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.overrides import jobs_of, normalized
from fgvc.config.schema import Checkpoint, chosen_checkpoint
from fgvc.run import main

MODEL = "vit_base_patch16_384.augreg_in21k_ft_in1k"
ROW = f"{{model: {MODEL}, patch: 16, width: 768, native: 384, repo: timm/{MODEL}}}"
USE = ("backbone=vit", "backbone.checkpoint=mine", "dataset.subset=tiny")


def expand(*arguments):
    """The arguments as `main` expands them."""
    return expand_experiment([normalized(argument) for argument in arguments])


def make_job(*arguments):
    (job,) = jobs_of(expand(*arguments), multirun=False)
    return job


@pytest.mark.parametrize("sign", ["", "+", "++"])
def test_a_row_on_the_command_line(sign):
    row = chosen_checkpoint(make_job(*USE, f"{sign}backbone.checkpoints.mine={ROW}").conf.backbone)
    assert (row.model, row.patch, row.width, row.native) == (MODEL, 16, 768, 384)
    # defaults are filled in
    assert (row.size, row.revision, row.registers, row.prefix) == ("mine", "main", False, 1)
    assert row.license == "not recorded"


def test_every_way_to_write_a_row_has_the_same_hash(tmp_path):
    fields = [
        f"backbone.checkpoints.mine.{item}"
        for item in (f"model={MODEL}", "patch=16", "+width=768", "native=384", f"repo=timm/{MODEL}")
    ]
    fields = [f"+{item.replace('+', '')}" if "+" in item else item for item in fields]
    file = tmp_path / "own.yaml"
    file.write_text(
        "# @package _global_\n"
        "defaults:\n  - override /backbone: vit\n"
        f"backbone:\n  checkpoint: mine\n  checkpoints:\n    mine: {ROW}\n"
    )
    jobs = [
        make_job(*USE, f"+backbone.checkpoints.mine={ROW}"),
        make_job(*USE, f"backbone.checkpoints={{mine: {ROW}}}"),
        make_job(*USE, *fields),
        make_job(f"experiment={file}", "dataset.subset=tiny"),
    ]
    assert len({config_hash(job.plain) for job in jobs}) == 1
    # a typed field replaces that of the file
    other = make_job("backbone.checkpoints.mine.native=224", f"experiment={file}")
    assert chosen_checkpoint(other.conf.backbone).native == 224
    assert chosen_checkpoint(other.conf.backbone).width == 768


def test_an_additional_row_changes_no_hash():
    plain = make_job("backbone=vit").plain
    assert make_job("backbone=vit", f"+backbone.checkpoints.mine={ROW}").plain == plain


@pytest.mark.parametrize(
    "swept",
    [
        ("backbone.checkpoint=mine,other",),
        ("backbone.checkpoint=mine", "backbone.checkpoints.mine.width=768,1024"),
        ("backbone.size=mini", "backbone.checkpoints.mini.architecture.depth=2,3"),
    ],
)
def test_rows_of_a_sweep_reach_hydra(swept):
    """Hydra composes the jobs of a sweep again, from their overrides."""
    rows = [f"+backbone.checkpoints.{name}={ROW}" for name in ("mine", "other")]
    jobs = jobs_of(expand("backbone=vit", *rows, *swept, "dataset.subset=tiny"), multirun=True)
    assert len(jobs) == 2
    for job in jobs:
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            conf = typed(compose("config", list(job.overrides)))
        assert conf.backbone == job.conf.backbone
        assert hashed(conf) == job.plain


def test_the_config_is_printed_with_the_chosen_row_only(capsys):
    rows = [f"+backbone.checkpoints.{name}={ROW}" for name in ("mine", "other")]
    assert main(["backbone=vit", *rows, "--cfg", "job"]) == 0
    printed = capsys.readouterr().out
    assert [*yaml.safe_load(printed)["backbone"]["checkpoints"]] == ["base"]
    assert main(["backbone=vit", *rows, "backbone.checkpoint=mine", "--cfg", "job"]) == 0
    checkpoints = yaml.safe_load(capsys.readouterr().out)["backbone"]["checkpoints"]
    assert {name: row["model"] for name, row in checkpoints.items()} == {"mine": MODEL}
    assert len(printed.splitlines()) < 150


def test_the_printed_config_has_the_hash_of_the_command(capsys):
    command = ["backbone=clip", "backbone.checkpoint=laion2b_l14", "backbone.weights=hf-hub:a/b"]
    assert main([*command, "backbone.checkpoints.laion2b_l14.heads=8", "--cfg", "job"]) == 0
    cfg = OmegaConf.create(capsys.readouterr().out)
    assert isinstance(cfg, DictConfig)
    job = make_job(*command, "backbone.checkpoints.laion2b_l14.heads=8")
    assert resolved(cfg) == job.plain
    assert chosen_checkpoint(job.conf.backbone).normalization == "half"


def test_a_record_with_the_whole_table_chooses_from_its_own_rows():
    """Records of earlier versions hold every row; the published rows may have changed since."""
    conf = make_job("backbone=vit").conf
    row = chosen_checkpoint(conf.backbone)
    rows = {"first": replace(row, width=99), "base": row, "small": replace(row, size="small")}
    plain = asdict(replace(conf, backbone=replace(conf.backbone, checkpoints=rows)))
    cfg = OmegaConf.create(plain)
    assert isinstance(cfg, DictConfig)
    assert typed(cfg).backbone.checkpoints == rows
    assert chosen_checkpoint(typed(cfg).backbone) == rows["first"]
    cfg.backbone.checkpoint = "large"
    with pytest.raises(ConfigError, match=r"^backbone.checkpoint=large: vit has first, base, sm"):
        typed(cfg)


@pytest.mark.parametrize("family", ["vit", "dinov2", "dinov3", "clip", "siglip2"])
def test_published_rows_have_the_types_of_their_fields(family):
    """They are not checked in each command."""
    rows = published_rows(family)
    assert len(rows) > 3
    for row in rows.values():
        checked = OmegaConf.merge(OmegaConf.structured(Checkpoint), row)
        assert OmegaConf.missing_keys(checked) == set()
        assert OmegaConf.to_container(checked) == asdict(Checkpoint(**row))


def test_a_change_to_a_published_row_keeps_its_other_fields():
    conf = make_job("backbone=siglip2", "backbone.checkpoints.base.heads=6", "dataset=cub").conf
    before = published_rows("siglip2")["base"]
    assert chosen_checkpoint(conf.backbone) == Checkpoint(**{**before, "heads": 6})
    assert published_rows("siglip2")["base"]["heads"] == 12


def test_configs_share_no_row():
    """A later step may change a row in place."""
    rows = [chosen_checkpoint(make_job("backbone=vit", "backbone.size=mini").conf.backbone)]
    rows[0].architecture["depth"] = 99
    rows.append(chosen_checkpoint(make_job("backbone=vit", "backbone.size=mini").conf.backbone))
    assert rows[1].architecture["depth"] == 2


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (f"backbone.checkpoints.mine={ROW.replace('width', 'widht')}", "mine.widht; did you mean"),
        ("backbone.checkpoints.base.widht=3", "base.widht; did you mean width"),
        ("backbone.checkpoints.mine={model: x}", "mine: a new row, which lacks patch, width, nat"),
        ("backbone.checkpoints.bsae.width=768", "did you mean base"),
        ("backbone.checkpoints.mine=5", "a row is a mapping"),
        (f"backbone.checkpoints.mine={ROW}; backbone.library=tim", "backbone.library=tim: not one"),
        (f"backbone.checkpoints.mine={ROW.replace('768', 'wide')}", "width"),
    ],
)
def test_a_faulty_row_is_one_line(typed, words, capsys):
    assert main(["backbone=vit", *typed.split("; "), "runtime.dry_run=true"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fgvc: ")
    assert words in line
