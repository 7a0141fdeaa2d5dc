"""conf/backbone: complete, consistent with the libraries, and extensible by own checkpoints."""

import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import open_clip
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from timm.models.vision_transformer import VisionTransformer

from fgvc.config import schema
from fgvc.config.checkpoint_rows import as_row_override, fill_table
from fgvc.config.constraints import fill_derived
from fgvc.data.preprocess import evaluation_transform
from fgvc.model.backbone import build
from fgvc.model.part_attention.attention_hooks import head_count
from fgvc.types import WeightsSource
from tests.narrow import not_none

FOLDER = Path(__file__).parents[2] / "conf" / "backbone"
ROWS = {"vit": 5, "dinov2": 9, "dinov3": 4, "clip": 11, "siglip2": 16}
STEMS = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SHORTHANDS = [stem for stem in STEMS if stem.partition("_")[0] in ROWS and stem not in ROWS]
MEANS = {"half": 0.5, "imagenet": 0.485, "clip": 0.48145466}
TIMM = ("vit", "dinov2", "dinov3")

# open_clip's and timm's name of each SigLIP 2 checkpoint, which publish the same weights
SIGLIP2 = {
    "base": ("ViT-B-16-SigLIP2", "vit_base_patch16_siglip_224"),
    "base_256": ("ViT-B-16-SigLIP2-256", "vit_base_patch16_siglip_256"),
    "base_384": ("ViT-B-16-SigLIP2-384", "vit_base_patch16_siglip_384"),
    "base_512": ("ViT-B-16-SigLIP2-512", "vit_base_patch16_siglip_512"),
    "base_32": ("ViT-B-32-SigLIP2-256", "vit_base_patch32_siglip_256"),
    "large": ("ViT-L-16-SigLIP2-256", "vit_large_patch16_siglip_256"),
    "large_384": ("ViT-L-16-SigLIP2-384", "vit_large_patch16_siglip_384"),
    "large_512": ("ViT-L-16-SigLIP2-512", "vit_large_patch16_siglip_512"),
    "so400m": ("ViT-SO400M-14-SigLIP2", "vit_so400m_patch14_siglip_224"),
    "so400m_384": ("ViT-SO400M-14-SigLIP2-378", "vit_so400m_patch14_siglip_378"),
    "so400m_p16_256": ("ViT-SO400M-16-SigLIP2-256", "vit_so400m_patch16_siglip_256"),
    "so400m_p16_384": ("ViT-SO400M-16-SigLIP2-384", "vit_so400m_patch16_siglip_384"),
    "so400m_p16_512": ("ViT-SO400M-16-SigLIP2-512", "vit_so400m_patch16_siglip_512"),
    "giant": ("ViT-gopt-16-SigLIP2-256", "vit_giantopt_patch16_siglip_256"),
    "giant_384": ("ViT-gopt-16-SigLIP2-384", "vit_giantopt_patch16_siglip_384"),
}
# Where we know better than a library. A patch of 14 covers 378 of the 384 pixels its authors give:
NATIVE_ELSEWHERE = {"so400m_384": 378}
# timm puts its own licence on its copies of CLIP; OpenAI, LAION and DataComp publish under MIT.
CLIP_LICENSE_OF_TIMM = "apache-2.0"


def _composed(option, overrides=(), folder=FOLDER.parent):
    with initialize_config_dir(str(folder), version_base="1.3"):
        node = compose(f"backbone/{option}", overrides=[*map(as_row_override, overrides)]).backbone
    return OmegaConf.merge(OmegaConf.structured(schema.Backbone), node)


def _typed(option, overrides=(), folder=FOLDER.parent):
    conf = OmegaConf.to_object(_composed(option, overrides, folder))
    assert isinstance(conf, schema.Backbone)
    fill_table(conf, is_recorded=False)
    return conf


def _rows(family):
    conf = _typed(family)
    return {name: row for name, row in conf.checkpoints.items() if name != "mini"}, conf


def test_the_options_are_counted():
    assert len(SHORTHANDS) == 16


@pytest.mark.parametrize("short", SHORTHANDS)
def test_a_shorthand_is_the_family_spelt_out(short):
    family, size = short.split("_")
    assert _composed(short) == _composed(family, [f"backbone.size={size}"])


@pytest.mark.parametrize("family", ROWS)
def test_every_field_is_given(family):
    node = _composed(family)
    assert OmegaConf.missing_keys(node) == set()
    node_fields = OmegaConf.load(FOLDER / f"{family}.yaml")
    assert set(node_fields) == {field.name for field in fields(schema.Backbone)}
    conf = _typed(family)
    assert len(conf.checkpoints) == ROWS[family]
    assert schema.chosen_checkpoint(conf).size == conf.size == "base"
    assert conf.name == family


