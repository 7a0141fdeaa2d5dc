"""task=predict: a checkpoint classifies images without their dataset, as in evaluation."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save_file

from fgvc.config.compose import composed, typed
from fgvc.config.schema import chosen_checkpoint
from fgvc.metrics import log_probabilities
from fgvc.pipeline.localization import draw_overlay
from fgvc.record import checkpoint

ALL = "task.top_k=6"
SMALL = ("resolution.side=64", "resolution.name=r64")  # 16 patches: nothing here is about pixels


def predict(run, checkpoint, image, *more):
    """task=predict with only paths, runtime and its own node."""
    return run("task=predict", f"checkpoint={checkpoint}", f'image="{image}"', *more, bare=True)


def as_json(ran):
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


def images_of(ran, target: Path) -> Path:
    """The run's test images, copied out of their dataset."""
    root = Path(OmegaConf.load(ran.folder / "config.yaml").dataset.root)
    for path in (ran.folder / "splits/test.txt").read_text().split():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, target / path)
    return target


def assert_as_evaluated(ran, answer):
    """Compare every log-probability with predictions.parquet, image by image."""
    table = pq.read_table(ran.folder / "predictions.parquet").to_pylist()
    recorded = {row["path"]: row for row in table if row["split"] == "test"}
    assert {image["path"] for image in answer["images"]} == set(recorded)
    names = [row["name"] for row in ran.json("labelmap.json")["classes"]]
    for image in answer["images"]:
        row = recorded[image["path"]]
        expected = log_probabilities(np.array([row["logits"]], np.float32))[0]
        assert [row["index"] for row in image["predictions"]] == np.argsort(
            -np.array(row["logits"]), kind="stable"
        ).tolist()
        for row in image["predictions"]:
            assert row["class"] == names[row["index"]]
            assert np.log(row["probability"]) == pytest.approx(expected[row["index"]], abs=1e-5)


ONE_C = ("task.c_count=1", "task.c_low=1", "task.c_high=1")  # nothing here is about choosing it
HEADS = {
    "linear": ONE_C,
    "knn": ("head=knn",),
    "mlp": ("head=mlp", "head.fit.epochs=2", "head.fit.learning_rates=[1e-2]"),
    "zero-shot": ("backbone=clip", "backbone.size=mini", "task=zero_shot"),
    "train": ("task=train", "task.tune=head", "task.epochs=1"),
    "trainval": ("task=train", "task.tune=head", "task.epochs=1", "final_fit=trainval"),
}
NO_MEANS = {
    "zero-shot": "task=zero_shot reads no training images",
    "trainval": "the backbone was trained on all of them, so none can choose the limit",
}


@pytest.mark.parametrize("choice", HEADS)
def test_predictions_of_an_image_equal_those_of_the_evaluation(run, choice, tmp_path):
    """The checkpoint alone, images in another folder, other batches."""
    fitted = run(*SMALL, *HEADS[choice], "runtime.stack_check=false")
    assert fitted.code == 0, fitted.err
    images = images_of(fitted, tmp_path / "my pictures")
    alone = tmp_path / "alone.bin"
    shutil.copy(fitted.folder / "ckpt.bin", alone)
    without_data = (f"runtime.data_root={tmp_path / 'none'}", "runtime.eval_batch_size=7")
    answer = as_json(predict(run, alone, images, ALL, "task.format=json", *without_data))
    assert_as_evaluated(fitted, answer)
    assert answer["checkpoint"] == fitted.folder.name + answer["checkpoint"][16:]
    assert answer["config_hash"].startswith(fitted.folder.parent.name)
    assert answer["root"] == str(images)
    assert [image["path"] for image in answer["images"]] == sorted(
        image["path"] for image in answer["images"]
    )
    assert not (tmp_path / "none").exists()
    means, far = answer["class_means"], [image["far"] for image in answer["images"]]
    assert means.get("reason") == NO_MEANS.get(choice)
    assert sum(map(bool, far)) <= 0.05 * len(far)
    assert (far[0] is None) == (choice in NO_MEANS)


RUNS = {}  # one probe for all that only read it


@pytest.fixture
def probe_run(run):
    if not RUNS:
        RUNS["probe"] = run(*SMALL, *ONE_C)
    assert RUNS["probe"].code == 0, RUNS["probe"].err
    return RUNS["probe"]


