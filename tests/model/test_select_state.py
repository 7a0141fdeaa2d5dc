"""The part of a training checkpoint that is read, the refused ones, and their messages."""

import contextlib
import shlex
import shutil
from argparse import Namespace

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from fgvc.model.backbone import build, text_tower, weights
from fgvc.types import UserError


@pytest.fixture(scope="module")
def state(saved):
    """As published, with a classifier."""
    return torch.load(saved("vit"), weights_only=True)


def _shift(state, by):
    return {key: value + by for key, value in state.items()}


def _add_prefix(prefix, state):
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.fixture
def build_from(conf, tmp_path):
    """build_from(content) -> the backbone of a file with this content."""

    def make(content, family="vit"):
        torch.save(content, tmp_path / "w.pth")
        backbone_conf = conf(family, weights=str(tmp_path / "w.pth"))
        return build(backbone_conf, 224, weights.find(backbone_conf), seed=0)

    return make


def _has_values_of(backbone, state):
    expected_model = backbone.trunk.state_dict()
    return all(torch.equal(expected_model[key], state[key]) for key in expected_model)


EMA = {
    "timm": lambda state, ema: {"state_dict": state, "state_dict_ema": ema, "epoch": 3},
    "timm, wrapped": lambda state, ema: {
        "arch": "vit",
        "args": Namespace(lr=0.1, mean=(0.5, 0.5, 0.5)),
        "state_dict_ema": _add_prefix("module._orig_mod.", ema),
        "state_dict": _add_prefix("module.", state),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "metric": torch.tensor(71.5).numpy().max(),
    },
    "deit": lambda state, ema: {"model": state, "model_ema": ema, "args": Namespace()},
}


@pytest.mark.parametrize("form", EMA)
def test_the_ema_is_read_as_by_timm(build_from, state, tmp_path, form):
    content = EMA[form](state, _shift(state, 1.0))
    content.pop("metric", None)  # timm refuses it
    backbone = build_from(content)
    expected_model = timm.create_model("shallow_vit", num_classes=1000)
    timm.models.load_checkpoint(expected_model, str(tmp_path / "w.pth"), use_ema=True)
    assert _has_values_of(backbone, expected_model.state_dict())
    (note,) = backbone.notes
    assert "the EMA, as timm does; ignored: `" in note
    assert note.startswith("weights w.pth: read from `")


def test_numpy_scalars_and_options_beside_the_tensors_do_not_matter(build_from, state):
    content = EMA["timm, wrapped"](state, _shift(state, 1.0))
    assert type(content["metric"]).__module__ == "numpy"
    assert _has_values_of(build_from(content), _shift(state, 1.0))


MORE_EMA = {
    "nested": lambda state, ema: {"model": state, "model_ema": {"module": ema, "decay": 0.9}},
    "ema": lambda state, ema: {"model": state, "ema": ema, "updates": 4},
    "flat": lambda state, ema: {
        "state_dict": _add_prefix("model.", state) | _add_prefix("ema_model.", ema)
    },
    "parameters": lambda state, ema: {
        "model": state,
        "ema_state_dict": {key: nn.Parameter(value) for key, value in ema.items()},
    },
}


@pytest.mark.parametrize("form", MORE_EMA)
def test_the_ema_of_other_programs_is_read_too(build_from, state, form):
    backbone = build_from(MORE_EMA[form](state, _shift(state, 1.0)))
    assert _has_values_of(backbone, _shift(state, 1.0))
    assert "ema" in backbone.notes[0]


def test_an_empty_ema_is_no_ema(build_from, state):
    backbone = build_from({"state_dict": state, "state_dict_ema": {}})
    assert _has_values_of(backbone, state)
    assert "`state_dict`" in backbone.notes[0]


