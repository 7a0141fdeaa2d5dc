"""A training with a fault in loss, memory or events: one line, and the last good state stays."""

from __future__ import annotations

import pytest
import torch

from fgvc.model.classifier import Classifier
from tests.faults.steps import (
    EVERYTHING,
    read_status,
    state_names,
)


@pytest.mark.fault(35, 51)
def test_torn_events_and_a_leftover_are_no_part_of_the_record(
    finetune, stop_finetune, run_files, read_outcome, undisturbed_outcome
):
    stop_finetune(5)
    (events,) = run_files("in-progress/tb/events*")
    events.write_bytes(events.read_bytes()[:-7])
    (run_files("in-progress/resume")[0] / ".state-9.tmp").write_bytes(b"torn")
    ran = finetune(*EVERYTHING)
    assert ran.code == 0, ran.err
    assert events.name not in {path.name for path in (ran.folder / "tb").iterdir()}
    assert read_outcome(ran.folder) == undisturbed_outcome()


@pytest.fixture
def spoilt():
    """spoilt(after, change) -> undo: once so many images were trained on, `change` their logits."""
    patch = pytest.MonkeyPatch()

    def spoil(after, change):
        honest, image_count = Classifier.forward, [0]

        def forward(self, pixels_BCHW):
            image_count[0] += len(pixels_BCHW) if self.training else 0
            logits_BK = honest(self, pixels_BCHW)
            return change(logits_BK) if self.training and image_count[0] > after else logits_BK

        patch.setattr(Classifier, "forward", forward)
        return patch.undo

    yield spoil
    patch.undo()


def failed(ran, run_files, state, *words):
    assert ran.code == 1
    assert ran.folder is None
    assert ran.err.count("\n") == 1, ran.err
    for word in words:
        assert word in ran.err
    assert read_status(run_files)["state"] == state
    assert len(state_names(run_files)) == 2


@pytest.mark.fault(31)
def test_a_loss_that_is_no_number_ends_it_and_the_good_state_stays(finetune, run_files, spoilt):
    third = torch.tensor([[1.0], [1.0], [torch.nan], [1.0]])
    undo = spoilt(20, lambda logits_BK: logits_BK * third)
    usual = (*EVERYTHING, "task.mixup=0", "task.cutmix=0")
    ran = finetune(*usual)
    failed(ran, run_files, "failed", "loss is nan at step 5", "manifest row", "task.learning_rate")
    rows_named = ran.err.split("manifest rows ")[1].split(":")[0]
    assert rows_named.isdigit()  # the one image, not its batch
    undo()
    again = finetune(*usual)
    assert again.code == 0, again.err
    assert again.json("metrics.json")["resumed"]["step"] == 5


@pytest.mark.fault(31)
def test_a_learning_rate_that_is_too_high_is_reported(finetune, run_files):
    ran = finetune("task.learning_rate=1e30", "task.clip_norm=null", "runtime.run_id=r")
    assert ran.code == 1
    assert ran.err.count("\n") == 1, ran.err
    assert "is nan at step" in ran.err or "is inf at step" in ran.err
    assert read_status(run_files)["state"] == "failed"


@pytest.mark.fault(32)
def test_memory_that_ran_out_has_a_state_of_its_own(finetune, run_files, spoilt):
    def out(logits_BK):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    undo = spoilt(20, out)
    ran = finetune(*EVERYTHING)
    failed(ran, run_files, "oom", "4 images of 224 px", "runtime.micro_batch")
    undo()
    again = finetune(*EVERYTHING, "runtime.micro_batch=2")
    assert again.code == 0, again.err
    assert again.json("metrics.json")["resumed"]["step"] == 5
