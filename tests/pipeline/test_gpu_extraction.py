"""What an extraction does for a GPU, on the CPU: compiled forwards, late copies, pinned batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fgvc.data import loader
from fgvc.pipeline import bf16_trial, loader_wait, readback
from fgvc.types import BadImage, UserError
from tests.pipeline.test_bf16_trial import CPU, LINE, Extraction

GPU = torch.device("cuda")


@pytest.fixture
def compiled(monkeypatch):
    """For each call of torch.compile, the sizes of the batches that its result forwarded."""
    sizes: list[list[int]] = []
    original = torch.compile

    def compile_eagerly(function, **options):
        assert options == {"dynamic": False}
        fast, ran = original(function, backend="aot_eager", **options), []
        sizes.append(ran)

        def run(pixels_BCHW):
            ran.append(len(pixels_BCHW))
            return fast(pixels_BCHW)

        return run

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    return sizes


def test_full_batches_run_compiled_once(monkeypatch, tmp_path, compiled):
    expected_ND = Extraction(monkeypatch, tmp_path / "eager").features()
    assert compiled == []
    run = Extraction(
        monkeypatch, tmp_path / "compiled", "runtime.compile=true", "runtime.eval_batch_size=2"
    )
    np.testing.assert_allclose(run.features(), expected_ND, atol=1e-5)
    assert compiled == [[2] * 6]
    run = Extraction(monkeypatch, tmp_path / "partial", "runtime.compile=true")  # batches of 32
    np.testing.assert_array_equal(run.features(), expected_ND)
    assert len(compiled) == 1


def test_compiled_features_have_a_key_of_their_own(monkeypatch, tmp_path):
    plain = Extraction(monkeypatch, tmp_path).extractor.key("train")
    compiled = Extraction(monkeypatch, tmp_path, "runtime.compile=true").extractor.key("train")
    assert compiled == {**plain, "compiled": True}


def test_bf16_is_not_tried_in_a_compiled_extraction(monkeypatch, tmp_path, compiled):
    monkeypatch.setattr(bf16_trial, "DEVICES", ("cpu",))
    monkeypatch.setattr(bf16_trial, "MIN_IMAGES", 12)
    run = Extraction(monkeypatch, tmp_path, "runtime.compile=true", "runtime.eval_batch_size=2")
    run.features()
    assert not any(LINE.search(line) for line in run.lines)


def test_a_failure_to_compile_is_one_line(monkeypatch, tmp_path):
    def backend(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nmore lines")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: original(f, backend=backend))
    torch._dynamo.reset()
    run = Extraction(monkeypatch, tmp_path, "runtime.compile=true", "runtime.eval_batch_size=2")
    with pytest.raises(UserError) as raised:
        run.features()
    (line,) = str(raised.value).splitlines()
    start = "runtime.compile=true: torch.compile fails here (No working C++ compiler found); "
    assert line.startswith(start)
    assert line.endswith("or set runtime.compile=false")


def test_items_come_one_late_and_in_order():
    made = []

    def make():
        for item in range(4):
            made.append(item)
            yield item

    late = readback.one_late(make())
    seen = [(item, len(made)) for item in late]
    assert seen == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(readback.one_late([])) == []


def test_an_extraction_one_late_gives_the_same_features(monkeypatch, tmp_path):
    expected_ND = Extraction(monkeypatch, tmp_path / "plain").features()
    monkeypatch.setattr(readback, "DEVICES", ("cpu",))
    events = []

    def start(feature_BD):
        events.append("start")
        return lambda: events.append("read") or feature_BD.numpy()

    monkeypatch.setattr(readback, "start", start)
    np.testing.assert_array_equal(
        Extraction(monkeypatch, tmp_path / "late").features(), expected_ND
    )
    assert events == ["start", *["start", "read"] * 5, "read"]


def test_the_loader_pins_the_pixels_only(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 1)
    bad = (BadImage(7, "x.jpg: broken"),)
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    batch: Any = loader._Collate(4)([(5, pixels[0]), (7, bad[0])])
    pinned = batch.pin_memory()
    assert torch.equal(pinned.pixels_BCHW, pixels + 1)
    assert (pinned.row_B.tolist(), pinned.bad) == ([5], bad)


def test_a_gpu_that_waits_for_images_is_worth_a_line():
    def note(device=GPU, images=10_000, waited=30.0, workers=4):
        return loader_wait.note(device, images, waited, 100.0, workers, 16)

    assert note() == (
        "the GPU waited for images 30% of the time, with 4 loader processes: "
        "set runtime.num_workers=16, one per core"
    )
    assert "all 16 cores decode" in str(note(workers=16))
    assert note(device=CPU) is note(images=9_999) is note(waited=19.0) is None


def test_the_time_without_an_image_is_counted(monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr(loader_wait, "note", lambda *args: lines.append(args) or "waited")
    run = Extraction(monkeypatch, tmp_path)
    run.features()
    ((device, images, waited, seconds, workers, cores),) = lines
    assert (device, images) == (CPU, 12)
    assert 0 < waited <= seconds
    assert min(workers, cores) >= 1
    assert "features train: waited" in run.lines
