"""The load of other processes during a measurement."""

from __future__ import annotations

import os

import pytest

from fgvc.parallel import cpu_load
from fgvc.parallel.cpu_load import CpuTimes, cpu_times, other_load

CORES = os.cpu_count() or 1


def test_the_own_work_is_no_load_and_the_work_of_others_is():
    assert other_load(CpuTimes(wall=10, own=20, machine=20.1), CORES) == 0.01
    assert other_load(CpuTimes(wall=10, own=20, machine=19.9), CORES) == 0.0
    assert other_load(CpuTimes(wall=10, own=5, machine=20), CORES) == 1.5


def test_work_that_fits_on_the_cores_of_others_is_no_load(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    spent = CpuTimes(wall=10, own=20, machine=70)
    assert other_load(spent, 2) == 0.0
    assert other_load(spent, 4) == 1.0
    assert other_load(spent, 8) == 5.0


def test_an_unknown_load_stays_unknown(monkeypatch, tmp_path):
    monkeypatch.setattr(cpu_load, "STAT", tmp_path / "none")
    start = cpu_times()
    assert start.machine is None
    assert other_load(cpu_times() - start, CORES) is None
    assert (CpuTimes() + start).machine is None
    assert other_load(CpuTimes(), CORES) is None


def test_busy_time_is_read_without_idle_time(monkeypatch, tmp_path):
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 3 9999 8888 400 50 6 77 88\ncpu0 1 1 1 1\n")
    monkeypatch.setattr(cpu_load, "STAT", stat)
    assert cpu_times().machine == pytest.approx(579 / os.sysconf("SC_CLK_TCK"))
    start = cpu_times()
    sum(range(100_000))
    spent = cpu_times() - start
    assert spent.wall > 0
    assert spent.own > 0
    assert spent.machine == 0
