"""A finetune that is killed, told to stop, damaged or driven wild: one line, and the same end.

Fault table of the project: rows 1-9, 12, 15, 31, 32, 35.
"""

from __future__ import annotations

import json
import shutil
import signal
import time

import numpy as np
import pytest
import torch

from fgvc.config.compose import composed, typed
from fgvc.data import dataset as datasets
from fgvc.model.classifier import Classifier
from fgvc.report.audit import audited

EVERYTHING = (  # that is drawn at random, averaged or counted, with a state after every step
    "task.drop_path=0.3",
    "task.mixup=0.8",
    "task.cutmix=1.0",
    "task.ema=0.9",
    "task.epochs=6",
    "task.select=loss",
    "runtime.save_every=1",
    "runtime.run_id=r",
)


@pytest.fixture(scope="module")
def undisturbed():
    """What `whole` found, for all tests."""
    return []


@pytest.fixture
def whole(finetune, tmp_path, told, undisturbed):
    """What a finetune with everything leaves when nobody disturbs it."""

    def made():
        if not undisturbed:
            ran = finetune(*EVERYTHING, f"runtime.output_root={tmp_path / 'undisturbed'}")
            assert ran.code == 0, ran.err
            undisturbed.append(told(ran.folder))
        return undisturbed[0]

    return made


@pytest.fixture
def here(tmp_path):
    """here(pattern) -> what lies in the folder of the disturbed run."""

    def found(pattern):
        return sorted(tmp_path.glob(f"outputs/r/*/{pattern}"))

    return found


def states(here):
    return {path.name for path in here("in-progress/resume/state-*.pt")}


def status(here):
    (path,) = here("in-progress/status.json")
    return json.loads(path.read_text())


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


# --- death at any moment ---


def killed(job, here, wait_until, seconds):
    """Kill a job some time after it took a step of its own; whether it was alive then."""
    before = states(here)
    wait_until(lambda: states(here) - before or not job.process.is_alive())
    time.sleep(seconds)
    alive = job.process.is_alive()
    if alive:
        job.send(signal.SIGKILL)
    job.wait()
    for folder in here("*"):
        assert folder.name in ("in-progress", ".lock", ".resume"), job.said
    return alive


def survived(begun, here, wait_until, told, whole, delays, at_start=()):
    rng = np.random.default_rng(0)
    expected = whole()
    for seconds in delays:
        workers = f"runtime.num_workers={rng.integers(2)}"
        assert killed(begun(*EVERYTHING, workers), here, wait_until, seconds)
    for seconds in at_start:
        job = begun(*EVERYTHING)
        time.sleep(seconds)
        job.send(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL, job.said
    last = begun(*EVERYTHING, "runtime.num_workers=1")
    assert last.wait() == 0, last.said
    assert "resumed after step" in last.said
    (metrics,) = here("*/metrics.json")
    assert told(metrics.parent) == expected
    resumed = json.loads(metrics.read_text())["resumed"]
    assert resumed["step"] >= len(delays) // 2  # a state may be that of an epoch judged, no step
    assert (resumed["forced"], resumed["other_code"]) == (False, False)
    assert not here("in-progress")
    assert not here(".resume")


@pytest.mark.fault(1, 2, 5, 6)
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_fourteen_times_it_ends_as_if_nothing_had_been(begun, here, wait_until, told, whole):
    delays = [0.0, 0.02, 0.05, *np.random.default_rng(7).uniform(0, 0.06, 7)]
    survived(begun, here, wait_until, told, whole, delays, (0.05, 0.3, 0.6, 0.9))


@pytest.mark.fault(3, 5)
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGUSR1, marks=pytest.mark.slow)]
)
def test_asked_to_stop_it_saves_and_the_same_command_goes_on(begun, here, told, whole, number):
    job = begun(*EVERYTHING, "runtime.save_every=null")  # only the signal saves within an epoch
    job.until(lambda: states(here))
    job.send(number)
    assert job.wait(20) == 75, job.said
    assert status(here)["state"] == "preempted"
    assert "runtime.run_id=r goes on" in job.line
    assert "stopping after this step" in job.said
    last = begun(*EVERYTHING)
    assert last.wait() == 0, last.said
    (metrics,) = here("*/metrics.json")
    assert told(metrics.parent) == whole()


