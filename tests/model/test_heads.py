"""The heads: equal to plain formulas, initialised by their seed, and restored from a file."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from torch import nn

from fgvc.config.overrides import options
from fgvc.config.schema.fields import NoOptions
from fgvc.config.schema.head import GradientFit, heads
from fgvc.model.build_head import load_head, new_head
from fgvc.model.head.cosine import CosineOptions
from fgvc.model.head.knn import KnnOptions
from fgvc.model.head.mlp import MlpOptions
from fgvc.model.head_layers import (
    CosineHead,
    KnnHead,
    LinearHead,
    MlpHead,
    TextHead,
    TextLinearHead,
)
from fgvc.types import UserError

WIDTH, HIDDEN, CLASSES = 16, 10, 6
FIT = GradientFit(1, 1, [1e-3], [0.0])


def numbers(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype("f4"))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FEATURE_BD = numbers(20, WIDTH, seed=3)
HEADS = {
    "linear": lambda: LinearHead(numbers(CLASSES, WIDTH), numbers(CLASSES)),
    "cosine": lambda: CosineHead(WIDTH, CLASSES, 16.0, generator()),
    "mlp": lambda: MlpHead(WIDTH, HIDDEN, CLASSES, 0.5, generator()).eval(),
    "text": lambda: TextHead(numbers(CLASSES, WIDTH), 100.0),
    "text_linear": lambda: TextLinearHead(numbers(CLASSES, WIDTH), numbers(CLASSES)),
    "knn": lambda: KnnHead(numbers(40, WIDTH), torch.arange(40) % CLASSES, CLASSES, 5, 0.07),
}
CONFS = {
    "linear": NoOptions("linear"),
    "cosine": CosineOptions("cosine", 3.0, FIT),
    "mlp": MlpOptions("mlp", HIDDEN, 0.5, FIT),
    "text": NoOptions("text"),
    "text_linear": NoOptions("text_linear"),
    "knn": KnnOptions("knn", 5, 0.07),
}
LEARNING = [name for name in CONFS if heads()[name].learns]


def test_every_head_has_an_option_and_is_listed_here():
    assert set(HEADS) == set(CONFS) == set(heads()) == set(options("head"))


def test_linear_is_the_affine_map():
    weight_CD, bias_C = numbers(CLASSES, WIDTH).double(), torch.arange(CLASSES).double()
    logits_BC = LinearHead(weight_CD, bias_C)(FEATURE_BD)
    assert logits_BC.dtype == torch.float32
    torch.testing.assert_close(
        logits_BC.double(), FEATURE_BD.double() @ weight_CD.T + bias_C, atol=1e-4, rtol=1e-5
    )


def test_cosine_is_the_scaled_cosine():
    head = CosineHead(WIDTH, CLASSES, 16.0, generator())
    cosine_BC = cosine_similarity(FEATURE_BD.double(), head.weight_CD.detach().double())
    np.testing.assert_allclose(head(FEATURE_BD).detach().numpy(), 16 * cosine_BC, atol=1e-4)


def test_cosine_learns_its_scale_and_keeps_it_positive():
    head = CosineHead(WIDTH, CLASSES, 0.1, generator())
    step = torch.optim.SGD(head.parameters(), lr=10.0)
    for _ in range(20):  # opposite labels: smaller scales are better and better
        label_B = head(FEATURE_BD).argmin(1)
        step.zero_grad()
        nn.functional.cross_entropy(head(FEATURE_BD), label_B).backward()
        head.weight_CD.grad = None
        step.step()
    assert 0 < head.log_scale.exp().item() < 0.1 * 0.9


def test_mlp_is_its_definition():
    head = HEADS["mlp"]()
    plain = nn.Sequential(
        nn.LayerNorm(WIDTH, elementwise_affine=False),
        nn.Linear(WIDTH, HIDDEN),
        nn.GELU(),
        nn.Linear(HIDDEN, CLASSES),
    )
    names = ("1.weight", "1.bias", "3.weight", "3.bias")
    tensors = [value + 0.1 for value in head.state_dict().values()]
    head.load_state_dict(dict(zip(head.state_dict(), tensors, strict=True)))
    plain.load_state_dict(dict(zip(names, tensors, strict=True)))
    torch.testing.assert_close(head(FEATURE_BD), plain(FEATURE_BD))


def test_mlp_drops_hidden_units_while_training_only():
    head = HEADS["mlp"]()
    assert torch.equal(head(FEATURE_BD), head(FEATURE_BD))
    head.train()
    assert not torch.equal(head(FEATURE_BD), head(FEATURE_BD))
    mean_BC = torch.stack([head(FEATURE_BD) for _ in range(3000)]).mean(0)
    torch.testing.assert_close(mean_BC, head.eval()(FEATURE_BD), atol=0.1, rtol=0)


def test_text_is_the_scaled_cosine_of_features_and_names():
    weight_CD = numbers(CLASSES, WIDTH) * 7
    logits_BC = TextHead(weight_CD, 100.0)(FEATURE_BD)
    cosine_BC = cosine_similarity(FEATURE_BD.double(), weight_CD.double())
    np.testing.assert_allclose(logits_BC.numpy(), 100 * cosine_BC, atol=1e-3)
    assert list(TextHead(weight_CD, 100.0).parameters()) == []


def test_text_linear_is_scikit_learns_model_on_unit_features():
    unit_BD = FEATURE_BD.numpy() / np.linalg.norm(FEATURE_BD.numpy(), axis=1, keepdims=True)
    model = LogisticRegression().fit(unit_BD, np.arange(20) % CLASSES)
    head = TextLinearHead(torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_))
    logits_BC = head(FEATURE_BD * 30).detach().numpy()
    np.testing.assert_allclose(logits_BC, model.decision_function(unit_BD), atol=1e-5)


def test_text_linear_with_the_texts_own_weights_is_the_text_head():
    text = TextHead(numbers(CLASSES, WIDTH), 100.0)
    head = TextLinearHead(text.scale * text.weight_CD, torch.zeros(CLASSES))
    torch.testing.assert_close(head(FEATURE_BD), text(FEATURE_BD))


@pytest.mark.parametrize("kind", [name for name in HEADS if name != "linear"])
def test_the_length_of_a_feature_is_ignored(kind):
    head = HEADS[kind]()
    torch.testing.assert_close(head(FEATURE_BD * 100), head(FEATURE_BD), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", [name for name in HEADS if heads()[name].bank is None])
def test_gradients_reach_the_features_and_every_parameter(kind):
    head = HEADS[kind]()
    feature_BD = FEATURE_BD.clone().requires_grad_()
    nn.functional.cross_entropy(head(feature_BD), torch.arange(20) % CLASSES).backward()
    for value in [feature_BD, *head.parameters()]:
        assert value.grad is not None
        assert value.grad.isfinite().all()
        assert value.grad.any()


@pytest.mark.parametrize("kind", HEADS)
def test_logits_are_float32_for_half_precision_features(kind):
    assert HEADS[kind]()(FEATURE_BD.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("kind", HEADS)
def test_a_head_is_restored_from_a_file_bit_for_bit(kind, tmp_path):
    head = HEADS[kind]()
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    before = torch.get_rng_state()
    back = load_head(CONFS[kind], load_file(tmp_path / "head.safetensors"), CLASSES, WIDTH)
    assert type(back) is type(head)
    assert not back.training
    assert torch.equal(torch.get_rng_state(), before)
    assert list(back.state_dict()) == list(head.state_dict())
    for name, value in head.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    assert torch.equal(back(FEATURE_BD), head(FEATURE_BD))


def test_a_stored_bank_is_not_copied():
    state = HEADS["knn"]().state_dict()
    stored = load_head(CONFS["knn"], state, CLASSES, WIDTH).state_dict()
    assert stored["bank_ND"].data_ptr() == state["bank_ND"].data_ptr()


@pytest.mark.parametrize("kind", HEADS)
def test_tensors_of_another_head_are_refused(kind):
    state = HEADS[kind]().state_dict()
    name = next(iter(state))
    for other in ({}, {**state, "more": state[name]}, {**state, name: state[name][..., None]}):
        with pytest.raises(UserError, match=f"^head={kind}: "):
            load_head(CONFS[kind], other, CLASSES, WIDTH)


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_text_head_needs_a_positive_scale(scale):
    state = {**HEADS["text"]().state_dict(), "scale": torch.tensor(scale)}
    with pytest.raises(UserError, match=f"^head.scale={scale}: must be more than 0"):
        load_head(CONFS["text"], state, CLASSES, WIDTH)


@pytest.mark.parametrize("kind", LEARNING)
def test_fresh_follows_the_config_and_the_seed_alone(kind):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = new_head(CONFS[kind], WIDTH, CLASSES, 0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (
        new_head(CONFS[kind], WIDTH, CLASSES, 0),
        new_head(CONFS[kind], WIDTH, CLASSES, 1),
    )
    assert type(first) is type(HEADS[kind]())
    assert {name: value.shape for name, value in first.state_dict().items()} == {
        name: value.shape for name, value in HEADS[kind]().state_dict().items()
    }
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    differs = any(
        not torch.equal(other.state_dict()[name], value)
        for name, value in first.state_dict().items()
    )
    assert differs == (heads()[kind].fit == "gradient")


def test_fresh_heads_start_where_they_should():
    assert not any(
        value.any() for value in new_head(CONFS["linear"], WIDTH, CLASSES, 0).parameters()
    )
    cosine = new_head(CONFS["cosine"], 400, 100, 0)
    assert isinstance(cosine, CosineHead)
    assert cosine.log_scale.exp().item() == pytest.approx(3.0)
    assert cosine.weight_CD.norm(dim=1).mean().item() == pytest.approx(1, abs=0.05)
    mlp = new_head(MlpOptions("mlp", 300, 0.25, FIT), 400, 100, 0)
    assert isinstance(mlp, MlpHead)
    assert mlp.dropout.p == 0.25
    assert mlp.hidden_HD.std().item() == pytest.approx(1 / math.sqrt(400), rel=0.02)
    assert mlp.weight_CH.std().item() == pytest.approx(1 / math.sqrt(300), rel=0.02)


@pytest.mark.parametrize("kind", ["knn", "text"])
def test_fresh_refuses_heads_that_gradients_do_not_train(kind):
    with pytest.raises(UserError, match=f"head={kind} is not trained by gradients"):
        new_head(CONFS[kind], WIDTH, CLASSES, 0)
