"""Mean, standard deviation and epsilon in files beside the weights are never ignored."""

import argparse
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from open_clip import get_pretrained_cfg as open_clip_cfg
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from transformers import (
    CLIPImageProcessor,
    ViTConfig,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMSNConfig,
)

from fgvc.config.compose import composed, config_hash, hashed, typed
from fgvc.config.errors import ConfigError
from fgvc.config.weight_files.tensor_names import tensor_names
from fgvc.data.preprocess import evaluation_transform
from fgvc.types import UserError
from tests.narrow import not_none

HALF = [0.5, 0.5, 0.5]
OPENAI = [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]]
STATE = {"a": torch.ones(2)}


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_folder(tmp_path, name="model.safetensors", state=STATE, **files):
    """A folder with weights, and JSON files by the stem of their names."""
    save_file(state, tmp_path / name)
    for stem, values in files.items():
        (tmp_path / f"{stem}.json").write_text(json.dumps(values))
    return tmp_path


def typed_config(folder, *overrides, backbone="vit"):
    return typed(
        composed(
            [f"backbone={backbone}", "backbone.size=mini", f"backbone.weights={folder}", *overrides]
        )
    )


def _open_clip(mean, std, **more):
    return {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": mean, "std": std, **more}}


def _timm(name):
    return {"architecture": name, "pretrained_cfg": not_none(get_pretrained_cfg(name)).to_dict()}


def check_refused(message, *arguments, **options):
    with pytest.raises(ConfigError, match=message) as caught:
        typed_config(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("form", ["open_clip", "timm", "timm flat", "preprocessor", "processor"])
def test_other_statistics_are_refused_and_the_way_out_works(tmp_path, form):
    stated = {"mean": OPENAI[0], "std": OPENAI[1]}
    name = "open_clip_model.safetensors" if form == "open_clip" else "model.safetensors"
    files = {
        "open_clip": {"open_clip_config": _open_clip(*OPENAI)},
        "timm": {"config": {"architecture": "vit_small_patch16_224", "pretrained_cfg": stated}},
        "timm flat": {"config": {"architecture": "vit_small_patch16_224", **stated}},
        "preprocessor": {"preprocessor_config": CLIPImageProcessor().to_dict()},
        "processor": {"processor_config": {"image_processor": CLIPImageProcessor().to_dict()}},
    }[form]
    folder = make_folder(tmp_path, name, **files)
    message = check_refused("Set backbone.normalization=clip.", folder)
    assert message.startswith("backbone.normalization=half:")
    assert str(folder / f"{next(iter(files))}.json") in message
    conf = typed_config(folder, "backbone.normalization=clip")
    assert evaluation_transform(conf).normalization == "clip"


@pytest.mark.parametrize(
    ("backbone", "files"),
    [
        ("vit", {"config": _timm("vit_base_patch16_224.augreg_in21k_ft_in1k")}),
        ("dinov2", {"config": _timm("vit_small_patch14_dinov2.lvd142m")}),
        ("clip", {"open_clip_config": _open_clip(*OPENAI, resize_mode="shortest")}),
        ("clip", {"preprocessor_config": CLIPImageProcessor().to_dict()}),
        ("vit", {"preprocessor_config": ViTImageProcessor().to_dict()}),
        ("vit", {"config": {"model_type": "vit"}}),
        ("vit", {"config": {"architecture": "vit_small_patch16_224", "pretrained_cfg": {}}}),
        ("vit", {}),
    ],
)
def test_published_files_of_the_families_are_accepted(tmp_path, backbone, files):
    typed_config(make_folder(tmp_path, **files), backbone=backbone)


def test_the_row_with_its_own_statistics_is_named(tmp_path):
    tag = open_clip_cfg("ViT-L-14", "laion2b_s32b_b82k")
    folder = make_folder(
        tmp_path,
        "open_clip_model.safetensors",
        open_clip_config={"preprocess_cfg": {"mean": list(tag["mean"]), "std": list(tag["std"])}},
    )
    own = ["backbone=clip", "backbone.checkpoint=laion2b_l14", f"backbone.weights={folder}"]
    assert typed(composed(own)).backbone.normalization == "half"
    (folder / "open_clip_config.json").write_text(json.dumps(_open_clip(*OPENAI)))
    with pytest.raises(
        ConfigError, match=r"Set backbone.checkpoints.laion2b_l14.normalization=clip\."
    ):
        typed(composed(own))
    conf = typed(composed([*own, "backbone.checkpoints.laion2b_l14.normalization=clip"]))
    assert conf.backbone.normalization == "clip"


def test_the_way_out_works_with_native_preprocessing(tmp_path):
    folder = make_folder(tmp_path, open_clip_config=_open_clip(*OPENAI))
    native = "preprocess=native"
    check_refused("Set backbone.checkpoints.mini.normalization=clip", folder, native)
    conf = typed_config(folder, native, "backbone.checkpoints.mini.normalization=clip")
    assert evaluation_transform(conf).identity["mean"] == OPENAI[0]


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"mean": [0.4, 0.4, 0.4], "std": HALF}, "which no key has. .*imagenet, half, clip"),
        ({"mean": [0.5], "std": HALF}, "3 channels, RGB"),
        ({"mean": "half", "std": HALF}, "mean=half, not three numbers"),
        (3, "values of another type"),
    ],
)
def test_unregistered_statistics_are_refused(tmp_path, stated, message):
    check_refused(
        message, make_folder(tmp_path, config={"architecture": "x", "pretrained_cfg": stated})
    )