@pytest.mark.fault(4)
@pytest.mark.slow
def test_asked_twice_it_ends_at_once_and_can_still_go_on(begun, here, told, whole):
    """The first notice is seen and the step not yet over when the second comes."""
    job = begun(*EVERYTHING, "task.epochs=6")
    job.until(lambda: states(here))
    for _ in range(2):
        job.send(signal.SIGTERM)
        time.sleep(0.001)
    assert job.wait(20) in (-signal.SIGTERM, 75), job.said
    last = begun(*EVERYTHING)
    assert last.wait() == 0, last.said
    (metrics,) = here("*/metrics.json")
    assert told(metrics.parent) == whole()


# --- what lies on the disk ---


@pytest.fixture
def stopped(finetune, monkeypatch):
    """Stop a finetune after so many steps, as a signal does, but in this process."""

    def start(steps, *more):
        from fgvc.learn.train.trainer import Trainer

        honest = Trainer.step

        def step(self, micros):
            report = honest(self, micros)
            if self.done == steps:
                signal.raise_signal(signal.SIGTERM)
            return report

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "step", step)
            ran = finetune(*EVERYTHING, *more)
        assert ran.code == 75, ran.err
        return ran

    return start


@pytest.mark.fault(8, 9)
@pytest.mark.parametrize(
    "harm", [flipped, lambda path: path.write_bytes(path.read_bytes()[:1000])],
    ids=["flipped", "truncated"],
)  # fmt: skip
def test_a_damaged_newest_state_is_passed_over(finetune, stopped, here, told, whole, harm):
    stopped(8)
    _, newest = here("in-progress/resume/state-*.pt")
    harm(newest)
    ran = finetune(*EVERYTHING)
    assert ran.code == 0, ran.err
    assert newest.name in ran.out
    assert f"{newest}" in ran.out
    assert "resumed after step 7" in ran.out
    assert ran.json("metrics.json")["resumed"]["step"] == 7
    assert told(ran.folder) == whole()


@pytest.mark.fault(5)
def test_without_averages_too_it_goes_on_as_if_nothing_had_been(
    finetune, stopped, here, told, tmp_path
):
    """In the second epoch, when the very model that trains has been evaluated once."""
    plain = ("task.ema=null", "task.drop_path=0.5", "task.epochs=2")
    alone = finetune(*EVERYTHING, *plain, f"runtime.output_root={tmp_path / 'undisturbed'}")
    still = finetune(
        *EVERYTHING,
        *plain,
        "task.drop_path=0.0",
        f"runtime.output_root={tmp_path / 'without'}",
    )
    stopped(4, *plain)
    ran = finetune(*EVERYTHING, *plain)
    assert "resumed after step 4" in ran.out
    assert told(ran.folder) == told(alone.folder)
    losses = [told(one.folder).curves["val/loss"] for one in (alone, still)]
    assert losses[0] != losses[1]


@pytest.mark.fault(8)
@pytest.mark.slow
def test_without_a_whole_state_it_starts_anew(finetune, stopped, here, told, whole):
    stopped(4)
    for path in here("in-progress/resume/state-*.pt"):
        flipped(path)
    ran = finetune(*EVERYTHING)
    assert ran.code == 0, ran.err
    assert "the training starts anew" in ran.out
    assert told(ran.folder) == whole()


@pytest.mark.fault(35, 51)
def test_torn_events_and_a_leftover_are_no_part_of_the_record(finetune, stopped, here, told, whole):
    stopped(5)
    (events,) = here("in-progress/tb/events*")
    events.write_bytes(events.read_bytes()[:-7])
    (here("in-progress/resume")[0] / ".state-9.tmp").write_bytes(b"torn")
    ran = finetune(*EVERYTHING)
    assert ran.code == 0, ran.err
    assert events.name not in {path.name for path in (ran.folder / "tb").iterdir()}
    assert told(ran.folder) == whole()


# --- another config ---


