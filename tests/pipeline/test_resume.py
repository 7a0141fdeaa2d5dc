"""A training is resumed only on the same data and weights, with epochs counted in the same steps.

Fault table of the project: rows 43 and 44.
"""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc.learn.train.best_epoch import BestEpoch
from fgvc.learn.train.trainer import Trainer
from fgvc.parallel.process_group import ProcessGroup
from fgvc.parallel.watchdog import Watchdog
from fgvc.pipeline.finetune import convert_epochs
from fgvc.record.resume_state import States
from tests.narrow import not_none

SMALL = (  # takes seconds, on generated images
    "dataset=folder",
    "dataset.subset=null",
    "resolution.name=r64",
    "resolution.side=64",
    "task.epochs=2",
    "task.batch_size=8",
    "runtime.save_every=1",
    "runtime.run_id=r",
)


@pytest.fixture
def images(tmp_path):
    """A folder dataset of three classes that differ in brightness."""
    root, rng = tmp_path / "pictures", np.random.default_rng(0)
    for level, name in enumerate("abc"):
        for split, count in (("train", 6), ("test", 6)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for place in range(count):
                noise = rng.integers(0, 40, (40, 60, 3)) + 70 * level
                Image.fromarray(noise.astype(np.uint8)).save(folder / f"{split}-{place}.png")
    return root


@pytest.fixture
def train(finetune, images):
    """train(*overrides): a small finetune on `images`, under the run_id r."""

    def start(*overrides):
        return finetune(*SMALL, f'dataset.root="{images}"', *overrides)

    return start


@pytest.fixture
def stop_finetune(train, finetune, stop_after):
    """Stop a finetune after so many steps, as a signal does, but in this process."""

    def start(steps, *overrides, begin=train):
        with stop_after(steps):
            ran = begin(*overrides)
        assert ran.code == 75, ran.err
        return ran

    return start


def refused(ran, *words):
    assert ran.code == 1, ran.out
    assert ran.folder is None
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err, ran.err


def swap(root):
    """Swap train/ and test/."""
    (root / "train").rename(root / "kept")
    (root / "test").rename(root / "train")
    (root / "kept").rename(root / "test")


def read_files(paths):
    return {path: path.read_bytes() for path in paths}


# --- other data ---


@pytest.mark.fault(43)
def test_training_images_do_not_become_the_test_of_a_resumed_run(train, images, run_files):
    assert train("runtime.stop_before_test=true").code == 0
    (validation,) = run_files("in-progress/validation.json")
    before = json.loads(validation.read_text())["identity"]["manifest_digest"]
    states = read_files(run_files("in-progress/resume/*"))
    swap(images)
    refused(train("runtime.stop_before_test=true"), "manifest_digest", before[:16])
    assert validation.exists()  # nothing of the run was touched
    refused(train(), "manifest_digest", before[:16], "runtime.run_id")
    assert read_files(run_files("in-progress/resume/*")) == states
    swap(images)
    ran = train()
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["test_reads"] == 1
    resumed, stamp = ran.json("metrics.json")["resumed"], ran.json("env_stamp.json")
    for name in ("manifest_digest", "split_digest", "labelmap_digest", "weights_digest"):
        assert resumed["identity"][name] == stamp[name]


@pytest.mark.fault(43)
def test_a_file_that_changed_is_other_data(train, stop_finetune, images, run_files, tmp_path):
    stop_finetune(1)
    states = read_files(run_files("in-progress/resume/*"))
    pixels = np.asarray(Image.open(images / "train/a/train-0.png"))
    Image.fromarray(255 - pixels).save(images / "train/a/train-0.png")
    before = train()
    refused(before, "manifest_digest")
    assert "1 of 36 files changed since they were last hashed" in before.out
    refused(train(f"runtime.cache_root={tmp_path / 'empty'}"), "manifest_digest")
    assert read_files(run_files("in-progress/resume/*")) == states


OTHER = {
    "manifest_digest": "a" * 64,
    "split_digest": "b" * 64,
    "labelmap_digest": "c" * 64,
    "weights_digest": "d" * 64,
}


def rewritten(folder, change):
    """Change the newest state of a folder and delete all others; returns its path."""
    states = States(folder, 1)
    step, state = not_none(states.newest(print))
    for path in folder.glob("state-*"):
        path.unlink()
    change(state)
    return states.save(step, state)


@pytest.mark.fault(43)
@pytest.mark.slow
def test_each_identity_is_checked_from_any_source_of_a_state(
    train, stop_finetune, run_files, tmp_path
):
    stop_finetune(1)
    (own,) = run_files("in-progress/resume")
    for number, (name, value) in enumerate(OTHER.items()):
        other = tmp_path / f"other-{number}"
        shutil.copytree(own, other)
        path = rewritten(other, lambda state, new={name: value}: state["identity"].update(new))
        for place in (path, other):
            resume_overrides = ("runtime.run_id=second", f'runtime.resume="{place}"')
            refused(train(*resume_overrides), f"{name}: {value[:16]} there, ")
            refused(
                train(*resume_overrides, "runtime.resume_force=true", "task.learning_rate=1e-3"),
                name,
            )
    rewritten(own, lambda state: state["identity"].update(OTHER))
    ran = train("runtime.resume_force=true")
    refused(ran, *(f"{name}: {value[:16]} there" for name, value in OTHER.items()))
    rewritten(own, lambda state: state.pop("identity"))
    refused(train(), "older version", "runtime.run_id")


@pytest.mark.fault(43)
def test_force_forgives_no_other_dataset(train, stop_finetune, images, run_files, tmp_path):
    stop_finetune(1)
    shutil.copytree(images, tmp_path / "second")
    swap(tmp_path / "second")
    (folder,) = run_files("in-progress")
    other = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        f"dataset.root={tmp_path / 'second'}",
        "dataset.name=second",
    )
    refused(train(*other), "manifest_digest", "dataset.name: folder there, second here")
    refused(train(*other, "runtime.resume_force=true"), "manifest_digest")
    copy = ("dataset.root", "pictures moved")
    shutil.copytree(images, tmp_path / copy[1])  # the same images in another place
    moved = f'dataset.root="{tmp_path / copy[1]}"'
    ran = train(*other[:2], moved, "dataset.name=second", "runtime.resume_force=true")
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["resumed"]["changed"] == ["dataset.name"]


