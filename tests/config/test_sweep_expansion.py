"""sweep=grid: the whole cross, what cannot be, settings where they are known, one job a config."""

from __future__ import annotations

import collections
import itertools

import pytest

from fgvc.config.errors import ConfigError
from fgvc.config.named_sweep import expand_sweep
from fgvc.config.overrides import expand_jobs
from fgvc.config.sweep_exclusions import summarize

TINY = (
    "sweep=grid",
    "backbone=vit",
    "backbone.size=mini",
    "backbone.pretrained=false",
    "resolution=r224",
    "part_attention=off",
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def planned(*arguments: str):
    overrides, named = expand_sweep(arguments)
    return expand_jobs(overrides, named, named)


@pytest.fixture(scope="module")
def grid():
    """The grid as it stands, at a resolution that patch 14 has and one that it lacks."""
    return planned("sweep=grid", "dataset=cub", "resolution=r224,r256", "part_attention=off")


def kind(job) -> str:
    return "finetune" if job.conf.task.name == "train" else job.conf.head.name


def test_the_grid_is_every_cross_that_can_be_and_a_line_for_the_others(grid):
    jobs, left_out = grid
    sizes = {"clip": ("base", "large"), "siglip2": ("base", "large")}
    all_sizes = ("small", "base", "large")
    patch14 = {("clip", "large"), *(("dinov2", size) for size in all_sizes)}
    wanted = {
        (family, size, side, what)
        for family in ("clip", "siglip2", "dinov2", "vit")
        for size in sizes.get(family, all_sizes)
        for side in (224, 256)
        for what in ("text", "knn", "linear", "finetune")
        if (what != "text" or family in sizes) and not (side == 256 and (family, size) in patch14)
    }
    found = [
        (
            job.conf.backbone.name,
            job.conf.backbone.size,
            job.conf.resolution.side,
            kind(job),
        )
        for job in jobs
    ]
    assert len(found) == len(set(found))
    assert set(found) == wanted
    assert len(jobs) + len(left_out) == 4 * 3 * 2 * 4
    assert {job.conf.final_fit for job in jobs} == {"train"}
    lines = summarize(left_out)
    assert len(lines) == 8
    assert (
        "8 combinations: backbone.size=small: clip has base, large, mini (the first: "
        "backbone=clip backbone.size=small resolution=r224 experiment=baseline_zero_shot)"
    ) in lines
    assert sum("vit has no text tower" in line for line in lines) == 1
    assert sum("not a multiple of 14" in line for line in lines) == 4


def test_jobs_that_share_features_are_neighbours(grid):
    jobs, _ = grid
    looks = [
        (job.conf.backbone.name, job.conf.backbone.size, job.conf.backbone.features,
         job.conf.resolution.side)
        for job in jobs
    ]  # fmt: skip
    changes = sum(one != other for one, other in itertools.pairwise(looks))
    assert changes == len(set(looks)) - 1


def test_whatever_is_swept_first_neighbours_share_features():
    jobs, _ = planned(*TINY, "experiment=baseline_linear,baseline_knn", "resolution=r224,r336")
    assert [(kind(job), job.conf.resolution.side) for job in jobs] == [
        ("linear", 224),
        ("knn", 224),
        ("linear", 336),
        ("knn", 336),
    ]


def test_a_setting_reaches_the_jobs_that_know_it():
    jobs, left_out = planned(
        *TINY[:-1],
        "part_attention=off,centre",
        "part_attention.tokens=9",
        "experiment=baseline_knn,baseline_linear,finetune",
        "task.epochs=5",
        "task.c_count=3",
        "head.k=7",
        "recipe=modern",
    )
    assert left_out == []
    assert len(jobs) == 6
    for job in jobs:
        words = {item.partition("=")[0] for item in job.overrides}
        assert ("task.epochs" in words) == ("recipe" in words) == (kind(job) == "finetune")
        assert ("task.c_count" in words) == (kind(job) != "finetune")
        assert ("head.k" in words) == (kind(job) == "knn")
        centre = job.conf.part_attention.name == "centre"
        assert ("part_attention.tokens" in words) == centre


def test_one_config_is_one_job_with_a_line():
    jobs, left_out = planned(
        *TINY[:4],
        "part_attention=off",
        "resolution=r256,t256",
        "experiment=baseline_knn,finetune",
        "task.epochs=5,6",
    )
    assert collections.Counter(map(kind, jobs)) == {"knn": 1, "finetune": 2}
    assert sorted(line.partition(" (")[0] for line in summarize(left_out)) == [
        "2 combinations: task.epochs=6: the same config as task.epochs=5",
        "3 combinations: resolution=t256: the same config as resolution=r256",
    ]


def test_a_backbone_that_names_its_size_is_taken_at_that_size():
    jobs, left_out = planned(
        "sweep=grid", "backbone=vit_tiny,vit", "resolution=r224", "part_attention=off",
        "experiment=baseline_knn",
    )  # fmt: skip
    assert [job.conf.backbone.size for job in jobs] == ["tiny", "small", "base", "large"]
    assert [one.reason for one in left_out] == [
        "backbone=vit_tiny names its size: backbone.size is not swept there"
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["task.epoch=5"], "task.epoch=5: unknown config key; write task=train task.epochs=5"),
        (["head.k=0"], "head.k=0: must be at least 1"),
        (["dataset=cub,dogs", "dataset.root=/x"], "dataset.root=/x is given for cub and dogs"),
        (["experiment=finetune,baseline_kn"], "did you mean baseline_knn"),
        (["backbone.size=large,small", "backbone.pretrained=true", "backbone.weights=w.pth"],
         "runtime.weights_root"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused(arguments, says, tmp_path):
    (tmp_path / "w.pth").write_bytes(b"weights")
    with pytest.raises(ConfigError) as caught:
        planned(*TINY, *arguments)
    assert says in str(caught.value)
