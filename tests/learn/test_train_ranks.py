"""Two ranks against one, at the same global batches: run as a program, this file is a rank."""

import json
import math
import os
import subprocess
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn

from fgvc.config.compose import composed, typed
from fgvc.learn.train import LoaderBatch, NonFinite, Trainer
from tests.jobs import HANG, import_path

CLASSES, SIDE, BATCH, STEPS = 5, 16, 8, 5
BAD = [(), (1,), (0, 1, 2, 6), (4, 5, 6, 7), ()]  # places that cannot be read, step by step
SCENARIOS = {
    "sgd": ["optimiser=sgd", "momentum=0.9", "mixup=0.8", "cutmix=1.0", "clip_norm=0.5"],
    "adamw": ["optimiser=adamw", "ema=0.9", "learning_rate=1e-3"],
}


class ClassToken(nn.Module):
    """token_BD -> its mean with a learnt token, which is broadcast as in a vision transformer."""

    def __init__(self, width):
        super().__init__()
        self.class_11D = nn.Parameter(torch.ones(1, 1, width))

    def forward(self, token_BD):
        class_B1D = self.class_11D.expand(len(token_BD), -1, -1)
        return torch.cat([class_B1D, token_BD[:, None]], 1).mean(1)


def make_trainer(overrides, world):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(3 * SIDE**2, 24),
        ClassToken(24),
        nn.LayerNorm(24),
        nn.GELU(),
        nn.Linear(24, CLASSES),
    )
    defaults = [f"batch_size={BATCH}", "epochs=2", "learning_rate=0.05", "warmup_steps=2"]
    overrides = [f"task.{word}" for word in defaults + overrides]
    task = typed(composed(["task=train", *overrides])).task
    cpu = torch.device("cpu")
    return Trainer(model, task, CLASSES, lambda name: 0, STEPS, cpu, "fp32", 3, world)


def rank_batches(step, rank, world, nan_at=None):
    """This rank's places of a global batch, pair by pair, without the bad ones: the ranks differ in
    the number of micro-batches."""
    generator = torch.Generator().manual_seed(step)
    pixels_BCHW = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
    label_B = torch.randint(CLASSES, (BATCH,), generator=generator)
    if nan_at is not None:
        pixels_BCHW[nan_at] = math.nan
    places = range(rank * BATCH // world, (rank + 1) * BATCH // world)
    pairs = [[p for p in places if p // 2 == pair and p not in BAD[step]] for pair in range(BATCH)]
    for good in list(filter(None, pairs)) or [[]]:
        place_B = np.array(good, dtype=np.int64)
        yield LoaderBatch(pixels_BCHW[place_B], label_B[place_B], place_B, place_B + 100 * step)


def run_scenarios(world, rank):
    """What one rank sees of every scenario, as plain numbers."""
    results, trainer = {}, None
    for name, overrides in SCENARIOS.items():
        trainer = make_trainer(overrides, world)
        reports = [trainer.step(rank_batches(step, rank, world)) for step in range(STEPS)]
        results[name] = {
            "loss": [report.loss for report in reports],
            "norm": [report.grad_norm for report in reports],
            "images": [report.images for report in reports],
            "weight": _sum(trainer.unwrapped_model),
            "average": _sum(trainer.evaluated_model()),
        }
    assert trainer is not None
    before = _sum(trainer.unwrapped_model)
    try:
        trainer.step(rank_batches(0, rank, world, nan_at=6))
    except NonFinite as error:
        results["stop"] = {"message": str(error), "rows": error.rows}
    results["stop"]["moved"] = _sum(trainer.unwrapped_model) != before
    return results


def _sum(model):
    return [value.double().sum().item() for value in model.state_dict().values()]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two ranks wrote."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = import_path()
    processes = [
        subprocess.Popen([sys.executable, __file__, str(folder), str(rank)], env=environment)
        for rank in range(2)
    ]
    try:
        assert [expected.wait(HANG) for expected in processes] == [0, 0]
    finally:
        for expected in processes:
            expected.kill()
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def single_process():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield run_scenarios(1, 0)
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_ranks_draw_the_curve_of_one(ranks, single_process, scenario):
    """Bad images fall unevenly on them; in one step a rank has none left at all."""
    expected = single_process[scenario]
    assert expected["images"] == [8, 7, 4, 4, 8]
    for result in ranks:
        assert result[scenario]["images"] == expected["images"]
        assert result[scenario]["loss"] == pytest.approx(expected["loss"], abs=1e-5)
        assert result[scenario]["norm"] == pytest.approx(expected["norm"], rel=1e-4)
        assert result[scenario]["weight"] == pytest.approx(expected["weight"], abs=1e-4)
        assert result[scenario]["average"] == pytest.approx(expected["average"], abs=1e-4)
    assert ranks[0][scenario]["weight"] == ranks[1][scenario]["weight"]


@pytest.mark.fault(31)
def test_a_loss_that_is_no_number_stops_both_ranks(ranks, single_process):
    """The image is on the second rank; the first names it all the same."""
    assert single_process["stop"]["rows"] == (6,)
    for result in ranks:
        assert result["stop"] == {**single_process["stop"], "rows": [6]}
        assert result["stop"]["moved"] is False


def test_no_gradient_has_other_strides_than_its_parameter(ranks):
    """In the second step, the first micro-batch of the first rank is a single image."""
    assert [result["warnings"] for result in ranks] == [[], []]


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    minute = timedelta(seconds=60)
    distributed.init_process_group("gloo", store, minute, world_size=2, rank=rank)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = run_scenarios(2, rank)
    results["warnings"] = [str(expected.message) for expected in caught]
    (folder / f"{rank}.json").write_text(json.dumps(results))
    distributed.destroy_process_group()
