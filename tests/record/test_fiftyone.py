"""fiftyone/ of a run: what stands in it, without FiftyOne; then the real one reads it.

Pictures are named with spaces, `=` and umlauts, classes with what queries trip over; one picture
could not be read, and validation was answered by another head.
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
from fgvc.record.fiftyone import app, dataset, json_documents, samples, two_runs
from fgvc.record.fiftyone.samples import RunResults
from fgvc.types import Features, Manifest, Predictions, UserError

CLASSES = ("Möwe", "Ram C/V $2", "avocet")
TEST, VAL, BAD = 24, 6, 5  # images; the row of test that could not be read
ABOUT = {
    "name": "vit tiny linear birds",
    "run_id": "r1",
    "config_hash": "c" * 64,
    "dataset": "birds",
    "started": "2026-11-24T12:00:00+00:00",
    "manifest_digest": "d" * 64,
}


def predictions(rows, seed, confident=3.0):
    rng = np.random.default_rng(seed)
    row_N = np.arange(*rows)
    label_N = row_N % len(CLASSES)
    logits_NC = rng.normal(size=(len(row_N), len(CLASSES))).astype(np.float32)
    logits_NC[np.arange(len(row_N)), label_N] += confident * rng.random(len(row_N))
    return Predictions(row_N, label_N, logits_NC)


def said_of(root, seed=0, checkpoint="a" * 64):
    count = TEST + VAL
    path = tuple(f"bilder/é {row}=.png" for row in range(count))
    label_N = np.arange(count) % len(CLASSES)
    manifest = Manifest(root, path, label_N, np.ones(count, np.uint8), ("",) * count)
    test = predictions((0, TEST), seed)
    test.logits_NC[BAD] = -np.inf
    kept_N = np.delete(np.arange(TEST), BAD)
    x_ND = np.random.default_rng(seed).normal(size=(TEST - 1, 8)).astype(np.float32)
    heat_HW = np.arange(12, dtype=np.uint8).reshape(3, 4)
    return RunResults(
        manifest,
        "sub dir",
        CLASSES,
        checkpoint,
        {"val": predictions((TEST, count), seed + 1), "test": test},
        Features(x_ND, kept_N),
        lambda row: heat_HW if row < TEST and row != BAD else None,
    )


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> RunResults:
    root = tmp_path_factory.mktemp("größe = 3 $x") / "sub dir"
    found = said_of(root)
    for place, path in enumerate(found.manifest.path):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (48, 36), (8 * place, 90, 160)).save(root / path)
    return found


@pytest.fixture(scope="module")
def folder(said, tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("run") / "fiftyone"
    dataset.write(made, said, ABOUT)
    return made


def files(folder):
    found = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in found}


def metadata(folder):
    return json.loads((folder / "metadata.json").read_text())


def test_the_same_run_gives_the_same_bytes(said, folder, tmp_path):
    dataset.write(tmp_path / "again", said, ABOUT)
    assert files(tmp_path / "again") == files(folder)
    assert set(files(folder)) == {
        "metadata.json",
        "samples.json",
        "evaluations/eval.json",
        "evaluations/eval_val.json",
        "brain/embedding_map.json",
    }


def test_another_checkpoint_names_the_same_samples_and_truths(said, folder, tmp_path):
    dataset.write(tmp_path, replace(said, checkpoint_id="b" * 64), ABOUT)
    for one, other in zip(two_runs.samples(folder), two_runs.samples(tmp_path), strict=True):
        assert one["_id"] == other["_id"]
        assert one["ground_truth"] == other["ground_truth"]
        if "predictions" in one:
            assert one["predictions"]["_id"] != other["predictions"]["_id"]


def test_paths_are_relative_and_no_id_occurs_twice(said, folder):
    found = list(two_runs.samples(folder))
    paths = [sample["filepath"] for sample in found]
    assert paths == [f"sub dir/{path}" for path in said.manifest.path]
    assert str(said.manifest.root).encode() not in b"".join(files(folder).values())
    labels = ("ground_truth", "predictions", "attention")
    ids = [sample["_id"]["$oid"] for sample in found]
    ids += [sample[name]["_id"]["$oid"] for sample in found for name in labels if name in sample]
    assert len(ids) > 3 * TEST
    assert max(Counter(ids).values()) == 1


def test_an_unreadable_picture_counts_as_wrong_and_says_nothing(folder):
    lost = list(two_runs.samples(folder))[BAD]
    assert lost["tags"] == ["test", "unreadable"]
    assert lost["eval"] is False
    assert not {"predictions", "hardness", "embedding", "attention"} & lost.keys()
    told = json.loads((folder / "evaluations" / "eval.json").read_text())
    assert told["ypred"][BAD] is None
    assert len(told["ypred"]) == TEST


def test_validation_has_an_evaluation_of_its_own(folder):
    for sample in two_runs.samples(folder):
        (split,) = set(sample["tags"]) - {"unreadable"}
        assert ("eval" in sample, "eval_val" in sample) == (split == "test", split == "val")


def test_logits_of_thousands_of_classes_are_left_out(said):
    test = said.splits["test"]
    for classes, kept in ((1000, True), (1001, False)):
        wide_NC = np.zeros((TEST, classes), np.float32)
        wide_NC[:, : len(CLASSES)] = test.logits_NC
        names = [str(name) for name in range(classes)]
        splits = {"test": replace(test, logits_NC=wide_NC)}
        first = json.loads(next(samples.sample_lines(replace(said, classes=names, splits=splits))))
        assert ("logits" in first["predictions"]) == kept
        assert len(first["predictions"]["top"]) == 5


def test_samples_are_written_one_after_another(tmp_path):
    """Of many samples no more than a chunk is held."""
    count, classes = 6000, 100
    names = tuple(f"{row}.jpg" for row in range(count))
    label_N = np.arange(count) % classes
    manifest = Manifest(tmp_path, names, label_N, label_N.astype(np.uint8), ("",) * count)
    logits_NC = np.random.default_rng(0).normal(size=(count, classes)).astype(np.float32)
    said = RunResults(
        manifest,
        ".",
        [str(one) for one in range(classes)],
        "a",
        {"test": Predictions(np.arange(count), label_N, logits_NC)},
    )
    tracemalloc.start()
    dataset.write_samples(tmp_path, samples.sample_lines(said))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "samples.json").stat().st_size > 6e6
    assert peak < 5e6


def test_two_runs_share_samples_and_keep_their_own_fields(said, folder, tmp_path):
    dataset.write(tmp_path / "b", said_of(said.manifest.root, 7, "b" * 64), ABOUT)
    two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    found = list(two_runs.samples(tmp_path / "pair"))
    one, other = list(two_runs.samples(folder)), list(two_runs.samples(tmp_path / "b"))
    assert len(found) == TEST + VAL
    for place, sample in enumerate(found):
        assert sample.get("predictions_aaaaaaaa") == one[place].get("predictions")
        assert sample.get("predictions_bbbbbbbb") == other[place].get("predictions")
        assert sample["ground_truth"] == one[place]["ground_truth"]
    told = metadata(tmp_path / "pair")
    assert set(told["evaluations"]) == {
        f"eval{val}_{name * 8}" for val in ("", "_val") for name in "ab"
    }
    assert [view["name"] for view in told["saved_views"]][:3] == [
        "only aaaaaaaa right",
        "only bbbbbbbb right",
        "both wrong",
    ]


def test_two_runs_must_be_of_the_same_images_and_two_checkpoints(said, folder, tmp_path):
    with pytest.raises(UserError, match="one checkpoint"):
        two_runs.write(tmp_path / "pair", folder, folder)
    dataset.write(tmp_path / "b", said, {**ABOUT, "manifest_digest": "e" * 64})
    with pytest.raises(UserError, match=f"other images.*{'d' * 16}.*{'e' * 16}"):
        two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    assert not (tmp_path / "pair").exists()


def test_the_map_keeps_what_varies_most():
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
def real(said, folder, tmp_path_factory):
    """The dataset as FiftyOne has it."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith("FIFTYONE_"):
            del os.environ[name]
    app.prepare(tmp_path_factory.mktemp("database"))
    made = app.load_dataset(folder, said.manifest.root.parent, "fgvc-test")
    yield made
    made.delete()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fiftyone_reads_every_field(real, said):
    test = said.splits["test"]
    assert real.default_classes == list(CLASSES)
    assert real.info["checkpoint_id"] == "a" * 64
    assert [Path(path) for path in real.values("filepath")] == [
        said.manifest.root / path for path in said.manifest.path
    ]
    assert all(Path(path).is_file() for path in real.values("filepath"))
    for row, sample in enumerate(real):
        assert sample.ground_truth.label == CLASSES[row % 3]
        if row < TEST and row != BAD:
            np.testing.assert_array_equal(sample.predictions.logits, test.logits_NC[row])
            np.testing.assert_allclose(
                sample.embedding, said.features.x_ND[row - (row > BAD)], rtol=2e-3, atol=1e-3
            )
            assert sample.attention.map.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
            assert sample.attention.range == [0, 255]
            assert sample.predictions.top[0] == sample.predictions.label
    real.compute_metadata(progress=False)
    assert real.distinct("metadata.width") == [48]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_own_evaluation_agrees_on_every_sample(real, said):
    for split, key in (("test", "eval"), ("val", "eval_val")):
        ours = said.splits[split]
        view = real.match_tags(split)
        again = view.evaluate_classifications(
            "predictions", gt_field="ground_truth", eval_key=f"{key}_again", classes=list(CLASSES)
        )
        assert view.values(f"{key}_again") == view.values(key)
        written = real.load_evaluation_results(key)
        assert list(written.ypred) == list(again.ypred)
        assert list(written.ytrue) == list(again.ytrue)
        report, rows = written.report(), metrics.per_class(ours.logits_NC, ours.label_N, CLASSES)
        for row in rows:
            theirs = report[row["name"]]
            assert theirs["precision"] == pytest.approx(row["precision"])
            assert theirs["recall"] == pytest.approx(row["recall"])
        numbers = metrics.evaluate(ours.logits_NC, ours.label_N, len(CLASSES))
        right = sum(view.values(key))
        assert right / len(view) == pytest.approx(numbers["top1"])
        matrix = metrics.confusion(ours.logits_NC, ours.label_N, len(CLASSES))[:, : len(CLASSES)]
        np.testing.assert_array_equal(written.confusion_matrix(), matrix)
        real.delete_evaluation(f"{key}_again")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_its_saved_views_show_what_they_say(real, said):
    test = said.splits["test"]
    pred_N = metrics.topk(test.logits_NC, 1)[:, 0]
    wrong_N = pred_N != test.label_N
    assert 3 < wrong_N.sum() < TEST
    paths = real.match_tags("test").values("filepath")

    def rows(name):
        return [paths.index(path) for path in real.load_saved_view(name).values("filepath")]

    assert rows("misclassified") == np.flatnonzero(wrong_N).tolist()
    surest = real.load_saved_view("wrong with high confidence").values("predictions.confidence")
    told = [one for one in surest if one is not None]
    assert told == sorted(told, reverse=True)
    assert len(surest) == wrong_N.sum()
    unsure = real.load_saved_view("right with low confidence").values("predictions.confidence")
    assert unsure == sorted(unsure)
    assert len(unsure) == (~wrong_N).sum()
    matrix = metrics.confusion(test.logits_NC, test.label_N, len(CLASSES))
    pairs = metrics.worst_pairs(matrix, dataset.PAIRS)
    for place, one in enumerate(pairs, start=1):
        here_N = (test.label_N == one["label"]) & (pred_N == one["pred"])
        assert rows(f"confused {place}") == np.flatnonzero(here_N).tolist()
    assert len(rows("worst confused pairs")) == sum(one["count"] for one in pairs)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hardness_and_map_are_those_of_its_brain(real, said):
    import fiftyone.brain as brain

    readable = real.exists("predictions")
    brain.compute_hardness(readable, "predictions", hardness_field="theirs", progress=False)
    np.testing.assert_allclose(readable.values("theirs"), readable.values("hardness"), atol=1e-5)
    found = real.load_brain_results("embedding_map")
    plane_N2 = dataset.principal_plane(said.features.x_ND)
    np.testing.assert_array_equal(found.points, plane_N2)
    tested = real.match_tags("test").exists("embedding")
    assert list(found.sample_ids) == tested.values("id")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_runs_are_evaluated_beside_each_other(real, said, folder, tmp_path):
    dataset.write(tmp_path / "b", said_of(said.manifest.root, 7, "b" * 64), ABOUT)
    two_runs.write(tmp_path / "pair", folder, tmp_path / "b")
    both = app.load_dataset(tmp_path / "pair", said.manifest.root.parent, "fgvc-test-pair")
    alone = real.match_tags("test").values("eval")
    assert both.match_tags("test").values("eval_aaaaaaaa") == alone
    for name in "ab":
        key = f"eval_{name * 8}"
        written = both.load_evaluation_results(key)
        right = [true == guess for true, guess in zip(written.ytrue, written.ypred, strict=True)]
        assert right == both.match_tags("test").values(key)
        assert len(both.load_brain_results(f"embedding_map_{name * 8}").points) == TEST - 1
    only_a = both.load_saved_view("only aaaaaaaa right")
    assert set(only_a.values("eval_aaaaaaaa")) == {True}
    assert set(only_a.values("eval_bbbbbbbb")) == {False}
    both.delete()


def test_arrays_come_back_from_their_text():
    import base64
    import io
    import zlib

    values = np.arange(6, dtype=np.float16).reshape(2, 3)
    data = zlib.decompress(base64.b64decode(json_documents.pack_array(values)))
    np.testing.assert_array_equal(np.load(io.BytesIO(data)), values)
