"""task=export: one checkpoint that needs no other file, and a graph with the same predictions."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import onnxruntime
import pytest
from omegaconf import OmegaConf

from fgvc.record import checkpoint

RUN = (
    "backbone=vit",
    "backbone.size=mini",
    "dataset.subset=tiny",
    "resolution.side=64",
    "resolution.name=r64",
)
HEAD = ("head=knn", "head.k=3")  # the one head that keeps a bank of features
REAL = Path(os.environ.get("FGVC_REAL_DATA", "/nonexistent"))
RUN_CACHE = {}  # one run of a head, and one export of it, for all that only read them


@pytest.fixture
def probe_run(run):
    if "run" not in RUN_CACHE:
        RUN_CACHE["run"] = run(*RUN, *HEAD)
    assert RUN_CACHE["run"].code == 0, RUN_CACHE["run"].err
    return RUN_CACHE["run"]


def export(run, source, target, *more):
    return run("task=export", f'checkpoint="{source}"', f'task.output="{target}"', *more, bare=True)


@pytest.fixture
def exported(run, probe_run, tmp_path_factory) -> Path:
    if "folder" not in RUN_CACHE:
        folder = tmp_path_factory.mktemp("export") / "größe = 1"
        ran = export(run, probe_run.folder, folder)
        assert ran.code == 0, ran.err
        assert "model.onnx" in ran.out
        assert max(map(len, ran.out.splitlines()[:-1])) <= 80
        RUN_CACHE["folder"] = folder
    return RUN_CACHE["folder"]


def copy_test_images(ran, target: Path) -> Path:
    root = Path(OmegaConf.load(ran.folder / "config.yaml").dataset.root)
    for path in (ran.folder / "splits/test.txt").read_text().split():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, target / path)
    return target


def predicted(run, source, image):
    ran = run(
        "task=predict",
        f'checkpoint="{source}"',
        f'image="{image}"',
        "task.format=json",
        "task.top_k=6",
        bare=True,
    )
    assert ran.code == 0, ran.err
    return {image["path"]: image["predictions"] for image in json.loads(ran.out)["images"]}


def assert_same_predictions(answers, second):
    assert set(answers) == set(second)
    assert len(answers) >= 10
    for path, classes in answers.items():
        for class_a, class_b in zip(classes, second[path], strict=True):
            assert class_a["class"] == class_b["class"]
            assert class_a["probability"] == pytest.approx(class_b["probability"], abs=1e-5)


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_the_exported_checkpoint_alone_gives_the_original_predictions(
    run, probe_run, exported, tmp_path
):
    images = copy_test_images(probe_run, tmp_path / "pictures")
    alone = tmp_path / "alone.bin"
    shutil.copy(exported / "ckpt.bin", alone)
    assert_same_predictions(predicted(run, alone, images), predicted(run, probe_run.folder, images))
    tensors, facts, _ = checkpoint.read(alone)
    assert facts["exported_from"] == sha256(probe_run.folder / "ckpt.bin")
    own_tensors, own_facts, _ = checkpoint.read(probe_run.folder)
    assert facts["class_means"] == own_facts["class_means"]
    assert tensors["class.means"].equal(own_tensors["class.means"])


def test_task_eval_repeats_the_run_from_the_exported_checkpoint(run, probe_run, exported):
    again = run("task=eval", f'checkpoint="{exported}"', bare=True)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["test"] == probe_run.json("metrics.json")["test"]


def test_the_folder_holds_its_digests_and_the_graph_its_labels(probe_run, exported):
    artifacts = json.loads((exported / "artifacts.json").read_text())
    assert set(artifacts) == {"ckpt.bin", "model.onnx", "README.md"}
    assert {name: entry["sha256"] for name, entry in artifacts.items()} == {
        name: sha256(exported / name) for name in artifacts
    }
    card = (exported / "README.md").read_text()
    assert all(artifacts[name]["sha256"] in card for name in ("ckpt.bin", "model.onnx"))
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    props = session.get_modelmeta().custom_metadata_map
    names = [label["name"] for label in probe_run.json("labelmap.json")["classes"]]
    assert [label["name"] for label in json.loads(props["fgvc.labels"])] == names
    assert json.loads(props["fgvc.preprocess"])["side"] == 64
    assert props["fgvc.checkpoint"] == artifacts["ckpt.bin"]["sha256"]
    assert props["fgvc.exported_from"] == sha256(probe_run.folder / "ckpt.bin")


def test_the_card_states_metrics_and_terms_and_its_code_runs(
    run, probe_run, exported, tmp_path, monkeypatch, capfd
):
    card = (exported / "README.md").read_text()
    test = probe_run.json("metrics.json")["test"]
    low, high = (100 * bound for bound in test["top1_ci95"])
    assert f"| test | {test['n']} | {100 * test['top1']:.1f} [{low:.1f}, {high:.1f}] %" in card
    assert probe_run.json("env_stamp.json")["config_hash"] in card
    for must in ("CC0-1.0", "RANDOM WEIGHTS", "Intended use", "nothing: the training began"):
        assert must in card
    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(block.splitlines()) == 5
    images = copy_test_images(probe_run, tmp_path / "pictures")
    answers = predicted(run, exported, images)
    path = sorted(answers)[0]
    shutil.copy(exported / "model.onnx", tmp_path)
    shutil.copy(images / path, tmp_path / "bird.jpg")
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    exec(block, {})
    assert capfd.readouterr().out.strip() == answers[path][0]["class"]


def test_an_export_that_fails_verification_leaves_no_folder(run, probe_run, tmp_path):
    target = tmp_path / "exports" / "one"
    ran = export(run, probe_run.folder, target, "task.tolerance=0")
    assert ran.code == 1
    assert "model.onnx: " in ran.err
    assert "0 of 12 images" in ran.err
    assert list(target.parent.iterdir()) == []


@pytest.mark.slow
def test_an_export_of_an_export_has_the_same_bytes(run, probe_run, exported, tmp_path):
    images, again = copy_test_images(probe_run, tmp_path / "pictures"), tmp_path / "again"
    done = export(run, exported / "ckpt.bin", again, f"image={images}")  # whole already
    assert done.code == 0, done.err
    for name in ("ckpt.bin", "model.onnx"):
        assert (again / name).read_bytes() == (exported / name).read_bytes()
    assert "None: the checkpoint was exported without" in (again / "README.md").read_text()


def test_what_cannot_be_exported_is_refused_in_one_line(run, probe_run, exported, tmp_path):
    inside = probe_run.folder / "export"
    for target, more, why in (
        (exported, (), "exists already"),
        (inside, (), "is a run, which is never changed"),
        (tmp_path / "x", (f"dataset.root={tmp_path / 'none'}",), "give image=FILE"),
    ):
        ran = export(run, probe_run.folder, target, *more)
        assert ran.code == 1
        (line,) = [line for line in ran.err.splitlines() if line.startswith("fgvc: ")]
        assert why in line
    assert not inside.exists()
    assert not (tmp_path / "x").exists()


def test_random_patches_cannot_be_exported(run, tmp_path):
    ran = run(*RUN, *HEAD, "part_attention=random")
    assert ran.code == 0, ran.err
    done = export(run, ran.folder, tmp_path / "x")
    assert done.code == 1
    assert "part_attention=random" in done.err


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="FGVC_REAL_DATA names no folder with cub20")
def test_a_real_backbone_is_exported_and_named_birds_alone(run, tmp_path):
    """ViT-Ti with its published weights, on photographs, with a linear head."""
    weights = REAL / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth"
    ran = run(
        "dataset=cub",
        f"dataset.root={REAL / 'data' / 'cub20' / 'CUB_200_2011'}",
        "dataset.partial=true",
        "dataset.subset=tiny",
        "backbone.pretrained=true",
        f"backbone.weights={weights}",
        birds=False,
    )
    assert ran.code == 0, ran.err
    target = tmp_path / "export"
    done = export(run, ran.folder, target)
    assert done.code == 0, done.err
    images = copy_test_images(ran, tmp_path / "pictures")
    alone = tmp_path / "alone.bin"
    shutil.copy(target / "ckpt.bin", alone)
    assert_same_predictions(predicted(run, alone, images), predicted(run, ran.folder, images))
    card = (target / "README.md").read_text()
    assert "licence of the pretrained weights: Apache-2.0" in card
    assert "partial copy" in card
    assert str(REAL) not in card


def test_the_target_of_an_export_is_checked_before_any_work(run, probe_run, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    ran = export(run, probe_run.folder, full)
    assert (ran.code, "exists already" in ran.err) == (1, True)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]
    ran = export(run, probe_run.folder, tmp_path / "model.pt")
    assert (ran.code, "a folder of ckpt.bin, model.onnx, README.md" in ran.err) == (1, True)
    ran = export(run, probe_run.folder, probe_run.folder / "export")
    assert (ran.code, "is a run, which is never changed" in ran.err) == (1, True)


@pytest.mark.slow
def test_an_empty_folder_takes_an_export_and_a_run_id_names_the_checkpoint(
    run, probe_run, tmp_path
):
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = export(run, probe_run.folder.parents[1], empty / "model.onnx")
    assert ran.code == 0, ran.err
    assert {"ckpt.bin", "model.onnx", "README.md"} < {path.name for path in empty.iterdir()}