def test_a_file_that_is_no_json_object_is_named(tmp_path):
    folder = make_folder(tmp_path, open_clip_config=[])
    check_refused("open_clip_config.json holds a list, not a JSON object", folder)
    (folder / "open_clip_config.json").write_text("{")
    check_refused("open_clip_config.json cannot be read as JSON", folder)


@pytest.mark.parametrize(
    "values",
    [
        {"do_normalize": False, "do_rescale": True},
        {"do_normalize": True, "image_mean": HALF, "image_std": HALF, "do_rescale": False},
        {"image_mean": HALF, "image_std": HALF, "do_normalize": True, "rescale_factor": 1 / 127.5},
    ],
)
def test_a_processor_with_another_scale_is_refused(tmp_path, values):
    check_refused("which no key has", make_folder(tmp_path, preprocessor_config=values))


def test_a_processor_in_byte_units_is_accepted(tmp_path):
    values = {"do_normalize": True, "do_rescale": False}
    values |= {"image_mean": [127.5] * 3, "image_std": [127.5] * 3}
    typed_config(make_folder(tmp_path, preprocessor_config=values))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"preprocessor_config": ViTImageProcessor().to_dict()}, "interpolation bilinear, .* bic"),
        ({"preprocessor_config": ViTImageProcessor(resample=3).to_dict()}, "resize mode squash"),
        (
            {"open_clip_config": _open_clip(HALF, HALF, resize_mode="squash")},
            "resize mode squash, backbone.native=vit has crop",
        ),
    ],
)
def test_another_filter_or_mode_is_refused_with_native_preprocessing(tmp_path, files, message):
    folder = make_folder(tmp_path, **files)
    evaluation_transform(typed_config(folder))
    with pytest.raises(UserError, match=f"preprocess=native: .*{message}.*Set preprocess=shared"):
        evaluation_transform(typed_config(folder, "preprocess=native"))


# --- epsilon of the layer norms ---

LAYER = "encoder.layer.0.layernorm_before.weight"


@pytest.mark.parametrize("form", ["safetensors", "bin", "legacy"])
def test_the_epsilon_of_a_vit_of_transformers_is_recorded(tmp_path, form):
    state = {f"vit.{LAYER}": torch.ones(2)}
    file = tmp_path / ("w.safetensors" if form == "safetensors" else "w.bin")
    if form == "safetensors":
        save_file(state, file)
    else:
        torch.save(state, file, _use_new_zipfile_serialization=form == "bin")
    assert typed_config(file).backbone.norm_eps == 1e-12
    (tmp_path / "config.json").write_text(json.dumps({"layer_norm_eps": 1e-6}))
    other = typed_config(file)
    assert other.backbone.norm_eps == 1e-6
    (tmp_path / "config.json").unlink()
    assert config_hash(hashed(other)) != config_hash(hashed(typed_config(file)))
    assert hashed(other) == hashed(typed_config(file, "backbone.norm_eps=1e-6"))