@pytest.mark.parametrize("family", ROWS)
def test_a_size_means_its_first_row_and_every_row_has_a_name(family):
    rows, conf = _rows(family)
    for size in {row.size for row in rows.values()}:
        conf.size = size
        assert schema.chosen_checkpoint(conf) == rows[size]
    for name, row in rows.items():
        conf.checkpoint = name
        assert schema.chosen_checkpoint(conf) is row
    assert len({row.repo for row in rows.values()}) == len(rows)


@pytest.mark.parametrize("family", TIMM)
def test_every_row_is_a_pretrained_model_of_timm(family):
    rows, conf = _rows(family)
    for row in rows.values():
        official = not_none(timm.get_pretrained_cfg(row.model))
        assert official.hf_hub_id == row.repo
        assert official.input_size == (3, row.native, row.native)
        assert official.license == row.license.lower()
        assert official.mean[0] == MEANS[conf.normalization]
        assert row.embedding is None


@pytest.mark.parametrize(
    ("family", "override", "expected"),
    [
        ("vit", "mini.architecture.num_heads=4", (4, 2)),
        ("vit", "mini.architecture.depth=3", (2, 3)),
        ("clip", "mini.architecture.vision_cfg.head_width=16", (4, 2)),
        ("clip", "mini.architecture.vision_cfg.layers=3", (2, 3)),
        ("siglip2", "mini.architecture.vision_config.num_attention_heads=4", (4, 2)),
        ("siglip2", "mini.architecture.vision_config.num_hidden_layers=3", (2, 3)),
    ],
)
def test_an_architecture_overrides_heads_and_blocks(family, override, expected):
    row = _typed(family, [f"backbone.checkpoints.{override}"]).checkpoints["mini"]
    assert (row.head_count, row.block_count) == expected


def test_every_row_of_clip_is_what_open_clip_says():
    rows, conf = _rows("clip")
    for row in rows.values():
        official = not_none(open_clip.get_pretrained_cfg(row.model, not_none(row.tag)))
        assert official["hf_hub"] == f"{row.repo}/"
        assert bool(official.get("quick_gelu")) == (row.activation == "quick_gelu")
        assert official["mean"][0] == MEANS[row.normalization or conf.normalization]
        model = not_none(open_clip.get_model_config(row.model))
        assert bool(model.get("quick_gelu")) == (row.activation == "quick_gelu")
        vision = model["vision_cfg"]
        declared = (row.width, row.patch, row.native, row.embedding)
        sizes = (vision["width"], vision["patch_size"], vision["image_size"], model["embed_dim"])
        assert declared == sizes
        assert (row.license, row.prefix) == ("MIT", 1)


@pytest.mark.parametrize(
    ("name", "official_text"),
    [
        ("base", "vit_base_patch16_clip_quickgelu_224.openai"),
        ("base_32", "vit_base_patch32_clip_quickgelu_224.openai"),
        ("large", "vit_large_patch14_clip_quickgelu_224.openai"),
        ("large_336", "vit_large_patch14_clip_quickgelu_336.openai"),
        ("laion2b_b16", "vit_base_patch16_clip_224.laion2b"),
        ("laion2b_b32", "vit_base_patch32_clip_224.laion2b"),
        ("laion2b_l14", "vit_large_patch14_clip_224.laion2b"),
        ("datacomp_b16", "vit_base_patch16_clip_224.datacompxl"),
        ("datacomp_b32", "vit_base_patch32_clip_224.datacompxl"),
        ("datacomp_l14", "vit_large_patch14_clip_224.datacompxl"),
    ],
)
def test_timm_agrees_on_clip(name, official_text):
    rows, conf = _rows("clip")
    row, official = rows[name], not_none(timm.get_pretrained_cfg(official_text))
    assert official.input_size == (3, row.native, row.native)
    assert official.mean[0] == MEANS[row.normalization or conf.normalization]
    assert official.license == CLIP_LICENSE_OF_TIMM != row.license.lower()


def test_every_row_of_siglip2_is_what_open_clip_and_timm_say():
    rows, conf = _rows("siglip2")
    assert rows.keys() == SIGLIP2.keys()
    for name, row in rows.items():
        native = NATIVE_ELSEWHERE.get(name, row.native)
        model, other = SIGLIP2[name]
        official = not_none(open_clip.get_pretrained_cfg(model, "webli"))
        assert official["mean"][0] == MEANS[conf.normalization]
        config = not_none(open_clip.get_model_config(model))
        assert (config["embed_dim"], config["vision_cfg"]["image_size"]) == (row.embedding, native)
        assert config["vision_cfg"]["timm_model_name"] == other
        _same_text(row, config["text_cfg"])
        _same_vision(row, other)
        again = not_none(timm.get_pretrained_cfg(f"{other}.v2_webli"))
        assert again.input_size == (3, native, native)
        assert again.license == row.license.lower()
        assert again.mean[0] == MEANS[conf.normalization]
        pixels = {"so400m_384": 384}.get(name, native)
        assert row.repo.endswith(f"-patch{row.patch}-{pixels}")
        assert row.model == row.repo.removeprefix("google/")