@pytest.fixture
def mixed(probe_run, tmp_path) -> Path:
    """Valid, damaged, rotated, hidden and other files at several depths."""
    source = next(images_of(probe_run, tmp_path / "all").rglob("*.jpg"))
    root = tmp_path / "mixed = 1"
    for name in ("b.jpg", "a/deep/c.JPEG", "a/.hidden/d.jpg", ".e.jpg", "z/no suffix"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, root / name)
    (root / "z" / "notes.txt").write_text("no image")
    (root / "z" / "phone.jfif").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (root / "z" / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (root / "Thumbs.db").write_bytes(b"rubbish")
    (root / "a" / "torn.jpg").write_bytes(source.read_bytes()[:300])
    (root / "gone.png").symlink_to(root / "nowhere.png")
    image = Image.open(source)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(
        root / "turned.png", exif=exif
    )  # lossless, so that only the turn could make a difference
    image.save(root / "upright.png")
    return root


@pytest.mark.fault(21)
def test_a_folder_is_walked_in_order_and_bad_images_are_skipped(run, probe_run, mixed):
    ran = predict(run, probe_run.folder, mixed, "task.format=json", "runtime.eval_batch_size=2")
    images = {image["path"]: image for image in as_json(ran)["images"]}
    assert list(images) == [
        "a/deep/c.JPEG",
        "a/torn.jpg",
        "b.jpg",
        "gone.png",
        "turned.png",
        "upright.png",
        "z/no suffix",
        "z/phone.jfif",
    ]
    assert "skipped: 2 hidden (.e.jpg, …), 1 text (notes.txt), 1 HEIC (phone.HEIC" in ran.err
    assert "Thumbs.db" not in ran.err
    bad = [path for path, image in images.items() if image["error"]]
    assert bad == ["a/torn.jpg", "gone.png", "z/phone.jfif"]
    assert "z/phone.jfif: a HEIC" in ran.err
    assert len(images["z/no suffix"]["predictions"]) == 5
    assert "damaged image" in images["a/torn.jpg"]["error"]
    assert "broken link" in images["gone.png"]["error"]
    assert all(images[path]["predictions"] == [] for path in bad)
    assert "a/torn.jpg: damaged image" in ran.err
    assert "5 classified, 3 could not be read" in ran.err
    assert len(images["b.jpg"]["predictions"]) == 5
    turned, upright = (images[f"{name}.png"]["predictions"] for name in ("turned", "upright"))
    assert [row["index"] for row in turned] == [row["index"] for row in upright]
    assert [row["probability"] for row in turned] == pytest.approx(
        [row["probability"] for row in upright], abs=1e-6
    )


def test_patterns_lists_and_standard_input(run, probe_run, mixed, monkeypatch):
    """The same numbers as for the folder, for each form of image=."""
    ran = predict(run, probe_run.folder, mixed, "task.format=json")
    folder_predictions = {image["path"]: image["predictions"] for image in as_json(ran)["images"]}
    as_list = f"image=['{mixed}/b.jpg','{mixed}/a/*/*.JPEG']"
    ran = run(
        "task=predict", f"checkpoint={probe_run.folder}", as_list, "task.format=json", bare=True
    )
    answer = as_json(ran)
    assert answer["root"] == str(mixed)
    assert [image["path"] for image in answer["images"]] == ["b.jpg", "a/deep/c.JPEG"]
    for image in answer["images"]:
        assert_same(image["predictions"], folder_predictions[image["path"]])
    with (mixed / "b.jpg").open(encoding="latin-1") as file:
        monkeypatch.setattr("sys.stdin", file)
        answer = as_json(predict(run, probe_run.folder, "-", "task.format=json"))
    assert (answer["root"], answer["images"][0]["path"]) == ("-", "-")
    assert_same(answer["images"][0]["predictions"], folder_predictions["b.jpg"])
    with Path(os.devnull).open() as file:
        monkeypatch.setattr("sys.stdin", file)
        one_line(predict(run, probe_run.folder, "-"), 1, "image=-", "standard input is empty")
    one_line(predict(run, probe_run.folder, "https://a.org/b.jpg"), 2, "an address", "curl")


def assert_same(first, second):
    assert [row["class"] for row in first] == [row["class"] for row in second]
    assert [row["probability"] for row in first] == pytest.approx(
        [row["probability"] for row in second], abs=1e-5
    )


def test_csv_and_table_hold_the_same_as_json(run, probe_run, mixed):
    answer = as_json(predict(run, probe_run.folder, mixed, "task.format=json", "task.top_k=2"))
    ran = predict(run, probe_run.folder, mixed, "task.format=csv", "task.top_k=2")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    expected = []
    for image in answer["images"]:
        if image["error"]:
            expected.append((image["path"], "", "", "", "", "", image["error"], "", ""))
        for rank, row in enumerate(image["predictions"], 1):
            cells = (rank, row["index"], row["id"], row["class"], row["probability"])
            far = (str(image["distance"]), str(image["far"]).lower())
            expected.append((image["path"], *map(str, cells), "", *far))
    assert [tuple(row.values()) for row in rows] == expected
    table = predict(run, probe_run.folder, mixed, "task.top_k=2").out
    first = answer["images"][0]["predictions"]
    lines = [line for line in table.splitlines() if f"{100 * first[0]['probability']:.1f}" in line]
    name = first[0]["class"][4:].replace("_", " ")  # 006.Northern_Masked_Slatebunting
    assert any(f" {name} " in line and "a/deep/c.JPEG" in line for line in lines)
    assert "error:" in table
    assert "vit tiny · linear · 64 px" in table
    assert max(map(len, table.splitlines())) <= 80


def with_means(folder: Path, source: Path, change) -> Path:
    """A copy of a checkpoint with other facts on its class means."""
    tensors, facts, _ = checkpoint.read(source)
    change(facts)
    folder.mkdir()
    checkpoint.write(folder, tensors, facts)
    return folder / checkpoint.FILE


def test_an_image_that_is_far_from_the_training_images_is_marked(run, probe_run, mixed, tmp_path):
    own = as_json(predict(run, probe_run.folder, mixed, "task.format=json"))
    assert {image["far"] for image in own["images"] if not image["error"]} == {False}
    assert (own["class_means"]["quantile"], own["class_means"]["images"]) == (0.98, 60)
    table = predict(run, probe_run.folder, mixed, "task.top_k=1").out
    none_of_these = 'There is no "none of these": every image gets one of the 6 classes.'
    assert table.endswith(f"┘\n{none_of_these}\n")
    assert "far" not in table
    distances = {image["path"]: image["distance"] or 0 for image in own["images"]}
    between = own["class_means"]["limit"] * 0.999 * max(distances.values())

    def nearer(facts):
        facts["class_means"]["limit"] = between

    strict = with_means(tmp_path / "strict", probe_run.folder, nearer)
    answer = as_json(predict(run, strict, mixed, "task.format=json"))
    far = [image["path"] for image in answer["images"] if image["far"]]
    assert far == [path for path, it in distances.items() if it > 0.999 * max(distances.values())]
    table = predict(run, strict, mixed, "task.top_k=1").out
    marked = [line for line in table.splitlines() if line.endswith("│ far │")]
    assert [line[1:].partition("│")[0].strip() for line in marked] == far
    assert " ".join(table.splitlines()[-2:]) == (
        "far: farther from the mean of every class than 98 % of held-out images, so probably "
        f"none of the classes ({len(far)} of 8)."
    )
    assert max(map(len, table.splitlines())) <= 80


def test_a_checkpoint_without_class_means_says_why_no_image_is_marked(
    run, probe_run, mixed, tmp_path
):
    old = with_means(tmp_path / "old", probe_run.folder, lambda facts: facts.pop("class_means"))
    image = mixed / "b.jpg"
    table = predict(run, old, image).out
    assert " ".join(table.splitlines()[-2:]) == (
        "No image is marked as far from the training images: an older version of fgvc wrote the "
        "checkpoint."
    )
    answer = as_json(predict(run, old, image, "task.format=json"))
    assert answer["class_means"] == {"reason": "an older version of fgvc wrote the checkpoint"}
    assert [(image["distance"], image["far"]) for image in answer["images"]] == [(None, None)]
    (row,) = csv.DictReader(
        predict(run, old, image, "task.format=csv", "task.top_k=1").out.splitlines()
    )
    assert (row["distance"], row["far"]) == ("", "")


def test_one_image_by_any_path_into_a_file(run, probe_run, mixed, tmp_path):
    target = tmp_path / "new" / "answer.json"
    odd = tmp_path / "image without ending"
    shutil.copy(mixed / "b.jpg", odd)
    ran = predict(run, probe_run.folder, odd, "task.format=json", f"task.output={target}", ALL)
    assert (ran.code, ran.out) == (0, "")
    (image,) = json.loads(target.read_text())["images"]
    assert image["path"] == odd.name
    assert len(image["predictions"]) == 6
    assert sum(row["probability"] for row in image["predictions"]) == pytest.approx(1)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert ran.folder is None


@pytest.mark.fault(39)
def test_an_image_whose_name_is_not_utf8_is_classified(run, probe_run, mixed):
    os.rename(mixed / "b.jpg", os.fsencode(mixed) + b"/b\xff.jpg")  # noqa: PTH104 - bytes
    for shape in ("json", "csv", "table"):
        ran = predict(run, probe_run.folder, mixed, f"task.format={shape}")
        assert ran.code == 0, ran.err
        assert "b\\udcff.jpg" in ran.out.replace("\\\\", "\\")


def test_if_no_image_is_classified_the_exit_code_is_1_with_output(run, probe_run, tmp_path):
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    ran = predict(run, probe_run.folder, tmp_path / "torn.jpg", "task.format=json")
    assert ran.code == 1
    assert json.loads(ran.out)["images"][0]["error"].startswith("torn.jpg: ")


# --- refusals ---


def one_line(ran, code, *words):
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err


def test_missing_files_are_named(run, probe_run, tmp_path):
    empty, image = tmp_path / "empty", tmp_path / "a.jpg"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")
    image.write_bytes(b"never looked at")
    one_line(predict(run, probe_run.folder, tmp_path / "no.jpg"), 2, "no.jpg", "no such file")
    one_line(predict(run, tmp_path / "no.bin", image), 2, "no.bin", "no such file")
    one_line(predict(run, empty, image), 1, f"checkpoint={empty}", "ckpt.bin")
    one_line(predict(run, image, image), 1, "not a checkpoint")
    one_line(predict(run, probe_run.folder, empty), 1, f"image={empty}", "no image", ".jpg")
    one_line(run("task=predict", f"image={tmp_path}", bare=True), 2, "checkpoint=PATH")
    one_line(run("task=predict", f"checkpoint={tmp_path}", bare=True), 2, "image=PATH")


def test_keys_of_the_checkpoint_cannot_be_overridden(run, probe_run, tmp_path):
    ran = predict(run, probe_run.folder, tmp_path, "backbone=vit_small")
    one_line(ran, 2, "backbone=vit_small", "task=predict takes its config from the checkpoint")


def test_an_overlay_needs_part_attention(run, probe_run, mixed, tmp_path):
    ran = predict(run, probe_run.folder, mixed, f"task.overlay={tmp_path / 'seen'}")
    one_line(ran, 1, "task.overlay", "part_attention=off")
    assert not (tmp_path / "seen").exists()


def test_weights_are_found_by_digest_or_path_or_missed_in_one_line(run, tmp_path):
    for seed, name in enumerate(("vit.pth", "other.pth")):
        torch.manual_seed(seed)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
        torch.save(model.state_dict(), tmp_path / name)
    own = tmp_path / "own cache"
    cache = f'runtime.cache_root="{own}"'
    pretrained = (f"backbone.weights={tmp_path / 'vit.pth'}", "backbone.pretrained=true")
    fitted = run(*pretrained, *SMALL, *ONE_C, cache)
    assert fitted.code == 0, fitted.err
    images = images_of(fitted, tmp_path / "pictures")
    moved = tmp_path / "kept.pth"
    (tmp_path / "vit.pth").rename(moved)
    arguments = (fitted.folder, images, ALL, "task.format=json")
    assert_as_evaluated(fitted, as_json(predict(run, *arguments, cache)))
    shutil.rmtree(own / "weights")
    digest = fitted.json("env_stamp.json")["weights_digest"]
    one_line(predict(run, *arguments, cache), 1, digest, "backbone.weights=", "runtime.cache_root=")
    assert_as_evaluated(
        fitted, as_json(predict(run, *arguments, cache, f"backbone.weights={moved}"))
    )
    other = predict(run, *arguments, cache, f"backbone.weights={tmp_path / 'other.pth'}")
    one_line(other, 2, digest, "other.pth")


def test_a_local_file_replaces_weights_of_the_hub(run, tmp_path, monkeypatch):
    conf = typed(composed(["backbone=vit_tiny"]))
    row = chosen_checkpoint(conf.backbone)
    repo_folder = tmp_path / "hub" / f"models--{row.repo.replace('/', '--')}"
    snapshot = repo_folder / "snapshots" / f"{7:040x}"
    for folder in (snapshot, repo_folder / "refs"):
        folder.mkdir(parents=True)
    (repo_folder / "refs" / row.revision).write_text(snapshot.name)
    torch.manual_seed(3)
    model = timm.create_model(row.model, num_classes=0)
    save_file(model.state_dict(), snapshot / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    fitted = run("backbone.pretrained=true", *SMALL, *ONE_C)
    assert fitted.json("env_stamp.json")["weights"]["kind"] == "hub"
    arguments = (fitted.folder, images_of(fitted, tmp_path / "pictures"), ALL, "task.format=json")
    assert_as_evaluated(fitted, as_json(predict(run, *arguments)))
    moved = (snapshot / "model.safetensors").rename(tmp_path / "moved.safetensors")
    assert_as_evaluated(fitted, as_json(predict(run, *arguments, f"backbone.weights={moved}")))
    altered = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_file(altered, tmp_path / "other.safetensors")
    other = predict(run, *arguments, f"backbone.weights={tmp_path / 'other.safetensors'}")
    assert other.code == 1
    assert "belongs to weights with sha256" in other.err


# --- what part attention selected ---


@pytest.mark.parametrize("stride", ["null", "12"])
def test_overlays_of_a_checkpoint_that_selects_patches(run, stride, tmp_path):
    chosen = ("part_attention=transfg", f"part_attention.stride={stride}")
    fitted = run(*SMALL, *ONE_C, *chosen)
    assert fitted.code == 0, fitted.err
    images, overlays = images_of(fitted, tmp_path / "pictures"), tmp_path / "seen"
    torn = images / "torn.jpg"
    torn.write_bytes(b"")
    ran = predict(run, fitted.folder, images, ALL, "task.format=json", f"task.overlay={overlays}")
    answer = as_json(ran)
    assert answer["images"].pop()["path"] == torn.name
    assert_as_evaluated(fitted, answer)
    paths = {path.relative_to(overlays).as_posix() for path in overlays.rglob("*.png")}
    assert paths == {f"{image['path']}.png" for image in answer["images"]}
    path = answer["images"][0]["path"]
    drawn, image = Image.open(overlays / f"{path}.png"), Image.open(images / path)
    assert drawn.height > image.height
    assert drawn.width == max(image.width, 240)


@pytest.mark.parametrize("size", [(500, 200), (200, 500)])
@pytest.mark.parametrize("policy", ["shared", "transfg"])
@pytest.mark.parametrize("stride", ["null", "12"])
def test_selected_patches_and_heat_are_drawn_on_the_image(size, policy, stride):
    chosen = ["backbone=vit_tiny", "part_attention=transfg", f"part_attention.stride={stride}"]
    conf = typed(composed([*chosen, f"preprocess={policy}", "backbone.pretrained=false"]))
    side = 14 if stride == "null" else 18
    score_N = np.arange(side * side, dtype=np.float32)
    image_CHW = torch.zeros(3, size[1], size[0], dtype=torch.uint8)
    drawn = draw_overlay(image_CHW, conf, "a bird", np.array([0, side * side - 1]), score_N)
    assert drawn.image_HWC.shape == (size[1], size[0], 3)
    assert drawn.seen is not None
    assert drawn.heat_RR is not None
    np.testing.assert_array_equal(drawn.heat_RR.ravel(), score_N)
    left, top, width, height = drawn.seen
    np.testing.assert_allclose(drawn.patch_K4[0, :2], [left, top])
    reached = 224 if stride == "null" else 17 * 12 + 16  # 4 pixels are left over
    corner = drawn.patch_K4[1, :2] + drawn.patch_K4[1, 2:]
    np.testing.assert_allclose(corner, [left + width * reached / 224, top + height * reached / 224])


def test_the_folder_of_a_sole_run_and_a_file_named_by_its_format(run, probe_run, mixed, tmp_path):
    """checkpoint=outputs/RUN, and task.output=FILE.csv without task.format."""
    image, table = mixed / "b.jpg", tmp_path / "new" / "answer.csv"
    ran = predict(run, probe_run.folder.parents[1], image, f"task.output={table}")
    assert ran.code == 0, ran.err
    assert f"{probe_run.folder}, the only complete run there" in ran.err
    direct = predict(run, probe_run.folder, image, "task.format=csv")
    assert table.read_text() == direct.out
    ran = predict(
        run, probe_run.folder, image, "task.format=json", f"task.output={tmp_path}/there/"
    )
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "there" / "predictions.json").read_text())["images"]


def test_a_file_of_another_format_is_refused_before_any_work(run, probe_run, mixed, tmp_path):
    target = tmp_path / "answer.csv"
    ran = predict(run, probe_run.folder, mixed, "task.format=json", f"task.output={target}")
    assert ran.code == 1
    assert ran.err.startswith(f"fgvc: task.output={target}: the output is .json; name")
    assert not target.exists()