WRAPPED = {  # form, path in the note
    "compiled": (lambda state: _add_prefix("_orig_mod.", state), "_orig_mod"),
    "parallel and compiled": (
        lambda state: {"state_dict": _add_prefix("module._orig_mod.", state)},
        "state_dict.module._orig_mod",
    ),
    "lightning": (
        lambda state: {
            "epoch": 1,
            "state_dict": _add_prefix("net.", state) | {"criterion.weight": torch.ones(5)},
            "hyper_parameters": {"lr": 0.1},
            "optimizer_states": [{"state": {}}],
        },
        "state_dict.net",
    ),
    "compiled blocks": (
        lambda state: {
            key.replace(".attn.", "._orig_mod.attn._checkpoint_wrapped_module."): value
            for key, value in state.items()
        },
        "without `_orig_mod.` inside names",
    ),
    "deepspeed": (lambda state: {"module": state, "dp_world_size": 8}, "module"),
    "swa": (
        lambda state: {"n_averaged": torch.tensor(3), **_add_prefix("module.", state)},
        "module",
    ),
    "fastai": (
        lambda state: {
            "model": _add_prefix("0.model.", state) | {"1.8.weight": torch.ones(200, 9)}
        },
        "model.0.model",
    ),
    "any word": (
        lambda state: {"best_weights": _add_prefix("img_encoder.trunk.", state)},
        "img_enc",
    ),
    "teacher alone": (
        lambda state: {
            "teacher": _add_prefix("backbone.", state) | {"head.mlp.0.weight": torch.ones(3)}
        },
        "teacher.backbone",
    ),
}


@pytest.mark.parametrize("form", WRAPPED)
def test_the_one_wrapper_or_prefix_that_fits_is_removed(build_from, state, form):
    make, named = WRAPPED[form]
    backbone = build_from(make(state))
    assert _has_values_of(backbone, state)
    assert named in backbone.notes[0]


def test_a_file_that_is_the_state_dict_needs_no_note(build_from, state):
    assert build_from(state).notes == ()


def test_of_teacher_and_student_the_teacher_is_read_with_a_note(build_from, state):
    """DINO's authors evaluate the teacher."""
    teacher = _add_prefix("module.backbone.", _shift(state, 1.0))
    student = _add_prefix("module.backbone.", state)
    head = {"module.head.last_layer.weight_v": torch.ones(4)}
    backbone = build_from({"student": student | head, "teacher": teacher | head, "epoch": 9})
    assert _has_values_of(backbone, _shift(state, 1.0))
    assert "`teacher.module.backbone`" in backbone.notes[0]
    assert "`student.module.backbone` fits too" in backbone.notes[0]


@pytest.mark.parametrize(
    ("trained", "other"),
    [("base_encoder.", "momentum_encoder."), ("encoder_q.", "encoder_k."), ("online.", "target.")],
)
def test_of_two_encoders_the_trained_one_is_read(build_from, state, trained, other):
    """The authors of MoCo and BYOL evaluate it too."""
    flat = _add_prefix(f"module.{other}", _shift(state, 1.0)) | _add_prefix(
        f"module.{trained}", state
    )
    backbone = build_from({"state_dict": flat})
    assert _has_values_of(backbone, state)
    assert other.rstrip(".") in backbone.notes[0]


def test_two_models_of_unknown_roles_are_refused(build_from, state):
    with pytest.raises(UserError, match="several models that fit, `a_net` and `b_net`: save"):
        build_from({"a_net": state, "b_net": _shift(state, 1.0)})
    assert _has_values_of(
        build_from({"a_net": state, "b_net": dict(state)}), state
    )  # the same numbers


@pytest.mark.parametrize(
    "form",
    [
        lambda first, second: {
            "state_dict": {**_add_prefix("net_a.", first), **_add_prefix("net_b.", second)}
        },
        lambda first, second: {"ema_0.999": first, "ema_0.9999": second},
    ],
)
def test_two_models_of_equal_roles_are_refused_at_any_depth(build_from, state, form):
    with pytest.raises(UserError, match="several models that fit, `.*save the intended model"):
        build_from(form(state, _shift(state, 1.0)))


@pytest.mark.parametrize(
    "ema",
    [
        lambda state: dict(list(state.items())[:5]),
        lambda state: {"decay": 0.9, "shadow_params": list(state.values())},
    ],
)
def test_an_ema_that_does_not_fit_is_reported(build_from, state, ema):
    backbone = build_from({"state_dict": state, "model_ema": ema(_shift(state, 1.0))})
    assert _has_values_of(backbone, state)
    assert any("the EMA in `model_ema` does not fit" in note for note in backbone.notes)


