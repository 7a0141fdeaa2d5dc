"""Rows of backbone.checkpoints from the command line and overlays, and their hash."""

from __future__ import annotations

import pytest

from fgvc.config.compose import config_hash
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.overrides import jobs_of, normalized
from fgvc.config.schema import chosen_checkpoint
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


def test_rows_of_a_sweep_reach_hydra(capsys):
    """Hydra composes a sweep again, and keeps one value per key."""
    table = [f"+backbone.checkpoints.{name}={ROW}" for name in ("mine", "other")]
    chosen = ("backbone=vit", *table, "backbone.checkpoint=mine,other")
    assert len(jobs_of(expand(*chosen), multirun=True)) == 2
    assert main(["backbone=vit", *table, "--cfg", "job"]) == 0
    assert capsys.readouterr().out.count(f"model: {MODEL}") == 2


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (f"backbone.checkpoints.mine={ROW.replace('width', 'widht')}", "mine.widht; did you mean"),
        ("backbone.checkpoints.base.widht=3", "base.widht; did you mean width"),
        ("backbone.checkpoints.mine={model: x}", "mine: a new row, which lacks patch, width, nat"),
        ("backbone.checkpoints.bsae.width=768", "did you mean base"),
        ("backbone.checkpoints.mine=5", "a row is a mapping"),
        (f"backbone.checkpoints.mine={ROW.replace('768', 'wide')}", "width"),
    ],
)
def test_a_faulty_row_is_one_line(typed, words, capsys):
    assert main(["backbone=vit", typed, "runtime.dry_run=true"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fgvc: ")
    assert words in line
