"""sweep=grid: the cross, invalid combinations, settings per job, one job per config."""

from __future__ import annotations

import collections
import itertools

import pytest

from fgvc.config.errors import ConfigError
from fgvc.config.overrides import expand_jobs
from fgvc.config.sweep_expansion import expand_sweep, summarize

TINY = (
    "sweep=grid",
    "backbone=vit",
    "backbone.size=mini",
    "backbone.pretrained=false",
    "resolution=r224",
    "part_attention=off",
)


@pytest.fixture(autouse=True)
def empty_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def expand(*arguments: str):
    overrides, named = expand_sweep(arguments)
    return expand_jobs(overrides, named, named)


@pytest.fixture(scope="module")
def grid():
    """The grid at a resolution that fits patch 14 and one that does not."""
    return expand("sweep=grid", "dataset=cub", "resolution=r224,r256", "part_attention=off")


def protocol(job) -> str:
    return "finetune" if job.conf.task.name == "train" else job.conf.head.name


def test_the_grid_is_every_valid_combination_and_a_line_per_reason(grid):
    jobs, exclusions = grid
    sizes = {"clip": ("base", "large"), "siglip2": ("base", "large")}
    all_sizes = ("small", "base", "large")
    patch14 = {("clip", "large"), *(("dinov2", size) for size in all_sizes)}
    expected = {
        (family, size, side, protocol)
        for family in ("clip", "siglip2", "dinov2", "vit")
        for size in sizes.get(family, all_sizes)
        for side in (224, 256)
        for protocol in ("text", "knn", "linear", "finetune")
        if (protocol != "text" or family in sizes)
        and not (side == 256 and (family, size) in patch14)
    }
    actual = [
        (job.conf.backbone.name, job.conf.backbone.size, job.conf.resolution.side, protocol(job))
        for job in jobs
    ]
    assert len(actual) == len(set(actual))
    assert set(actual) == expected
    assert len(jobs) + len(exclusions) == 4 * 3 * 2 * 4
    assert {job.conf.final_fit for job in jobs} == {"train"}
    lines = summarize(exclusions)
    assert len(lines) == 8
    assert (
        "8 combinations: backbone.size=small: clip has base, large, mini (the first: "
        "backbone=clip backbone.size=small resolution=r224 experiment=baseline_zero_shot)"
    ) in lines
    assert sum("vit has no text tower" in line for line in lines) == 1
    assert sum("not a multiple of 14" in line for line in lines) == 4


def test_jobs_that_share_features_are_adjacent(grid):
    jobs, _ = grid
    features = [
        (job.conf.backbone.name, job.conf.backbone.size, job.conf.backbone.features,
         job.conf.resolution.side)
        for job in jobs
    ]  # fmt: skip
    changes = sum(left != right for left, right in itertools.pairwise(features))
    assert changes == len(set(features)) - 1


def test_jobs_that_share_features_are_adjacent_for_any_order_of_axes():
    jobs, _ = expand(*TINY, "experiment=baseline_linear,baseline_knn", "resolution=r224,r336")
    assert [(protocol(job), job.conf.resolution.side) for job in jobs] == [
        ("linear", 224),
        ("knn", 224),
        ("linear", 336),
        ("knn", 336),
    ]


def test_a_setting_applies_to_the_jobs_that_have_its_key():
    jobs, exclusions = expand(
        *TINY[:-1],
        "part_attention=off,centre",
        "part_attention.tokens=9",
        "experiment=baseline_knn,baseline_linear,finetune",
        "task.epochs=5",
        "task.c_count=3",
        "head.k=7",
        "recipe=modern",
    )
    assert exclusions == []
    assert len(jobs) == 6
    for job in jobs:
        keys = {item.partition("=")[0] for item in job.overrides}
        assert ("task.epochs" in keys) == ("recipe" in keys) == (protocol(job) == "finetune")
        assert ("task.c_count" in keys) == (protocol(job) != "finetune")
        assert ("head.k" in keys) == (protocol(job) == "knn")
        centre = job.conf.part_attention.name == "centre"
        assert ("part_attention.tokens" in keys) == centre


def test_duplicate_configs_are_left_out_with_a_line():
    jobs, exclusions = expand(
        *TINY[:4],
        "part_attention=off",
        "resolution=r256,t256",
        "experiment=baseline_knn,finetune",
        "task.epochs=5,6",
    )
    assert collections.Counter(map(protocol, jobs)) == {"knn": 1, "finetune": 2}
    assert sorted(line.partition(" (")[0] for line in summarize(exclusions)) == [
        "2 combinations: task.epochs=6: the same config as task.epochs=5",
        "3 combinations: resolution=t256: the same config as resolution=r256",
    ]


def test_a_backbone_that_names_its_size_keeps_it():
    jobs, exclusions = expand(
        "sweep=grid", "backbone=vit_tiny,vit", "resolution=r224", "part_attention=off",
        "experiment=baseline_knn",
    )  # fmt: skip
    assert [job.conf.backbone.size for job in jobs] == ["tiny", "small", "base", "large"]
    assert [exclusion.reason for exclusion in exclusions] == [
        "backbone=vit_tiny names its size: backbone.size is not swept there"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task.epoch=5"], "task.epoch=5: unknown config key; write task=train task.epochs=5"),
        (["head.k=0"], "head.k=0: must be at least 1"),
        (["dataset=cub,dogs", "dataset.root=/x"], "dataset.root=/x is given for cub and dogs"),
        (["experiment=finetune,baseline_kn"], "did you mean baseline_knn"),
        (["backbone.size=large,small", "backbone.pretrained=true", "backbone.weights=w.pth"],
         "runtime.weights_root"),
    ],
)  # fmt: skip
def test_an_error_in_a_named_sweep_is_refused(arguments, message, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    with pytest.raises(ConfigError) as caught:
        expand(*TINY, *arguments)
    assert message in str(caught.value)
