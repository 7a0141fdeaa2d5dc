"""fiftyone/ of a run: its content, first without FiftyOne, then as the real FiftyOne reads it.

Image names hold spaces, `=` and umlauts, class names hold characters that break queries. One image
cannot be read, and another head predicted the validation split.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgvc import metrics
from fgvc.record.fiftyone import (
    app,
    appearance,
    dataset,
    display_text,
    json_documents,
    samples,
    two_runs,
)
from fgvc.record.fiftyone.run_fields import RIGHT, WRONG, RunFields
from fgvc.record.fiftyone.samples import RunResults
from fgvc.types import Features, Manifest, UserError

CLASSES = ("Möwe", "Ram C/V $2", "avocet")
TEST, VAL, BAD = 24, 6, 5  # number of images; the test row that cannot be read
ABOUT = {
    "name": "vit tiny linear birds",
    "run_id": "r1",
    "config_hash": "c" * 64,
    "dataset": "birds",
    "started": "2026-11-24T12:00:00+00:00",
    "manifest_digest": "d" * 64,
}


def make_predictions(rows, seed, confident=3.0, unreadable=()):
    rng = np.random.default_rng(seed)
    row_N = np.arange(*rows)
    label_N = row_N % len(CLASSES)
    logits_NC = rng.normal(size=(len(row_N), len(CLASSES))).astype(np.float32)
    logits_NC[np.arange(len(row_N)), label_N] += confident * rng.random(len(row_N))
    logits_NC[list(unreadable)] = -np.inf
    return metrics.from_logits(row_N, label_N, logits_NC)


def make_results(root, seed=0, checkpoint="a" * 64):
    count = TEST + VAL
    path = tuple(f"bilder/é {row}=.png" for row in range(count))
    label_N = np.arange(count) % len(CLASSES)
    manifest = Manifest(root, path, label_N, np.ones(count, np.uint8), ("",) * count)
    test = make_predictions((0, TEST), seed, unreadable=(BAD,))
    readable_N = np.delete(np.arange(TEST), BAD)
    x_ND = np.random.default_rng(seed).normal(size=(TEST - 1, 8)).astype(np.float32)
    heat_HW = np.arange(12, dtype=np.uint8).reshape(3, 4)
    return RunResults(
        manifest,
        "sub dir",
        CLASSES,
        checkpoint,
        {"val": make_predictions((TEST, count), seed + 1), "test": test},
        Features(x_ND, readable_N),
        lambda row: heat_HW if row < TEST and row != BAD else None,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> RunResults:
    root = tmp_path_factory.mktemp("größe = 3 $x") / "sub dir"
    results = make_results(root)
    for place, path in enumerate(results.manifest.path):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 36), (8 * place, 90, 160)).save(root / path)
    return results


@pytest.fixture(scope="module")
def folder(results, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("run") / "fiftyone"
    dataset.write(path, results, ABOUT)
    return path


def read_files(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def read_metadata(folder):
    return json.loads((folder / "metadata.json").read_text())


def test_the_same_run_gives_the_same_bytes(results, folder, tmp_path):
    dataset.write(tmp_path / "again", results, ABOUT)
    assert read_files(tmp_path / "again") == read_files(folder)
    assert set(read_files(folder)) == {
        "metadata.json",
        "samples.json",
        "evaluations/eval.json",
        "evaluations/eval_val.json",
        "brain/embedding_map.json",
    }


def test_another_checkpoint_keeps_the_ids_of_samples_and_truths(results, folder, tmp_path):
    dataset.write(tmp_path, replace(results, checkpoint_id="b" * 64), ABOUT)
    for sample, other in zip(two_runs.samples(folder), two_runs.samples(tmp_path), strict=True):
        assert sample["_id"] == other["_id"]
        assert sample["ground_truth"] == other["ground_truth"]
        if "predictions" in sample:
            assert sample["predictions"]["_id"] != other["predictions"]["_id"]


def test_paths_are_relative_and_no_id_occurs_twice(results, folder):
    documents = list(two_runs.samples(folder))
    paths = [sample["filepath"] for sample in documents]
    assert paths == [f"sub dir/{path}" for path in results.manifest.path]
    assert str(results.manifest.root).encode() not in b"".join(read_files(folder).values())
    labels = ("ground_truth", "predictions", "attention")
    ids = [sample["_id"]["$oid"] for sample in documents]
    ids += [
        sample[name]["_id"]["$oid"] for sample in documents for name in labels if name in sample
    ]
    assert len(ids) > 3 * TEST
    assert max(Counter(ids).values()) == 1


def test_an_unreadable_image_counts_as_wrong_and_has_no_prediction(folder):
    sample = list(two_runs.samples(folder))[BAD]
    assert sample["tags"] == ["test", "unreadable"]
    assert sample["eval"] is False
    assert not {"predictions", "hardness", "embedding", "attention"} & sample.keys()
    evaluation = json.loads((folder / "evaluations" / "eval.json").read_text())
    assert evaluation["ypred"][BAD] is None
    assert len(evaluation["ypred"]) == TEST


def test_validation_has_an_evaluation_of_its_own(folder):
    for sample in two_runs.samples(folder):
        (split,) = set(sample["tags"]) - {"unreadable"}
        assert ("eval" in sample, "eval_val" in sample) == (split == "test", split == "val")


def test_logits_of_thousands_of_classes_are_left_out(results):
    test = results.splits["test"]
    for classes, has_logits in ((1000, True), (1001, False)):
        wide_NC = np.zeros((TEST, classes), np.float32)
        wide_NC[:, : len(CLASSES)] = test.logits_NC
        names = [str(name) for name in range(classes)]
        splits = {"test": metrics.from_logits(test.row_N, test.label_N, wide_NC)}
        first = json.loads(
            next(samples.sample_lines(replace(results, classes=names, splits=splits)))
        )
        assert ("logits" in first["predictions"]) == has_logits
        assert len(first["predictions"]["top"]) == 5


def many_results(root, count, checkpoint="a" * 64):
    """The results of a run on `count` test images of 100 classes."""
    names = tuple(f"{row}.jpg" for row in range(count))
    label_N = np.arange(count) % 100
    manifest = Manifest(root, names, label_N, label_N.astype(np.uint8), ("",) * count)
    logits_NC = np.random.default_rng(0).normal(size=(count, 100)).astype(np.float32)
    predictions = metrics.from_logits(np.arange(count), label_N, logits_NC)
    return RunResults(manifest, ".", list(map(str, range(100))), checkpoint, {"test": predictions})


def peak_of(function) -> int:
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_samples_are_written_one_after_another(tmp_path):
    """One sample is in memory at a time."""
    results = many_results(tmp_path, 2000)
    assert peak_of(lambda: dataset.write_samples(tmp_path, samples.sample_lines(results))) < 1e6
    assert (tmp_path / "samples.json").stat().st_size > 2e6


def test_samples_of_two_runs_are_merged_one_after_another(tmp_path):
    for name, count in (("a", 1000), ("b", 1100)):
        results = many_results(tmp_path, count, name * 64)
        dataset.write_samples(tmp_path / name, samples.sample_lines(results))
    runs = [RunFields({**ABOUT, "fields": ["predictions"]}, label) for label in ("a", "b")]
    merged: list[list[str]] = []

    def merge() -> None:
        for sample in two_runs._merged(tmp_path / "a", tmp_path / "b", runs):
            merged.append([key for key in ("predictions_a", "predictions_b") if key in sample])

    size = (tmp_path / "b" / "samples.json").stat().st_size
    assert peak_of(merge) < size / 2
    both = ["predictions_a", "predictions_b"]
    assert merged == 1000 * [both] + 100 * [both[1:]]


def test_two_runs_share_samples_and_keep_their_own_fields(results, folder, tmp_path):
    dataset.write(tmp_path / "b", make_results(results.manifest.root, 7, "b" * 64), ABOUT)
    two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    merged = list(two_runs.samples(tmp_path / "pair"))
    first, second = list(two_runs.samples(folder)), list(two_runs.samples(tmp_path / "b"))
    assert len(merged) == TEST + VAL
    for place, sample in enumerate(merged):
        assert sample.get("predictions_aaaaaaaa") == first[place].get("predictions")
        assert sample.get("predictions_bbbbbbbb") == second[place].get("predictions")
        assert sample["ground_truth"] == first[place]["ground_truth"]
    document = read_metadata(tmp_path / "pair")
    assert set(document["evaluations"]) == {
        f"eval{val}_{name * 8}" for val in ("", "_val") for name in "ab"
    }
    assert [view["name"] for view in document["saved_views"]][:3] == [
        "only aaaaaaaa right",
        "only bbbbbbbb right",
        "both wrong",
    ]


def test_two_runs_need_the_same_images_and_two_checkpoints(results, folder, tmp_path):
    with pytest.raises(UserError, match=r"^run= and against= .*checkpoint"):
        two_runs.write(tmp_path / "pair", folder, folder)
    dataset.write(tmp_path / "b", results, {**ABOUT, "manifest_digest": "e" * 64})
    with pytest.raises(UserError, match=f"^run= and against= .*{'d' * 16}.*{'e' * 16}"):
        two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    assert not (tmp_path / "pair").exists()


def test_right_is_green_and_wrong_is_red_in_one_run_and_in_two(results, folder, tmp_path):
    dataset.write(tmp_path / "b", make_results(results.manifest.root, 7, "b" * 64), ABOUT)
    two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    for place, suffixes in ((folder, [""]), (tmp_path / "pair", ["_aaaaaaaa", "_bbbbbbbb"])):
        scheme = read_metadata(place)["app_config"]["color_scheme"]
        assert scheme["color_by"] == "value"
        field_of = {field["path"]: field for field in scheme["fields"]}
        for suffix in suffixes:
            assert field_of[f"predictions{suffix}"]["colorByAttribute"] == "right"
            for name in ("predictions", "eval", "eval_val"):
                values = field_of[f"{name}{suffix}"]["valueColors"]
                colour_of = {value["value"]: value["color"] for value in values}
                assert (colour_of["True"], colour_of["False"]) == (RIGHT, WRONG)
                assert (colour_of["true"], colour_of["false"]) == (RIGHT, WRONG)
    for sample in two_runs.samples(folder):
        if "predictions" in sample:
            eval_field = "eval" if "test" in sample["tags"] else "eval_val"
            assert sample["predictions"]["right"] == sample[eval_field]


def test_the_app_opens_with_heat_maps_and_a_histogram_of_something(results, folder, tmp_path):
    dataset.write(tmp_path / "b", make_results(results.manifest.root, 7, "b" * 64), ABOUT)
    two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    for place, suffix in ((folder, ""), (tmp_path / "pair", "_aaaaaaaa")):
        document = read_metadata(place)
        fields = {field["name"] for field in document["sample_fields"]}
        active = document["app_config"]["active_fields"]["paths"]
        assert f"attention{suffix}" in active
        assert fields >= set(active)
        (workspace,) = document["workspaces"]
        panels = {panel["type"]: panel for panel in workspace["child"]["children"]}
        assert workspace["child"]["active_child"] == panels["Samples"]["component_id"]
        assert panels["Histograms"]["state"]["path"] == f"predictions{suffix}.confidence"
        assert "Embeddings" in panels
    assert "attention_bbbbbbbb" not in active  # it would cover the other run's


def make_axes(**changes):
    config = {
        "task.name": "probe",
        "backbone.name": "vit",
        "backbone.size": "tiny",
        "head.name": "linear",
        "resolution.side": 224,
        "part_attention.name": "off",
        "backbone.features": "cls",
        "preprocess": "shared",
        "precision": "fp32",
        "final_fit": "trainval",
        "seed": 0,
    }
    return display_text.axes({**config, **changes}.__getitem__)


@pytest.mark.parametrize(
    ("changes", "labels", "suffix"),
    [
        ({"part_attention.name": "transfg"}, ["off", "transfg"], "transfg"),
        ({"backbone.size": "base", "seed": 1}, ["tiny", "base"], "base"),
        (
            {"head.name": "knn", "resolution.side": 448},
            ["linear 224 px", "knn 448 px"],
            "knn_448_px",
        ),
        ({"seed": 1}, ["seed 0", "seed 1"], "seed_1"),
        ({}, ["a" * 8, "b" * 8], "bbbbbbbb"),
    ],
)
def test_two_runs_are_named_by_what_distinguishes_them(changes, labels, suffix):
    infos = [
        {**ABOUT, "axes": make_axes(), "checkpoint_id": "a" * 64},
        {**ABOUT, "axes": make_axes(**changes), "checkpoint_id": "b" * 64},
    ]
    assert display_text.run_labels(infos) == labels
    assert display_text.field_suffix(labels[1]) == suffix
    name = display_text.dataset_name(infos)
    assert name == f"birds {labels[0]} against {labels[1]} (aaaaaaaa, bbbbbbbb)"


def test_an_older_record_without_axes_is_named_by_its_checkpoint():
    infos = [
        {**ABOUT, "checkpoint_id": "a" * 64},
        {**ABOUT, "axes": make_axes(), "checkpoint_id": "b" * 64},
    ]
    assert display_text.run_labels(infos) == ["a" * 8, "b" * 8]


@pytest.mark.parametrize(
    ("label", "pred", "expected"),
    [
        ("Rusty Blackbird", "Brewer Blackbird", "Rusty → Brewer Blackbird (8)"),
        ("Cardinal", "Cardinal", "Cardinal → Cardinal (8)"),
        ("cat", "dog", "cat → dog (8)"),
        ("a" * 50, "b", f"{'a' * 39}… → b (8)"),
    ],
)
def test_a_confusion_is_named_by_its_classes(label, pred, expected):
    assert display_text.pair_name(label, pred, 8) == expected


def test_views_have_names_for_people_and_addresses(folder):
    views = read_metadata(folder)["saved_views"]
    pairs = [view for view in views if "→" in view["name"]]
    assert len(pairs) == len(read_metadata(folder)["info"]["confused"])
    assert len({view["name"] for view in views}) == len({view["slug"] for view in views})
    for view in views:
        assert view["slug"] == display_text.slug(view["slug"]) != ""
        assert view["color"] in (RIGHT, WRONG)


def test_runs_that_name_their_classes_differently_are_refused(results, folder, tmp_path):
    older = replace(results, classes=["1.x", "2.x", "3.x"], checkpoint_id="b" * 64)
    dataset.write(tmp_path / "b", older, ABOUT)
    with pytest.raises(UserError, match=r"^run= and against= name their classes differently"):
        two_runs.write(tmp_path / "pair", folder, tmp_path / "b")


def test_the_map_keeps_the_directions_of_most_variance():
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(50, 6)) * [9, 1e-3, 1e-3, 4, 1e-3, 1e-3] + 5
    xy_N2 = dataset.principal_plane(x_ND.astype(np.float32))
    centred = x_ND - x_ND.mean(axis=0)
    for axis, column in ((0, 0), (1, 3)):
        assert abs(np.corrcoef(xy_N2[:, axis], centred[:, column])[0, 1]) > 0.95
    assert dataset.principal_plane(x_ND[:1]).tolist() == [[0, 0]]
    assert dataset.principal_plane(x_ND[:5, :1].copy()).shape == (5, 2)


# --- the real FiftyOne and its real database ---


@pytest.fixture(scope="module")
def real(results, folder, tmp_path_factory):
    """The dataset in the database of FiftyOne."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("FIFTYONE_"):
            del os.environ[name]
    app.prepare(tmp_path_factory.mktemp("database"))
    fo_dataset = app.load_dataset(folder, results.manifest.root.parent, "fgvc-test")
    yield fo_dataset
    fo_dataset.delete()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
