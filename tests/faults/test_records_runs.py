"""A forged record whose digests are all right: only a replay of the run can find it."""

from __future__ import annotations

import pytest


@pytest.mark.fault(55)
@pytest.mark.xfail(strict=True, raises=AssertionError, reason="task=audit replay= does not exist")
def test_a_replay_repeats_an_honest_run(copied, run, small_probe):
    """The reference for forgeries; the forged half will be tested with the replay."""
    honest = copied(*small_probe)
    replayed = run("task=audit", f"run={honest.folder}", "replay=true", bare=True)
    assert replayed.code == 0, replayed.err