@pytest.mark.fault(7)
def test_another_config_under_the_same_run_id_is_refused(finetune, stopped, here):
    stopped(4)
    before = {path: path.read_bytes() for path in here("in-progress/resume/*")}
    ran = finetune(*EVERYTHING, "task.learning_rate=1e-3", "head=cosine")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "task.learning_rate: 0.0005 there, 0.001 here" in ran.err
    assert "head.name: linear there, cosine here" in ran.err
    assert {path: path.read_bytes() for path in here("in-progress/resume/*")} == before
    assert finetune(*EVERYTHING).code == 0


@pytest.mark.parametrize(
    "place", ["", "/resume/STATE", pytest.param("/resume", marks=pytest.mark.slow)]
)
def test_a_state_can_be_named(finetune, stopped, here, told, whole, place):
    stopped(4)
    (folder,) = here("in-progress")
    (newest,) = here("in-progress/resume/state-00000004*")
    path = f"{folder}{place.replace('STATE', newest.name)}"
    ran = finetune(*EVERYTHING, "runtime.run_id=second", f'runtime.resume="{path}"')
    assert ran.code == 0, ran.err
    resumed = ran.json("metrics.json")["resumed"]
    assert (resumed["step"], resumed["forced"]) == (4, False)
    assert resumed["from"] == f"r/{folder.parent.name}"
    assert told(ran.folder) == whole()
    assert newest.exists()  # the other run's


@pytest.mark.fault(7)
def test_a_state_of_another_config_needs_force_which_is_recorded(finetune, stopped, here):
    stopped(4)
    (folder,) = here("in-progress")
    other = ("runtime.run_id=second", f"runtime.resume={folder}", "task.learning_rate=1e-3")
    ran = finetune(*EVERYTHING, *other)
    assert ran.code == 1
    assert "task.learning_rate: 0.0005 there, 0.001 here" in ran.err
    assert "runtime.resume_force=true" in ran.err
    assert ran.err.count("\n") == 1
    forced = finetune(*EVERYTHING, *other, "runtime.resume_force=true")
    assert forced.code == 0, forced.err
    assert forced.json("metrics.json")["resumed"]["forced"] is True
    assert forced.json("metrics.json")["resumed"]["step"] == 4
    assert forced.json("metrics.json")["selection"]["steps"] == 18


@pytest.mark.fault(7)
def test_a_forced_resume_shows_what_it_was_fitted_on_and_stays_out_of_the_ranking(
    finetune, stopped, run, here, tmp_path
):
    """From a state that has trained on validation, which this config still calls validation."""
    stopped(4, "final_fit=trainval")
    (folder,) = here("in-progress")
    force = (f"runtime.resume={folder}", "runtime.resume_force=true", "final_fit=train")
    forced = finetune(*EVERYTHING, "runtime.run_id=forced", *force, "task.epochs=2")
    honest = finetune(*EVERYTHING, "runtime.run_id=honest", "final_fit=train", "task.epochs=2")
    assert (forced.code, honest.code) == (0, 0), forced.err + honest.err
    assert "note: resumed by force under another config" in forced.out
    numbers, plain = (ran.json("metrics.json") for ran in (forced, honest))
    assert (numbers["fitted_on"], plain["fitted_on"]) == (18, 12)
    assert (numbers["comparability"]["forced"], plain["comparability"]["forced"]) == (True, False)
    assert ">forced resume</span>" in (forced.folder / "report.html").read_text()

    assert run("task=report", bare=True).code == 0
    rows = json.loads((tmp_path / "outputs/baselines.json").read_text())["rows"]
    assert sorted(row["run_id"][0] for row in rows) == ["forced", "honest"]
    assert len({row["group"] for row in rows}) == len(rows)
    assert {row["run_id"][0]: "forced resume" in row["name"] for row in rows} == {
        "forced": True,
        "honest": False,
    }
    failed = {one.id: one.evidence for one in audited(forced.folder)[1] if one.state == "FAIL"}
    assert failed.keys() == {"plain-fit", "fitted-on"}
    assert [one.id for one in audited(honest.folder)[1] if one.state == "FAIL"] == []

    again = run("task=eval", f"checkpoint={forced.folder}", "runtime.run_id=eval", bare=True)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["comparability"]["forced"] is True


