"""sweep=tune and overlay files: the meaning of arguments, and errors before any work."""

from __future__ import annotations

import json
from importlib import metadata

import pytest

from fgvc.config.compose import composed, config_hash, resolved
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment, experiment_text
from fgvc.config.search_space import check_same_search, parse_search
from fgvc.config.sweep_expansion import expand_sweep
from fgvc.run import main

TINY = ("backbone=vit_tiny", "backbone.pretrained=false")
FIXED = ("learning_rate=1e-3", "layer_decay=0.75", "weight_decay=0.05", "drop_path=0", "mixup=0")


def parse(*arguments, only=()):
    """The search of these arguments. only: the keys of the sweep file that stay searched."""
    chosen = list(arguments)
    if only:
        fixed = [f"task.{item}" for item in FIXED if item.partition("=")[0] not in only]
        chosen = [*{item.partition("=")[0]: item for item in (*fixed, *arguments)}.values()]
    search = parse_search(expand_sweep(["sweep=tune", *TINY, *chosen])[0])
    assert search is not None
    return search


def test_typed_keys_replace_those_of_the_sweep_file():
    search, corners = parse("task.mixup=0", "task.warmup_steps=int(interval(1,9))")
    assert next(iter(search.space)) == "task.warmup_steps"
    assert set(search.space) == {
        "task.warmup_steps",
        *(f"task.{key}" for key in ("learning_rate", "layer_decay", "weight_decay", "drop_path")),
    }
    assert (search.select, search.direction, search.sampler) == ("top1", "maximize", "tpe")
    assert search.trials == 20
    tasks = [job.conf.task for job in corners]
    assert {task.warmup_steps for task in tasks} == {1, 9}
    assert {task.layer_decay for task in tasks} >= {0.5, 1.0}
    assert all(job.conf.runtime.stop_before_test for job in corners)


def test_a_search_of_another_version_of_optuna_is_another_search(tmp_path, monkeypatch):
    """It may propose other trials, which would replace the recorded ones."""
    folder = tmp_path / "before" / "trials"
    folder.mkdir(parents=True)
    search, corners = parse(f"runtime.multirun_root={tmp_path}", "task.drop_path=0,0.1")
    (folder / "00000.json").write_text(json.dumps({"search": search.digest}))
    check_same_search(search, corners[0].conf, "before")
    installed = metadata.version("optuna")
    monkeypatch.setattr(metadata, "version", lambda name: f"1{installed}")
    search, corners = parse(f"runtime.multirun_root={tmp_path}", "task.drop_path=0,0.1")
    with pytest.raises(ConfigError, match=rf"^runtime.run_id=before: .*Optuna \(here 1{installed}"):
        check_same_search(search, corners[0].conf, "before")


def test_the_digest_of_a_search_ignores_only_the_number_of_trials():
    default, more, loss, other = (
        parse("task.drop_path=0,0.1", *overrides, only=("drop_path",))[0]
        for overrides in (
            (),
            ("hydra.sweeper.n_trials=3",),
            ("task.select=loss",),
            ("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1"),
        )
    )
    assert (default.trials, more.trials) == (20, 3)
    assert default.digest == more.digest
    assert len({default.digest, loss.digest, other.digest}) == 3
    assert default.settings == {
        "seed": 0,
        "n_startup_trials": 10,
        "n_ei_candidates": 24,
        "multivariate": False,
    }
    assert (default.parallel, other.settings) == (1, {"seed": 1})
    assert (loss.direction, other.sampler) == ("minimize", "random")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("task.layer_decay=interval(0,1)", "task.layer_decay=0.0: must be at least 0.001"),
        ("task.drop_path=interval(0,1.5)", "task.drop_path=1.5: must be at least 0.0 and at most"),
        ("task.warmup_steps=interval(1,9)", r"whole numbers are int\(interval"),
        ("task.layer_decai=interval(0.5,1)", "did you mean task.layer_decay"),
        ("task.optimiser=adamw,sdg", "task.optimiser=sdg: not one of adamw, sgd"),
        ("task.mixup=tag(log,interval(0,1))", "on a log scale it must begin above 0"),
        ("task.mixup=interval(1,0)", "1.0 is not below 0.0"),
        ("task.select=top1,loss", "one search for each task.select"),
        ("backbone=vit_tiny,vit_small", "one search for each backbone"),
        ("task=probe", "sweep=tune takes train"),
        ("final_fit=trainval", "final_fit=train"),
        ("runtime.stop_before_test=false", "a trial of sweep=tune never reads test"),
        ("hydra.sweeper.n_trials=0", "hydra.sweeper.n_trials=0: must be at least 1"),
        ("hydra.sweeper.n_trials=two", "n_trials=two: must be a whole number of at least 1"),
        ("~hydra.sweeper.n_trials", "hydra.sweeper.n_trials=null: must be a whole number"),
        ("hydra.sweeper.sampler.multivariate=x", "multivariate=x: must be true or false"),
        ("hydra.sweeper.sampler.seed=x", "seed=x: .* of at least 0 and at most 4294967295"),
        # they were ignored
        ("hydra.sweeper.params={task.mixup:0}", "a key is searched by its space"),
        ("+hydra.sweeper.params.task.mixup=0.1", "a key is searched by its space"),
        ("task.learning_rate=tag(lgo,interval(1e-4,1e-2))", "tag lgo is unknown"),
        ("task.mixup=tag(log,choice(0.1,0.2))", "a log scale takes"),
        ("task.epochs=range(1,2,0)", "a step that is not 0"),
        ("task.epochs=range(5,1)", r"task.epochs=range\(5,1\): a range without values"),
        ("task.epochs=range(1,9999999)", "more than 10000 values"),
        ("hydra.sweeper.n_jobs=0", "hydra.sweeper.n_jobs=0: must be at least 1"),
        ("hydra.sweeper.direction=minimize", "hydra.sweeper.n_trials"),
        ("hydra.sweeper.sampler.name=cmaes", "sampler.name=cmaes: not one of tpe, random"),
        ("hydra.sweeper.sampler.name=random", "by hydra/sweeper/sampler=random"),
        ("hydra.sweeper.sampler.n_startup=3", "n_startup=3: sampler tpe has no n_startup; did you"),
        ("+hydra.sweeper.sampler.gamma=1", "gamma=1: sampler tpe has no gamma"),
        ("hydra.sweeper.sampler.n_ei_candidates=0", "n_ei_candidates=0: must be at least 1"),
        ("hydra.sweeper.sampler.seed=-1", "hydra.sweeper.sampler.seed=-1: must be at least 0"),
        ("hydra.sweeper.sampler.seed=null", "without a seed"),
        ("hydra/sweeper/sampler=grid", "takes tpe or random"),
        ("hydra/sweeper=basic", "a search is sweep=tune"),
        ("hydra/launcher=joblib", "hydra/launcher=joblib: the trials of a search run one by one"),
        (
            "hydra.launcher.n_jobs=2",
            "hydra.launcher.n_jobs=2: the trials of a search run one by one",
        ),
    ],
)
def test_an_invalid_search_is_refused_in_one_line(argument, message):
    only = ("layer_decay",)
    overrides = () if argument.startswith("task.layer") else ("task.layer_decay=0.5,0.6",)
    with pytest.raises(ConfigError, match=message) as refused:
        parse(*overrides, argument, only=only)
    assert "\n" not in str(refused.value)