def test_fiftyone_reads_every_field(real, results):
    test = results.splits["test"]
    assert real.default_classes == list(CLASSES)
    assert real.list_workspaces() == [appearance.WORKSPACE]
    assert real.app_config.color_scheme.color_by == "value"
    assert real.info["checkpoint_id"] == "a" * 64
    assert [Path(path) for path in real.values("filepath")] == [
        results.manifest.root / path for path in results.manifest.path
    ]
    assert all(Path(path).is_file() for path in real.values("filepath"))
    for row, sample in enumerate(real):
        assert sample.ground_truth.label == CLASSES[row % 3]
        if row < TEST and row != BAD:
            np.testing.assert_array_equal(sample.predictions.logits, test.logits_NC[row])
            np.testing.assert_allclose(
                sample.embedding, results.features.x_ND[row - (row > BAD)], rtol=2e-3, atol=1e-3
            )
            assert sample.attention.map.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
            assert sample.attention.range == [0, 255]
            assert sample.predictions.top[0] == sample.predictions.label
    real.compute_metadata(progress=False)
    assert real.distinct("metadata.width") == [48]


@pytest.mark.slow
def test_fiftyone_evaluates_every_sample_in_the_same_way(real, results):
    for split, key in (("test", "eval"), ("val", "eval_val")):
        predictions = results.splits[split]
        view = real.match_tags(split)
        evaluation = view.evaluate_classifications(
            "predictions", gt_field="ground_truth", eval_key=f"{key}_again", classes=list(CLASSES)
        )
        assert view.values(f"{key}_again") == view.values(key)
        written = real.load_evaluation_results(key)
        assert list(written.ypred) == list(evaluation.ypred)
        assert list(written.ytrue) == list(evaluation.ytrue)
        report, rows = (
            written.report(),
            metrics.per_class(predictions.logits_NC, predictions.label_N, CLASSES),
        )
        for row in rows:
            reported = report[row["name"]]
            assert reported["precision"] == pytest.approx(row["precision"])
            assert reported["recall"] == pytest.approx(row["recall"])
        numbers = metrics.evaluate(predictions, len(CLASSES))
        right = sum(view.values(key))
        assert right / len(view) == pytest.approx(numbers["top1"])
        counts = metrics.confusion(predictions.logits_NC, predictions.label_N, len(CLASSES))
        np.testing.assert_array_equal(written.confusion_matrix(), counts.dense()[:, :-1])
        real.delete_evaluation(f"{key}_again")