@pytest.mark.fault(7)
@pytest.mark.parametrize(
    "other", ["head=cosine", pytest.param("backbone=dinov2", marks=pytest.mark.slow)]
)
def test_force_makes_no_weights_fit(finetune, stopped, here, other):
    stopped(2)
    (folder,) = here("in-progress")
    where = ("runtime.run_id=second", f"runtime.resume={folder}", "runtime.resume_force=true")
    ran = finetune(*EVERYTHING, *where, other)
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert "runtime.resume" in ran.err


def test_nothing_to_resume_is_said(finetune, tmp_path):
    ran = finetune(f"runtime.resume={tmp_path / 'nowhere'}")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "no resume state there" in ran.err


# --- numbers that are none, memory that is none ---


@pytest.fixture
def spoilt():
    """spoilt(after, change) -> mend: once so many images were trained on, `change` their logits."""
    patch = pytest.MonkeyPatch()

    def spoil(after, change):
        honest, seen = Classifier.forward, [0]

        def forward(self, pixels_BCHW):
            seen[0] += len(pixels_BCHW) if self.training else 0
            logits_BK = honest(self, pixels_BCHW)
            return change(logits_BK) if self.training and seen[0] > after else logits_BK

        patch.setattr(Classifier, "forward", forward)
        return patch.undo

    yield spoil
    patch.undo()


def failed(ran, here, state, *words):
    assert ran.code == 1
    assert ran.folder is None
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err
    assert status(here)["state"] == state
    assert len(states(here)) == 2


@pytest.mark.fault(31)
def test_a_loss_that_is_no_number_ends_it_and_the_good_state_stays(finetune, here, spoilt):
    third = torch.tensor([[1.0], [1.0], [torch.nan], [1.0]])
    mend = spoilt(20, lambda logits_BK: logits_BK * third)
    usual = (*EVERYTHING, "task.mixup=0", "task.cutmix=0")
    ran = finetune(*usual)
    failed(ran, here, "failed", "loss is nan at step 5", "manifest row", "task.learning_rate")
    named = ran.err.split("manifest rows ")[1].split(":")[0]
    assert named.isdigit()  # the one image, not its batch
    mend()
    again = finetune(*usual)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["resumed"]["step"] == 5


@pytest.mark.fault(31)
def test_a_rate_that_is_too_high_is_said(finetune, here):
    ran = finetune("task.learning_rate=1e30", "task.clip_norm=null", "runtime.run_id=r")
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert "is nan at step" in ran.err or "is inf at step" in ran.err
    assert status(here)["state"] == "failed"


@pytest.mark.fault(32)
def test_memory_that_ran_out_has_a_state_of_its_own(finetune, here, spoilt):
    def out(logits_BK):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    mend = spoilt(20, out)
    ran = finetune(*EVERYTHING)
    failed(ran, here, "oom", "4 images of 224 px", "runtime.micro_batch")
    mend()
    again = finetune(*EVERYTHING, "runtime.micro_batch=2")
    assert again.code == 0, again.err
    assert again.json("metrics.json")["resumed"]["step"] == 5


# --- its pictures ---


@pytest.mark.fault(20, 21)
def test_a_picture_that_cannot_be_read(finetune, birds, tmp_path):
    """Named under error; under skip left out of training, wrong in the test, N unchanged."""
    root = tmp_path / "copy"
    shutil.copytree(birds, root)
    name = dict(line.split() for line in (root / "images.txt").open())
    parts = [line.split() for line in (root / "train_test_split.txt").open()]
    victim = {part: next(name[key] for key, found in parts if found == part) for part in "01"}
    for path in victim.values():
        (root / "images" / path).write_bytes(b"<html>404</html>")
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", "task.epochs=2")
    ran = finetune(*cub, "dataset.val_fraction=0", "final_fit=trainval")
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert victim["1"] in ran.err
    skipped = finetune(*cub, "dataset.on_bad_image=skip")
    assert skipped.code == 0, skipped.err
    numbers = skipped.json("metrics.json")
    train, val = ((skipped.folder / f"splits/{part}.txt").read_text() for part in ("train", "val"))
    assert numbers["unreadable"] == {
        "train": train.count(victim["1"]),
        "val": val.count(victim["1"]),
        "test": 1,
    }
    assert numbers["fitted_on"] == 12 - train.count(victim["1"])
    assert (numbers["test"]["n"], numbers["test"]["unreadable"]) == (12, 1)


