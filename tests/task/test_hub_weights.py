"""Weights in the hub's cache, named by their repository: probed, finetuned, evaluated offline."""

import hashlib
import json
import os
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

SIDE = ("resolution.side=64", "resolution.name=r64")
MINI = ("backbone=vit", "backbone.size=mini", "backbone.pretrained=true", *SIDE)
COMMIT = "a" * 40


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory):
    """A ViT as transformers saves it, with weights so small that the epsilon of its norms matters,
    and with its image processor."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    shape: dict[str, Any] = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    folder = tmp_path_factory.mktemp("vit")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(3)
        model = ViTModel(ViTConfig(**shape, intermediate_size=256, initializer_range=1e-3))
    model.save_pretrained(folder)
    ViTImageProcessor().save_pretrained(folder)
    return folder


@pytest.fixture
def cached(vit_folder, tmp_path, monkeypatch):
    """The same in a cache of the hub, as org/tiny at its branch main."""
    from huggingface_hub import constants

    repo = tmp_path / "hub" / "models--org--tiny"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for file in vit_folder.iterdir():
        blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return snapshot


def test_a_hub_repository_gives_the_same_probe_as_its_folder(run, cached, vit_folder):
    probe = (*MINI, "head=knn", "head.k=3")
    from_hub = run(*probe, "backbone.weights=hf-hub:org/tiny")
    assert from_hub.code == 0, from_hub.err
    recorded = from_hub.json("env_stamp.json")["weights"]
    sha256 = hashlib.sha256((vit_folder / "model.safetensors").read_bytes()).hexdigest()
    assert (recorded["kind"], recorded["name"]) == ("hub", "org/tiny")
    assert (recorded["revision"], recorded["sha256"]) == (COMMIT, sha256)
    folder = run(*probe, f"backbone.weights=local-dir:{vit_folder}")
    assert folder.code == 0, folder.err
    assert from_hub.json("metrics.json")["test"] == folder.json("metrics.json")["test"]
    assert from_hub.folder.name != folder.folder.name


@pytest.mark.parametrize("where", ["hub", "folder"])
def test_a_finetune_keeps_the_epsilon_of_its_weights(run, cached, vit_folder, where):
    source = "hf-hub:org/tiny" if where == "hub" else str(vit_folder)
    fitted = run(
        *MINI,
        f"backbone.weights={source}",
        "task=train",
        "task.epochs=1",
        "task.batch_size=16",
        "task.warmup_steps=0",
        "task.learning_rate=1e-6",
    )
    assert fitted.code == 0, fitted.err
    again = run("task=eval", f"checkpoint={fitted.folder}", bare=True)
    assert again.code == 0, again.err
    tables = [_test_rows(ran.folder) for ran in (fitted, again)]
    assert tables[0].equals(tables[1])


def test_a_finetuned_backbone_keeps_its_epsilon_in_the_next_run(run, cached):
    _state(cached, 1e-2)
    hub = (*MINI, "backbone.weights=hf-hub:org/tiny")
    fitted = run(
        *hub, *(f"task.{option}" for option in ("epochs=1", "learning_rate=1e-6")), "task=train"
    )
    assert fitted.code == 0, fitted.err
    probe = (*MINI, "head=knn", "head.k=3")
    used = run(*probe, f"backbone.weights={fitted.folder}")
    assert used.code == 0, used.err
    assert OmegaConf.load(used.folder / "config.yaml").backbone.norm_eps == 1e-2
    refused = run(*probe, hub[-1], "backbone.norm_eps=1e-6")
    assert (refused.code, refused.folder) == (1, None)
    assert refused.err.startswith("fgvc: backbone.norm_eps=1e-06: ")
    assert "config.json has layer_norm_eps=0.01" in refused.err


@pytest.mark.parametrize("where", ["hub", "file"])
def test_an_assumed_epsilon_is_noted_and_recorded(run, cached, vit_folder, tmp_path, where):
    (cached / "config.json").unlink()
    file = tmp_path / "alone.safetensors"
    file.write_bytes((vit_folder / "model.safetensors").read_bytes())
    source = "hf-hub:org/tiny" if where == "hub" else str(file)
    probe = (*MINI, "head=knn", "head.k=3", f"backbone.weights={source}")
    name = "org/tiny" if where == "hub" else file.name
    note = (
        f"weights {name}: no config.json beside them states the epsilon of their layer norms, "
        "which is taken as 1e-12, as in transformers' ViTModel; backbone.norm_eps=... sets another"
    )
    fitted = run(*probe)
    assert fitted.code == 0, fitted.err
    assert f"note: {note}\n" in fitted.out
    assert fitted.json("metrics.json")["notes"].count(note) == 1
    again = run("task=eval", f"checkpoint={fitted.folder}", bare=True)
    assert again.code == 0, again.err
    assert note not in again.out.replace(f"of the fit: {note}", "")
    other = run(*probe, "backbone.norm_eps=1e-12", "runtime.run_id=stated")
    assert other.code == 0, other.err
    assert "note: weights" not in other.out
    assert other.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]


def _state(folder, eps):
    """Write another epsilon into config.json, which is a link in the hub's cache."""
    file = folder / "config.json"
    text = json.dumps({**json.loads(file.read_text()), "layer_norm_eps": eps})
    file.unlink()
    file.write_text(text)