def _official_statistics(family, name, row):
    """Mean and standard deviation from the library that publishes the row."""
    if family == "clip":
        config = open_clip.get_pretrained_cfg(row.model, row.tag)
        return config["mean"], config["std"]
    if family == "siglip2":
        config = open_clip.get_pretrained_cfg(SIGLIP2[name][0], "webli")
        return config["mean"], config["std"]
    config = not_none(timm.get_pretrained_cfg(row.model))
    return config.mean, config.std


@pytest.mark.parametrize("family", ROWS)
def test_every_row_is_preprocessed_natively_with_its_own_statistics(family):
    rows, conf = _rows(family)
    for name, row in rows.items():
        node = replace(conf, checkpoint=name)
        native_config = schema.Config(
            schema.NoOptions("zero_shot"), backbone=node, preprocess="native"
        )
        native_config.resolution = schema.Resolution("r224", 224)
        fill_derived(native_config)
        identity = evaluation_transform(native_config).identity
        mean, std = _official_statistics(family, name, row)
        assert (tuple(identity["mean"]), tuple(identity["std"])) == (tuple(mean), tuple(std)), name


def _same_text(row, official_text):
    text_config = row.architecture["text_config"]
    assert text_config["vocab_size"] == official_text["vocab_size"] == 256000
    assert text_config["max_position_embeddings"] == official_text["context_length"] == 64
    assert text_config["hidden_size"] == official_text["width"]
    assert text_config["num_hidden_layers"] == official_text["layers"]
    assert text_config["num_attention_heads"] == official_text["heads"]
    assert text_config["intermediate_size"] == int(
        official_text["width"] * official_text.get("mlp_ratio", 4.0)
    )
    assert text_config.get("projection_size", text_config["hidden_size"]) == row.embedding
    assert official_text["act_kwargs"] == {"approximate": "tanh"}
    assert row.activation == "gelu_tanh"


def _same_vision(row, official_text):
    with torch.device("meta"):
        model = timm.create_model(official_text, num_classes=0)
    assert isinstance(model, VisionTransformer)
    text_config, block = row.architecture["vision_config"], cast(Any, model.blocks[0])
    assert (row.width, row.prefix) == (model.num_features, model.num_prefix_tokens)
    assert row.patch == model.patch_embed.patch_size[0]
    assert text_config["hidden_size"] == row.width
    assert text_config["num_hidden_layers"] == len(model.blocks)
    assert text_config["num_attention_heads"] == block.attn.num_heads
    assert text_config["intermediate_size"] == block.mlp.fc1.out_features


@pytest.mark.slow
@pytest.mark.parametrize("family", ROWS)
def test_every_row_is_the_model_it_says(family):
    rows, conf = _rows(family)
    parameters = {}
    for name, row in rows.items():
        conf.checkpoint = name
        with torch.device("meta"):  # shapes alone; a row that belies its model is refused
            backbone = build(conf, 224, WeightsSource("random", name), seed=0)
        assert backbone.feature_dim == row.width
        assert (row.head_count, row.block_count) == (head_count(backbone), len(backbone.blocks))
        parameters[row.size] = backbone.parameter_count
    assert sorted(parameters.values()) == list(parameters.values())  # sizes in ascending order


MY_CLIP = """
defaults:
  - clip
  - _self_

size: mine
checkpoints:
  mine:
    size: mine
    model: ViT-B-32
    tag: laion2b_e16
    activation: gelu
    repo: timm/vit_base_patch32_clip_224.laion2b_e16
    revision: main
    patch: 32
    registers: false
    prefix: 1
    width: 768
    embedding: 512
    native: 224
    license: MIT
"""


def test_a_new_checkpoint_is_one_file(tmp_path):
    folder = tmp_path / "conf"
    shutil.copytree(FOLDER.parent, folder)
    (folder / "backbone" / "my_clip.yaml").write_text(MY_CLIP)
    conf = _typed("my_clip", folder=folder)
    row = schema.chosen_checkpoint(conf)
    assert (conf.library, row.repo) == ("open_clip", "timm/vit_base_patch32_clip_224.laion2b_e16")
    assert (row.normalization, row.architecture) == (None, {})
    assert len(conf.checkpoints) == ROWS["clip"] + 1
