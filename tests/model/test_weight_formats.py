"""Google's .npz, OpenAI's archive, shards and files of other libraries, read as by these."""

import hashlib
import json
import shutil
import warnings
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from fgvc.config.weight_digests import fill_weights
from fgvc.model.backbone import build, text_tower, weights
from fgvc.types import UserError

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4)}


def _pixels(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _build(conf, side=224):
    return build(conf, side, weights.find(conf), seed=0)


# --- Google's .npz ---


def _flax_arrays(state, heads=2, big_vision=False) -> dict[str, Any]:
    """A timm state under the names and in the layouts of the Flax ViT."""
    attention, mlp, norm2 = (0, 0, 1) if big_vision else (1, 3, 2)
    position = "pos_embedding" if big_vision else "Transformer/posembed_input/pos_embedding"
    arrays = {
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        "cls": state["cls_token"],
        position: state["pos_embed"],
        "Transformer/encoder_norm/scale": state["norm.weight"],
        "Transformer/encoder_norm/bias": state["norm.bias"],
        "head/kernel": state["head.weight"].T,
        "head/bias": state["head.bias"],
    }
    for index in range(2):
        block, flax_block = f"blocks.{index}.", f"Transformer/encoderblock_{index}/"
        attention_path = f"{flax_block}MultiHeadDotProductAttention_{attention}/"
        width = state[f"{block}norm1.weight"].shape[0]
        weights_ = state[f"{block}attn.qkv.weight"].chunk(3)
        biases = state[f"{block}attn.qkv.bias"].chunk(3)
        for name, weight, bias in zip(("query", "key", "value"), weights_, biases, strict=True):
            arrays[f"{attention_path}{name}/kernel"] = weight.T.reshape(width, heads, -1)
            arrays[f"{attention_path}{name}/bias"] = bias.reshape(heads, -1)
        out = state[f"{block}attn.proj.weight"].T
        arrays[f"{attention_path}out/kernel"] = out.reshape(heads, -1, width)
        arrays[f"{attention_path}out/bias"] = state[f"{block}attn.proj.bias"]
        for name, norm in (("LayerNorm_0", "norm1"), (f"LayerNorm_{norm2}", "norm2")):
            arrays[f"{flax_block}{name}/scale"] = state[f"{block}{norm}.weight"]
            arrays[f"{flax_block}{name}/bias"] = state[f"{block}{norm}.bias"]
        for number in (0, 1):
            dense = f"{flax_block}MlpBlock_{mlp}/Dense_{number}/"
            arrays[f"{dense}kernel"] = state[f"{block}mlp.fc{number + 1}.weight"].T
            arrays[f"{dense}bias"] = state[f"{block}mlp.fc{number + 1}.bias"]
    return {name: value.contiguous().numpy() for name, value in arrays.items()}


def _stack_blocks(arrays):
    """The tensors of all blocks in one array, as big_vision's newer files."""
    stem = "Transformer/encoderblock_"
    stacked = {name: value for name, value in arrays.items() if not name.startswith(stem)}
    for name in [name.removeprefix(f"{stem}0/") for name in arrays if name.startswith(f"{stem}0/")]:
        both = [arrays[f"{stem}{index}/{name}"] for index in (0, 1)]
        stacked[f"Transformer/encoderblock/{name}"] = np.stack(both)
    return stacked


FLAX = {
    "augreg": lambda state: {
        **_flax_arrays(state),
        "pre_logits/kernel": np.ones((3, 3), np.float32),
    },
    "with optimizer": lambda state: {
        f"opt/target/{name}": array for name, array in _flax_arrays(state).items()
    },
    "big_vision": lambda state: {
        f"params/{name}": array for name, array in _flax_arrays(state, big_vision=True).items()
    },
    "stacked": lambda state: {
        f"params/{name}": array
        for name, array in _stack_blocks(_flax_arrays(state, big_vision=True)).items()
    },
}


@pytest.fixture(scope="module")
def state(saved):
    return torch.load(saved("vit"), weights_only=True)


@pytest.mark.parametrize(
    ("form", "side"),
    [
        ("augreg", 224),
        ("augreg", 336),
        ("with optimizer", 224),
        ("big_vision", 336),
        ("stacked", 224),
    ],
)
def test_an_npz_gives_the_tokens_of_timm(conf, state, tmp_path, form, side):
    path = tmp_path / "Ti_16.npz"
    np.savez(path, **FLAX[form](state))
    library_model = timm.create_model("shallow_vit", num_classes=0, img_size=side).eval()
    assert isinstance(library_model, VisionTransformer)
    library_model.load_pretrained(str(path))
    backbone = _build(conf("vit", weights=str(path)), side)
    with torch.inference_mode():
        tokens = backbone(_pixels(side))
        expected_BTD = library_model.forward_features(_pixels(side))
    found_BTD = torch.cat([tokens.prefix_BPD, tokens.patch_BND], 1)
    torch.testing.assert_close(found_BTD, expected_BTD, rtol=0, atol=1e-6)
    for key, value in library_model.state_dict().items():
        torch.testing.assert_close(backbone.trunk.state_dict()[key], value, rtol=0, atol=1e-6)
    if side == 224:
        assert torch.equal(
            backbone.trunk.blocks[1].attn.qkv.weight, state["blocks.1.attn.qkv.weight"]
        )


def test_an_npz_is_known_by_its_content(conf, state, tmp_path):
    """The content store has files without suffix."""
    with (tmp_path / "abc").open("wb") as file:
        np.savez(file, **_flax_arrays(state))
    backbone = _build(conf("vit", weights=str(tmp_path / "abc")))
    assert torch.equal(backbone.trunk.pos_embed, state["pos_embed"])


def test_the_zoom_of_positions_is_the_same_for_an_npz(conf, state, saved, tmp_path):
    np.savez(tmp_path / "w.npz", **_flax_arrays(state))
    tables = [
        _build(conf("vit", weights=str(path), position_resize="zoom"), 336).trunk.pos_embed
        for path in (tmp_path / "w.npz", saved("vit"))
    ]
    torch.testing.assert_close(*tables, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("Transformer/encoder_norm/bias"), "norm.bias is absent"),
        (
            lambda arrays: arrays.update({"Transformer/encoderblock_2/x": np.ones(3)}),
            "encoderblock_2/x is (3,) in the file and absent",
        ),
        (
            lambda arrays: arrays.update({"conv_root/kernel": np.ones(3)}),
            "conv_root/kernel is (3,)",
        ),
        (
            lambda arrays: arrays.pop("Transformer/encoderblock_1/LayerNorm_0/bias"),
            "blocks.1.norm1.bias is absent",
        ),
    ],
    ids=["missing", "deeper", "hybrid", "missing in a block"],
)
def test_an_npz_of_another_model_is_refused(conf, state, tmp_path, change, message):
    """timm would silently read the first blocks of a deeper model."""
    arrays = _flax_arrays(state)
    change(arrays)
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(UserError) as error:
        _build(conf("vit", weights=str(tmp_path / "w.npz")))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def _cut_npz(path):
    arrays: dict[str, Any] = {key: value.numpy() for key, value in STATE.items()}
    np.savez(path, **arrays)
    path.write_bytes(path.read_bytes()[:-30])


