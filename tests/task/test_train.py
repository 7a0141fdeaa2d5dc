"""task=train from command to record: training, selection and files."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fgvc.config.compose import composed, typed
from fgvc.model.backbone import build
from fgvc.record import checkpoint, class_means, fitted_images
from fgvc.record.tensorboard import TRAINING
from fgvc.types import WeightsSource

PLAIN = (  # nothing random in a forward, nothing smoothed
    "task.drop_path=0",
    "task.label_smoothing=0",
    "task.auto_augment=none",
    "task.erasing=0",
)


def board(ran):
    return EventAccumulator(str(ran.folder / "tb"), size_guidance={"scalars": 0}).Reload()


def losses(ran):
    return [event.value for event in board(ran).Scalars("train/loss")]


def rows(ran, split="test"):
    table = pq.read_table(ran.folder / "predictions.parquet")
    return table.filter(table["split"].to_numpy() == split)


def tensors(ran):
    stored = checkpoint.read(ran.folder)[0]
    others = (*fitted_images.TENSORS, class_means.MEANS)
    return {name: tensor for name, tensor in stored.items() if name not in others}


def evaluated(run, fitted, *more):
    again = run("task=eval", f'checkpoint="{fitted.folder}"', "runtime.stack_check=false", *more,
                bare=True)  # fmt: skip
    assert again.code == 0, again.err
    return again


# --- every family, every head ---


@pytest.mark.parametrize(
    ("family", "head"),
    [("vit", "cosine"), ("dinov2", "mlp"), ("clip", "text_linear"), ("siglip2", "linear")],
)
def test_eval_repeats_every_logit_of_every_family_and_head(finetune, run, family, head):
    more = ("head.hidden=16",) if head == "mlp" else ()
    fitted = finetune(f"backbone={family}", f"head={head}", "task.epochs=1", *more)
    assert fitted.code == 0, fitted.err
    again = evaluated(run, fitted)
    assert rows(again).equals(rows(fitted))
    assert again.json("metrics.json")["test"] == fitted.json("metrics.json")["test"]
    assert "Learning curves" not in (again.folder / "report.html").read_text()
    before = typed(composed([f"backbone={family}", "backbone.size=mini", f"head={head}",
                             "backbone.pretrained=false"]))  # fmt: skip
    fresh = build(before.backbone, 224, WeightsSource("random", "x"), 0).state_dict()
    moved = [
        name
        for name, value in fresh.items()
        if not torch.equal(value, tensors(fitted)[f"backbone.{name}"])
    ]
    assert len(moved) > 0.9 * len(fresh)  # the backbone learns too, not the head alone


def test_a_finetuned_checkpoint_does_not_need_its_initial_weights(finetune, run, tmp_path):
    conf = typed(composed(["backbone=vit", "backbone.size=mini", "backbone.pretrained=false"]))
    began = build(conf.backbone, 224, WeightsSource("random", "x"), seed=9).trunk.state_dict()
    file = tmp_path / "began.pth"
    torch.save(began, file)
    cache = f"runtime.cache_root={tmp_path / 'cache'}"
    fitted = finetune(
        "task.epochs=1", "backbone.pretrained=true", f"backbone.weights={file}", cache
    )
    assert fitted.code == 0, fitted.err
    digest = fitted.json("env_stamp.json")["weights_digest"]
    assert digest is not None
    file.unlink()
    shutil.rmtree(tmp_path / "cache")
    again = evaluated(run, fitted, f"runtime.cache_root={tmp_path / 'other'}")
    assert rows(again).equals(rows(fitted))
    assert again.json("env_stamp.json")["weights_digest"] == digest


# --- the record ---


def test_the_record_of_a_finetune_depends_only_on_the_seed(finetune):
    fitted = finetune()
    assert fitted.code == 0, fitted.err
    metrics = fitted.json("metrics.json")
    assert metrics["test_reads"] == 1
    assert (metrics["test"]["n"], metrics["val"]["n"], metrics["last"]["val"]["n"]) == (12, 6, 6)
    selection = metrics["selection"]
    assert selection["best_step"] == 3 * selection["best_epoch"]
    assert (selection["epochs"], selection["steps"], selection["select"]) == (3, 9, "top1")
    assert metrics["resumed"] is None
    assert metrics["fitted_on"] == 12
    assert len(rows(fitted)) == 12
    assert len(set(rows(fitted)["path"].to_pylist())) == 12
    stamp = fitted.json("env_stamp.json")
    assert (stamp["world_size"], stamp["launch"]) == (1, "one process")
    assert fitted.json("status.json")["state"] == "done"
    assert not list(fitted.folder.parent.rglob("*resume*"))

    events = board(fitted)
    tags = set(events.Tags()["scalars"])
    assert tags == set(TRAINING)
    assert [event.step for event in events.Scalars("val/top1")] == [3, 6, 9]
    (test,) = events.Scalars("test/top1")
    assert (test.step, test.value) == (
        selection["best_step"],
        pytest.approx(metrics["test"]["top1"]),
    )
    assert "view/training" in events.Tags()["images"]
    best = {event.step: event.value for event in events.Scalars("val/loss")}
    assert best[selection["best_step"]] == pytest.approx(metrics["val"]["loss"])
    assert best[9] == pytest.approx(metrics["last"]["val"]["loss"])
    page = (fitted.folder / "report.html").read_text()
    curves = re.findall(r'class="curve" points="([^"]+)"', page.partition("Learning curves")[2])
    assert [len(curve.split()) for curve in curves] == [1, 3, 3, 1]  # a point each ten steps

    again, other = finetune(), finetune("seed=1")
    assert again.folder.name == fitted.folder.name
    assert (again.folder / "ckpt.bin").read_bytes() == (fitted.folder / "ckpt.bin").read_bytes()
    assert other.folder.name != fitted.folder.name
    assert not torch.equal(tensors(other)["head.weight_CD"], tensors(fitted)["head.weight_CD"])


# --- honest selection ---


@pytest.fixture
def listed(birds, tmp_path):
    """listed(turn) -> overrides for a table of birds with test labels rotated by `turn` rows."""

    def table(turn):
        columns = ("images.txt", "image_class_labels.txt", "train_test_split.txt")
        path, label, train = (
            [line.split()[1] for line in (birds / name).open()] for name in columns
        )
        test = [place for place, is_train in enumerate(train) if is_train == "0"]
        turned = dict(zip(test, np.roll([label[place] for place in test], turn), strict=True))
        lines = [
            f"{path[place]},{turned.get(place, label[place])},"
            f"{'train' if train[place] == '1' else 'test'}"
            for place in range(len(path))
        ]
        file = tmp_path / f"turned by {turn}" / "birds.csv"
        file.parent.mkdir()
        file.write_text("\n".join(["path,label,split", *lines]) + "\n")
        return "dataset=table", f'dataset.table="{file}"', f"dataset.root={birds / 'images'}"

    return table


def test_test_labels_decide_nothing(finetune, listed):
    """Rotating them changes the test numbers but no weight."""
    usual = ("dataset.subset=null", "task.epochs=2", "task.batch_size=16")
    honest, turned = finetune(*listed(0), *usual), finetune(*listed(7), *usual)
    assert (honest.code, turned.code) == (0, 0), honest.err + turned.err
    honest_metrics, turned_metrics = honest.json("metrics.json"), turned.json("metrics.json")
    assert honest_metrics["selection"] == turned_metrics["selection"]
    assert honest_metrics["val"] == turned_metrics["val"]
    assert honest_metrics["test"] != turned_metrics["test"]
    assert rows(honest)["label"] != rows(turned)["label"]
    assert rows(honest)["logits"] == rows(turned)["logits"]
    tensors_a, tensors_b = tensors(honest), tensors(turned)
    assert all(torch.equal(tensors_a[name], tensors_b[name]) for name in tensors_a)


def test_trainval_learns_from_validation_and_reports_the_last(finetune):
    fitted = finetune("final_fit=trainval", "task.epochs=2")
    assert fitted.code == 0, fitted.err
    metrics = fitted.json("metrics.json")
    assert "val" not in metrics
    assert metrics["last"] is None
    assert metrics["fitted_on"] == 18
    assert (metrics["selection"]["best_epoch"], metrics["selection"]["best_step"]) == (None, 8)
    assert metrics["selection"]["select"] is None
    assert not [
        tag for tag in board(fitted).Tags()["scalars"] if tag.startswith(("val/", "select/"))
    ]


def test_patience_stops_early_and_keeps_the_best(finetune):
    """At a rate of 0 no epoch is better than the first."""
    fitted = finetune("task.learning_rate=0", "task.patience=2", "task.epochs=9")
    assert fitted.code == 0, fitted.err
    metrics = fitted.json("metrics.json")
    assert metrics["selection"]["stopped_early"] is True
    assert (metrics["selection"]["best_epoch"], metrics["selection"]["epochs"]) == (1, 3)
    assert metrics["last"]["val"].items() <= metrics["val"].items()


def test_a_training_that_ends_in_warm_up_or_leaves_images_out_says_so(finetune):
    """12 training images: one step of 9 in an epoch, where the peak would come after 4 steps."""
    fitted = finetune("task.epochs=1", "task.batch_size=9", "task.warmup_steps=4")
    assert fitted.code == 0, fitted.err
    warm_up, undrawn = (
        "task.warmup_steps=4: the training has 1 step, so the learning rate ends at 0.0001, below ",
        "task.batch_size=9: 3 of 12 training images are in no batch, ",
    )
    notes = fitted.json("metrics.json")["notes"]
    assert [sum(note.startswith(text) for note in notes) for text in (warm_up, undrawn)] == [1, 1]
    before, _, after = fitted.out.partition("epoch 1/1")
    assert warm_up in before
    assert warm_up in after
    trained = finetune().json("metrics.json")["notes"]  # 9 steps of 4 images
    assert not [note for note in trained if note.startswith("task.")]


@pytest.mark.slow
def test_the_weights_of_the_best_epoch_are_reported_not_the_last(finetune, run):
    """At a destructive rate, best and last differ, and eval repeats the best."""
    ruin = ("task.learning_rate=1", "task.optimiser=sgd", "task.clip_norm=null", "task.epochs=4")
    fitted = finetune("task.select=loss", *PLAIN, *ruin, "task.warmup_steps=0")
    assert fitted.code == 0, fitted.err
    metrics = fitted.json("metrics.json")
    loss = [event.value for event in board(fitted).Scalars("val/loss")]
    assert metrics["selection"]["best_epoch"] == 1 + int(np.argmin(loss)) < 4
    assert metrics["val"]["loss"] == pytest.approx(min(loss), rel=1e-5)
    assert metrics["last"]["val"]["loss"] == pytest.approx(loss[-1], rel=1e-5)
    assert rows(evaluated(run, fitted)).equals(rows(fitted))


# --- sanity ---


@pytest.mark.slow
def test_one_batch_is_overfitted(finetune):
    fitted = finetune(
        "task.debug=overfit",
        "task.epochs=80",
        "task.batch_size=8",
        "task.learning_rate=3e-3",
        "task.drop_path=0",
        "task.label_smoothing=0",
    )
    assert fitted.code == 0, fitted.err
    curve = losses(fitted)
    assert curve[0] > 1.5
    assert curve[-1] < 0.05
    assert fitted.json("metrics.json")["fitted_on"] == 8


def same_results(first, second, atol=1e-4):
    assert second.folder.parent.name == first.folder.parent.name  # the same question
    assert losses(second) == pytest.approx(losses(first), abs=1e-5)
    for name, value in tensors(first).items():
        torch.testing.assert_close(tensors(second)[name], value, atol=atol, rtol=0)
    np.testing.assert_allclose(
        np.array(rows(second)["logits"].to_pylist()),
        np.array(rows(first)["logits"].to_pylist()),
        atol=atol,
    )


CUT = (  # a batch of 10 in micro-batches of 3, or of 1: no cut keeps pairs together
    "task.optimiser=sgd",
    "task.learning_rate=0.02",
    "task.epochs=2",
    "task.batch_size=10",
    "task.drop_path=0.4",
    "head=mlp",
    "head.hidden=16",
    "head.dropout=0.3",
)


@pytest.mark.parametrize(
    ("size", "more"),
    [
        (3, ("task.mixup=0.8", "task.cutmix=1.0", "task.mix_probability=1.0", "task.ema=0.9")),
        (1, ("part_attention=transfg", "part_attention.contrastive=1", "task.clip_norm=null")),
    ],
    ids=["mixed", "contrastive"],
)
def test_micro_batches_change_no_prediction(finetune, size, more):
    """Drop path, dropout, mixed pairs and the contrastive loss; 12 images, one step per epoch."""
    uncut, cut = (
        finetune(*CUT, *more, f"runtime.micro_batch={number}") for number in ("null", size)
    )
    assert (uncut.code, cut.code) == (0, 0), uncut.err + cut.err
    same_results(uncut, cut)


def test_micro_batches_change_no_prediction_if_an_image_is_drawn_twice(finetune):
    """task.debug=overfit draws its batch balanced over the classes that occur in it."""
    usual = ("task.debug=overfit", "task.sampling=class_balanced", "task.batch_size=8")
    usual += ("task.optimiser=sgd", "task.drop_path=0.4", "task.mixup=0.8")
    uncut, cut = (finetune(*usual, f"runtime.micro_batch={size}") for size in ("null", 2))
    assert (uncut.code, cut.code) == (0, 0), uncut.err + cut.err
    same_results(uncut, cut)


@pytest.mark.slow
def test_options_of_memory_and_speed_change_no_loss(finetune):
    """Micro-batches and recomputed blocks, compared with the whole batch at once."""
    usual = ("task.drop_path=0.3", "task.mixup=0.8", "task.ema=0.9", "task.epochs=1")
    plain = finetune(*usual)
    again = finetune(*usual, "runtime.grad_checkpointing=true", "runtime.micro_batch=2")
    assert (plain.code, again.code) == (0, 0), plain.err + again.err
    same_results(plain, again)


def test_half_precision_learns_and_keeps_weights_whole(finetune, run):
    fitted = finetune("precision=bf16", "task.epochs=1")
    assert fitted.code == 0, fitted.err
    assert all(value.dtype == torch.float32 for value in tensors(fitted).values())
    assert rows(evaluated(run, fitted)).equals(rows(fitted))
    full = finetune("task.epochs=1")
    learnt = full.json("metrics.json")["val"]["loss"]
    assert fitted.json("metrics.json")["val"]["loss"] == pytest.approx(learnt, abs=0.02)
    assert fitted.json("metrics.json")["val"]["loss"] != learnt
