"""The trainer: steps equal a plain loop, resumed steps are exact, and errors stop it."""

import copy
import io
import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from timm.utils.model_ema import ModelEmaV3
from torch import nn
from torch.nn.functional import cross_entropy, one_hot

from fgvc.config.compose import composed, typed
from fgvc.learn.train import LoaderBatch, NonFinite, OutOfMemory, Trainer
from fgvc.model.drop_path import RandomLayers, replace_dropout
from fgvc.types import UserError

CLASSES, SIDE, BATCH = 5, 16, 8
CPU = torch.device("cpu")
PLAIN = {
    "batch_size": BATCH,
    "epochs": 2,
    "learning_rate": 0.05,
    "layer_decay": 1.0,
    "weight_decay": 0.02,
    "warmup_steps": 0,
    "final_rate": 1.0,
    "label_smoothing": 0.1,
}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def task(**changes):
    overrides = [f"task.{key}={value}" for key, value in {**PLAIN, **changes}.items()]
    return typed(composed(["task=train", *overrides])).task


def vit(drop_path=0.0):
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=SIDE,
        patch_size=8,
        embed_dim=24,
        depth=2,
        num_heads=2,
        num_classes=CLASSES,
        drop_path_rate=drop_path,
    )
    assert isinstance(model, VisionTransformer)
    return model


def make_trainer(model, precision="fp32", seed=7, **changes):
    layers = RandomLayers()
    replace_dropout(model, layers)

    def draw(row_B, key_B):
        layers.set_keys(key_B)

    choices = (3, CPU, precision, seed)
    return Trainer(model, task(**changes), CLASSES, lambda name: 0, *choices, before_forward=draw)


def make_batch(number, images=BATCH):
    """A global batch in one micro-batch."""
    generator = torch.Generator().manual_seed(number)
    return LoaderBatch(
        torch.randn(images, 3, SIDE, SIDE, generator=generator),
        torch.randint(CLASSES, (images,), generator=generator),
        np.arange(images),
        np.arange(images) + 100 * number,
    )