@pytest.fixture
def files(tmp_path):
    """Two files of weights of the same shape."""
    from fgvc.config.compose import composed, typed
    from fgvc.model.backbone import build
    from fgvc.types import WeightsSource

    conf = typed(composed(["backbone=vit", "backbone.size=mini", "backbone.pretrained=false"]))
    for seed in (1, 2):
        model = build(conf.backbone, 64, WeightsSource("random", "x"), seed=seed)
        torch.save(model.trunk.state_dict(), tmp_path / f"{seed}.pth")
    return [
        ("backbone.pretrained=true", f"backbone.weights={tmp_path / f'{seed}.pth'}")
        for seed in (1, 2)
    ]


@pytest.mark.fault(43)
def test_force_forgives_no_other_weights(train, stop_finetune, run_files, files):
    stop_finetune(1, *files[0])
    (folder,) = run_files("in-progress")
    resume_overrides = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        "runtime.resume_force=true",
    )
    refused(train(*resume_overrides, *files[1]), "weights_digest")
    refused(train(*resume_overrides), "weights_digest", "None here")


@pytest.mark.fault(43)
def test_a_hub_revision_that_moved_is_other_weights():
    from fgvc.pipeline.experiment import check_data
    from fgvc.types import UserError

    same = {"weights_digest": "e" * 64}
    with pytest.raises(UserError, match="weights_revision: 1111 there, 2222 here"):
        check_data({**same, "weights_revision": "1111"}, {**same, "weights_revision": "2222"}, "x")
    for revision in (None, "1111"):  # a file has no revision: its digest decides
        check_data(
            {**same, "weights_revision": "1111"}, {**same, "weights_revision": revision}, "x"
        )


# --- an answer that is there already ---


@pytest.fixture
def table(images, tmp_path):
    """table(**renamed) -> options that read `images` by a list of them, some classes renamed."""
    file = tmp_path / "list" / "pictures.csv"
    file.parent.mkdir()

    def write(**renamed):
        paths = sorted(path.relative_to(images) for path in images.rglob("*.png"))
        lines = [
            f"{path.as_posix()},{renamed.get(path.parts[1], path.parts[1])},{path.parts[0]}"
            for path in paths
        ]
        file.write_text("\n".join(["path,label,split", *lines]) + "\n")
        return ("dataset=table", f"dataset.table={file}", f"dataset.root={images}")

    return write


