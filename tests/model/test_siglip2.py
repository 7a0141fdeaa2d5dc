"""SigLIP 2's tokens, features and text equal transformers'; its tokenizer is verified."""

import json
import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from transformers import Siglip2Tokenizer, SiglipConfig, SiglipModel, SiglipVisionConfig

from fgvc.model.backbone import build, text_tower, weights
from fgvc.model.backbone.tokenizer import PromptTokenizer
from fgvc.types import UserError, WeightsSource

SIDES = (224, 336, 160)
PROMPTS = ["a photo of a Black-footed Albatross.", "Möwe", "a long text " * 20]
RANDOM = WeightsSource("random", "random")


def _pixels(side):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _build(conf, side=224):
    return build(conf, side, weights.find(conf), seed=0)


@pytest.fixture(scope="module")
def reference(siglip_folder):
    return SiglipModel.from_pretrained(siglip_folder).eval()


@pytest.fixture
def copy(siglip_folder, tmp_path):
    """The saved folder, to be damaged."""
    return shutil.copytree(siglip_folder, tmp_path / "copy")


@pytest.mark.parametrize("side", SIDES)
def test_tokens_and_features_are_those_of_transformers(mini, siglip_folder, reference, side):
    backbone = _build(mini("siglip2", siglip_folder), side)
    with torch.inference_mode():
        tokens = backbone(_pixels(side))
        expected_output = reference.vision_model(_pixels(side), interpolate_pos_encoding=True)
        image = reference.get_image_features(_pixels(side), interpolate_pos_encoding=True)
    torch.testing.assert_close(
        tokens.patch_BND, expected_output.last_hidden_state, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(tokens.pooled_BD, image.pooler_output, rtol=0, atol=1e-5)
    assert expected_output.last_hidden_state.std() > 0.1
    assert tokens.prefix_BPD.shape == (2, 0, 64)
    assert tokens.grid == backbone.grid == (side // 16, side // 16)
    assert backbone.feature_dim == tokens.pooled_BD.shape[1] == 64
    assert backbone.trunk.config._attn_implementation == "sdpa"


def test_a_published_side_that_its_patch_does_not_divide_is_cut_as_by_transformers(mini, tmp_path):
    """72 px in patches of 16, like 384 in patches of 14: 4 x 4 patches, and 8 px are ignored."""
    conf = mini("siglip2")
    row = conf.checkpoints["mini"]
    row.native = 72
    config = SiglipConfig(**row.architecture)
    assert isinstance(config.vision_config, SiglipVisionConfig)
    config.vision_config.image_size = 72
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        library_model = SiglipModel(config).eval()
    library_model.save_pretrained(tmp_path)
    conf.weights = str(tmp_path / "model.safetensors")
    backbone = _build(conf, 72)
    with torch.inference_mode():
        tokens, expected_output = backbone(_pixels(72)), library_model.vision_model(_pixels(72))
    assert tokens.grid == (4, 4)
    assert expected_output.last_hidden_state.shape[1] == 16
    torch.testing.assert_close(
        tokens.patch_BND, expected_output.last_hidden_state, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(tokens.pooled_BD, expected_output.pooler_output, rtol=0, atol=1e-5)


@pytest.mark.parametrize("features", ["patch_mean", "projected"])
def test_the_other_features(mini, siglip_folder, features):
    backbone = _build(mini("siglip2", siglip_folder, features=features))
    with torch.inference_mode():
        tokens = backbone(_pixels(224))
        pooled_BD = _build(mini("siglip2", siglip_folder)).feature(_pixels(224))
    expected_BD = pooled_BD if features == "projected" else tokens.patch_BND.mean(1)
    torch.testing.assert_close(tokens.pooled_BD, expected_BD)


def test_a_class_token_is_not_to_be_had(mini, siglip_folder):
    with pytest.raises(UserError, match="features=cls: siglip2 has map, patch_mean, projected"):
        _build(mini("siglip2", siglip_folder, features="cls"))


def test_timm_sees_the_same_in_the_same_weights(mini, siglip_folder):
    state = load_file(siglip_folder / "model.safetensors")
    vision = {key[13:]: value for key, value in state.items() if key.startswith("vision_model.")}
    other = timm.create_model(
        "vit_base_patch16_siglip_224",
        num_classes=0,
        depth=2,
        embed_dim=64,
        num_heads=2,
        act_layer="gelu_tanh",  # as trained; timm itself leaves the exact GELU, 7e-4 off here
    ).eval()
    assert isinstance(other, VisionTransformer)
    other.load_state_dict(_as_timm(vision))
    with torch.inference_mode():
        tokens = _build(mini("siglip2", siglip_folder))(_pixels(224))
        expected_BND = other.forward_features(_pixels(224))
        expected_BD = other.forward_head(expected_BND)
    torch.testing.assert_close(tokens.patch_BND, expected_BND, rtol=0, atol=1e-5)
    torch.testing.assert_close(tokens.pooled_BD, expected_BD, rtol=0, atol=1e-5)


def _as_timm(vision):
    """transformers' names and layout of the image tower -> timm's."""
    names = {
        "embeddings.patch_embedding": "patch_embed.proj",
        "encoder.layers": "blocks",
        "layer_norm1": "norm1",
        "layer_norm2": "norm2",
        "self_attn.out_proj": "attn.proj",
        "post_layernorm": "norm",
        "head.mlp": "attn_pool.mlp",
        "head.layernorm": "attn_pool.norm",
        "head.attention.out_proj": "attn_pool.proj",
    }
    state = {}
    for key, value in vision.items():
        renamed = key
        for hf_name, library_model in names.items():
            renamed = renamed.replace(hf_name, library_model)
        state[renamed] = value
    state["pos_embed"] = state.pop("embeddings.position_embedding.weight")[None]
    state["attn_pool.latent"] = state.pop("head.probe")
    for kind in ("weight", "bias"):
        joint = state.pop(f"head.attention.in_proj_{kind}")
        state[f"attn_pool.q.{kind}"], state[f"attn_pool.kv.{kind}"] = joint[:64], joint[64:]
        for block in ("blocks.0", "blocks.1"):
            parts = [state.pop(f"{block}.self_attn.{part}_proj.{kind}") for part in "qkv"]
            state[f"{block}.attn.qkv.{kind}"] = torch.cat(parts)
    return state


def test_text_is_that_of_transformers(mini, siglip_folder, reference):
    conf = mini("siglip2", siglip_folder)
    tower = text_tower(conf, weights.find(conf), seed=0)
    tokenize = Siglip2Tokenizer.from_pretrained(siglip_folder, padding_side="right")
    shorter = tokenize(PROMPTS, add_special_tokens=False, truncation=True, max_length=63)
    ids_with_end = [[*ids, tokenize.eos_token_id] for ids in shorter.input_ids]
    padded = [ids + [tokenize.pad_token_id] * (64 - len(ids)) for ids in ids_with_end]
    with torch.inference_mode():
        expected_PE = reference.get_text_features(torch.tensor(padded)).pooler_output
    found_PE = tower.encode(PROMPTS, batch=2)
    torch.testing.assert_close(found_PE, expected_PE, rtol=0, atol=1e-5)
    assert expected_PE.std() > 0.1
    assert tower.scale == pytest.approx(reference.logit_scale.exp().item())


def test_prompts_are_lower_cased_and_keep_their_punctuation(mini, siglip_folder):
    conf = mini("siglip2", siglip_folder)
    tower = text_tower(conf, weights.find(conf), seed=0)
    upper_E, lower_E, joined_E = tower.encode(["BLACK-Footed", "black-footed", "blackfooted"])
    torch.testing.assert_close(upper_E, lower_E)
    assert not torch.allclose(lower_E, joined_E)


def test_what_a_record_states_of_it(mini, siglip_folder):
    macs, parameters = {}, {}
    for features in ("patch_mean", "map"):
        backbone = _build(mini("siglip2", siglip_folder, features=features))
        macs[features], parameters[features] = backbone.macs, backbone.parameter_count
    width, tokens = 64, 196
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    assert macs["patch_mean"] == 2 * block + 196 * 3 * 16**2 * width
    pooling = 2 * tokens * width**2 + 2 * width**2 + 2 * tokens * width + 8 * width**2
    assert macs["map"] == macs["patch_mean"] + pooling
    assert parameters["map"] > parameters["patch_mean"]
    assert [type(block).__name__ for block in backbone.blocks] == ["SiglipEncoderLayer"] * 2


# --- tokenizer ---


def test_the_text_identity_holds_what_can_change_a_text_feature(mini, siglip_folder):
    conf = mini("siglip2", siglip_folder)
    source = weights.find(conf)
    identity = text_tower(conf, source, seed=0).identity
    assert json.loads(json.dumps(identity)) == identity
    digest = identity["tokenizer_sha256"]
    assert (identity["length"], identity["lower_case"], len(digest)) == (64, True, 64)
    assert weights.tokenizer(mini("siglip2", siglip_folder, tokenizer_sha256=digest), source)
    other = mini("siglip2", siglip_folder, tokenizer_sha256="0" * 64)
    with pytest.raises(UserError, match=f"^backbone.tokenizer_sha256=0000.*{digest}"):
        text_tower(other, source, seed=0)


def test_a_missing_tokenizer_names_both_ways_out(mini, copy):
    (copy / "tokenizer.json").unlink()
    conf = mini("siglip2", copy)
    _build(conf)
    with pytest.raises(UserError, match="no tokenizer for siglip2-mini") as error:
        text_tower(conf, weights.find(conf), seed=0)
    message = str(error.value)
    assert f"tokenizer.json --local-dir {copy}" in message
    assert "leave backbone.weights out" in message
    assert "\n" not in message


@pytest.mark.parametrize("damage", ["cut", "larger", "endless"])
def test_a_tokenizer_that_does_not_belong_to_the_weights_is_refused(mini, copy, damage):
    path = copy / "tokenizer.json"
    content = json.loads(path.read_text())
    vocab = content["model"]["vocab"]
    if damage == "larger":
        vocab |= {f"word{number}": 260 + number for number in range(9)}
    if damage == "endless":
        content["added_tokens"] = []
        content["model"]["vocab"] = {"</s>" if key == "<eos>" else key: vocab[key] for key in vocab}
    text = json.dumps(content)
    path.write_text(text[:-20] if damage == "cut" else text)
    conf = mini("siglip2", copy)
    with pytest.raises(UserError, match=f"tokenizer {path}") as error:
        text_tower(conf, weights.find(conf), seed=0)
    assert "\n" not in str(error.value)


def test_random_weights_read_bytes(mini):
    conf = mini("siglip2", pretrained=False)
    same, again = (text_tower(conf, RANDOM, seed=3).encode(PROMPTS) for _ in range(2))
    torch.testing.assert_close(same, again, rtol=0, atol=0)
    assert same.shape == (3, 64)
    assert not torch.allclose(same[0], same[1])


# --- what does not fit ---


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"model_type": "siglip2"}, "has model_type=siglip2, not siglip"),
        (("vision_config", "num_attention_heads", 4), "vision_config.num_attention_heads=4, but"),
        (("vision_config", "patch_size", 14), "vision_config.patch_size=14, but siglip2-mini of"),
        (("text_config", "hidden_act", "gelu"), "text_config.hidden_act=gelu, but siglip2-mini"),
    ],
)
def test_a_config_of_another_model_beside_the_weights_is_refused(mini, copy, change, fragment):
    content = json.loads((copy / "config.json").read_text())
    if isinstance(change, dict):
        content |= change
    else:
        tower_name, field, value = change
        content[tower_name][field] = value
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=fragment) as error:
        _build(mini("siglip2", copy))
    assert "\n" not in str(error.value)


