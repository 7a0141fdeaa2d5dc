"""Names of runs in TensorBoard, and the folder of links that task=view makes for it."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from fgvc.record.tensorboard import hparams
from fgvc.report import run_links

CONFIG = {
    "dataset": {"name": "birds"},
    "backbone": {"name": "vit", "pretrained": True, "checkpoint": {"size": "tiny"}},
    "head": {"name": "linear"},
    "resolution": {"side": 224},
    "part_attention": {"name": "off"},
    "precision": "fp32",
    "task": {"name": "probe"},
    "seed": 0,
}
NAME = "birds · vit tiny · linear · 224 px"


@pytest.fixture
def make(tmp_path):
    """make("r1/c1/k1", seed=1) -> a run folder with a config and one event file."""

    def run(place, **changes):
        folder = tmp_path / "outputs" / place
        (folder / "tb" / "00000").mkdir(parents=True)
        (folder / "tb" / "events.out.tfevents.1").write_bytes(b"")
        (folder / "config.canonical.json").write_text(json.dumps(CONFIG | changes))
        return folder

    return run


@pytest.fixture
def links(tmp_path):
    folder = tmp_path / "links"
    folder.mkdir()
    return folder


def names(links):
    return sorted(path.name for path in links.iterdir())


def test_runs_are_named_by_their_axes_and_by_what_distinguishes_equal_axes(make, links, tmp_path):
    make("r1/a/a")
    make("r1/b/b", head={"name": "knn"})
    make("r2/c/c", dataset={"name": "dogs"})
    make("r2/d/d", dataset={"name": "dogs"}, seed=1)
    make("r3/a/a")  # a repetition
    make("r4/e/e", head={"name": "an/odd\tname"})
    assert run_links.update(links, tmp_path / "outputs") == 6
    assert names(links) == [
        "birds · vit tiny · an_odd\\tname · 224 px",
        "birds · vit tiny · knn · 224 px",
        NAME,
        f"{NAME} · r3",
        "dogs · vit tiny · linear · 224 px · seed 0",
        "dogs · vit tiny · linear · 224 px · seed 1",
    ]


def test_a_damaged_config_is_named_by_its_folder(make, links, tmp_path):
    (make("r1/a/a") / "config.canonical.json").write_text("[")
    run_links.update(links, tmp_path / "outputs")
    assert names(links) == ["r1 a a"]


def test_a_folder_of_one_run_and_one_of_many_are_both_found(make, links, tmp_path):
    folder = make("r1/a/a")
    outputs = tmp_path / "outputs"
    assert run_links.find_boards(folder) == run_links.find_boards(outputs) == [folder]
    assert run_links.find_boards(tmp_path / "none") == []


def test_the_links_follow_a_run_from_its_start_to_its_end(make, links, tmp_path):
    outputs, folder = tmp_path / "outputs", make("r1/a/in-progress")
    before = sorted(path.name for path in folder.rglob("*"))
    run_links.update(links, outputs)
    (links / NAME / "events.out.tfevents.1").resolve(strict=True)
    declared = (links / NAME / hparams.FIRST_FILE).stat()
    os.mkfifo(folder / "tb" / "events.out.tfevents.2")
    (folder / "tb" / "events.out.tfevents.3").write_bytes(b"")
    folder.rename(folder.parent / "checkpoint")
    run_links.update(links, outputs)
    first = links / NAME
    assert {path.name for path in first.iterdir()} == {
        hparams.FIRST_FILE,
        "00000",
        "events.out.tfevents.1",
        "events.out.tfevents.3",  # and no pipe
    }
    assert all(path.exists() for path in first.iterdir())
    assert declared.st_size > 0
    make("r2/b/b", seed=1)
    run_links.update(links, outputs)
    assert names(links) == [f"{NAME} · seed 0", f"{NAME} · seed 1"]
    shutil.rmtree(outputs / "r2")
    run_links.update(links, outputs)
    assert names(links) == [NAME]
    (outputs / "r1/a/checkpoint/tb/events.out.tfevents.2").unlink()
    (outputs / "r1/a/checkpoint/tb/events.out.tfevents.3").unlink()
    assert sorted(path.name for path in (outputs / "r1/a/checkpoint").rglob("*")) == before


def test_hyperparameters_that_differ_are_found_in_hashed_and_in_resolved_configs():
    hashed = {"head.name": "linear", "backbone.checkpoint.size": "tiny", "seed": 0}
    resolved = {"head.name": "linear", "backbone.size": "base", "seed": 0, "task.epochs": 3}
    assert hparams.varied([hashed, resolved]) == ["size"]  # only one run has epochs
    assert hparams.varied([hashed, {**hashed, "seed": 1}]) == ["seed"]
    assert hparams.varied([hashed]) == []
