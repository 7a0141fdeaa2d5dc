"""conf/ -> configs -> hashes: every option composes, and the rules of the hash hold."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from fgvc.config.compose import (
    canonical,
    composed,
    conf_dir,
    config_hash,
    register_schema,
    resolved,
    typed,
)
from fgvc.config.errors import ConfigError
from fgvc.config.overrides import AXES, jobs_of, options

COUNTS = {
    "task": 14,
    "dataset": 8,
    "backbone": 21,
    "head": 6,
    "resolution": 12,
    "part_attention": 8,
    "experiment": 11,
    "sweep": 7,
    "recipe": 2,
}
OVERLAYS = ("experiment", "sweep", "recipe")
NEEDED = {  # other options that an option needs
    "r256": ["backbone=vit"],
    "r384": ["backbone=vit"],
    "r512": ["backbone=vit"],
    "zero_shot": ["backbone=clip"],
    "text": ["backbone=clip", "task=zero_shot"],
    "text_linear": ["backbone=siglip2"],
    "baseline_zero_shot": ["backbone=clip"],
    "modern": ["task=train"],
    "transfg": ["task=train"],
    "transfg_random_block": ["task=train"],
    "transfg_published": ["task=train"],
}
MINI = (
    "{size: mini, model: vit_mini, repo: me/vit_mini, revision: main, patch: 8, registers: false, "
    "prefix: 1, width: 96, native: 224, license: MIT}"
)
OPTIONS = [(group, option) for group in COUNTS for option in options(group)]


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    """Otherwise weights/ or data/ of this checkout could change a hash."""
    monkeypatch.chdir(tmp_path)


def hash_of(*overrides: str) -> str:
    return config_hash(resolved(composed(overrides)))


def test_every_group_is_counted():
    assert {group: len(options(group)) for group in AXES} == COUNTS
    folders = {path.name for path in conf_dir().iterdir() if path.is_dir()}
    assert folders == {*AXES, "hydra"}
    assert len(options("hydra/launcher")) == 4


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes(group, option):
    conf = typed(composed([f"{group}={option}", *NEEDED.get(option, [])]))
    if group in OVERLAYS:
        return
    if group == "resolution" and option.startswith("t"):  # a grid: 16 x 16 patches of 14 px
        assert conf.resolution.side == 14 * int(option[1:]) ** 0.5
        return
    name = getattr(conf, group).name
    shorthand = group == "backbone" or option.startswith("transfg_")
    family = option.split("_")[0] if shorthand else option
    assert name == family  # a shorthand carries its family's name


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_shorthand_has_the_hash_of_family_and_size(size):
    assert hash_of(f"backbone=vit_{size}") == hash_of("backbone=vit", f"backbone.size={size}")


@pytest.mark.parametrize("size", ["small", "base", "large", "giant"])
def test_dinov2_shorthand_has_the_hash_of_family_and_size(size):
    assert hash_of(f"backbone=dinov2_{size}") == hash_of("backbone=dinov2", f"backbone.size={size}")


GOLDEN = json.loads((Path(__file__).parent / "golden_hashes.json").read_text())


@pytest.mark.parametrize("experiment", options("experiment"))
def test_golden_hash_of_every_experiment(experiment):
    needed = NEEDED.get(experiment, [])
    assert hash_of(f"experiment={experiment}", *needed) == GOLDEN[experiment], (
        "the config hash of a named experiment moved: if it had to, say so in the commit"
    )


def test_the_command_of_the_readme_means_the_defaults():
    conf = typed(composed(["backbone=dinov2", "dataset=cub"]))
    chosen = (conf.task.name, conf.head.name, conf.resolution.name, conf.part_attention.name)
    assert chosen == ("probe", "linear", "r224", "off")
    assert conf.backbone.size == "base"
    assert conf.dataset.root == "data/cub"
    assert (conf.preprocess, conf.final_fit, conf.dataset.val_fraction) == (
        "shared",
        "trainval",
        0.1,
    )


# --- paths are not hashed ---

PLACES = [
    "runtime.output_root=/elsewhere",
    "runtime.cache_root=/elsewhere",
    "runtime.data_root=/elsewhere",
    "runtime.weights_root=/elsewhere",
    "runtime.multirun_root=/elsewhere",
    "runtime.run_id=mine",
    "runtime.device=cpu",
    "runtime.num_workers=0",
    "runtime.threads=1",
    "runtime.eval_batch_size=7",
    "dataset.root=/elsewhere",
    "dataset.table=/elsewhere",
    "checkpoint=/elsewhere",
    "run=/elsewhere",
    "against=/elsewhere",
    "image=/elsewhere",
]


def test_a_declaration_that_the_data_confirms_does_not_move_the_hash():
    assert hash_of("dataset=cub", "dataset.partial=true") == hash_of("dataset=cub")
    assert hash_of("dataset=cub", "dataset.accept_altered=true") == hash_of("dataset=cub")


@pytest.mark.parametrize("place", PLACES)
def test_places_do_not_move_the_hash(place):
    assert hash_of("backbone=vit_tiny", place) == hash_of("backbone=vit_tiny")


def test_no_place_is_left_in_the_hashed_part():
    text = canonical(resolved(composed(["dataset=cub"]))).decode()
    assert "runtime" not in text
    assert '"root"' not in text


def test_a_hashed_key_that_refers_to_a_path_is_refused():
    with pytest.raises(ValueError, match=r"points at a place.*runtime"):
        resolved(composed(["dataset.split_seed=${runtime.eval_batch_size}"]))
    with pytest.raises(ValueError, match=r"points at a place.*dataset\.root"):
        resolved(composed(["dataset.name=${dataset.root}"]))


# --- what changes a number is hashed ---

NUMBERS = [
    "seed=1",
    "dataset.split_seed=1",
    "dataset.val_fraction=0.2",
    "dataset.on_bad_image=skip",
    "dataset.box_crop=true",
    "dataset.name=other",
    "precision=bf16",
    "matmul_precision=high",
    "preprocess=native",
    "final_fit=train",
    "backbone.features=patch_mean",
    "backbone.revision=abc",
    "backbone.pretrained=false",
    "backbone.normalization=clip",
    "backbone.size=small",
    "resolution=r448",
    "head=knn",
    "task.c_count=9",
]


@pytest.mark.parametrize("change", NUMBERS)
def test_what_changes_a_number_moves_the_hash(change):
    assert hash_of("backbone=vit", change) != hash_of("backbone=vit")


def test_seed_and_split_seed_are_separate():
    assert hash_of("seed=1") != hash_of("dataset.split_seed=1")


def test_typed_floats_are_one_hash():
    hashes = {hash_of(f"task.c_high={way}") for way in ("100000", "100000.0", "1e5")}
    assert len(hashes) == 1


def test_the_card_and_other_rows_are_not_hashed():
    plain = resolved(composed(["backbone=dinov2", "dataset=cub"]))
    assert set(plain["backbone"]["checkpoint"]) >= {"model", "revision", "width"}
    assert "checkpoints" not in plain["backbone"]
    assert "contamination" not in plain["backbone"]
    assert "card" not in plain["dataset"]


def test_adding_a_checkpoint_changes_no_hash(tmp_path):
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "dinov2_more.yaml").write_text(
        f"defaults: [dinov2, _self_]\ncheckpoints:\n  huge: {MINI}\n"
    )
    more = (f"hydra.searchpath=[file://{tmp_path}]", "backbone=dinov2_more")
    assert "huge" in composed(more).backbone.checkpoints
    assert hash_of(*more) == hash_of("backbone=dinov2")


def test_only_the_chosen_task_is_hashed():
    assert set(resolved(composed(["task=eval"]))["task"]) == {"name"}
    assert "c_low" in resolved(composed(["task=probe"]))["task"]


def test_hash_is_sha256_of_canonical_json_of_exactly_the_argument():
    plain = {"b": 1.0, "a": {"z": None, "y": "é"}}
    expected = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert canonical(plain) == expected
    assert config_hash(plain) == hashlib.sha256(expected).hexdigest()
    with pytest.raises(ValueError, match="JSON compliant"):
        config_hash({"a": math.nan})


# --- digests are hashed ---


def test_local_weights_are_hashed_by_digest_not_by_path(tmp_path):
    file, copy, other = tmp_path / "a.pth", tmp_path / "b.pth", tmp_path / "c.pth"
    file.write_bytes(b"weights")
    copy.write_bytes(b"weights")
    other.write_bytes(b"other")
    plain = resolved(composed([f"backbone.weights={file}"]))
    assert plain["backbone"]["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert not {"revision", "repo"} & set(plain["backbone"]["checkpoint"])
    assert hash_of(f"backbone.weights={file}") == hash_of(f"backbone.weights={copy}")
    assert hash_of(f"backbone.weights={file}") != hash_of(f"backbone.weights={other}")
    assert hash_of(f"backbone.weights={file}") != hash_of()


def test_weights_root_is_searched_before_the_hub(tmp_path):
    model = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
    (tmp_path / f"{model}.pth").write_bytes(b"weights")
    from_root = hash_of("backbone=vit_tiny", f"runtime.weights_root={tmp_path}")
    assert from_root == hash_of("backbone=vit_tiny", f"backbone.weights={tmp_path}/{model}.pth")


def test_weights_with_another_digest_are_refused(tmp_path):
    file = tmp_path / "a.pth"
    file.write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"^backbone\.weights_sha256=00ff: .*a\.pth has sha256"):
        resolved(composed([f"backbone.weights={file}", 'backbone.weights_sha256="00ff"']))


def test_the_revision_of_hub_weights_is_hashed():
    assert (
        resolved(composed(["backbone.revision=abc"]))["backbone"]["checkpoint"]["revision"] == "abc"
    )


# --- unknown keys ---


@pytest.mark.parametrize("typo", ["+optim.lrr=1", "++backbone.pach=14", "+backbone.pach=14"])
def test_forced_typo_is_refused(typo):
    with pytest.raises(ValueError, match="unknown config key"):
        resolved(composed([typo]))


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("backbone.pach=14", "backbone.patch"),
        ("++runtime.outputroot=x", "runtime.output_root"),
        ("+dataset.rot=x", "dataset.root"),
        ("bakbone=vit", "backbone"),
        ("backbone=dinov9", "did you mean dinov"),
        ("dataset=cup", "cub"),
        ("resolution=r225", "r224"),
        ("task=prob", "probe"),
        ("dataset=cras", "cars"),
        ("dataset=table", "dataset.table=FILE"),
        ("dataset.table=a.csv", "only dataset=table reads one"),
        ("dataset.label_column=kind", "dataset.label_column=kind: only dataset=table has"),
        ("dataset.root=/a=b", "'dataset.root=\"/a=b\"'"),
    ],
)
def test_nearest_legal_name(argument, hint):
    with pytest.raises(ConfigError) as caught:
        jobs_of([argument], multirun=False)
    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "bound"),
    [
        ("seed=-1", "at least 0"),
        ("seed=x", "seed=x: must be an integer"),
        (
            "dataset.max_pixels=99999999999999999999",
            "dataset.max_pixels=99999999999999999999: must be at most",
        ),
        (
            "backbone.checkpoints.base.heads=99999999999999999999",
            "base.heads=99999999999999999999: must be at most",
        ),
        ("precision=fp8", "fp32, bf16"),
        ("dataset.val_fraction=0.95", "at most 0.9"),
        ("backbone.size=huge", "small, base, large, giant"),
        ("resolution=r256", "r224, resolution=r336"),
        ("backbone.patch=16", "patch=14"),
        ("dataset.subset=big", "tiny"),
        ("~seed", "cannot be deleted"),
        ("head=linear,knn", "-m"),
    ],
)
def test_values_are_bounded(argument, bound):
    with pytest.raises(ConfigError) as caught:
        jobs_of([argument], multirun=False)
    assert bound in str(caught.value)


@pytest.mark.parametrize(
    ("family", "side", "options"),
    [
        ("dinov2", 256, "resolution=r224, resolution=r336, resolution=r392"),
        ("dinov2", 512, "resolution=r392, resolution=r448, resolution=r518"),
        ("vit", 518, "resolution=r384, resolution=r448, resolution=r512"),
        ("vit", 392, "resolution=r336, resolution=r384, resolution=r448"),
    ],
)
def test_a_side_that_is_no_multiple_of_the_patch_is_refused(family, side, options):
    with pytest.raises(ConfigError, match=f"{side} px is not a multiple of .*{options}"):
        typed(composed([f"backbone={family}", f"resolution=r{side}"]))


def test_the_published_side_of_a_checkpoint_is_legal_although_its_patch_does_not_divide_it():
    """384 px: 27 x 27 patches of 14, and 6 px that the library ignores."""
    row = ("backbone=siglip2", "backbone.checkpoint=so400m_384")
    assert typed(composed([*row, "resolution=r384"])).resolution.side == 384
    with pytest.raises(ConfigError, match="256 px is not a multiple of 14.*resolution=r384"):
        typed(composed([*row, "resolution=r256"]))
    for other in ("so400m", "so400m_384"):
        checkpoint = ("backbone=siglip2", f"backbone.checkpoint={other}")
        with pytest.raises(ConfigError, match="512 px is not a multiple of 14"):
            typed(composed([*checkpoint, "resolution=r512"]))
    with pytest.raises(ConfigError, match="384 px is not a multiple of 14"):
        typed(composed(["backbone=siglip2_so400m", "resolution=r384"]))


@pytest.mark.parametrize("side", [224, 336, 448])
@pytest.mark.parametrize("family", ["vit", "dinov2"])
def test_multiples_of_both_patches_pass(family, side):
    assert typed(composed([f"backbone={family}", f"resolution=r{side}"])).resolution.side == side


def test_eval_takes_its_config_from_the_checkpoint():
    checkpoint = f"checkpoint={Path(__file__)}"
    jobs_of(["task=eval", checkpoint, "runtime.device=cpu", "dataset.root=/d"], multirun=False)
    with pytest.raises(ConfigError, match="from the checkpoint"):
        jobs_of(["task=eval", "checkpoint=x", "seed=3"], multirun=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resolution.side=240"], "resolution.name=r224"),
        (["dataset.val_fraction=0"], "val_fraction=0"),
        (["task.c_low=10", "task.c_high=1"], "exceeds the highest. Swap them"),
        (["task.c_high=inf"], "finite"),
        (["task.c_high=1e308"], "at most 1000000000000"),
        (["task.c_low=1", "task.c_high=1.0000000000000002"], "closer than C is computed"),
        (["seed=4294967296"], "at most 4294967295"),
        (["runtime.threads=0"], "at least 1"),
        (["runtime.num_workers=-1"], "at least 0"),
        (["backbone.normalization=imagenett"], "imagenet, half, clip"),
        (["dataset.generator.version=2"], "at most 1"),
        (["backbone.pretrained=false", "backbone.revision=abc"], "random weights"),
        (["hydra.output_subdir=.hydra"], "unknown config key"),
        (["task=report", "runtime.nproc=2"], "runs as 1"),
        (["checkpoint=/nowhere"], "reads no checkpoint"),
        (["task=eval", "checkpoint=/nowhere"], "no such file"),
    ],
)
def test_invalid_commands_are_refused_before_anything_starts(arguments, message):
    with pytest.raises(ConfigError) as caught:
        jobs_of(arguments, multirun=False)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_native_preprocessing_is_hashed_only_if_it_is_used():
    assert hash_of("backbone.native=vit") == hash_of("backbone.native=dinov2")
    native = ("preprocess=native", "backbone.normalization=half")
    assert hash_of("backbone.native=vit", *native) != hash_of("backbone.native=dinov2", *native)


def test_two_jobs_of_a_sweep_with_one_hash_are_refused(tmp_path):
    roots = f"{tmp_path / 'one'},{tmp_path / 'two'}"
    with pytest.raises(ConfigError, match=r"the same config.*a place.*dataset\.name"):
        jobs_of(["dataset=folder", f"dataset.root={roots}"], multirun=True)


def test_multirun_expands_and_checks_every_job():
    jobs = jobs_of(["backbone=vit_tiny,vit_small", "resolution=r224,r336"], multirun=True)
    chosen = {(job.conf.backbone.size, job.conf.resolution.side) for job in jobs}
    assert chosen == {("tiny", 224), ("tiny", 336), ("small", 224), ("small", 336)}
    with pytest.raises(ConfigError, match="not a multiple of 14"):
        jobs_of(["backbone=vit,dinov2", "resolution=r224,r256"], multirun=True)


def test_public_names_work_as_a_script_outside_uses_them():
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf_dir()), version_base=None):
        cfg = compose("config", overrides=["backbone=vit_tiny", "dataset=cub"])
    assert OmegaConf.is_config(cfg)
    assert config_hash(resolved(cfg)) == hash_of("backbone=vit_tiny", "dataset=cub")


def test_a_new_checkpoint_is_one_yaml_file(tmp_path):
    folder = tmp_path / "more" / "backbone"
    folder.mkdir(parents=True)
    (folder / "vit_mini.yaml").write_text(
        f"defaults: [vit, _self_]\nsize: mini\ncheckpoints:\n  mini: {MINI}\n"
    )
    cfg = composed([f"hydra.searchpath=[file://{tmp_path}/more]", "backbone=vit_mini"])
    assert resolved(cfg)["backbone"]["checkpoint"]["model"] == "vit_mini"