@pytest.mark.fault(43)
def test_another_label_map_is_another_answer(train, stop_finetune, table):
    stop_finetune(1, *table())
    ran = train(*table(c="crow"))
    refused(ran, "labelmap_digest")
    assert "manifest_digest" not in ran.err


@pytest.fixture
def probe(run):
    """probe(*overrides): a small probe under the run_id p."""
    small = ("backbone=vit", "backbone.size=mini", "resolution.name=r64", "resolution.side=64")
    return lambda *more: run(*small, "runtime.run_id=p", *more, birds=False)


@pytest.mark.fault(16)
def test_a_complete_run_with_another_label_map_is_not_skipped(probe, table):
    assert probe(*table()).code == 0
    assert "complete already" in probe(*table()).out
    refused(probe(*table(c="crow")), "labelmap_digest", "runtime.run_id")


@pytest.mark.fault(16)
def test_the_evaluation_of_another_checkpoint_is_not_skipped(probe, run, images, tmp_path):
    """Other data give another head with the same config_hash."""
    other = tmp_path / "other"
    shutil.copytree(images, other)
    swap(other)
    first = probe("dataset=folder", f"dataset.root={images}")
    second = probe("dataset=folder", f"dataset.root={other}", "runtime.run_id=q")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert first.folder.parent.name == second.folder.parent.name

    def evaluate(fitted):
        at = (f"checkpoint={fitted.folder}", f"dataset.root={images}", "runtime.run_id=e")
        return run("task=eval", "runtime.stack_check=false", *at, bare=True)

    assert evaluate(first).code == 0
    assert "complete already" in evaluate(first).out
    refused(evaluate(second), "another checkpoint", first.folder.name, second.folder.name)


# --- another number of steps ---


def test_a_named_state_is_not_skipped_where_the_run_has_its_own(
    train, stop_finetune, run_files, tmp_path
):
    """The command that named it may be repeated; another place is refused, with both names."""
    for name, steps in (("one", 2), ("two", 1)):
        stop_finetune(steps, f"runtime.run_id={name}")
    (first,), (second,) = (
        sorted(tmp_path.glob(f"outputs/{name}/*/in-progress")) for name in ("one", "two")
    )
    stop_finetune(3, f"runtime.resume={first}")
    states = read_files(run_files("in-progress/resume/*"))
    refused(
        train(f"runtime.resume={second}"),
        str(second),
        f"not one/{first.parent.name}",
        "after step 3",
    )
    refused(train(f"runtime.resume={tmp_path / 'gone'}"), "gone", "after step 3")
    assert read_files(run_files("in-progress/resume/*")) == states
    ran = train(f"runtime.resume={first}")
    assert ran.code == 0, ran.err
    assert "resumed after step 3" in ran.out
    assert ran.json("metrics.json")["resumed"]["from"] == f"one/{first.parent.name}"


def test_a_state_named_by_a_relative_path_keeps_its_origin(
    train, stop_finetune, run_files, monkeypatch
):
    stop_finetune(2)
    (folder,) = run_files("in-progress")
    monkeypatch.chdir(folder / "resume")
    ran = train("runtime.run_id=second", "runtime.resume=.")
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["resumed"]["from"] == f"r/{folder.parent.name}"


def test_a_refused_run_leaves_the_states_of_a_stopped_training(
    train, stop_finetune, images, run_files, tmp_path
):
    """A complete run of other data is beside them, as after merging outputs of two machines."""
    trained = train()
    (tmp_path / "aside").mkdir()
    aside = shutil.move(trained.folder, tmp_path / "aside")
    swap(images)
    stop_finetune(2, "runtime.cache_root=" + str(tmp_path / "other"))
    states = read_files(run_files("in-progress/resume/*"))
    shutil.move(aside, trained.folder)
    refused(train("runtime.cache_root=" + str(tmp_path / "other")), "another manifest_digest")
    assert read_files(run_files("in-progress/resume/*")) == states != {}