@pytest.mark.slow
def test_saved_views_show_the_described_samples(real, results):
    test = results.splits["test"]
    pred_N = metrics.topk(test.logits_NC, 1)[:, 0]
    wrong_N = pred_N != test.label_N
    assert 3 < wrong_N.sum() < TEST
    paths = real.match_tags("test").values("filepath")

    def rows(name):
        return [paths.index(path) for path in real.load_saved_view(name).values("filepath")]

    assert rows("misclassified") == np.flatnonzero(wrong_N).tolist()
    confidences = real.load_saved_view("wrong with high confidence").values(
        "predictions.confidence"
    )
    readable = [value for value in confidences if value is not None]
    assert readable == sorted(readable, reverse=True)
    assert len(confidences) == wrong_N.sum()
    unsure_hits = real.load_saved_view("right with low confidence").values("predictions.confidence")
    assert unsure_hits == sorted(unsure_hits)
    assert len(unsure_hits) == (~wrong_N).sum()
    matrix = metrics.confusion(test.logits_NC, test.label_N, len(CLASSES))
    pairs = metrics.worst_pairs(matrix, dataset.PAIRS)
    for pair in pairs:
        here_N = (test.label_N == pair["label"]) & (pred_N == pair["pred"])
        name = display_text.pair_name(CLASSES[pair["label"]], CLASSES[pair["pred"]], pair["count"])
        assert rows(name) == np.flatnonzero(here_N).tolist()
    assert len(rows("worst confused pairs")) == sum(pair["count"] for pair in pairs)