def test_a_flat_kernel_of_old_files_is_read_as_by_timm(build_from, state):
    kernel = state["patch_embed.proj.weight"]
    flat = {**state, "patch_embed.proj.weight": kernel.reshape(len(kernel), -1)}
    assert _has_values_of(build_from(flat), state)


def test_what_does_not_fit_names_the_prefix_that_was_seen(build_from, state):
    short = {key: value for key, value in state.items() if key != "norm.bias"}
    with pytest.raises(UserError) as error:
        build_from({"model": _add_prefix("img_encoder.", short)})
    message = str(error.value)
    assert "norm.bias is absent in the file" in message
    count = len(timm.create_model("shallow_vit", num_classes=0).state_dict())
    assert f"{count - 1} of {count} tensors fit when read from `model.img_encoder`" in message
    assert message.endswith("missing: norm.bias")
    with pytest.raises(UserError, match="all names in the file begin with `layers.`"):
        build_from({f"layers.{index}.w": torch.ones(2) for index in range(9)})


def test_a_value_of_another_kind_inside_the_state_dict_is_refused(build_from, state):
    with pytest.raises(UserError, match="a int at 'n', where a tensor should be"):
        build_from({"state_dict": {**state, "n": 3}, "epoch": 1})


def test_both_towers_of_clip_come_from_the_ema(mini, clip_model, tmp_path):
    state = clip_model.state_dict()
    content = {"state_dict": _add_prefix("module.", state), "state_dict_ema": _shift(state, 0.1)}
    torch.save(content, tmp_path / "epoch_3.pt")
    conf = mini("clip", tmp_path / "epoch_3.pt")
    image = build(conf, 224, weights.find(conf), seed=0)
    assert torch.equal(image.trunk.conv1.weight, state["visual.conv1.weight"] + 0.1)
    assert "`state_dict_ema`" in image.notes[0]
    text = text_tower(conf, weights.find(conf), seed=0)
    assert torch.equal(text.trunk.text_projection, state["text_projection"] + 0.1)


MIXED = {  # an EMA of one tower only, in the forms in which training scripts save it
    "wrapped": lambda state, ema: {"state_dict": state, "state_dict_ema": ema},
    "flat": lambda state, ema: _add_prefix("model.", state) | _add_prefix("ema_model.", ema),
    "beside": lambda state, ema: state | _add_prefix("ema.", ema),
}


@pytest.mark.parametrize("form", MIXED)
@pytest.mark.parametrize("tower", ["image", "text"])
def test_towers_of_two_training_states_are_not_joined(mini, clip_model, tmp_path, tower, form):
    state = clip_model.state_dict()
    ema = {
        key: value
        for key, value in _shift(state, 0.1).items()
        if key.startswith("visual.") == (tower == "image")
    }
    torch.save(MIXED[form](state, ema), tmp_path / "w.pt")
    conf = mini("clip", tmp_path / "w.pt", features="projected")
    source = weights.find(conf)
    assert build(conf, 224, source, 0).trunk is not None  # a probe reads one tower
    with pytest.raises(UserError, match="two states of a training: save both towers") as error:
        text_tower(conf, source, 0)
    assert str(error.value).startswith(f"weights {tmp_path / 'w.pt'}: the image tower fits ")
    torch.save(state, tmp_path / "w.pt")  # the way out
    assert text_tower(conf, weights.find(conf), 0).trunk is not None