def test_an_evaluation_does_not_delete_the_states_of_a_stopped_training(
    train, stop_finetune, run, images, run_files
):
    """Both have the config of the training, so its run_id gives them one folder."""
    trained = train("runtime.run_id=made")
    stop_finetune(2)
    states = read_files(run_files("in-progress/resume/*"))
    assert states
    places = (
        f"checkpoint={trained.folder}",
        f'dataset.root="{images}"',
        "runtime.stack_check=false",
    )
    again = run("task=eval", *places, "runtime.run_id=r", bare=True)
    refused(again, "runtime.run_id=r", "resume", "another runtime.run_id")
    assert read_files(run_files("in-progress/resume/*")) == states
    assert train().code == 0


@pytest.mark.fault(44)
def test_a_state_past_the_end_is_refused_before_anything_is_trained(
    train, stop_finetune, run_files, tmp_path
):
    stop_finetune(3)
    (folder,) = run_files("in-progress")
    resume_overrides = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        "runtime.resume_force=true",
    )
    ran = train(*resume_overrides, "task.epochs=1")
    refused(
        ran, "task.epochs=1", "step 3", "steps per epoch: 2; in total: 2", "task.epochs=2 or more"
    )
    assert "resumed after" not in ran.out
    ran = train(*resume_overrides, "task.batch_size=16")  # 1 step per epoch, 2 in total
    refused(
        ran, "task.epochs=2", "step 3", "steps per epoch: 1; in total: 2", "task.epochs=3 or more"
    )
    assert not list(tmp_path.glob("outputs/second/*/in-progress/resume/*"))


def test_a_state_at_the_very_end_is_evaluated(train, stop_finetune, run_files):
    stop_finetune(2)
    (folder,) = run_files("in-progress")
    resume_overrides = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        "runtime.resume_force=true",
    )
    ran = train(*resume_overrides, "task.epochs=1")
    assert ran.code == 0, ran.err
    selection = ran.json("metrics.json")["selection"]
    assert (selection["steps"], selection["epochs"], selection["best_step"]) == (2, 1, 2)
    assert ran.json("metrics.json")["resumed"]["changed"] == ["task.epochs"]


def judged_at(ran):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(ran.folder / "tb"), size_guidance={"scalars": 0}).Reload()
    return [event.step for event in events.Scalars("val/loss")]


@pytest.mark.parametrize(("size", "steps"), [(16, [2, 4, 5, 6]), (4, [2, 4, 8, 12, 16, 20, 24])])
def test_under_another_batch_size_each_epoch_is_judged_once(
    train, stop_finetune, run_files, size, steps
):
    stop_finetune(5, "task.epochs=6")
    (folder,) = run_files("in-progress")
    resume_overrides = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        "runtime.resume_force=true",
    )
    ran = train(*resume_overrides, "task.epochs=6", f"task.batch_size={size}")
    assert ran.code == 0, ran.err
    selection = ran.json("metrics.json")["selection"]
    assert judged_at(ran) == steps
    assert (selection["steps"], selection["epochs"]) == (steps[-1], 6)
    per_epoch = steps[-1] // 6
    assert selection["best_step"] in steps
    assert selection["best_epoch"] == selection["best_step"] // per_epoch


def test_under_trainval_no_epoch_of_a_state_is_the_best(train, stop_finetune, run_files):
    stop_finetune(3)
    (folder,) = run_files("in-progress")
    resume_overrides = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        "runtime.resume_force=true",
    )
    ran = train(*resume_overrides, "final_fit=trainval")
    assert ran.code == 0, ran.err
    selection = ran.json("metrics.json")["selection"]
    assert (selection["select"], selection["best_epoch"]) == (None, None)
    assert selection["best_step"] == selection["steps"] == 4


def test_epochs_are_converted_by_their_steps():
    best = BestEpoch("top1", 5, epoch=2, top1=0.5, last=3)
    assert convert_epochs(best, 3, 31, 10, 10) == (3, best)
    assert convert_epochs(best, 3, 31, 10, 5) == (6, replace(best, epoch=4, last=6))
    assert convert_epochs(best, 3, 35, 10, 5)[0] == 6  # an epoch ends here, and was not judged
    assert convert_epochs(best, 3, 30, 10, 5)[0] == 6  # an epoch ends here, and was
    judged, later = convert_epochs(best, 3, 31, 10, 40)
    assert (judged, later.epoch, later.last) == (0, 0, 0)
    worse = later.after(1, 0.4, 1.0)
    assert not worse.is_new
    untouched = BestEpoch("loss", None)
    assert convert_epochs(untouched, 0, 3, 10, 5) == (0, untouched)


