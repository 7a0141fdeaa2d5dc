"""Choices that depend on each other: token grids, text, checkpoints by name, named sweeps."""

from __future__ import annotations

import pytest

from fgvc.config.compose import composed, config_hash, resolved, typed
from fgvc.config.errors import ConfigError, InvalidCombinationError
from fgvc.config.overrides import expand_jobs, jobs_of
from fgvc.config.sweep_expansion import expand_sweep


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def hash_of(*overrides: str) -> str:
    return config_hash(resolved(composed(overrides)))


def expand(*arguments: str):
    overrides, named = expand_sweep(arguments)
    return expand_jobs(overrides, named, named)


def test_a_quoted_option_of_a_sweep_is_the_option():
    first, _ = jobs_of(["part_attention='off',random"], multirun=True)
    assert first.conf.part_attention.name == "off"


# --- a token grid is a resolution ---


@pytest.mark.parametrize(
    ("tokens", "patch14", "patch16"),
    [(256, 224, 256), (576, 336, 384), (784, 392, 448), (1024, 448, 512)],
)
def test_a_token_grid_is_the_side_that_has_it(tokens, patch14, patch16):
    for backbone, side in (("dinov2", patch14), ("vit", patch16), ("clip", patch16)):
        conf = typed(composed([f"backbone={backbone}", f"resolution=t{tokens}"]))
        assert conf.resolution.side == side
        same = hash_of(f"backbone={backbone}", f"resolution=r{side}")
        assert hash_of(f"backbone={backbone}", f"resolution=t{tokens}") == same


# --- text ---


@pytest.mark.parametrize("head", ["text_linear", "text"])
def test_a_family_without_a_text_tower_is_refused(head):
    task = "zero_shot" if head == "text" else "probe"
    with pytest.raises(InvalidCombinationError, match="dinov2 has no text tower.*clip.*siglip2"):
        typed(composed(["backbone=dinov2", f"head={head}", f"task={task}"]))


def test_text_heads_read_projected_features_and_probes_do_not():
    for family, usual in (("clip", "cls"), ("siglip2", "map")):
        chosen = {
            head: typed(composed([f"backbone={family}", f"head={head}"])).backbone.features
            for head in ("linear", "knn", "text_linear")
        }
        assert chosen == {"linear": usual, "knn": usual, "text_linear": "projected"}
        zero_shot = typed(composed([f"backbone={family}", "task=zero_shot"]))
        assert (zero_shot.head.name, zero_shot.backbone.features) == ("text", "projected")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=zero_shot", "head=knn"], "zero_shot requires head=text"),
        (["head=text"], "zero_shot requires head=text"),
        (["head=text_linear", "backbone.features=cls"], "takes backbone.features=projected"),
        (["head=text_linear", "dataset.prompts=[a bird]"], "needs one {}"),
        (["head=text_linear", "dataset.prompts=[]"], "at least one prompt"),
        (["backbone.features=map"], "clip has cls, patch_mean, cls_patch_mean, projected"),
    ],
)
def test_choices_that_do_not_fit_text_are_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        typed(composed(["backbone=clip", *arguments]))
    assert message in str(caught.value)


def test_prompts_are_hashed_only_if_they_are_read():
    other = "dataset.prompts=['the {}']"
    assert hash_of("backbone=clip", other) == hash_of("backbone=clip")
    zero_shot = ("backbone=clip", "task=zero_shot")
    assert hash_of(*zero_shot, other) != hash_of(*zero_shot)


def test_a_tokenizer_beside_local_weights_is_hashed_where_text_is_read(tmp_path):
    folder = tmp_path / "siglip"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    local = ("backbone=siglip2", f"backbone.weights={folder}")
    plain, text = hash_of(*local), hash_of(*local, "task=zero_shot")
    (folder / "tokenizer.json").write_text("{}")
    assert hash_of(*local) == plain
    assert hash_of(*local, "task=zero_shot") != text
    conf = typed(composed([*local, "task=zero_shot"]))
    assert conf.backbone.weights == str(folder / "model.safetensors")


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors"):
        typed(composed(["backbone=siglip2", f"backbone.weights={tmp_path}"]))


# --- sizes and checkpoints ---


@pytest.mark.parametrize(
    ("family", "size", "have"),
    [("clip", "small", "base, large"), ("siglip2", "small", "base, large, so400m")],
)
def test_a_missing_size_is_refused_with_the_sizes_of_the_family(family, size, have):
    with pytest.raises(ConfigError, match=f"backbone.size={size}: {family} has {have}"):
        typed(composed([f"backbone={family}", f"backbone.size={size}"]))


def test_a_checkpoint_by_name_brings_its_size_and_normalization():
    conf = typed(composed(["backbone=clip", "backbone.checkpoint=laion2b_l14"]))
    assert (conf.backbone.size, conf.backbone.normalization) == ("large", "half")
    with pytest.raises(ConfigError, match="backbone.checkpoint=laion9: clip has base, "):
        typed(composed(["backbone=clip", "backbone.checkpoint=laion9"]))


def test_naming_the_default_row_changes_nothing():
    assert hash_of("backbone=clip", "backbone.checkpoint=base") == hash_of("backbone=clip")


# --- the heads fitted by gradient ---


def test_the_fit_of_a_head_is_hashed_in_a_probe_only():
    fit = "head.fit.epochs=7"
    assert hash_of("head=mlp", fit) != hash_of("head=mlp")
    assert hash_of("head=mlp", "task=train", fit) == hash_of("head=mlp", "task=train")


# --- recipes ---