def _flipped_npz(path):
    np.savez(path, a=np.arange(100.0))
    data = bytearray(path.read_bytes())
    data[300] ^= 255
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_cut_npz, "cannot be read"),
        (_flipped_npz, "cannot be read"),
        (lambda path: np.savez(path, a=np.array([{}], dtype=object)), "Python objects: refused"),
        (lambda path: np.savez(path), "a zip archive that holds nothing|not named tensors"),
    ],
    ids=["cut", "flipped", "objects", "empty"],
)
def test_a_damaged_npz_is_diagnosed(tmp_path, make, message):
    path = tmp_path / "w.npz"
    make(path)
    with pytest.raises(UserError, match=message) as error:
        weights.read(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# --- OpenAI's CLIP: a TorchScript archive in half precision ---


class Program(torch.nn.Module):
    """A module with the names of CLIP's state dict and the numbers that OpenAI's files hold."""

    def __init__(self, state):
        super().__init__()
        for key, value in state.items():
            module = self
            *path, name = key.split(".")
            for shard_state in path:
                if not hasattr(module, shard_state):
                    module.add_module(shard_state, torch.nn.Module())
                module = getattr(module, shard_state)
            module.register_parameter(name, torch.nn.Parameter(value))
        for name, number in (
            ("input_resolution", 224),
            ("context_length", 77),
            ("vocab_size", 49408),
        ):
            self.register_buffer(name, torch.tensor(number))

    def forward(self, x):
        return x * self.logit_scale


@pytest.fixture(scope="module")
def openai_archive(clip_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("openai") / "ViT-B-16.pt"
    program = Program({key: value.half() for key, value in clip_model.state_dict().items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(program, torch.ones(2)), path)
    return path


def test_openais_archive_gives_what_torch_gives(openai_archive):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = torch.jit.load(openai_archive).state_dict()
    read = weights.read(openai_archive)
    assert read.keys() == expected.keys()
    assert all(torch.equal(read[key], expected[key]) for key in expected)
    assert read["visual.conv1.weight"].dtype == torch.float16


def test_openais_archive_gives_the_features_of_open_clip(mini, openai_archive):
    conf = mini("clip", openai_archive, features="projected")
    library_model = open_clip.CLIP(**conf.checkpoints["mini"].architecture).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_clip.load_checkpoint(library_model, str(openai_archive), weights_only=False)
    texts = ["a photo of a bird", "Möwe"]
    with torch.inference_mode():
        found_BE = _build(conf).feature(_pixels(224))
        torch.testing.assert_close(
            found_BE, library_model.encode_image(_pixels(224)), rtol=0, atol=1e-6
        )
        expected_PE = library_model.encode_text(
            open_clip.get_tokenizer("ViT-B-16-quickgelu")(texts)
        )
    text_PE = text_tower(conf, weights.find(conf), seed=0).encode(texts)
    torch.testing.assert_close(text_PE, expected_PE, rtol=1e-6, atol=1e-5)


def test_openais_archive_needs_quick_gelu(mini, openai_archive):
    conf = mini("clip", openai_archive)
    row = conf.checkpoints["mini"]
    row.activation, row.architecture["quick_gelu"] = "gelu", False
    with pytest.raises(UserError, match="OpenAI's own file"):
        _build(conf)


# --- shards ---


def _shard(state, folder, ending="safetensors", count=3):
    """Save as the Hub's libraries do: shards, and an index that names them."""
    stem = "model" if ending == "safetensors" else "pytorch_model"
    folder.mkdir(exist_ok=True)
    names = {}
    for number in range(count):
        shard_state = dict(list(state.items())[number::count])
        name = f"{stem}-{number + 1:05}-of-{count:05}.{ending}"
        if ending == "safetensors":
            save_file(
                {key: value.contiguous() for key, value in shard_state.items()}, folder / name
            )
        else:
            torch.save(shard_state, folder / name)
        names |= dict.fromkeys(shard_state, name)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    return index


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
@pytest.mark.parametrize("named", ["folder", "index"])
def test_shards_give_the_model_of_one_file(conf, state, saved, tmp_path, ending, named):
    index = _shard(state, tmp_path / "m", ending)
    path_given = tmp_path / "m" if named == "folder" else index
    backbone = _build(conf("vit", weights=str(path_given)))
    unsharded = _build(conf("vit", weights=str(saved("vit")))).trunk.state_dict()
    assert all(torch.equal(backbone.trunk.state_dict()[key], unsharded[key]) for key in unsharded)
    assert backbone.weights.path == index


def test_a_folder_that_transformers_sharded(mini, siglip_folder, tmp_path):
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(siglip_folder)
    model.save_pretrained(tmp_path, max_shard_size="1MB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    backbone = _build(mini("siglip2", tmp_path))
    library_model = model.vision_model.state_dict()
    trunk_state = backbone.trunk.state_dict()
    assert all(torch.equal(trunk_state[key], library_model[key]) for key in trunk_state)


def test_the_digest_of_shards_covers_index_and_shards(conf, state, tmp_path):
    index = _shard(state, tmp_path / "m")
    backbone_conf = conf("vit", weights=str(index))
    first = weights.find(backbone_conf).sha256
    assert first == weights.find(conf("vit", weights=str(tmp_path / "m"))).sha256
    shutil.copytree(tmp_path / "m", tmp_path / "n")
    assert weights.find(conf("vit", weights=str(tmp_path / "n"))).sha256 == first
    fill_weights(backbone_conf, str(tmp_path / "no root"))
    assert backbone_conf.weights_sha256 == first
    shard = tmp_path / "m" / "model-00002-of-00003.safetensors"
    save_file({key: value + 1 for key, value in load_file(shard).items()}, shard)
    with pytest.raises(UserError, match=f"^backbone.weights_sha256={first}: "):
        weights.find(backbone_conf)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda index: (index.parent / "model-00002-of-00003.safetensors").unlink(),
         "1 of them are missing, the first is model-00002-of-00003.safetensors"),
        (lambda index: index.write_text('{"weight_map": {"a": "../w.safetensors"}}'),
         "must be beside its index"),
        (lambda index: index.write_text('{"weight_map": {"a": "/etc/passwd"}}'),
         "must be beside its index"),
        (lambda index: index.write_text('{"weight_map": {"a": ".."}}'), "must be beside its"),
        (lambda index: index.write_text('{"weight_map": {"a": "..\\\\w"}}'), "must be beside its"),
        (lambda index: index.write_text('{"weight_map": {}}'), "not an index of shards"),
        (lambda index: index.write_text('{"weight_map": [1]}'), "not an index of shards"),
        (lambda index: index.write_text('{"weight_map": {"a": 3}}'), "not an index of shards"),
        (lambda index: index.write_text("[1, 2]"), "not an index of shards"),
        (lambda index: index.write_text("{"), "not an index of shards"),
    ],
)  # fmt: skip
def test_shards_that_are_not_whole_are_named(conf, state, tmp_path, damage, message):
    index = _shard(state, tmp_path / "m")
    damage(index)
    backbone_conf = conf("vit", weights=str(tmp_path / "m"))
    with pytest.raises(ValueError, match=message) as error:
        weights.find(backbone_conf)
    assert isinstance(error.value, UserError)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        fill_weights(backbone_conf, str(tmp_path / "no root"))


def test_a_shard_without_its_tensor_is_named(conf, state, tmp_path):
    index = _shard(state, tmp_path / "m")
    content = json.loads(index.read_text())
    content["weight_map"]["norm.extra"] = "model-00001-of-00003.safetensors"
    index.write_text(json.dumps(content))
    with pytest.raises(UserError, match="norm.extra in model-00001-of-00003.safetensors, which"):
        weights.read(index)


def test_one_shard_alone_names_the_index(conf, state, tmp_path):
    _shard(state, tmp_path / "m")
    shard = tmp_path / "m" / "model-00001-of-00003.safetensors"
    with pytest.raises(UserError, match="one shard of several: name the folder or the index"):
        _build(conf("vit", weights=str(shard)))


def test_an_npz_for_another_family_names_the_one_that_reads_it(mini, state, tmp_path):
    np.savez(tmp_path / "w.npz", **_flax_arrays(state))
    for family in ("clip", "siglip2"):
        with pytest.raises(UserError, match="a plain ViT are read, by backbone=vit"):
            _build(mini(family, tmp_path / "w.npz"))


def test_a_config_file_is_no_weights(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(UserError, match="are a JSON file, not weights: name the weights file"):
        weights.read(tmp_path / "config.json")


# --- names in a folder, files of other libraries ---


@pytest.mark.parametrize(
    ("family", "first", "second"),
    [
        ("vit", "model.safetensors", "pytorch_model.bin"),
        ("vit", "pytorch_model.bin", "open_clip_model.safetensors"),
        ("clip", "open_clip_model.safetensors", "model.safetensors"),
        ("clip", "open_clip_pytorch_model.bin", "pytorch_model.bin"),
        ("siglip2", "model.safetensors", "pytorch_model.bin"),
    ],
)
def test_config_and_reader_take_the_same_file_of_a_folder(mini, tmp_path, family, first, second):
    save_file(STATE, tmp_path / first)
    save_file({"c": torch.ones(1)}, tmp_path / second)
    backbone_conf = mini(family, tmp_path)
    assert weights.find(backbone_conf).path == tmp_path / first
    fill_weights(backbone_conf, str(tmp_path / "no root"))
    assert backbone_conf.weights == str(tmp_path / first)
    assert (
        backbone_conf.weights_sha256 == hashlib.sha256((tmp_path / first).read_bytes()).hexdigest()
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tf_model.h5",
            "tf_model.h5 is a file of Keras, which is not read: use model.safetensors",
        ),
        ("flax_model.msgpack", "is a file of Flax"),
        ("model.onnx", "is a file of ONNX"),
        ("best.pth", "it holds best.pth: name the file itself"),
        ("model-00001-of-00002.safetensors", "a shard without model.safetensors.index.json: fetch"),
        ("__0_0.distcp", "dcp_to_torch .* FILE` and name FILE"),
        ("training_args.bin", "as timm saves them; name the file itself"),
    ],
)
def test_a_folder_names_its_content(mini, tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    backbone_conf = mini("vit", tmp_path)
    with pytest.raises(UserError, match=message):
        weights.find(backbone_conf)
    with pytest.raises(ValueError, match=message):
        fill_weights(backbone_conf, str(tmp_path / "no root"))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "w.h5",
            b"\x89HDF\r\n\x1a\n" + bytes(99),
            "an HDF5 file, as Keras saves weights, which is not read",
        ),
        ("w.bin", b"GGUF" + bytes(99), "a GGUF file"),
        ("w.pth", b"\x1f\x8b\x08" + bytes(99), "a gzip archive, not weights: unpack it"),
        ("w.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99), "a 7z archive, not weights: unpack it"),
        ("flax_model.msgpack", b"\x85\xa3abc" + bytes(99), "a file of Flax, which is not read"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch" + bytes(99), "a file of ONNX"),
        ("w.npy", b"\x93NUMPY\x01\x00" + bytes(99), "a NumPy array, without names"),
    ],
)
def test_files_of_other_libraries_are_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message) as error:
        weights.read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_an_exported_program_is_named(tmp_path):
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "w.pt2")
    with pytest.raises(UserError, match="a program of torch.export, which is not read"):
        weights.read(tmp_path / "w.pt2")