# --- what is said of a resume ---


@pytest.mark.fault(7)
def test_a_forced_resume_is_recorded_after_every_later_resume(train, stop_finetune, run_files):
    stop_finetune(1)
    (folder,) = run_files("in-progress")
    other = ("runtime.run_id=second", "task.learning_rate=1e-3")
    stop_finetune(2, *other, f"runtime.resume={folder}", "runtime.resume_force=true")
    ran = train(*other)
    assert ran.code == 0, ran.err
    resumed = ran.json("metrics.json")["resumed"]
    assert (resumed["step"], resumed["forced"]) == (2, True)
    assert resumed["changed"] == ["task.learning_rate"]
    assert resumed["from"] == f"r/{folder.parent.name}"


def test_weights_that_do_not_fit_leave_no_state(train, stop_finetune, run_files, tmp_path):
    stop_finetune(1)
    (folder,) = run_files("in-progress")
    other = ("runtime.run_id=second", "head=cosine")
    ran = train(*other, f"runtime.resume={folder}", "runtime.resume_force=true")
    refused(ran, "head.log_scale is missing in the state (2 such tensors)")
    assert not list(tmp_path.glob("outputs/second/*/in-progress/resume/*"))
    assert train(*other).code == 0  # the same command without the state starts from step 0


def test_damaged_states_that_are_named_do_not_announce_a_training(train, stop_finetune, run_files):
    """Only damaged states of the run itself let the training start from step 0."""
    stop_finetune(1)
    (folder,) = run_files("in-progress")
    for path in run_files("in-progress/resume/state-*.pt"):
        path.write_bytes(b"")
    ran = train("runtime.run_id=second", f"runtime.resume={folder}")
    refused(ran, f"runtime.resume={folder}: no resume state there")
    assert "no intact resume state is left" in ran.out
    assert "starts from step 0" not in ran.out
    assert "before it" not in ran.out


def test_the_watchdog_knows_whether_a_state_was_saved(train, stop_finetune, monkeypatch):
    watchdog, saved_flags, step = Watchdog(60.0), [], Trainer.step

    def observed(self, micros):
        saved_flags.append(watchdog.state_saved)
        return step(self, micros)

    monkeypatch.setattr(Trainer, "step", observed)
    world = ProcessGroup(0, 1, "one process", watchdog)
    monkeypatch.setattr("fgvc.task.train.join_group", lambda *_: nullcontext(world))
    stop_finetune(2)
    assert saved_flags == [False, True]
    train()
    assert saved_flags[2:] == [True, True]


@pytest.mark.fault(7)
def test_a_state_of_another_model_is_refused_by_its_first_tensor(train, stop_finetune, run_files):
    stop_finetune(1)
    (folder,) = run_files("in-progress")
    resume_overrides = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        "runtime.resume_force=true",
    )
    resized = ("resolution.name=r80", "resolution.side=80")
    for options, tensor in (
        (resized, "pos_embed has shape (1, 17, 64) in the state and (1, 26, 64) here"),
        (("backbone=dinov2", "resolution.name=r56", "resolution.side=56"), "in the state and"),
        (("task.tune=head",), "the optimiser's state of "),
    ):
        ran = train(*resume_overrides, *options)
        refused(ran, f"runtime.resume={folder}: ", tensor, "without runtime.resume")
        assert "state_dict" not in ran.err
        assert len(ran.err) < 700


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("task.epochs=1", "task.epochs=1: the resume state is at step 3"),
        ("head=cosine", "head.log_scale is missing in the state"),
    ],
)
def test_two_ranks_refuse_a_state_in_one_line(
    start_finetune, stop_finetune, images, run_files, change, message
):
    stop_finetune(3)
    (folder,) = run_files("in-progress")
    resume_overrides = (
        "runtime.run_id=second",
        f"runtime.resume={folder}",
        "runtime.resume_force=true",
    )
    options = (*SMALL, f"dataset.root={images}", *resume_overrides, change, "runtime.nproc=2")
    job = start_finetune(*options)
    assert job.wait() == 1, job.output
    assert message in job.line
