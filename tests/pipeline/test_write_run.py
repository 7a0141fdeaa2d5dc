"""A task's results are written by the chosen writers, and the folder is sealed in any case."""

from __future__ import annotations

import functools
import json

import pytest

from fgvc.pipeline import write_run
from fgvc.record.writers import files

OPENED = {"command.txt", "config.canonical.json", "config.yaml", "run.log"}
SEALED = {"artifacts.json", "retention.json", "status.json"}


def test_a_probe_with_two_writers_is_a_sealed_folder_of_their_files(
    run, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = (files.CHECKPOINT, files.METRICS)
    write = functools.partial(write_run.write_run, writers=writers)
    monkeypatch.setattr(write_run, "write_run", write)
    small = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")
    ran = run(*small, "head=knn", "head.k=3")
    assert ran.code == 0, ran.err
    names = {path.name for path in ran.folder.iterdir()} - {"code.patch", "untracked.json", "tb"}
    assert names == OPENED | SEALED | {"ckpt.bin", "metrics.json"}
    numbers = json.loads((ran.folder / "metrics.json").read_text())
    assert f"{100 * numbers['test']['top1']:.1f} [" in ran.out