def split_batch(loader_batch, *sizes):
    parts, start = [], 0
    for size in sizes:
        span = slice(start, start := start + size)
        columns = (
            loader_batch.pixels_BCHW,
            loader_batch.label_B,
            loader_batch.place_B,
            loader_batch.row_B,
        )
        parts.append(LoaderBatch(*(column[span] for column in columns)))
    return parts


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def equal(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def max_difference(first, second):
    return max((first[name] - second[name]).abs().max().item() for name in first)


def plain_optimiser(model, kind):
    flat = [p for p in model.parameters() if p.ndim < 2]
    exempt = [model.cls_token, model.pos_embed]
    rest = [p for p in model.parameters() if p.ndim > 1 and all(p is not q for q in exempt)]
    groups = [
        {"params": flat + exempt, "weight_decay": 0.0},
        {"params": rest, "weight_decay": PLAIN["weight_decay"]},
    ]
    if kind == "sgd":
        return torch.optim.SGD(groups, lr=PLAIN["learning_rate"], momentum=0.9)
    return torch.optim.AdamW(groups, lr=PLAIN["learning_rate"])


def plain_loop(model, kind, clip, batches):
    optimiser, losses = plain_optimiser(model, kind), []
    for loader_batch in batches:
        target_BC = one_hot(loader_batch.label_B, CLASSES).float()
        loss = cross_entropy(model(loader_batch.pixels_BCHW), target_BC, label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimiser.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("clip", [None, 0.5])
def test_steps_equal_a_plain_loop(kind, clip):
    model, plain = vit(), vit()
    clip_norm = "null" if clip is None else clip
    trainer = make_trainer(model, optimiser=kind, clip_norm=clip_norm, momentum=0.9)
    reports = [trainer.step([make_batch(number)]) for number in range(4)]
    losses = plain_loop(plain, kind, clip, [make_batch(number) for number in range(4)])
    assert equal(weights(model), weights(plain))
    assert [r.loss for r in reports] == pytest.approx(losses, rel=3e-7)
    assert [r.step for r in reports] == [0, 1, 2, 3]
    assert {(r.images, r.updated, r.learning_rate) for r in reports} == {(BATCH, True, 0.05)}
    if clip:
        assert reports[0].grad_norm > clip  # so that clipping did something


@pytest.mark.parametrize("mixes", [{}, {"mixup": 0.8, "cutmix": 1.0, "mix_probability": 1.0}])
def test_top1_is_the_share_of_images_classified_as_their_heaviest_label(mixes):
    """The label of the larger share of a mixed image; a linear model makes the oracle simple."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, CLASSES))
    trainer, loader_batch = make_trainer(model, **mixes), make_batch(3, 40)
    mixer = trainer.accumulate.mixer
    pixels_BCHW, target_BC = mixer(
        loader_batch.pixels_BCHW, loader_batch.label_B, loader_batch.place_B, 0
    )
    right_B = model(pixels_BCHW).argmax(1) == target_BC.argmax(1)
    expected = right_B.double().mean().item()
    assert 0 < expected < 1
    assert trainer.step(split_batch(loader_batch, 16, 24)).top1 == pytest.approx(expected)


def test_accumulated_steps_equal_whole_ones():
    unsplit, split = vit(), vit()
    single, accumulated = (
        make_trainer(model, optimiser="sgd", mixup=0.8, cutmix=1.0) for model in (unsplit, split)
    )
    for number in range(4):
        first = single.step([make_batch(number)])
        second = accumulated.step(iter(split_batch(make_batch(number), 4, 2, 2)))
        assert second.loss == pytest.approx(first.loss, abs=1e-6)
        assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-5)
    assert max_difference(weights(unsplit), weights(split)) < 1e-6


def test_a_smaller_batch_is_divided_by_the_images_there():
    """An unreadable image counts in neither sum nor number; clipping follows the division."""
    model, plain = vit(), vit()
    report = make_trainer(model, optimiser="sgd", clip_norm=0.5).step(
        split_batch(make_batch(0), 4, 1)
    )
    (loss,) = plain_loop(plain, "sgd", 0.5, split_batch(make_batch(0), 5))
    assert report.images == 5
    assert report.loss == pytest.approx(loss, rel=1e-6)
    assert max_difference(weights(model), weights(plain)) < 1e-6


def test_a_batch_without_images_moves_nothing():
    model = vit()
    trainer = make_trainer(model, ema=0.9)
    trainer.step([make_batch(0)])
    before, average = weights(model), weights(trainer.evaluated_model())
    report = trainer.step(split_batch(make_batch(1), 0))
    assert (report.images, report.updated) == (0, False)
    assert math.isnan(report.loss)
    assert math.isnan(report.top1)
    assert equal(weights(model), before)
    assert equal(weights(trainer.evaluated_model()), average)


def test_learning_rate_reaches_each_group():
    trainer = Trainer(
        vit(),
        task(learning_rate=0.4, layer_decay=0.5, warmup_steps=3, final_rate=0.0),
        CLASSES,
        lambda name: 2 if name.startswith("head") else 0,
        10,
        CPU,
        "fp32",
        seed=0,
    )
    assert trainer.step([make_batch(0)]).learning_rate == pytest.approx(0.1)
    assert {group["lr"] for group in trainer.optimiser.param_groups} == {0.1, 0.1 * 0.25}


RESUMED: dict[str, Any] = {"mixup": 0.8, "cutmix": 1.0, "ema": 0.9}
RESUMED |= {"momentum": 0.9, "clip_norm": 1.0}


@pytest.mark.fault(5)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_resumed_steps_are_uninterrupted_ones_bit_for_bit(kind):
    trainer = make_trainer(vit(drop_path=0.4), optimiser=kind, warmup_steps=2, **RESUMED)
    file = io.BytesIO()
    reports = []
    for number in range(5):
        if number == 2:
            trainer.best = trainer.best.after(0, 0.5, 1.0)
            torch.save(trainer.state(), file)
        reports.append(trainer.step(split_batch(make_batch(number), 4, 4)))
    other = make_trainer(vit(drop_path=0.4), optimiser=kind, warmup_steps=2, **RESUMED)
    torch.randn(1000)  # where the process's generator stands must not matter
    file.seek(0)
    other.load(torch.load(file, weights_only=True))
    for number in range(2, 5):
        again = other.step(split_batch(make_batch(number), 4, 4))
        assert again.loss == reports[number].loss
        assert again.grad_norm == reports[number].grad_norm
    assert equal(weights(other.unwrapped_model), weights(trainer.unwrapped_model))
    assert equal(weights(other.evaluated_model()), weights(trainer.evaluated_model()))
    assert not equal(weights(trainer.unwrapped_model), weights(trainer.evaluated_model()))
    assert other.best == trainer.best
    assert other.best.epoch == 0


def test_drop_path_follows_from_seed_and_step():
    losses = []
    for seed in (0, 0, 1):
        trainer = make_trainer(vit(0.5), seed=seed, learning_rate=0.0)
        losses.append([trainer.step([make_batch(0)]).loss for _ in range(3)])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    assert len(set(losses[0])) == 3


def test_a_random_layer_that_cannot_draw_per_image_is_refused():
    """Fused attention takes its dropout rate as a number, and draws from the global generator."""
    model = vit()
    dropout = model.get_submodule("blocks.1.attn.attn_drop")
    assert isinstance(dropout, nn.Dropout)
    dropout.p = 0.1
    with pytest.raises(UserError, match=r"backbone.checkpoints.*fused attention") as raised:
        make_trainer(model).step([make_batch(0)])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("ema", ["null", 0.9])
def test_parts_that_were_built_for_evaluation_train_from_the_first_step(ema):
    """The trainer sets the training mode of all parts, even of parts in evaluation mode."""
    unsplit, parts = vit(0.5), vit(0.5)
    parts.blocks.eval()
    assert parts.training
    losses = [
        [(trainer := make_trainer(model, ema=ema)).step([make_batch(0)]).loss]
        for model in (unsplit, parts)
    ]
    assert trainer.unwrapped_model.get_submodule("blocks.0").training
    assert losses[0] == losses[1]


def test_rates_and_decays_after_a_resume_are_the_configs():
    trainer, other = make_trainer(vit()), make_trainer(vit(), weight_decay=0.5, learning_rate=0.01)
    trainer.step([make_batch(0)])
    other.load(copy.deepcopy(trainer.state()))
    assert {group["weight_decay"] for group in other.optimiser.param_groups} == {0.0, 0.5}
    assert other.step([make_batch(1)]).learning_rate == 0.01


def test_average_equals_timms():
    model = vit()
    trainer = make_trainer(model, optimiser="sgd", ema=0.8)
    timm_ema = ModelEmaV3(vit(), decay=0.8)
    for number in range(4):
        trainer.step([make_batch(number)])
        timm_ema.update(model)
    assert max_difference(weights(trainer.evaluated_model()), weights(timm_ema.module)) < 1e-6
    assert max_difference(weights(trainer.evaluated_model()), weights(model)) > 1e-3


def test_without_averages_the_model_itself_is_evaluated():
    model = vit()
    assert make_trainer(model).evaluated_model() is model
    assert make_trainer(torch.compile(model)).evaluated_model() is model


def test_frozen_weights_stay_and_evaluation_mode_ends():
    model = vit()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("head"))
    before = weights(model)
    model.eval()
    make_trainer(model).step([make_batch(0)])
    changed = {
        name for name, value in weights(model).items() if not torch.equal(value, before[name])
    }
    assert changed == {"head.weight", "head.bias"}
    assert model.training


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_the_same_batch(precision):
    trainer = make_trainer(vit(), precision, optimiser="adamw", learning_rate=0.01)
    losses = [trainer.step([make_batch(0)]).loss for _ in range(6)]
    exact = make_trainer(vit(), optimiser="adamw", learning_rate=0.01)
    first = exact.step([make_batch(0)]).loss
    assert losses[0] == pytest.approx(first, rel=0.02)
    assert losses[0] != first
    assert losses[-1] < 0.8 * losses[0]
    assert {value.dtype for value in trainer.unwrapped_model.state_dict().values()} == {
        torch.float32
    }


def test_an_fp16_overflow_halves_the_scale_and_training_continues():
    model = vit()
    trainer = make_trainer(model, "fp16", ema=0.9)
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**60})
    before = weights(model)
    report = trainer.step([make_batch(0)])
    assert math.isfinite(report.loss)
    assert not math.isfinite(report.grad_norm)
    assert not report.updated
    assert equal(weights(model), before)
    assert trainer.scaler.get_scale() == 2.0**59
    trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": 2.0**10})
    assert trainer.step([make_batch(0)]).updated
    assert not equal(weights(model), before)


@pytest.mark.fault(31)
def test_a_loss_that_is_no_number_stops_before_the_weights():
    model = vit()
    trainer = make_trainer(model, ema=0.9)
    trainer.step([make_batch(0)])
    before, average = weights(model), weights(trainer.evaluated_model())
    poisoned = make_batch(1)
    poisoned.pixels_BCHW[5, 0, 0, 0] = math.nan
    with pytest.raises(NonFinite, match="loss is nan at step 1, manifest rows 105:") as raised:
        trainer.step(split_batch(poisoned, 4, 4))
    assert raised.value.rows == (105,)
    assert "\n" not in str(raised.value)
    assert equal(weights(model), before)
    assert equal(weights(trainer.evaluated_model()), average)
    assert trainer.state()["step"] == 1


class InfiniteGradient(nn.Module):
    """A finite loss whose gradient is infinite: the root at zero."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, CLASSES))

    def forward(self, pixels_BCHW):
        return pixels_BCHW.mean((2, 3)) @ self.weight.sqrt()


@pytest.mark.fault(31)
def test_a_gradient_that_is_no_number_stops_too():
    model = InfiniteGradient()
    with pytest.raises(NonFinite, match=r"gradient.*rows 0, 1, 2.* more: lower task.learning_rate"):
        make_trainer(model).step([make_batch(0, 20)])
    assert not model.weight.any()


class OutOfMemoryModel(nn.Linear):
    """Raises the error of a device whose memory is full."""

    def __init__(self, error):
        super().__init__(3, CLASSES)
        self.error = error

    def forward(self, input):
        if self.error is not None:
            raise self.error
        return torch.empty(2**60)  # the allocator's own error


MPS = RuntimeError("MPS backend out of memory (MPS allocated: 8.00 GB, max allowed: 9.07 GB).")


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to"), MPS, MemoryError(), None]
)
def test_memory_that_ran_out_is_one_line_with_a_way_out(error):
    trainer = make_trainer(OutOfMemoryModel(error))
    with pytest.raises(OutOfMemory, match="step 0 with 4 images of 16 px.*micro_batch") as raised:
        trainer.step(split_batch(make_batch(0), 4, 4))
    assert "\n" not in str(raised.value)
    assert "grad_checkpointing=true" in str(raised.value)
    assert raised.value.__cause__ is not None


def test_other_errors_are_raised_unchanged():
    with pytest.raises(RuntimeError, match="shapes"):
        make_trainer(OutOfMemoryModel(RuntimeError("shapes differ"))).step([make_batch(0)])
