"""The main job on real photographs and weights, compared with independent oracles.

FGVC_REAL_DATA names a folder with data/cub20/CUB_200_2011 (the first 20 classes of CUB-200-2011)
and weights/vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from sklearn import metrics as oracle
from sklearn.linear_model import LogisticRegression
from timm.models.vision_transformer import VisionTransformer

from fgvc.config.compose import composed, typed
from fgvc.data.decode import decode
from fgvc.data.preprocess import evaluation_transform
from fgvc.model.backbone import build, weights

REAL = Path(os.environ.get("FGVC_REAL_DATA", "/nonexistent"))
CUB = REAL / "data" / "cub20" / "CUB_200_2011"
WEIGHTS = REAL / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.pth"
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not CUB.is_dir(), reason="FGVC_REAL_DATA names no folder with cub20"),
]
CHOICES = (
    "dataset=cub",
    f"dataset.root={CUB}",
    "dataset.partial=true",
    "backbone=vit_tiny",
    "backbone.pretrained=true",
    f"backbone.weights={WEIGHTS}",
)


@pytest.fixture
def cache(real_cache) -> Path:
    return real_cache


@pytest.fixture
def probe(finished, cache):
    """A probe of the photographs, made once for all tests that give the same overrides."""
    return lambda *more: finished(*CHOICES, f"runtime.cache_root={cache}", *more, birds=False)


def features(cache: Path, role: str) -> np.ndarray:
    for folder in (cache / "features").iterdir():
        if json.loads((folder / "key.json").read_text())["value"]["key"]["role"] == role:
            shards = []
            for shard in sorted(folder.glob("*.safetensors")):
                with safe_open(shard, "np") as file:
                    shards.append(file.get_tensor("x"))
            return np.concatenate(shards)
    raise AssertionError(f"no cached features of {role}")


def labels_and_paths(split: str) -> tuple[np.ndarray, list[str]]:
    """Sorted by path, read from the index files without fgvc's reader."""

    def column(name: str) -> dict[str, str]:
        lines = (CUB / name).read_text().splitlines()
        return dict(line.split(" ", 1) for line in lines)

    labels, paths, splits = map(
        column, ("image_class_labels.txt", "images.txt", "train_test_split.txt")
    )
    flag = {"train": "1", "test": "0"}[split]
    ids = sorted((image for image in paths if splits[image] == flag), key=paths.__getitem__)
    return np.array([int(labels[image]) - 1 for image in ids]), [paths[image] for image in ids]


def test_top1_of_the_default_probe_and_its_metrics(probe):
    ran = probe()
    numbers = ran.json("metrics.json")["test"]
    assert numbers["n"] == 515
    assert numbers["top1"] >= 0.925
    assert numbers["top1_ci95"][1] - numbers["top1_ci95"][0] == pytest.approx(0.045, abs=0.01)
    table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    test = table[table.split == "test"]
    label, paths = labels_and_paths("test")
    assert list(test.path) == [f"images/{path}" for path in paths]
    np.testing.assert_array_equal(test.label, label)
    assert numbers["top1"] == pytest.approx(oracle.accuracy_score(label, test.pred))
    assert numbers["mean_per_class"] == pytest.approx(
        oracle.balanced_accuracy_score(label, test.pred)
    )
    assert numbers["macro_f1"] == pytest.approx(oracle.f1_score(label, test.pred, average="macro"))
    logits = torch.tensor(np.stack(test.logits.to_list()), dtype=torch.float64)
    assert numbers["loss"] == pytest.approx(
        oracle.log_loss(label, torch.softmax(logits, 1).numpy(), labels=range(20))
    )
    assert numbers["top5"] == pytest.approx(
        oracle.top_k_accuracy_score(label, logits.numpy(), k=5, labels=range(20))
    )


def test_probe_against_scikit_learn_on_the_same_cached_features(probe, cache):
    """Every prediction whose margin in scikit-learn exceeds 1e-3, at the chosen C."""
    ran = probe()
    x, y = features(cache, "train").astype(np.float64), labels_and_paths("train")[0]
    c = ran.json("metrics.json")["selection"]["c"]
    model = LogisticRegression(C=c, tol=1e-12, max_iter=10_000).fit(x, y)
    logits = model.decision_function(features(cache, "test").astype(np.float64))
    ranked = np.sort(logits, axis=1)
    sure = ranked[:, -1] - ranked[:, -2] > 1e-3
    table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    pred = table[table.split == "test"].pred.to_numpy()
    assert sure.sum() >= 510
    np.testing.assert_array_equal(pred[sure], logits.argmax(axis=1)[sure])


def test_features_against_timm_on_the_same_tensors(probe, cache):
    probe()
    model = timm.create_model(
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(WEIGHTS)},
        num_classes=0,
    ).eval()
    assert isinstance(model, VisionTransformer)
    conf = typed(composed([*CHOICES, "backbone.features=cls"]))
    transform = evaluation_transform(conf)
    pixels = torch.stack(
        [
            transform(decode((CUB / "images" / path).read_bytes(), path))
            for path in labels_and_paths("test")[1][:32]
        ]
    )
    input_BCHW = transform.normalize(pixels)
    with torch.inference_mode():
        expected = model.forward_features(input_BCHW)[:, 0]
        actual = build(conf.backbone, 224, weights.find(conf.backbone), 0).feature(input_BCHW)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)
    cached = torch.from_numpy(features(cache, "test")[:32])
    torch.testing.assert_close(cached, expected, rtol=0, atol=1e-4)  # another batch's last bits


def test_pixels_against_torchvision_on_pillow():
    from torchvision.transforms import v2

    transform = evaluation_transform(typed(composed(list(CHOICES))))
    reference = v2.Compose(
        [v2.Resize(256, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224), v2.PILToTensor()]
    )
    worst = []
    for path in labels_and_paths("test")[1][::40]:
        with Image.open(CUB / "images" / path) as image:
            expected = reference(image.convert("RGB")).int()
        actual = transform(decode((CUB / "images" / path).read_bytes(), path)).int()
        worst.append((actual - expected).abs())
    assert torch.stack(worst).max() <= 2
    assert (torch.stack(worst) > 1).float().mean() < 1e-4


def test_second_run_forwards_nothing_and_repeats_the_bytes(probe):
    first = probe()
    second = probe("runtime.eval_batch_size=8")
    cost = second.json("metrics.json")["cost"]
    assert (cost["decoded"], cost["forwarded"]) == (0, 0)
    digests = [
        hashlib.sha256((ran.folder / "predictions.parquet").read_bytes()).hexdigest()
        for ran in (first, second)
    ]
    assert digests[0] == digests[1]
    assert first.folder.parts[-2] == second.folder.parts[-2]


def test_knn_reaches_the_expected_accuracy(probe):
    assert probe("head=knn").json("metrics.json")["test"]["top1"] == pytest.approx(0.92, abs=0.015)


def test_eval_repeats_the_real_numbers(probe, run, cache):
    fitted = probe()
    again = run(
        "task=eval", f"checkpoint={fitted.folder}", f"runtime.cache_root={cache}", bare=True
    )
    assert again.code == 0, again.err
    assert again.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]
