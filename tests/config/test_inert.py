"""Inert keys: equivalent configs share a hash, and every hashed key has a rule or is active."""

from __future__ import annotations

from typing import Any

import pytest

from fgvc.config.config_hash import config_hash, hashed, hashed_with_inert
from fgvc.config.errors import ConfigError
from fgvc.config.inert import RULES
from fgvc.config.node_cache import NodeCache
from fgvc.config.overrides import expand_jobs
from fgvc.config.schema import Config
from fgvc.config.schema.head import heads

TRAIN, SGD = ("task=train", "backbone=vit"), ("task.optimiser=sgd",)
MIX, PARTS = ("task.mixup=0.2",), ("part_attention=transfg", "part_attention.contrastive=1")
JOINED = ("final_fit=trainval",)
RESIZED, RAND = ("task.crop=resized",), ("task.auto_augment=randaugment",)
HEAD, OVERFIT = ("task.tune=head",), ("task.debug=overfit",)
ZERO = ("task=zero_shot", "backbone=clip")
LOW = ("task.c_high=5",)
VIT, MINI = ("backbone=vit",), ("backbone=vit", "backbone.size=mini", "backbone.pretrained=false")
KNN, TINY = ("head=knn",), ("dataset.subset=tiny",)
FOLDER = ("dataset=folder",)
FOUR_HEADS = ("backbone.checkpoints.mini.architecture.num_heads=4",)
FOUR_BLOCKS = ("backbone.checkpoints.mini.architecture.depth=4",)
SHORT = (*TRAIN, *OVERFIT, "task.warmup_steps=9", "task.epochs=6")


def _frozen(stages: int, family: str = "vit", size: str = "base") -> tuple[str, ...]:
    return (
        "task=train",
        f"backbone={family}",
        f"backbone.size={size}",
        f"task.frozen_stages={stages}",
    )


