"""benchmarks/gpu.py runs to its end, also if a group fails or takes too long."""

from __future__ import annotations

import math
import time
from typing import Any, cast

import pytest

from benchmarks import gpu

pytestmark = pytest.mark.slow  # processes that import torch and timm


def test_every_group_is_measured_at_a_toy_size():
    rows = gpu.rows("cpu", tiny=True)
    missing = [row.detail for row in rows if math.isnan(row.value)]
    # a solver without the parameter `device` has no row
    assert [detail for detail in missing if "computes on the CPU" not in detail] == []
    assert len(rows) == 2 + 2 + 1 + 2 + 1 + 2 + 1 + 1
    assert all(row.value > 0 for row in rows if not math.isnan(row.value))


def test_a_group_that_fails_or_takes_too_long_leaves_a_row():
    scale = gpu.Scale("cpu", True)
    (failed,) = gpu.run_group("broken", cast(Any, time.sleep), scale, 600)
    assert (failed.work, failed.met) == ("broken", False)
    assert "not measured: TypeError" in failed.detail
    (late,) = gpu.run_group("slow", gpu.matrices, scale, 0)
    assert "not measured: not ended after 0 s" in late.detail


@pytest.mark.skipif(gpu.torch.cuda.is_available(), reason="there is a device")
def test_a_machine_without_a_device_is_told_how_to_test_the_script():
    with pytest.raises(SystemExit, match=r"no CUDA device.*--device cpu --tiny"):
        gpu.rows()
