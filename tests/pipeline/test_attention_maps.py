"""The attention of part selection: in the results of every task, the record and TensorBoard."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fgvc import metrics
from fgvc.config.compose import composed, typed
from fgvc.data.decode import upright_size
from fgvc.data.preprocess import evaluation_transform
from fgvc.model.classifier import Classifier
from fgvc.model.part_attention import SCORED, Selection
from fgvc.pipeline import inference, write_run
from fgvc.pipeline.inference import (
    InferenceResults,
    append_columns,
    concat_results,
    split_columns,
)
from fgvc.pipeline.localization import draw_overlay
from fgvc.record import image_overlay
from fgvc.record.tensorboard import KEYS, PARTS, TRAINING
from fgvc.types import AttentionMaps, BadImage, Features
from tests.narrow import not_none

# 16 patches; nothing here is about how well anything is learnt
SMALL = ("resolution.side=64", "resolution.name=r64", "runtime.stack_check=false")
MINI = ("backbone=vit", "backbone.size=mini", *SMALL)
PROBE = (*MINI, "head=knn", "head.k=3")
TRAIN = (*MINI, "task=train", "task.epochs=1", "task.batch_size=16", "task.drop_path=0")
TEST = 30  # test images of the synthetic birds here


@pytest.fixture
def outcomes(monkeypatch) -> list:
    """Collects every (experiment, outcome) that is written, without changing it."""
    recorded, write = [], write_run.write_run

    def record(experiment, results):
        recorded.append((experiment, results))
        return write(experiment, results)

    monkeypatch.setattr(write_run, "write_run", record)
    return recorded


@pytest.fixture
def forwards(monkeypatch) -> list[int]:
    """Number of images per forward pass of a classifier in evaluation."""
    batch_sizes, forward = [], Classifier.with_features

    def counted(self, pixels_BCHW):
        batch_sizes.extend([len(pixels_BCHW)] * (not self.training))
        return forward(self, pixels_BCHW)

    monkeypatch.setattr(Classifier, "with_features", counted)
    return batch_sizes


def same(first, second) -> None:
    for name in ("row_N", "index_NK", "score_NG"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.grid == second.grid


def parts_of(ran):
    assert ran.code == 0, ran.err
    return ran.json("metrics.json")["parts"]


def tags_of(ran):
    events = EventAccumulator(str(ran.folder / "tb"), size_guidance={"images": 0}).Reload()
    tags = events.Tags()
    scalars = {tag for tag in tags["scalars"] if not tag.startswith("hparam/")}
    return scalars, {tag for tag in tags["images"] if tag.startswith("view/overlays/")}, events


# --- columns ---


@pytest.mark.parametrize("scores", [True, False])
@pytest.mark.parametrize("choice", ["off", "transfg", "rollout", "random"])
def test_columns_are_split_as_they_were_joined(monkeypatch, choice, scores):
    monkeypatch.setattr(inference, "CHUNK", 2)
    conf = typed(composed(["backbone=vit_tiny", f"part_attention={choice}"]))
    rng = np.random.default_rng(0)
    x_ND = rng.normal(size=(5, 192)).astype(np.float32)
    index_NK = rng.integers(0, 196, (5, 3))
    score = torch.from_numpy(rng.random((5, 3, 196) if choice == "transfg" else (5, 196)))
    scores_kept = score.float() if choice in SCORED else None
    selection = None if choice == "off" else Selection(torch.from_numpy(index_NK), scores_kept)
    columns_ND = append_columns(torch.from_numpy(x_ND), selection, scores).numpy()
    assert columns_ND.dtype == np.float32
    features, maps = split_columns(Features(columns_ND, np.arange(5)), conf, scores)
    np.testing.assert_array_equal(features.x_ND, x_ND)
    assert features.x_ND.flags.c_contiguous
    assert np.shares_memory(features.x_ND, columns_ND)  # a copy may fill gigabytes
    if choice == "off":
        assert maps is None
        return
    maps = not_none(maps)
    np.testing.assert_array_equal(maps.index_NK, index_NK)
    assert (maps.index_NK.dtype, maps.grid) == (np.int64, 14)
    if not (scores and choice in SCORED):
        assert maps.score_NG is None
        return
    heads = score.numpy() if choice == "transfg" else score.numpy()[:, None]
    np.testing.assert_allclose(not_none(maps.score_NG), heads.mean(1), rtol=1e-6)


def rank_results(row_N, columns=5, bad=()):
    """The result of a rank that classified these rows; `bad` are unreadable."""
    every_N = np.array([*row_N, *(image.row for image in bad)], np.int64)
    label_N, logits_NC = np.zeros(len(every_N), np.int64), np.ones((len(every_N), 3))
    predictions = metrics.from_logits(every_N, label_N, logits_NC)
    width = columns if len(row_N) else 0
    features = Features(np.ones((len(row_N), width)), np.array(row_N, np.int64), bad)
    maps = AttentionMaps(features.row_N, np.ones((len(row_N), 2)), None, 4) if len(row_N) else None
    return InferenceResults(predictions, features, maps)


def test_results_of_ranks_are_concatenated_in_order_also_of_a_rank_that_read_nothing():
    bad = (BadImage(7, "torn"),)
    results = concat_results([rank_results([1, 4]), rank_results([], bad=bad), rank_results([9])])
    assert results.predictions.row_N.tolist() == [1, 4, 7, 9]
    assert not_none(results.predictions.logits_NC).shape == (4, 3)
    assert results.features is not None
    assert results.features.row_N.tolist() == [1, 4, 9]
    assert (results.features.x_ND.shape, results.features.bad) == ((3, 5), bad)
    assert results.attention_maps is not None
    assert results.attention_maps.row_N.tolist() == [1, 4, 9]
    assert results.attention_maps.index_NK.shape == (3, 2)
    assert concat_results([InferenceResults(results.predictions)]).features is None


# --- every task ---


@pytest.mark.parametrize("choice", ["off", "transfg"])
def test_a_probe_a_cached_probe_and_its_evaluation_select_the_same_patches(run, outcomes, choice):
    chosen = (*PROBE, f"part_attention={choice}")
    first, second = run(*chosen), run(*chosen, "head.k=4")
    again = run("task=eval", f'checkpoint="{first.folder}"', SMALL[-1], bare=True)
    assert [ran.code for ran in (first, second, again)] == [0, 0, 0]
    assert [ran.json("metrics.json")["test_reads"] for ran in (first, second, again)] == [1, 1, 1]
    forwarded = [ran.json("metrics.json")["cost"]["forwarded"] for ran in (first, second, again)]
    assert forwarded[1:] == [0, 0]
    (experiment, first_outcome), *others = outcomes
    np.testing.assert_array_equal(first_outcome.features.row_N, experiment.dataset.split.test_N)
    assert (first_outcome.features.x_ND.shape, first_outcome.features.x_ND.dtype) == (
        (TEST, 64),
        np.float32,
    )
    for _, other in others:
        np.testing.assert_array_equal(other.features.x_ND, first_outcome.features.x_ND)
    if choice == "off":
        assert [outcome.attention_maps for _, outcome in outcomes] == [None] * 3
        assert "parts" not in first.json("metrics.json")
        assert not (first.folder / "overlays").exists()
        return
    np.testing.assert_array_equal(
        first_outcome.attention_maps.row_N, experiment.dataset.split.test_N
    )
    assert first_outcome.attention_maps.grid == 4
    for _, other in others:
        same(first_outcome.attention_maps, other.attention_maps)
    score_NG, rows = first_outcome.attention_maps.score_NG, np.arange(TEST)[:, None]
    assert score_NG.shape == (TEST, 16)
    assert (score_NG.sum(1) < 1).all()  # what the class token keeps to itself is the rest
    if first_outcome.attention_maps.index_NK.shape[1] == 1:
        np.testing.assert_array_equal(
            first_outcome.attention_maps.index_NK[:, 0], score_NG.argmax(1)
        )
    assert (score_NG[rows, first_outcome.attention_maps.index_NK].max(1) > score_NG.mean(1)).all()


def test_attention_maps_of_a_finetune_need_no_second_forward(run, outcomes, forwards):
    ran = run(*TRAIN, "part_attention=transfg")
    assert ran.code == 0, ran.err
    experiment, outcome = outcomes[0]
    val = len(experiment.dataset.split.val_N)
    assert sum(forwards) == 3 * val + TEST  # an epoch, the last, the chosen; test once
    assert ran.json("metrics.json")["test_reads"] == 1
    again = run("task=eval", f'checkpoint="{ran.folder}"', SMALL[-1], bare=True)
    assert again.code == 0, again.err
    assert sum(forwards) == 3 * val + 2 * TEST
    same(outcome.attention_maps, outcomes[1][1].attention_maps)
    np.testing.assert_array_equal(outcome.features.x_ND, outcomes[1][1].features.x_ND)
    np.testing.assert_array_equal(outcome.features.row_N, experiment.dataset.split.test_N)
    assert parts_of(ran) == parts_of(again)
    scalars, _, events = tags_of(ran)
    assert scalars <= {*TRAINING, *PARTS}
    assert scalars >= set(PARTS)
    (point,) = events.Scalars("parts/in_box")
    assert point.step == ran.json("metrics.json")["selection"]["best_step"]


def test_zero_shot_records_attention_maps(run, outcomes):
    chosen = ("backbone=clip", "backbone.size=mini", *SMALL, "part_attention=transfg")
    ran = run("task=zero_shot", *chosen)
    assert len(parts_of(ran)) == 4
    ((job, outcome),) = outcomes
    np.testing.assert_array_equal(outcome.attention_maps.row_N, job.dataset.split.test_N)
    assert len(outcome.features.x_ND) == TEST


# --- the record ---


def test_the_record_states_the_places_of_the_patches_by_an_independent_count(run, outcomes):
    ran = run(*PROBE, "part_attention=transfg", "part_attention.stride=12", "preprocess=transfg")
    parts = parts_of(ran)
    ((job, outcome),) = outcomes
    manifest, maps = job.dataset.manifest, outcome.attention_maps
    assert maps.grid == 5
    inside = []
    for row, index_K in zip(maps.row_N.tolist(), maps.index_NK.tolist(), strict=True):
        with Image.open(manifest.root / manifest.path[row]) as image:
            width, height = image.size
        x, y, w, h = manifest.box_N4[row].tolist()
        for index in index_K:  # squashed to 86 x 86 pixels; the network sees the central 64 x 64
            across, down = ((11 + 12 * n + 8) / 86 for n in (index % 5, index // 5))
            inside.append(x <= across * width <= x + w and y <= down * height <= y + h)
    assert parts["transfg"]["in_box"] == {"value": pytest.approx(np.mean(inside)), "images": TEST}
    assert parts["tokens"] == maps.index_NK.shape[1]
    assert set(parts) == {"transfg", "random", "centre", "tokens"}
    for name in ("random", "centre"):
        assert set(parts[name]) == {tag.removeprefix("parts/") for tag in PARTS}
        assert parts[name]["in_box"]["images"] == TEST
    scalars, _, events = tags_of(ran)
    assert scalars <= {*KEYS, *PARTS}
    assert scalars >= set(PARTS)
    (point,) = events.Scalars("parts/in_box")
    assert (point.step, point.value) == (0, pytest.approx(np.mean(inside)))
    assert f"% of {parts['tokens']} patches inside the box: transfg " in ran.out


def test_the_controls_and_the_images_are_the_same_for_any_selection(run):
    fixed = ("part_attention.tokens=3", "seed=4")
    runs = [
        run(*PROBE, f"part_attention={choice}", *fixed)
        for choice in ("cls_topk", "random", "centre")
    ]
    scored, random, centre = map(parts_of, runs)
    assert random["random"] == scored["random"] == centre["random"]
    assert centre["centre"] == scored["centre"] == random["centre"]
    assert random["random"] != centre["centre"]
    assert set(random) == {"random", "centre", "tokens"}
    tested = (runs[0].folder / "splits" / "test.txt").read_text().split("\n")
    fixed = [tested[0], tested[14], tested[29]]
    for ran in runs:  # the most confident errors of this run, and the same images as in the others
        rows = pq.read_table(ran.folder / "predictions.parquet").to_pylist()
        errors = [row for row in rows if row["split"] == "test" and row["pred"] != row["label"]]
        errors.sort(key=lambda row: (-row["confidence"], row["path"]))
        wrong = [row["path"] for row in errors]
        others = [path for path in wrong if path not in fixed][:5]
        paths = [path for path in wrong if path in {*fixed, *others}]
        paths += [path for path in fixed if path not in wrong]
        assert len(paths) == 8
        names = [f"{n:02d}-{path.split('/')[-1][:-4]}" for n, path in enumerate(paths)]
        assert sorted(path.stem for path in (ran.folder / "overlays").glob("*.png")) == names
        assert tags_of(ran)[1] == {f"view/overlays/{name}" for name in names}
        drawn = ran.json("overlays/images.json")
        assert [drawn[f"{name}.png"]["path"] for name in names] == paths


def test_an_image_that_cannot_be_read_and_images_without_boxes(
    run, outcomes, tmp_path, jpeg, monkeypatch
):
    """The titles of the overlays hold the class names as people read them."""
    titles: list[tuple[str, str | None]] = []
    title = image_overlay.title

    def noted(predicted: str, probability: float, true: str | None = None) -> str:
        titles.append((predicted, true))
        return title(predicted, probability, true)

    monkeypatch.setattr(image_overlay, "title", noted)
    for number in range(24):
        part = "train" if number % 4 else "test"
        file = (
            tmp_path
            / "birds"
            / part
            / f"{number % 3:03d}.class_{number % 3}"
            / f"{'ö' * 70}{number:02d}.jpg"
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"torn" if number == 12 else jpeg(number))
    folder = ("dataset=folder", f"dataset.root={tmp_path / 'birds'}", "dataset.on_bad_image=skip")
    ran = run(*PROBE, *folder, "part_attention=transfg", birds=False)
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["test"]["unreadable"] == 1
    ((job, outcome),) = outcomes
    torn = outcome.features.bad[0].row
    expected = [row for row in job.dataset.split.test_N.tolist() if row != torn]
    assert outcome.attention_maps.row_N.tolist() == outcome.features.row_N.tolist() == expected
    assert "parts" not in ran.json("metrics.json")
    scalars, images, _ = tags_of(ran)
    assert not scalars & set(PARTS)
    names = {path.stem for path in (ran.folder / "overlays").glob("*.png")}
    assert images == {f"view/overlays/{name}" for name in names}
    assert names == {f"{number:02d}-{'ö' * 50}" for number in range(5)}
    assert {true for _, true in titles} == {"class 0", "class 1", "class 2"}
    assert {predicted for predicted, _ in titles} <= {"class 0", "class 1", "class 2"}


# --- overlays ---


@pytest.mark.parametrize("size", [(500, 200), (200, 500), (300, 290)])
@pytest.mark.parametrize("policy", ["shared", "transfg"])
@pytest.mark.parametrize("stride", ["null", "12", "5"])
def test_heat_and_frame_are_at_the_planted_bright_patch(size, policy, stride):
    """The planted square is found on the grid of the network, and drawn in the right place."""
    chosen = ["backbone=vit_tiny", "part_attention=rollout", f"part_attention.stride={stride}"]
    conf = typed(composed([*chosen, f"preprocess={policy}", "backbone.pretrained=false"]))
    width, height = size
    image_CHW = torch.zeros(3, height, width, dtype=torch.uint8)
    x, y, side = round(0.6 * width), round(0.35 * height), 24
    image_CHW[:, y : y + side, x : x + side] = 255
    seen_CHW = evaluation_transform(conf)(image_CHW).float()
    step = 16 if stride == "null" else int(stride)
    bright_RR = torch.nn.functional.avg_pool2d(seen_CHW.mean(0)[None], 16, step)[0].numpy()
    score_G = bright_RR.ravel().astype(np.float32)
    drawn = draw_overlay(image_CHW, conf, "", np.array([score_G.argmax()]), score_G)
    dark = image_overlay.Overlay(
        np.zeros_like(drawn.image_HWC),
        "",
        np.empty((0, 4)),
        drawn.seen,
        drawn.heat_RR,
        drawn.tiled,
    )
    heat_HW = np.asarray(Image.open(io.BytesIO(image_overlay.png(dark))))[-height:, :width].astype(
        float
    )
    red_HW = heat_HW[..., 0]  # of the colours on black, only hot ones are red
    weight_HW = np.where(red_HW > 0.7 * red_HW.max(), 1.0, 0.0)
    middle = (weight_HW * np.arange(width)).sum() / weight_HW.sum() + 0.5
    centre = (weight_HW.T * np.arange(height)).sum() / weight_HW.sum() + 0.5
    # network pixels in the image's: an overlapping grid may be off by half its stride
    _, _, *seen = not_none(drawn.seen)
    across, down = (length / 224 for length in seen)
    assert abs(middle - (x + side / 2)) <= (step / 2 + 0.5) * across
    assert abs(centre - (y + side / 2)) <= (step / 2 + 0.5) * down
    patch = drawn.patch_K4[0]
    assert abs(patch[0] + patch[2] / 2 - (x + side / 2)) <= (step / 2 + 8) * across
    assert abs(patch[1] + patch[3] / 2 - (y + side / 2)) <= (step / 2 + 8) * down


def test_a_box_that_images_are_cut_to_moves_what_is_drawn():
    conf = typed(composed(["backbone=vit_tiny", "part_attention=centre"]))
    image_CHW = torch.zeros(3, 300, 400, dtype=torch.uint8)
    box_4 = np.array([100.0, 50, 80, 80])
    drawn = draw_overlay(image_CHW, conf, "", np.array([0]), None, box_4)
    left, top, width, height = not_none(drawn.seen)
    assert (left, top) > (100, 50)
    assert left + width < 180
    assert top + height < 130
    np.testing.assert_allclose(drawn.patch_K4[0, :2], [left, top])


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_header_alone_gives_the_size_that_is_decoded(turn, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as image:
        assert upright_size(image) == ((30, 40) if turn >= 5 else (40, 30))