def test_settings_of_a_search_need_a_search():
    with pytest.raises(ConfigError, match="n_trials=3: a setting of a search; add"):
        parse_search(["seed=1,2", "hydra.sweeper.n_trials=3"])
    random = ["hydra/sweeper/sampler=random", "hydra.sweeper.sampler.n_ei_candidates=3"]
    with pytest.raises(ConfigError, match="n_ei_candidates=3: sampler random has no "):
        parse(*random)


def test_nothing_to_search_and_a_search_without_a_name_are_refused():
    with pytest.raises(ConfigError, match="nothing to search"):
        parse(*(f"task.{item}" for item in FIXED))
    with pytest.raises(ConfigError, match="a search is sweep=tune"):
        parse_search(["hydra/sweeper=optuna", "task.mixup=0,1"])
    assert parse_search(["head=knn,linear"]) is None


def test_a_dry_run_shows_the_space_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["sweep=tune", *TINY, "runtime.dry_run=true", "hydra.sweeper.n_trials=7"]) == 0
    output = capsys.readouterr().out
    assert "7 trials (tpe), nothing started" in output
    assert "task.learning_rate: tag(log, interval(1e-4, 1e-2))" in output
    assert main(["runtime.stop_before_test=true", "head=knn"]) == 2
    assert "only task=train has" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- overlay files ---


def test_an_overlay_has_the_hash_of_the_typed_command(tmp_path):
    """Axes, and values with special characters of Hydra."""
    axes = {"experiment": "finetune", "backbone": "vit_tiny", "part_attention": "off"}
    prompts = ['it\'s, "x" [1] of a {}.', "a {}"]
    values = {
        "dataset.root": 'a b/c="d\\e"{x}',
        "dataset.prompts": prompts,
        "backbone.pretrained": False,
        "task.learning_rate": 0.0012520653814999472,
        "task.weight_decay": 1.5e-7,
        "task.ema": None,
    }
    file = tmp_path / "my best.yaml"
    file.write_text(experiment_text(axes, values, ["why"]))
    assert file.read_text().startswith("# @package _global_\n# why\ndefaults:\n- finetune\n")
    cfg = composed(expand_experiment([f"experiment={file}"]))
    assert (cfg.dataset.root, cfg.dataset.prompts) == (values["dataset.root"], prompts)
    assert (cfg.task.weight_decay, cfg.part_attention.name) == (1.5e-7, "off")
    typed = ["experiment=finetune", *TINY, "task.learning_rate=0.0012520653814999472"]
    typed += ["task.weight_decay=1.5e-07", "task.ema=null"]
    assert config_hash(resolved(cfg)) == config_hash(resolved(composed(typed)))
    wins = expand_experiment(["backbone=dinov2", f"experiment={file}", "task.ema=0.9", "-m"])
    assert "backbone=vit_tiny" not in wins
    assert "task.ema=null" not in wins
    assert wins[0] == "backbone=dinov2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("- 1\n", "not an overlay"),
        ("a: [", "while parsing"),
        ("defaults:\n- /backbone: vit\n", "override /AXIS"),
        ("hydra:\n  mode: MULTIRUN\n", "on the command line"),
        ("task:\n  epoch: 3\n", "write task.epochs=3"),
    ],
)
def test_a_file_that_is_no_overlay_is_refused(text, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    assert main(["experiment=x.yaml", "task=train", *TINY]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert len(list(tmp_path.iterdir())) == (text is not None)