@pytest.mark.slow
def test_hardness_and_map_agree_with_fiftyone_brain(real, results):
    import fiftyone.brain as brain

    readable = real.exists("predictions")
    brain.compute_hardness(readable, "predictions", hardness_field="brain_hardness", progress=False)
    np.testing.assert_allclose(
        readable.values("brain_hardness"), readable.values("hardness"), atol=1e-5
    )
    visualization = real.load_brain_results("embedding_map")
    plane_N2 = dataset.principal_plane(results.features.x_ND)
    np.testing.assert_array_equal(visualization.points, plane_N2)
    tested = real.match_tags("test").exists("embedding")
    assert list(visualization.sample_ids) == tested.values("id")


@pytest.mark.slow
def test_two_runs_are_evaluated_beside_each_other(real, results, folder, tmp_path):
    dataset.write(tmp_path / "b", make_results(results.manifest.root, 7, "b" * 64), ABOUT)
    two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    merged = app.load_dataset(tmp_path / "pair", results.manifest.root.parent, "fgvc-test-pair")
    single = real.match_tags("test").values("eval")
    assert merged.match_tags("test").values("eval_aaaaaaaa") == single
    for name in "ab":
        key = f"eval_{name * 8}"
        written = merged.load_evaluation_results(key)
        right = [true == guess for true, guess in zip(written.ytrue, written.ypred, strict=True)]
        assert right == merged.match_tags("test").values(key)
        assert len(merged.load_brain_results(f"embedding_map_{name * 8}").points) == TEST - 1
    only_a = merged.load_saved_view("only aaaaaaaa right")
    assert set(only_a.values("eval_aaaaaaaa")) == {True}
    assert set(only_a.values("eval_bbbbbbbb")) == {False}
    merged.delete()


def test_arrays_come_back_from_their_text():
    import base64
    import io
    import zlib

    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    data = zlib.decompress(base64.b64decode(json_documents.pack_array(values)))
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), values)