def test_siglip_towers_of_two_training_states_are_not_joined(mini, siglip_folder, tmp_path):
    state = load_file(siglip_folder / "model.safetensors")
    shutil.copytree(siglip_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()
    file = tmp_path / "w.pt"
    ema = {key: value for key, value in state.items() if key.startswith("vision_model.")}
    torch.save({"model": state, "model_ema": _shift(ema, 0.1)}, file)
    conf = mini("siglip2", file, features="projected")
    with pytest.raises(UserError, match="two states of a training"):
        text_tower(conf, weights.find(conf), 0)
    torch.save({"model": state, "model_ema": _shift(state, 0.1)}, file)
    assert text_tower(conf, weights.find(conf), 0).trunk is not None


def test_siglip_below_a_prefix(mini, siglip_folder, tmp_path):
    state = load_file(siglip_folder / "model.safetensors")
    torch.save({"state_dict": _add_prefix("model.", state)}, tmp_path / "w.ckpt")
    conf = mini("siglip2", tmp_path / "w.ckpt")
    backbone = build(conf, 224, weights.find(conf), seed=0)
    key = "embeddings.patch_embedding.weight"
    assert torch.equal(backbone.trunk.state_dict()[key], state[f"vision_model.{key}"])
    assert "`state_dict.model`" in backbone.notes[0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named_before_any_feature(build_from, state, bad):
    wrong = {key: value.clone() for key, value in state.items()}
    wrong["blocks.1.norm1.weight"][:3] = bad
    with pytest.raises(UserError) as error:
        build_from({"model": wrong})
    message = str(error.value)
    assert "3 of the 64 values of blocks.1.norm1.weight are NaN or infinite" in message
    assert "w.pth" in message
    assert "\n" not in message


def test_nan_in_the_classifier_that_is_left_aside_does_not_matter(build_from, state):
    assert _has_values_of(
        build_from({**state, "head.bias": torch.full((1000,), float("nan"))}), state
    )


def test_a_half_precision_value_beyond_its_range_is_found_too(build_from, state):
    large = {**state, "norm.weight": torch.full((64,), 1e39, dtype=torch.float64)}
    with pytest.raises(UserError, match="64 of the 64 values of norm.weight are NaN or infinite"):
        build_from(large)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (torch.ones(64, dtype=torch.int8), "int8"),
        (torch.ones(64, dtype=torch.complex64), "complex64"),
        (torch.ones(64, device="meta"), "no values"),
        (torch.ones(64).to_sparse(), "float32"),
    ],
    ids=["int8", "complex", "meta", "sparse"],
)
def test_quantized_weights_are_refused_instead_of_cast(build_from, state, value, kind):
    with pytest.raises(UserError, match=f"norm.weight holds {kind}, not plain torch.float32"):
        build_from({**state, "norm.weight": value})


# --- tensors beyond those of the model ---

DECODER = {  # of an autoencoder, and the head of another task
    "mask_token": torch.ones(1, 1, 8),  # which timm leaves aside
    "decoder_pos_embed": torch.ones(1, 5, 8),
    "decoder_blocks.0.norm1.weight": torch.ones(8),
    "fc.weight": torch.ones(3, 64),
    "fc.bias": torch.ones(3),
}


@pytest.mark.parametrize("form", ["plain", "parallel", "wrapped", "prefixed", "beside"])
def test_further_tensors_are_removed_by_the_command_of_the_message(
    build_from, state, tmp_path, form
):
    content = {**state, **DECODER}
    content = {
        "parallel": {"model": _add_prefix("module.", content), "epoch": 3},
        "wrapped": {"state_dict": content, "state_dict_ema": _shift(content, 0.5)},
        "prefixed": _add_prefix("backbone.", content),
        "beside": {"model": {**state, **DECODER}, "small": {"a": torch.ones(1)}},
    }.get(form, content)
    with pytest.raises(UserError, match=r"4 unexpected; if its features do not need") as error:
        build_from(content)
    message = str(error.value)
    assert "\n" not in message
    command = message.partition("run `")[2].partition("` and name NEW.pth")[0]
    program, flag, code = shlex.split(command)
    assert (program, flag) == ("python", "-c")
    with contextlib.chdir(tmp_path):
        exec(code, {})
    backbone = build_from(torch.load(tmp_path / "NEW.pth", weights_only=True))
    assert _has_values_of(backbone, _shift(state, 0.5) if form == "wrapped" else state)


@pytest.mark.parametrize(
    "extra", ["blocks.12.norm1.weight", "blocks.0.attn.extra", "register_tokens", "norm_pre.bias"]
)
def test_no_command_removes_what_another_architecture_needs(build_from, state, extra):
    with pytest.raises(UserError, match="1 unexpected; the file is of another archi") as error:
        build_from({**state, extra: torch.ones(3)})
    assert "python -c" not in str(error.value)


@pytest.mark.parametrize("with_base", [False, True])
def test_the_matrices_of_an_adapter_are_named(build_from, state, with_base):
    lora = {"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.ones(2, 2)}
    with pytest.raises(UserError, match=r"a PEFT adapter: merge it .*merge_and_unload"):
        build_from({**(state if with_base else {}), **lora})
