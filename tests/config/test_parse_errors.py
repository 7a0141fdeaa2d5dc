"""Mistyped arguments: one line, which suggests only valid overrides of the same meaning."""

from __future__ import annotations

import os

import pytest

from fgvc.config.errors import ConfigError
from fgvc.config.overrides import jobs_of
from fgvc.run import main

MESSAGES = {  # as typed -> the whole line
    ("seed: 1",): "seed: 1: expected key=value; write seed=1 (no colon)",
    ("help",): "help: expected key=value; write --help",
    ("--resume",): "--resume: overrides are written key=value, without dashes; runtime.resume "
    "has no true; PATH of the run in progress, or its own runtime.run_id",
    ("seed",): "seed: expected key=value, without spaces around =, as in seed=VALUE",
    ("seed =1",): "seed =1: write key and = without spaces, as in seed=1",
    ("sêed=1",): "sêed=1: unknown config key; did you mean seed?",
    ("head={knn,linear}",): "head={knn,linear}: expected one name, as in head=OPTION; several: "
    "-m head=knn,linear",
    ("head=[knn,linear]",): "head=[knn,linear]: expected one name, as in head=OPTION; several: "
    "-m head=knn,linear",
    ("dataset=cub,",): "dataset=cub,: expected one name, as in dataset=cub",
    ("seed=1,2", "task=train,probe"): "task=train,probe: several values need -m (one job each)",
    ("dataset.root=/a,b",): "dataset.root=/a,b: several values need -m (one job each); as one "
    "path: 'dataset.root=\"/a,b\"'",
    ("dataset.root=https://x.org/a.zip",): "dataset.root=https://x.org/a.zip: an address is not "
    "read; download it, and give its path",
    ("dataset.root=",): "dataset.root=: empty; give a value, or leave dataset.root out",
    ("task=eval", "checkpoint="): "checkpoint=: empty; give a value, or leave checkpoint out",
    ("task=train", "task.epochs=ten"): "task.epochs=ten: must be an integer",
    ("seed=1.5",): "seed=1.5: must be an integer",
    ("task=train", "task.mixup=much"): "task.mixup=much: must be a number",
    ("runtime.dry_run=maybe",): "runtime.dry_run=maybe: must be true or false",
    ("precision=[fp32]",): "precision=['fp32']: must be a text",
    ("+optim.lrr=1",): "optim.lrr=1: unknown config key; write task=train task.learning_rate=1",
    ("resolution=r225",): "resolution=r225: no such option; write resolution=r224 (the nearest; "
    "others: r256, r336, r384, r392, r448, r512, r518)",
    ("-m", "seed=interval(0,1)"): "seed=interval(0,1): -m takes values, as in seed=A,B",
    ("-m", "seed=range(0,10,-1)"): "seed=range(0,10,-1): a range without values; give it a stop "
    "beyond its start",
    ("dataset=folder", "dataset.generator.classes=2"): "dataset.generator.classes=2: "
    "dataset.generator is null; choose an option of dataset= that sets it",
    ("-m", "seed=glob(*)"): "seed=glob(*): -m takes values, as in seed=A,B",
    ("-m", "head=knn", "head=linear"): "head=linear: head=knn is given too; write both as "
    "one: head=knn,linear",
    ("trainer.precision=32-true",): "trainer.precision=32-true: unknown config key; write "
    "precision=fp32",
    ("precision_=1", "dtype=float64"): "unknown config key precision_; did you mean precision?",
    ("dtype=float64",): "dtype=float64: unknown config key; precision= has fp32, bf16, fp16",
    ("task=train", "opt=lamb"): "opt=lamb: unknown config key; task.optimiser has no lamb; fgvc "
    "has adamw and sgd",
    ("task=train", "mixup=false"): "mixup=false: unknown config key; write task.mixup=0",
    ("task=train", "ema=false"): "ema=false: unknown config key; write task.ema=null (the decay)",
    ("task=train", "monitor=f1"): "monitor=f1: unknown config key; task.select has no f1; top1 "
    "or loss, on validation",
    ("task=report", "format=json"): "format=json: task=report has no task.format; task=predict "
    "has it",
    ("head=linear", "head.k=5"): "head.k=5: head=linear has no head.k; head=knn has it: write "
    "head=knn head.k=5",
    ("--no-pretrained",): "--no-pretrained: overrides are written key=value, without dashes; "
    "write backbone.pretrained=false",
}


@pytest.mark.fault(42)
@pytest.mark.parametrize("typed", MESSAGES, ids=" ".join)
def test_a_mistyped_argument_is_one_line(typed, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(list(typed)) == 2
    assert capfd.readouterr().err == f"fgvc: {MESSAGES[typed]}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("optim: {lr: 3}", "optim.lr=3: unknown config key; write task=train task.learning_rate=3"),
        ("sede: 3", "unknown config key sede; did you mean seed?"),
        ("seed: one", "seed=one: must be an integer"),
    ],
)
def test_an_error_in_an_experiment_file_names_the_file(values, message, tmp_path, capfd):
    file = tmp_path / "mine.yaml"
    file.write_text(f"# @package _global_\n{values}\n")
    assert main([f"experiment={file}"]) == 2
    assert capfd.readouterr().err == f"fgvc: experiment={file}: {message}\n"
    file.write_text("# @package _global_\nseed: 3\n")
    for typed, error in (("sede=3", "unknown config key sede; did"), ("seed=x", "seed=x: must")):
        assert main([f"experiment={file}", typed]) == 2  # an error of the command
        assert capfd.readouterr().err.startswith(f"fgvc: {error}")


def test_a_pipe_is_no_weights_file(tmp_path, capfd):
    os.mkfifo(tmp_path / "f.pth")
    assert main(["backbone=vit_tiny", f"backbone.weights={tmp_path / 'f.pth'}"]) == 2
    assert "a pipe or device, not a file" in capfd.readouterr().err


@pytest.mark.parametrize("typed", ["dataset='cub'", 'dataset="cub"', "+dataset='cub'"])
def test_quotes_around_an_option_are_no_part_of_it(typed):
    assert jobs_of([typed], multirun=False)[0].conf.dataset.name == "cub"


def test_a_key_given_twice_is_the_last_one_and_refused_under_m():
    assert jobs_of(["seed=1", "seed=2"], multirun=False)[0].conf.seed == 2
    with pytest.raises(ConfigError, match=r"seed=2: seed=0,1 is given too"):
        jobs_of(["seed=0,1", "seed=2"], multirun=True)