def torn_copy(birds, tmp_path, tears):
    """Options of a copy of the birds with torn images. tears(path, part): part 1 train, 0 test."""
    root = shutil.copytree(birds, tmp_path / "copy")
    name = dict(line.split() for line in (root / "images.txt").open())
    for key, part in map(str.split, (root / "train_test_split.txt").open()):
        if tears(name[key], int(part)):
            (root / "images" / name[key]).write_bytes(name[key].encode())
    cub = ("dataset=cub", f"dataset.root={root}", "dataset.partial=true", "task.epochs=1")
    return (*cub, "dataset.on_bad_image=skip")


@pytest.mark.fault(20, 21)
def test_unreadable_images_count_whether_or_not_a_step_drew_them(finetune, birds, tmp_path):
    """The only step draws 7 of 12 images. The other 5 cannot all be among the 4 readable ones. No
    test image can be read; the audit computes the same numbers."""
    torn = torn_copy(birds, tmp_path, lambda path, part: not part or path.split(".")[0] < "005")
    ran = finetune(*torn, "dataset.val_fraction=0", "final_fit=trainval", "task.batch_size=7")
    assert ran.code == 0, ran.err
    numbers = ran.json("metrics.json")
    assert numbers["fitted_on"] == 4
    assert numbers["unreadable"] == {"train": 8, "val": 0, "test": 12}
    assert [one for one in audited(ran.folder)[1] if one.state == "FAIL"] == []


@pytest.mark.fault(20)
@pytest.mark.parametrize(
    ("of", "more", "says"),
    [
        ("val", (), "0 of the 6 validation images can be read, so no epoch can be chosen"),
        ("train", (), "0 of the 12 training images can be read"),
        ("train", ("task.debug=overfit",), "0 of the 4 images of task.debug=overfit can be read"),
    ],
)
def test_a_split_without_a_readable_image(finetune, birds, tmp_path, of, more, says):
    usual = ("dataset=cub", "dataset.partial=true", "dataset.subset=tiny")
    conf = typed(composed([*usual, f"dataset.root={birds}"]))
    split = datasets.load(conf.dataset, tmp_path / "cache")
    row_N = getattr(split.split, f"{of}_N").tolist()
    torn = {split.manifest.path[row].removeprefix("images/") for row in row_N}
    ran = finetune(*torn_copy(birds, tmp_path, lambda path, part: path in torn), *more)
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert f"dataset.on_bad_image=skip: {says}" in ran.err


@pytest.mark.parametrize("part_attention", ["off", "transfg"])
@pytest.mark.parametrize("family", ["vit", "dinov3", "clip", "siglip2"])
def test_a_batch_without_a_readable_image(finetune, birds, tmp_path, family, part_attention):
    """Its forward pass adds nothing; libraries cannot reshape a batch of no image."""
    root = shutil.copytree(birds, tmp_path / "copy")
    name = dict(line.split() for line in (root / "images.txt").open())
    trained = (
        key for key, part in map(str.split, (root / "train_test_split.txt").open()) if int(part)
    )
    (root / "images" / name[next(trained)]).write_bytes(b"torn")
    ran = finetune(
        f"backbone={family}",
        f"part_attention={part_attention}",
        *("dataset=cub", f"dataset.root={root}", "dataset.partial=true"),
        *("dataset.val_fraction=0", "final_fit=trainval", "dataset.on_bad_image=skip"),
        *("task.epochs=1", "task.batch_size=1", "task.drop_path=0.2"),
    )
    assert ran.code == 0, ran.err
    assert ran.json("metrics.json")["fitted_on"] == 11