def test_an_epsilon_that_contradicts_config_json_is_refused(tmp_path):
    folder = make_folder(tmp_path, state={LAYER: torch.ones(2)}, config={"layer_norm_eps": 1e-6})
    check_refused(
        "backbone.norm_eps=1e-05: .*layer_norm_eps=1e-06", folder, "backbone.norm_eps=1e-5"
    )


def test_the_epsilon_of_other_libraries_is_not_changed(tmp_path):
    folder = make_folder(tmp_path, config={"model_type": "vit", "layer_norm_eps": 1e-12})
    assert typed_config(folder).backbone.norm_eps is None
    assert "norm_eps" not in hashed(typed_config(folder))["backbone"]


@pytest.mark.parametrize(
    ("config", "eps", "assumed"),
    [
        (None, 1e-12, True),
        ({"architecture": "vit_small_patch16_224"}, 1e-12, True),
        ({"model_type": "vit"}, ViTConfig().layer_norm_eps, False),
        ({"model_type": "vit_mae"}, ViTMAEConfig().layer_norm_eps, False),
        ({"model_type": "vit_msn"}, ViTMSNConfig().layer_norm_eps, False),
        ({"layer_norm_eps": 1e-5}, 1e-5, False),
    ],
)
def test_an_unstated_epsilon_is_assumed(tmp_path, config, eps, assumed):
    files = {} if config is None else {"config": config}
    folder = make_folder(tmp_path, state={LAYER: torch.ones(2)}, **files)
    backbone = typed_config(folder).backbone
    assert (backbone.norm_eps, backbone.norm_eps_assumed) == (eps, assumed)
    stated = typed_config(folder, f"backbone.norm_eps={eps}")
    assert not stated.backbone.norm_eps_assumed
    assert hashed(stated) == hashed(typed_config(folder))


@pytest.mark.parametrize("form", ["metadata", "options", "legacy options", "other tensors"])
def test_a_key_of_transformers_that_is_only_text_is_no_layout(tmp_path, form):
    state = {"blocks.0.norm1.weight": torch.ones(2)}
    if form == "metadata":
        save_file(state, tmp_path / "w.bin", metadata={"init": f"renamed from vit.{LAYER}"})
    else:
        content = {"args": {"skip": [LAYER], LAYER: 1.0}, "note": LAYER, "model": state}
        if form == "other tensors":
            content = {f"x{LAYER}": torch.ones(2), f"{LAYER}.old": torch.ones(2), **state}
        new = form != "legacy options"
        torch.save(content, tmp_path / "w.bin", _use_new_zipfile_serialization=new)
    assert typed_config(tmp_path / "w.bin").backbone.norm_eps is None


@pytest.mark.parametrize("form", ["wrapped", "parameter", "sharded", "compiled"])
def test_a_layout_is_recognized_in_every_file_format(tmp_path, form):
    name, value = f"module.vit.{LAYER}", torch.ones(2)
    file = tmp_path / "w.bin"
    if form == "sharded":
        torch.save({name: value}, tmp_path / "a.bin")
        file = tmp_path / "pytorch_model.bin.index.json"
        file.write_text(json.dumps({"weight_map": {name: "a.bin"}}))
    elif form == "parameter":
        torch.save(OrderedDict({name: torch.nn.Parameter(value)}), file)
    else:
        name = name.replace("layer.0.", "layer.0._orig_mod.") if form == "compiled" else name
        args = argparse.Namespace(lr=0.1)
        torch.save({"args": args, "best": np.float64(3), "model": {name: value}}, file)
    assert typed_config(file).backbone.norm_eps == 1e-12


def test_reading_names_runs_no_code_of_a_pickle(tmp_path):
    torch.save(
        {"model": {LAYER: torch.ones(2)}, "evil": Evil(tmp_path / "ran")}, tmp_path / "w.bin"
    )
    assert tensor_names(tmp_path / "w.bin") == {LAYER}
    assert not (tmp_path / "ran").exists()


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (exec, (f"open({str(self.path)!r}, 'w').close()",))