def _test_rows(folder):
    table = pq.read_table(folder / "predictions.parquet")
    return table.filter(table["split"].to_numpy() == "test")


@pytest.mark.fault(29)
def test_what_is_not_cached_names_repository_revision_and_both_ways_out(run, cached):
    ran = run(*MINI, "head=knn", "backbone.weights=hf-hub:org/other@v2")
    assert (ran.code, ran.folder) == (1, None)
    (line,) = ran.err.strip().splitlines()
    assert "org/other@v2 is not cached" in line
    assert "`hf download org/other model.safetensors" in line
    assert "--revision v2`, or give a local file or folder with backbone.weights=PATH" in line


def test_other_pixels_are_refused_before_a_folder_is_made(run, cached, tmp_path):
    file = cached / "preprocessor_config.json"
    values = json.loads(file.read_text())
    file.resolve().write_text(json.dumps({**values, "image_mean": [0.485, 0.456, 0.406]}))
    ran = run(*MINI, "head=knn", "backbone.weights=hf-hub:org/tiny")
    assert ran.code == 2
    assert ran.err.startswith("fgvc: backbone.normalization=half: ")
    assert not (tmp_path / "outputs").exists()


def test_another_epsilon_gives_other_features_with_a_warm_cache_too(run, vit_folder, tmp_path):
    """The same file of weights, beside a config.json of another epsilon."""
    other = tmp_path / "other"
    other.mkdir()
    for file in vit_folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    _state(other, 1e-2)
    probe = (*MINI, "head=knn", "head.k=3", "runtime.num_workers=0")
    first, second = (run(*probe, f"backbone.weights={folder}") for folder in (vit_folder, other))
    assert (first.code, second.code) == (0, 0), second.err
    assert second.json("metrics.json")["cost"]["forwarded"] > 0
    assert not _test_rows(first.folder).equals(_test_rows(second.folder))


def test_a_bare_copy_of_hub_weights_keeps_the_epsilon_of_the_head(run, birds, cached, tmp_path):
    """A probe of weights from the hub predicts with the file alone, which states no epsilon."""
    _state(cached, 1e-2)
    fitted = run(*MINI, "head=knn", "head.k=3", "backbone.weights=hf-hub:org/tiny")
    assert fitted.code == 0, fitted.err
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((cached / "model.safetensors").read_bytes())
    image = min(path for path in birds.rglob("*") if path.suffix in (".png", ".jpg"))
    answers = []
    for number, more in enumerate(((), (f"backbone.weights={copy}",))):
        out = tmp_path / f"{number}.json"
        predict = ("task=predict", f"checkpoint={fitted.folder}", f'image="{image}"')
        ran = run(*predict, f"task.output={out}", *more, bare=True)
        assert ran.code == 0, ran.err
        answers.append(out.read_text())
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("values", "words"),
    [({}, "interpolation bilinear"), ({"resample": 3}, "resize mode squash")],
)
def test_another_filter_or_mode_is_refused_with_native_alone(run, cached, tmp_path, values, words):
    file = cached / "preprocessor_config.json"
    original = json.loads(file.read_text())
    probe = (*MINI, "head=knn", "head.k=3", "backbone.weights=hf-hub:org/tiny")
    file.resolve().write_text(json.dumps({**original, **values}))
    ran = run(*probe, "preprocess=native")
    assert (ran.code, ran.folder) == (1, None)
    (line,) = ran.err.strip().splitlines()
    assert line.startswith(f"fgvc: preprocess=native: {file} has ")
    assert words in line
    assert not (tmp_path / "outputs").exists()
    assert run(*probe, "preprocess=shared").code == 0  # the way out


def test_the_same_filter_and_mode_are_read_with_native(run, cached):
    file = cached / "preprocessor_config.json"
    fitting = {"resample": 3, "size": {"shortest_edge": 248}}
    file.resolve().write_text(json.dumps({**json.loads(file.read_text()), **fitting}))
    hub = "backbone.weights=hf-hub:org/tiny"
    ran = run(*MINI, "head=knn", "head.k=3", "preprocess=native", hub)
    assert ran.code == 0, ran.err