def test_weights_alone_are_enough(mini, copy):
    expected = _build(mini("siglip2", copy)).state_dict()
    (copy / "config.json").unlink()
    state = _build(mini("siglip2", copy / "model.safetensors")).state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_an_activation_that_contradicts_the_architecture_is_refused(mini):
    conf = mini("siglip2", pretrained=False)
    conf.checkpoints["mini"].activation = "gelu"
    with pytest.raises(UserError, match="activation=gelu, but its architecture has hidden_act="):
        build(conf, 224, RANDOM, seed=0)


def test_a_row_without_architecture_is_refused(mini):
    conf = mini("siglip2", pretrained=False)
    conf.checkpoints["mini"].architecture = {}
    with pytest.raises(UserError, match="siglip2-mini has no architecture"):
        build(conf, 224, RANDOM, seed=0)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda s: s.pop("vision_model.post_layernorm.bias"), "post_layernorm.bias is absent in"),
        (lambda s: s.update(alien=torch.zeros(2)), "alien is (2,) in the file and absent in"),
        (
            lambda s: s.update(
                {"vision_model.embeddings.position_embedding.weight": torch.zeros(180, 64)}
            ),
            "position_embedding.weight is (180, 64) in the file and (196, 64)",
        ),
    ],
    ids=["missing", "unexpected", "no square"],
)
def test_one_wrong_tensor_is_named(mini, copy, change, fragment):
    state = load_file(copy / "model.safetensors")
    change(state)
    save_file(state, copy / "model.safetensors")
    with pytest.raises(UserError, match="do not fit siglip2-mini") as error:
        _build(mini("siglip2", copy))
    assert fragment in str(error.value)


def test_half_a_model_has_no_text(mini, copy):
    state = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in state.items() if "logit" not in k}, copy / "model.safetensors")
    conf = mini("siglip2", copy)
    _build(conf)
    with pytest.raises(UserError, match="hold no logit_scale"):
        text_tower(conf, weights.find(conf), seed=0)


@pytest.mark.parametrize(("prefix", "library"), [("visual.trunk.", "open_clip"), ("", "timm")])
def test_the_siglip_of_another_library_is_named(mini, tmp_path, prefix, library):
    model = timm.create_model(
        "vit_base_patch16_siglip_224", num_classes=0, depth=2, embed_dim=64, num_heads=2
    )
    state = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=f"a SigLIP as {library} saves it") as error:
        _build(mini("siglip2", tmp_path))
    assert "\n" not in str(error.value)


def test_a_signal_while_prompts_are_read_is_no_fault_of_the_tokenizer(monkeypatch):
    class Stop(BaseException):  # as a signal's handler raises
        pass

    tokenizer = PromptTokenizer(None, 16, 300)

    def stop(prompt):
        raise Stop

    monkeypatch.setattr(tokenizer, "_padded", stop)
    with pytest.raises(Stop):
        tokenizer(["a bird"])