def test_a_recipe_belongs_to_training_alone():
    assert hash_of("task=train", "recipe=modern") == hash_of("task=train")
    assert hash_of("task=train", "recipe=transfg") != hash_of("task=train")
    conf = typed(composed(["task=train", "recipe=transfg"]))
    assert (conf.preprocess, conf.final_fit, conf.task.optimiser) == ("transfg", "train", "sgd")
    with pytest.raises(ConfigError, match="recipe"):
        jobs_of(["recipe=transfg"], multirun=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["head=knn"], "needs a head with weights to learn"),
        (["dataset.val_fraction=0"], "final_fit=trainval"),
        (["task.tune=head", "task.frozen_stages=2"], "task.tune=head freezes"),
        (["final_fit=trainval", "task.patience=2"], "no validation to stop on"),
        (["runtime.nproc=65"], "task.batch_size=64 is global"),
        (["runtime.nproc=33", "task.mixup=0.8"], "in pairs"),
    ],
)
def test_an_invalid_training_is_refused_before_any_work(arguments, message):
    with pytest.raises(ConfigError) as caught:
        jobs_of(["task=train", *arguments], multirun=False)
    assert message in str(caught.value)


def test_the_recipe_of_transfg_is_the_published_one_unless_part_attention_is_named():
    recipe = ("task=train", "recipe=transfg", "backbone=vit")
    published = typed(composed(recipe)).part_attention
    assert (published.name, published.tokens, published.last_block) == (
        "transfg",
        None,
        "pretrained",
    )
    assert (published.stride, published.contrastive, published.margin) == (12, 1.0, 0.4)
    spelt = ("part_attention=transfg", "part_attention.stride=12", "part_attention.contrastive=1")
    assert hash_of(*recipe) == hash_of(*recipe, *spelt)
    assert hash_of(*recipe) != hash_of(*recipe, "part_attention.last_block=random")
    plain = typed(composed([*recipe, "part_attention=off"]))
    assert (vars(plain.part_attention), plain.task.optimiser) == ({"name": "off"}, "sgd")
    assert plain.preprocess == "transfg"


def test_a_shorthand_of_part_attention_has_the_hash_of_its_settings():
    train = ("task=train", "part_attention=transfg")
    assert hash_of("task=train", "part_attention=transfg_random_block") == hash_of(
        *train, "part_attention.last_block=random"
    )


# --- named sweeps ---


@pytest.mark.parametrize(
    ("task", "blocks"), [("task=probe", 0), ("task=train", 1), ("task=zero_shot", 0)]
)
def test_the_controls_include_a_random_last_block_if_it_can_be_trained(task, blocks):
    backbone = "backbone=clip"
    jobs, exclusions = expand("sweep=part_attention_controls", task, backbone)
    chosen = [job.conf.part_attention for job in jobs]
    names = {"off", "transfg", "rollout", "cls_topk", "random", "centre"}
    assert {part.name for part in chosen} == names
    random = [part.name for part in chosen if getattr(part, "last_block", "") == "random"]
    assert random == ["transfg"] * blocks
    assert (len(jobs), len(exclusions)) == (6 + blocks, 1 - blocks)
    assert all(
        "last_block=random: a frozen backbone" in exclusion.reason for exclusion in exclusions
    )


def test_baselines_are_every_family_and_zero_shot_with_text():
    jobs, exclusions = expand("sweep=baselines", "dataset=cub")
    chosen = {(job.conf.backbone.name, job.conf.head.name) for job in jobs}
    families = {"clip", "siglip2", "dinov2", "vit"}
    assert chosen == {(family, head) for family in families for head in ("linear", "knn")} | {
        ("clip", "text"),
        ("siglip2", "text"),
    }
    assert len(jobs) == 10
    assert len(exclusions) == 2
    assert all("no text tower" in exclusion.reason for exclusion in exclusions)


def test_typed_overrides_replace_those_of_the_sweep_file():
    jobs, _ = expand("sweep=baselines", "backbone=vit_tiny")
    assert {job.conf.backbone.size for job in jobs} == {"tiny"}
    assert len(jobs) == 2


def test_iso_tokens_gives_every_family_the_same_grid():
    jobs, exclusions = expand("sweep=iso_tokens")
    grids = [
        (job.conf.resolution.side // job.conf.backbone.checkpoints["base"].patch) for job in jobs
    ]
    assert len(jobs) == 16
    assert exclusions == []
    assert sorted(set(grids)) == [16, 24, 28, 32]


def test_iso_resolution_gives_every_family_the_same_side():
    jobs, exclusions = expand("sweep=iso_resolution")
    assert {job.conf.resolution.side for job in jobs} == {224, 336, 448}
    assert (len(jobs), exclusions) == (12, [])


def test_a_named_sweep_leaves_out_invalid_jobs_and_a_typed_one_refuses_them():
    jobs, exclusions = expand("sweep=iso_resolution", "resolution=r256,r224", "backbone=vit,dinov2")
    assert len(jobs) == 3
    assert "not a multiple of 14" in exclusions[0].reason
    with pytest.raises(ConfigError, match="not a multiple of 14"):
        expand_jobs(["resolution=r256,r224", "backbone=vit,dinov2"], True, named=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep=baseline"], "did you mean baselines"),
        (["sweep=baselines", "sweep=iso_tokens"], "one named sweep at a time"),
        (["sweep=iso_resolution", "resolution=r256", "backbone=dinov2"], "no job of this sweep"),
    ],
)
def test_a_wrong_sweep_is_refused(arguments, message):
    with pytest.raises(ConfigError) as caught:
        expand(*arguments)
    assert message in str(caught.value)