SO400M = _frozen(27, "siglip2", "so400m")
# (key, two values, choices under which they change no number, choices under which they do)
CASES: list[tuple[str, str, str, tuple[str, ...], tuple[str, ...]]] = [
    ("backbone.native", "vit", "dinov2", (), ("preprocess=native",)),
    ("backbone.position_resize", "timm", "zoom", ("backbone=vit", "backbone.pretrained=false"), ()),
    ("backbone.position_resize", "timm", "zoom", VIT, (*VIT, "resolution=r448")),
    ("backbone.position_resize", "timm", "zoom", VIT, (*VIT, "backbone.revision=abc")),
    (
        "backbone.position_resize",
        "timm",
        "zoom",
        (*VIT, *PARTS[:1], "part_attention.stride=16"),
        (*VIT, *PARTS[:1], "part_attention.stride=12"),
    ),
    ("dataset.generator.seed", "0", "1", ("dataset.reader=cub",), ()),
    ("dataset.official.classes", "0", "3", (), FOLDER),
    ("dataset.official.train", "0", "3", (), FOLDER),
    ("dataset.official.test", "0", "3", (), FOLDER),
    ("dataset.prompts", "['a {}']", "['the {}']", (), ZERO),
    ("dataset.test_fraction", "0.2", "0.3", (), ("dataset=folder",)),
    ("dataset.split_seed", "0", "1", ZERO, ()),
    ("dataset.split_seed", "0", "1", ("head=knn", "dataset.val_fraction=0"), ("head=knn",)),
    ("dataset.split_seed", "0", "1", ZERO, (*TRAIN, *JOINED)),
    ("dataset.split_seed", "0", "1", ZERO, (*ZERO, "dataset=folder")),
    ("dataset.val_fraction", "0.1", "0.2", ZERO, ()),
    ("dataset.val_fraction", "0.1", "0.2", ZERO, (*TRAIN, *JOINED)),
    ("dataset.val_fraction", "0.1", "0.2", ("dataset.subset=tiny",), ()),
    ("dataset.val_fraction", "0", "0.2", ZERO, ("head=knn", "dataset.subset=tiny")),
    ("dataset.val_fraction", "0", "0.2", (*ZERO, *TINY), (*KNN, *TINY)),
    (
        "dataset.split_seed",
        "0",
        "1",
        (*ZERO, *FOLDER, "dataset.test_fraction=0"),
        (*FOLDER, "dataset.test_fraction=0"),
    ),
    ("final_fit", "train", "trainval", ZERO, ()),
    ("final_fit", "train", "trainval", (*TRAIN, *OVERFIT), TRAIN),
    ("final_fit", "train", "trainval", ("head=knn", "dataset.val_fraction=0"), ("head=knn",)),
    ("part_attention.tokens", "null", "12", PARTS[:1], ()),
    ("part_attention.stride", "null", "14", PARTS[:1], ()),
    ("part_attention.tokens", "null", "2", (*MINI, *PARTS[:1]), (*MINI, *PARTS[:1], *FOUR_HEADS)),
    (
        "part_attention.last_block",
        "pretrained",
        "random",
        (*TRAIN, *MINI, *PARTS[:1]),
        (*TRAIN, *PARTS[:1]),
    ),
    ("part_attention.margin", "0.4", "0.3", (*TRAIN, *PARTS[:1]), (*TRAIN, *PARTS)),
    ("part_attention.contrastive", "0", "1", (), (*TRAIN, *PARTS[:1])),
    ("head.fit.epochs", "9", "8", (*TRAIN, "head=mlp"), ("head=mlp",)),
    ("head.temperature", "0.07", "0.1", (*KNN, "head.k=1"), (*KNN, "head.k=2")),
    ("task.cascade", "20", "30", (), ("precision=bf16",)),
    ("task.c_low", "1e-5", "1e-4", ("head=knn",), ()),
    ("task.c_high", "1e5", "1e4", ("head=cosine",), ()),
    ("task.c_high", "1e5", "1e4", ("task.c_count=1",), ("task.c_count=2",)),
    ("task.c_count", "45", "9", ("head=mlp",), ("backbone=clip", "head=text_linear")),
    ("task.c_count", "45", "1", ("task.c_low=10", "task.c_high=10"), ("task.c_high=10",)),
    ("task.c_search", "bracket", "path", ("head=knn",), ()),
    ("task.c_search", "bracket", "path", ("task.c_count=10",), ("task.c_count=11",)),
    ("task.gap", "1e-8", "1e-6", ("head=knn",), ()),
    ("task.final_gap", "1e-10", "1e-9", ("head=knn",), ()),
    ("task.gap_until", "10", "20", LOW, ()),
    ("task.gap_until", "0", "1e-7", (), ("task.c_low=1e-8",)),
    ("task.max_iterations", "9", "8", LOW, (*LOW, "task.gap_until=5")),
    ("task.max_iterations", "9", "8", ("head=knn",), ()),
    ("task.momentum", "0.9", "0.8", TRAIN, (*TRAIN, *SGD)),
    ("task.mix_probability", "0.5", "1", TRAIN, (*TRAIN, *MIX)),
    ("task.mix_probability", "0.5", "1", TRAIN, (*TRAIN, "task.cutmix=1")),
    ("task.mixup", "0", "0.8", (*TRAIN, "task.mix_probability=0"), TRAIN),
    ("task.cutmix", "0", "1", (*TRAIN, "task.mix_probability=0", *MIX), TRAIN),
    ("task.crop_scale", "0.5", "0.4", (*TRAIN, "task.crop=random"), (*TRAIN, *RESIZED)),
    ("task.crop_scale", "0.5", "0.4", (*TRAIN, *RESIZED, *OVERFIT), (*TRAIN, *RESIZED)),
    ("task.crop", "random", "centre", (*TRAIN, *OVERFIT), TRAIN),
    ("task.flip", "0.5", "0", (*TRAIN, *OVERFIT), TRAIN),
    ("task.erasing", "0.5", "0", (*TRAIN, *OVERFIT), TRAIN),
    ("task.auto_augment", "none", "trivialaugment", (*TRAIN, *OVERFIT), TRAIN),
    ("task.magnitude", "9", "8", (*TRAIN, "task.auto_augment=trivialaugment"), (*TRAIN, *RAND)),
    ("task.operations", "2", "3", TRAIN, (*TRAIN, *RAND)),
    ("task.layer_decay", "0.75", "0.5", (*TRAIN, *HEAD), TRAIN),
    ("task.layer_decay", "1", "0.5", _frozen(13), _frozen(12)),
    ("task.layer_decay", "1", "0.5", _frozen(25, "clip", "large"), _frozen(24, "clip", "large")),
    ("task.layer_decay", "1", "0.5", _frozen(28, "siglip2", "so400m"), SO400M),
    (
        "task.layer_decay",
        "1",
        "0.5",
        (*TRAIN, *MINI, "task.frozen_stages=3"),
        (*TRAIN, *MINI, *FOUR_BLOCKS, "task.frozen_stages=3"),
    ),
    ("task.drop_path", "0.1", "0", (*TRAIN, *HEAD), TRAIN),
    ("task.drop_path", "0.1", "0", (*TRAIN, *HEAD), _frozen(13)),
    ("task.final_rate", "0", "0.1", SHORT, (*SHORT, "task.warmup_steps=4")),
    ("task.final_rate", "0", "0.1", (*SHORT, "task.warmup_steps=5"), SHORT[:-1]),
    ("task.patience", "null", "5", (*TRAIN, "task.epochs=6"), (*TRAIN, "task.epochs=7")),
    ("task.patience", "1", "9", (*TRAIN, "task.epochs=2"), (*TRAIN, "task.epochs=3")),
    ("task.select", "top1", "loss", (*TRAIN, *JOINED), TRAIN),
    ("task.select", "top1", "loss", (*TRAIN, "task.epochs=1"), (*TRAIN, "task.epochs=2")),
]
# Hashed keys that have no rule: some value of each changes a number, or names the question.
_ACTIVE = """
backbone.checkpoint.* backbone.features backbone.library backbone.name backbone.normalization
backbone.pretrained dataset.box_crop
dataset.generator.* dataset.label_column dataset.name dataset.official.* dataset.on_bad_image
dataset.path_column dataset.reader dataset.split_column dataset.subset
head.dropout head.hidden head.k head.name head.scale
matmul_precision part_attention.name precision
preprocess resolution.name resolution.side seed task.batch_size task.clip_norm
task.debug task.epochs task.frozen_stages task.label_smoothing
task.learning_rate task.name task.optimiser task.sampling task.tune
task.warmup_steps task.weight_decay
"""
ACTIVE = set(_ACTIVE.split())
ROLES = ("path", "label", "split")
WIDE = (  # together, these choices have every hashed key
    *((f"head={name}",) for name, spec in heads().items() if not spec.reads_text),
    ("dataset.box_crop=true", "preprocess=native"),
    ("head=knn", "part_attention=transfg"),
    ("head=mlp", "dataset=folder", "dataset.name=mine"),
    ("head=cosine", "backbone.checkpoint=base"),
    ("dataset=table", "dataset.table=t.csv", *(f"dataset.{role}_column=a" for role in ROLES)),
    ("backbone=clip", "head=text_linear"),
    ZERO,
    (*TRAIN, *PARTS),
)


