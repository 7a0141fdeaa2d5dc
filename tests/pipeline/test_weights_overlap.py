"""A checkpoint of fgvc as the backbone of the next run: tensors, earlier runs and fitted images."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from fgvc.config import schema
from fgvc.config.compose import composed, typed
from fgvc.config.errors import ConfigError
from fgvc.data.preprocess import evaluation_transform
from fgvc.model.backbone import weights
from fgvc.pipeline import restore, write_run
from fgvc.pipeline.build_model import build_model
from fgvc.record import checkpoint, fitted_images
from fgvc.report.audit import run_audit
from fgvc.report.run_rows import read_run as read_run
from fgvc.store.hashing import sha256_file
from fgvc.types import WeightsSource
from tests.jobs import BIRDS, FINETUNE

TRAIN = (*FINETUNE, "task.epochs=1", "task.learning_rate=5e-3", "runtime.threads=1")
MINI = ("backbone=vit", "backbone.size=mini", "dataset.subset=tiny", "runtime.device=cpu")
USED = (*MINI, "backbone.pretrained=true", "runtime.stack_check=false")


@pytest.fixture
def finetuned(finished):
    return finished(*TRAIN)


@pytest.fixture
def probed(finished, finetuned):
    """A probe on the backbone of `finetuned`."""
    weights_path = finetuned.folder / "ckpt.bin"
    return finished(*USED, f"backbone.weights={weights_path}", "head=knn", "head.k=3")


@pytest.fixture
def refinetuned(finished, finetuned):
    """A finetune that began with `finetuned`."""
    return finished(*TRAIN, "backbone.pretrained=true", f"backbone.weights={finetuned.folder}")


def probe_of(run, weights_path, *overrides):
    return run(*USED, f"backbone.weights={weights_path}", *overrides)


def test_probe_features_are_those_of_the_finetuned_classifier(finetuned):
    saved = restore.read_checkpoint(finetuned.folder / "ckpt.bin")
    conf = typed(composed([*USED[:-2], f"backbone.weights={saved.file}", *BIRDS]))
    model = saved.classifier(conf, None, torch.device("cpu"))
    fresh, _ = build_model(conf, weights.find(conf.backbone))
    transform = evaluation_transform(conf)
    torch.manual_seed(0)
    pixels_BCHW = transform.normalize(torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8))
    with torch.inference_mode():
        assert torch.equal(fresh.feature(pixels_BCHW), model.backbone.feature(pixels_BCHW))


def test_digest_chain_is_recorded(run, finetuned, refinetuned):
    first, second = finetuned.folder / "ckpt.bin", refinetuned
    third = probe_of(run, second.folder.parent.parent, "head=knn", "head.k=3")  # outputs/RUN_ID
    assert third.code == 0, third.err
    recorded = third.json("env_stamp.json")["weights"]
    assert recorded["sha256"] == sha256_file(second.folder / "ckpt.bin")
    made_by = recorded["made_by"]
    assert (made_by["task"], made_by["dataset"]) == ("train", "synthetic")
    assert made_by["weights"]["sha256"] == sha256_file(first)
    assert made_by["weights"]["made_by"]["weights"]["kind"] == "random"
    _, facts, _ = checkpoint.read(third.folder)
    assert facts["backbone"]["weights"]["made_by"] == made_by
    row = read_run(third.folder)
    assert row.name.startswith("vit mini of train on synthetic")
    assert row.backbone_contamination.startswith("Finetuned with the labels of synthetic")
    assert "random weights" in row.backbone_contamination
    checks = run_audit(third.folder)[1]
    assert {check.id: check.evidence for check in checks if check.state == "FAIL"} == {}
    assert "fitted or chose the backbone" in " ".join(row.notes)  # its validation images
    page = (third.folder / "report.html").read_text()
    assert "task=train on synthetic" in page


@pytest.fixture(scope="session")
def album(birds, tmp_path_factory) -> Path:
    """Class folders of the birds, from which each split_seed draws another test split."""
    root = tmp_path_factory.mktemp("album")
    for label in range(4):
        (root / f"class {label}").mkdir()
    images = sorted(birds.rglob("*.jpg")) + sorted(birds.rglob("*.png"))
    for number, image in enumerate(images[:32]):
        shutil.copy(image, root / f"class {number % 4}" / f"{number}{image.suffix}")
    return root


def of(album: Path, seed: int) -> tuple[str, ...]:
    return (
        "dataset=folder",
        f"dataset.root={album}",
        "dataset.test_fraction=0.25",
        "dataset.val_fraction=0.2",
        "dataset.subset=null",
        f"dataset.split_seed={seed}",
    )


def test_test_images_that_fitted_the_backbone_count(run, album):
    tuned = run(*TRAIN, *of(album, 0), birds=False)
    assert tuned.code == 0, tuned.err
    probe = ("head=knn", "head.k=3", *of(album, 1))
    probed = run(*USED, *probe, f"backbone.weights={tuned.folder}", birds=False)
    assert probed.code == 0, probed.err
    # the images of both runs, counted by their files
    fitted = {
        sha256_file(album / line)
        for name in ("train", "val")
        for line in (tuned.folder / "splits" / f"{name}.txt").read_text().splitlines()
    }
    tests = (probed.folder / "splits" / "test.txt").read_text().splitlines()
    both = sum(sha256_file(album / line) in fitted for line in tests)
    assert 0 < both <= len(tests)
    assert probed.json("metrics.json")["overlap"] == {"images": both, "backbone": both}
    assert f"{both} of the {len(tests)} test images fitted or chose" in probed.out
    assert read_run(probed.folder).overlap == both
    failed = {check.id for check in run_audit(probed.folder)[1] if check.state == "FAIL"}
    assert failed == {"no-test-image-fitted"}
    # the next generation keeps them
    again = run(
        *TRAIN,
        *of(album, 2),
        "backbone.pretrained=true",
        f"backbone.weights={tuned.folder}",
        birds=False,
    )
    assert again.code == 0, again.err
    tensors, facts, _ = checkpoint.read(again.folder)
    first, _, _ = checkpoint.read(tuned.folder)
    earlier = np.union1d(
        first[fitted_images.IMAGES].numpy(), first[fitted_images.VALIDATION].numpy()
    )
    assert np.array_equal(tensors[fitted_images.BACKBONE].numpy(), earlier)
    assert facts["fit"]["backbone"] == len(earlier)


def test_evaluation_keeps_the_images_and_the_chain(run, probed):
    again = run("task=eval", f"checkpoint={probed.folder}", bare=True)
    assert again.code == 0, again.err
    first, second = (ran.json("env_stamp.json")["weights"] for ran in (probed, again))
    assert first == second
    assert probed.json("metrics.json")["test"] == again.json("metrics.json")["test"]
    assert probed.json("metrics.json")["overlap"] == again.json("metrics.json")["overlap"]


@pytest.mark.slow
def test_export_serves_as_a_backbone(run, finetuned, finished, tmp_path):
    """An export of a finetune and of a probe, and their statements on the backbone."""
    weights_of = {}
    for name, ran in {
        "tuned": finetuned,
        "probed": finished(*MINI, "head=knn", "head.k=3", "runtime.stack_check=false"),
    }.items():
        target = tmp_path / name
        done = run("task=export", f"checkpoint={ran.folder}", f"task.output={target}", bare=True)
        assert done.code == 0, done.err
        used = probe_of(run, target, "head=knn", "head.k=3")
        assert used.code == 0, used.err
        weights_of[name] = (used.json("env_stamp.json"), read_run(used.folder))
    stamp, row = weights_of["tuned"]
    assert stamp["weights"]["made_by"]["task"] == "train"
    assert "Finetuned with the labels" in row.backbone_contamination
    stamp, row = weights_of["probed"]
    assert stamp["weights"]["made_by"]["task"] == "probe"
    assert stamp["weights"]["made_by"]["exported_from"] is not None
    assert "Finetuned" not in row.backbone_contamination
    assert row.notes == tuple(note for note in row.notes if "the backbone" not in note)


@pytest.mark.fault(12)
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("backbone.size=tiny",), ("backbone.size=mini", "backbone=vit")),
        (("backbone=dinov2",), ("backbone=dinov2", "Set backbone=vit backbone.size=mini")),
        (("backbone.normalization=imagenet",), ("normalization=half", "normalization=imagenet")),
    ],
)
def test_another_model_is_refused_with_both(run, finetuned, overrides, words):
    refused = probe_of(run, finetuned.folder, *overrides)
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1
    assert refused.err.startswith("fgvc: backbone.weights=")
    assert all(word in refused.err for word in words)


def test_a_head_alone_is_refused(run, finished):
    ran = finished(*MINI, "head=knn", "head.k=3", "runtime.stack_check=false")
    refused = probe_of(run, ran.folder / "ckpt.bin")
    assert refused.code == 2
    assert len(refused.err.splitlines()) == 1
    assert "holds a head and no backbone" in refused.err
    assert "random weights: set backbone.pretrained=false, or give a ch" in refused.err


def test_several_records_below_a_folder_are_named(run, finetuned, tmp_path):
    for name in "ab":
        shutil.copytree(finetuned.folder, tmp_path / "runs" / name / finetuned.folder.name)
    refused = probe_of(run, tmp_path / "runs")
    assert refused.code == 2
    assert "2 complete runs are below it; choose one: " in refused.err


@pytest.mark.fault(9)
@pytest.mark.parametrize("place", ["tensor", "facts"])
def test_a_flipped_byte_is_refused(run, finetuned, probed, tmp_path, place):
    """Also with the warm cache of `probed`."""
    data = bytearray((finetuned.folder / "ckpt.bin").read_bytes())
    header = int.from_bytes(data[:8], "little")
    where = len(data) - 1000 if place == "tensor" else data.index(b"CC0-1.0", 8, 8 + header)
    data[where] ^= 1
    copy = tmp_path / "copied.bin"
    copy.write_bytes(data)
    refused = probe_of(run, copy, "head=knn", "head.k=3")
    assert refused.code == 1
    assert f"{copy}: sha256 mismatch" in refused.err


FAMILIES = {  # family -> what its weights are called in a whole model of the library
    "vit": "",
    "dinov2": "",
    "dinov3": "",
    "clip": "visual.",
    "siglip2": "vision_model.",
}


def conf_of(family: str, *overrides: str) -> schema.Config:
    chosen = (f"backbone={family}", "backbone.size=mini", "dataset.subset=tiny")
    return typed(composed([*chosen, *BIRDS, "runtime.weights_root=/nowhere", *overrides]))


def stored_whole(folder: Path, conf: schema.Config) -> dict[str, torch.Tensor]:
    """Write the checkpoint of a finetune whose values are all random; returns the trunk's."""
    backbone, _ = build_model(conf, WeightsSource("random", "mini"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        state = {
            name: value + 0.1 * torch.randn_like(value) if value.is_floating_point() else value
            for name, value in backbone.trunk.state_dict().items()
        }
    facts = {
        "config": write_run.portable_config(conf),
        "config_hash": "0" * 64,
        "whole": True,
        "fit": {"images": 1, "validation": 0, "forced": False},
        "head": asdict(conf.head),
        "labelmap": {"ids": ["a", "b"], "names": ["a", "b"]},
        "preprocess": {},
        "backbone": {
            "model": "mini",
            "weights": {"kind": "random", "revision": None, "sha256": None},
        },
        "answer": {"manifest_digest": "0" * 64},
        "split_digest": "0" * 64,
    }
    tensors = {f"backbone.trunk.{name}": value for name, value in state.items()}
    folder.mkdir()
    checkpoint.write(folder, {**tensors, "head.weight": torch.zeros(6, 3)}, facts)
    return state


@pytest.mark.parametrize("where", ["same", "larger", "overlapping"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_its_own_checkpoint_as_a_file_of_its_library(family, where, tmp_path):
    """The oracle: the same tensors in a file of the library's format."""
    transfg = ("part_attention=transfg", "part_attention.stride=12")
    written_conf = conf_of(family, "backbone.pretrained=false", *transfg * (where == "overlapping"))
    state = stored_whole(tmp_path / "run", written_conf)
    plain = tmp_path / "plain.safetensors"
    save_file({FAMILIES[family] + name: value for name, value in state.items()}, plain)
    size = ("resolution=r448",) if where == "larger" else ()
    torch.manual_seed(0)
    pixels_BCHW = torch.rand(1, 3, *[448 if size else 224] * 2)
    features = []
    for path in (tmp_path / "run" / "ckpt.bin", plain):
        conf = conf_of(family, *size, f"backbone.weights={path}")
        backbone, _ = build_model(conf, weights.find(conf.backbone))
        with torch.inference_mode():
            features.append(backbone.feature(pixels_BCHW))
    assert torch.equal(*features)
    if where == "same":
        backbone.trunk.load_state_dict(state)
        with torch.inference_mode():
            assert torch.equal(backbone.feature(pixels_BCHW), features[0])


@pytest.mark.parametrize(
    ("family", "written", "used", "words"),
    [
        ("clip", (), ("task=zero_shot", "head=text", "backbone.features=projected"), "text tower"),
        ("clip", (), ("backbone.features=projected",), "Set backbone.features=cls"),
        (
            "siglip2",
            ("backbone.features=patch_mean",),
            ("backbone.features=map",),
            "Set backbone.features=patch_mean",
        ),
    ],
)
def test_what_the_checkpoint_lacks_is_refused(family, written, used, words, tmp_path):
    stored_whole(tmp_path / "run", conf_of(family, "backbone.pretrained=false", *written))
    with pytest.raises(ConfigError, match=words):
        conf_of(family, f"backbone.weights={tmp_path / 'run' / 'ckpt.bin'}", *used)


def test_a_projection_is_kept(tmp_path):
    """Of a finetune with backbone.features=projected, for a probe of either feature."""
    written_conf = conf_of("clip", "backbone.pretrained=false", "backbone.features=projected")
    state = stored_whole(tmp_path / "run", written_conf)
    for features in ("cls", "projected"):
        overrides = (f"backbone.weights={tmp_path / 'run'}", f"backbone.features={features}")
        conf = conf_of("clip", *overrides)
        backbone, _ = build_model(conf, weights.find(conf.backbone))
        assert torch.equal(backbone.trunk.conv1.weight, state["conv1.weight"])


def test_a_finetune_of_a_finetune_ignores_the_weights_root(run, refinetuned, tmp_path):
    """Its own checkpoint holds every tensor: a published file in weights_root is not read."""
    (tmp_path / "weights").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "weights" / "vit_small_patch16_224.safetensors")
    again = run("task=eval", f"checkpoint={refinetuned.folder}", bare=True)
    assert again.code == 0, again.err
    first, second = (ran.json("env_stamp.json")["weights"] for ran in (refinetuned, again))
    assert first["made_by"] == second["made_by"]
    first, second = (ran.json("metrics.json")["test"]["top1"] for ran in (refinetuned, again))
    assert first == second
