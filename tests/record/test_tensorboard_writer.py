"""TensorBoard's content for a finished probe, read back from its run folder."""

from __future__ import annotations

import csv
import io
import json
import re
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fgvc import metrics
from fgvc.html.confusion import confusion_image
from fgvc.record.tensorboard import CURVES, IMAGES, TEXTS
from fgvc.record.tensorboard.hparams import CHOICES
from fgvc.run import main

BIRDS = {
    "classes": 6,
    "train_per_class": 10,
    "test_per_class": 5,
    "side": 128,
}


@pytest.fixture(scope="module")
def folder(shared_places, tmp_path_factory):
    """The run folder of one probe of random weights: it makes many mistakes."""
    root = tmp_path_factory.mktemp("outputs")
    code = main(
        [
            "backbone=vit_tiny",
            "backbone.pretrained=false",
            "runtime.num_workers=0",
            "task.c_count=5",
            *(f"dataset.generator.{name}={value}" for name, value in BIRDS.items()),
            f"runtime.output_root={root}",
            *(f"runtime.{name}_root={place}" for name, place in shared_places.items()),
        ]
    )
    assert code == 0
    (status,) = root.rglob("status.json")
    return status.parent


@pytest.fixture(scope="module")
def events(folder):
    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(folder / "tb"), size_guidance=everything).Reload()


@pytest.fixture(scope="module")
def numbers(folder):
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture(scope="module")
def test_predictions(folder):
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    return table[table.split == "test"]


def text(events, tag):
    (event,) = events.Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()


def test_the_tags_are_the_listed_ones(events):
    tags = events.Tags()
    assert sorted(tags["images"]) == sorted(IMAGES)
    tensors = set(tags["tensors"])
    worst = {tag for tag in tensors if tag.startswith("worst/")}
    assert tensors - worst == {f"{tag}/text_summary" for tag in TEXTS} | set(CURVES)
    assert len(worst) == 6  # all the classes: fewer than ten


def test_the_texts_are_those_of_the_record(events, folder, numbers):
    for tag, name in (
        ("run/command", "command.txt"),
        ("run/config", "config.yaml"),
        ("run/stamp", "env_stamp.json"),
    ):
        logged = text(events, tag)
        assert (folder / name).read_text().rstrip() in logged
        assert logged.startswith("```")
        assert logged.endswith("```")
    rows = dict(re.findall(r"^\| (\w+) \|.*\| ([^|]+) \|$", text(events, "run/numbers"), re.M))
    assert rows["top1"] == f"{numbers['test']['top1']:.4f}"
    low, high = numbers["test"]["mean_per_class_ci95"]
    assert rows["mean_per_class_ci95"] == f"[{low:.4f}, {high:.4f}]"
    assert set(rows) >= set(numbers["test"])


def test_the_curves_are_those_of_the_predictions(events, test_predictions):
    (event,) = events.Tensors("all/micro")
    values = event.tensor_proto.float_val
    hits, wrongs, _, missed, _, recall = (values[i * 127 : (i + 1) * 127] for i in range(6))
    assert hits[0] == len(test_predictions)
    assert wrongs[0] == 5 * len(test_predictions)
    assert missed[0] == 0
    assert all(high >= low for high, low in pairwise(recall))


def test_the_confusion_matrix_is_an_image_with_a_pixel_per_cell(events, test_predictions):
    (event,) = events.Images("view/confusion")
    with Image.open(io.BytesIO(event.encoded_image_string)) as image:
        pixels_HWC = np.asarray(image.convert("RGB"))
    pred_N, label_N = (test_predictions[name].to_numpy() for name in ("pred", "label"))
    matrix = metrics.tally(pred_N, label_N, 6)
    np.testing.assert_array_equal(pixels_HWC, confusion_image(matrix))


def test_the_sheet_of_mistakes_shows_all_of_a_few(events, test_predictions):
    (event,) = events.Images("view/mistakes")
    wrong = int((test_predictions.pred != test_predictions.label).sum())
    assert wrong >= 16
    assert event.width == 4 * 224
    assert event.height > 4 * 224


def test_the_points_are_the_test_images(folder, test_predictions):
    with (folder / "tb/00000/test/metadata.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    outcome = [
        "right" if p == t else "wrong"
        for p, t in zip(test_predictions.pred, test_predictions.label, strict=True)
    ]
    assert [row["outcome"] for row in rows] == outcome
    confidence = [float(row["confidence"]) for row in rows]
    assert confidence == pytest.approx(test_predictions.confidence.tolist(), abs=6e-4)


def test_the_choices_are_those_of_the_command(events):
    (content,) = (
        events.SummaryMetadata(tag).plugin_data.content for tag in ("_hparams_/session_start_info",)
    )
    for value in (b"vit", b"tiny", b"synthetic", b"linear", b"probe"):
        assert value in content
    for name in ("epochs", "learning_rate"):  # of a finetune
        assert name in CHOICES
        assert name.encode() not in content


def test_the_numbers_of_the_classes_stand_in_the_record(numbers, test_predictions, folder):
    label_N, pred_N = test_predictions.label.to_numpy(), test_predictions.pred.to_numpy()
    test_metrics = numbers["test"]
    for key, value in (("mean_per_class_ci95", "mean_per_class"), ("macro_f1_ci95", "macro_f1")):
        low, high = test_metrics[key]
        assert low < test_metrics[value] < high
    # genera of three: siblings are 1 apart, all others 2
    apart = (label_N != pred_N) + (label_N // 3 != pred_N // 3).astype(int)
    assert test_metrics["top1_distance"] == pytest.approx(apart.mean())
    assert test_metrics["mistake_distance"] == pytest.approx(apart[apart > 0].mean())
    assert test_metrics["largest_distance"] == 2
    with (folder / "per_class.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        right = int(((label_N == int(row["index"])) & (pred_N == label_N)).sum())
        limits = metrics.wilson(right, int(row["support"]))
        assert (float(row["recall_low"]), float(row["recall_high"])) == limits


def test_events_are_closed_before_the_record_is_sealed(folder):
    artifacts = json.loads((folder / "artifacts.json").read_text())
    written = {p.relative_to(folder).as_posix() for p in (folder / "tb").rglob("*") if p.is_file()}
    assert len(written) == 4
    for name in written:
        assert artifacts[name]["bytes"] == (folder / name).stat().st_size