# keys with their own test
TESTED_APART = {
    "backbone.tokenizer_sha256",
    "backbone.weights_sha256",
    "dataset.generator",
    "head.fit",
    "task.certify",  # never hashed: tests/task/test_precision.py
    "task.ema",
}
NODES = NodeCache()  # composes each node once for all cases


def conf_of(*overrides: str) -> Config:
    last = {item.partition("=")[0]: item for item in overrides}
    return NODES.conf(list(last.values()))


def hash_of(*overrides: str) -> str:
    return config_hash(hashed(conf_of(*overrides)))


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    """Otherwise weights/ or data/ of this checkout could change a hash."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("key", "value", "other", "inert", "acting"), CASES)
def test_a_key_is_hashed_exactly_where_it_changes_a_number(key, value, other, inert, acting):
    values = (f"{key}={value}", f"{key}={other}")
    hashes = {hash_of(*inert, value) for value in values if _has(key, inert)}
    assert len(hashes) <= 1
    assert len({hash_of(*acting, value) for value in values if _has(key, acting)}) in (0, 2)


def _has(key: str, choices: tuple[str, ...]) -> bool:
    """Whether these choices have the key; for example, part_attention=off has no settings."""
    node: Any = conf_of(*choices)
    for name in key.split("."):
        if not hasattr(node, name):
            return False
        node = getattr(node, name)
    return True


def test_every_rule_is_tested():
    tested = {key for key, *_ in CASES} | TESTED_APART
    assert {key for rule in RULES for key in rule.keys} - tested == set()
    assert all(rule.reason for rule in RULES)


def leaves(plain: dict[str, Any], prefix: str = "") -> set[str]:
    keys = set()
    for name, value in plain.items():
        key = f"{prefix}{name}"
        if key in ("backbone.checkpoint", "dataset.generator", "dataset.official", "head.fit"):
            keys.add(key if key == "head.fit" else f"{key}.*")
        elif isinstance(value, dict):
            keys |= leaves(value, f"{key}.")
        else:
            keys.add(key)
    return keys


def test_every_hashed_key_has_a_rule_or_is_always_active():
    keys = set.union(*(leaves(hashed_with_inert(conf_of(*choices))) for choices in WIDE))
    assert "task.c_low" in keys
    assert "task.momentum" in keys
    with_rule = {key for rule in RULES for key in rule.keys}
    unknown = keys - with_rule - ACTIVE
    assert not unknown, f"{unknown}: give each a rule in fgvc.config.inert, or list it as active"


def test_position_resize_of_another_family_does_not_move_the_hash():
    """clip, siglip2 and dinov3 support a single method."""
    for family, default in (("clip", "open_clip"), ("siglip2", "transformers"), ("dinov3", "timm")):
        conf = conf_of(f"backbone={family}", "backbone.position_resize=zoom")
        assert conf.backbone.position_resize == default
        assert config_hash(hashed(conf)) == hash_of(f"backbone={family}")


def test_an_unsupported_position_resize_in_a_command_is_refused():
    with pytest.raises(ConfigError, match=r"backbone\.position_resize=zoom: .*open_clip"):
        expand_jobs(["backbone=clip", "backbone.position_resize=zoom"], False, False)


RATES = "head.fit.learning_rates"
EQUAL = (  # choices, and two equivalent sets of overrides
    (TRAIN, ("task.ema=0",), ("task.ema=null",)),
    (TRAIN, ("task.mix_probability=0", *MIX), ()),
    (TRAIN, ("task.weight_decay=-0.0",), ("task.weight_decay=0",)),
    (("head=mlp",), (f"{RATES}=[1e-2,1e-3]",), (f"{RATES}=[1e-3,1e-2,0.001]",)),
    (("head=cosine",), ("head.fit.weight_decays=[1,-0.0,0]",), ("head.fit.weight_decays=[0,1]",)),
)


@pytest.mark.parametrize(("choices", "left", "right"), EQUAL)
def test_equivalent_configs_share_a_hash(choices, left, right):
    assert hash_of(*choices, *left) == hash_of(*choices, *right)


def test_values_that_change_a_number_change_the_hash():
    assert hash_of(*TRAIN, "task.ema=0.5") != hash_of(*TRAIN)
    assert hash_of("head=mlp", f"{RATES}=[1e-3]") != hash_of("head=mlp", f"{RATES}=[1e-2]")


def test_a_digest_beside_hub_weights_is_a_check_and_not_hashed():
    assert hash_of(*VIT, "backbone.weights_sha256='00ff'") == hash_of(*VIT)


@pytest.fixture
def folder(tmp_path):
    """Weights with a tokenizer beside them."""
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_bytes(b"{}")
    return folder


def test_the_position_grid_of_a_local_file_is_unknown(folder):
    local = (*VIT, f"backbone.weights={folder}")
    assert hash_of(*local, "backbone.position_resize=zoom") != hash_of(*local)


def test_a_tokenizer_is_hashed_only_where_it_is_read(folder):
    text, file = ("task=zero_shot", f"backbone.weights={folder}"), folder / "tokenizer.json"
    before = {family: hash_of(*text, f"backbone={family}") for family in ("siglip2", "clip")}
    image = hash_of("backbone=siglip2", f"backbone.weights={folder}")
    file.write_bytes(b'{"other": 1}')
    assert hash_of(*text, "backbone=siglip2") != before["siglip2"]
    assert hash_of(*text, "backbone=clip") == before["clip"]  # open_clip has a vocabulary
    assert hash_of("backbone=siglip2", f"backbone.weights={folder}") == image


def test_a_tokenizer_digest_that_is_only_a_check_is_not_hashed():
    pin = "backbone.tokenizer_sha256='00ff'"
    assert hash_of(*ZERO, pin) == hash_of(*ZERO)
    assert hash_of("task=zero_shot", "backbone=siglip2", pin) == hash_of(
        "task=zero_shot", "backbone=siglip2"
    )


def test_a_tokenizer_with_another_digest_is_refused(folder):
    text = ("task=zero_shot", "backbone=siglip2", f"backbone.weights={folder}")
    with pytest.raises(ConfigError, match=r"^backbone\.tokenizer_sha256=00ff: .*sha256"):
        hash_of(*text, "backbone.tokenizer_sha256='00ff'")


def test_seeds_change_the_hash_even_without_random_numbers():
    assert hash_of("head=knn", "seed=1") != hash_of("head=knn")
    assert all("seed" not in rule.keys for rule in RULES)


def test_the_config_keeps_a_typed_inert_value():
    conf = conf_of(*TRAIN, "task.momentum=0.5")
    assert conf.task.momentum == 0.5
    assert "momentum" not in hashed(conf)["task"]


def test_a_fixed_value_is_in_the_config_too_so_that_both_records_agree():
    conf = conf_of(*TRAIN, "task.epochs=6", "task.patience=9", "task.ema=0")
    assert (conf.task.patience, conf.task.ema) == (None, None)
    assert hashed(conf)["task"]["patience"] is None
    assert conf_of(*TRAIN, "task.epochs=60", "task.patience=9").task.patience == 9
