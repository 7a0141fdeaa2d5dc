"""task=doctor as a user runs it: verdict, table, JSON and exit code; no other file is written."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

BIRDS = (
    "dataset.generator.classes=2",
    "dataset.generator.train_per_class=3",
    "dataset.generator.test_per_class=2",
    "dataset.generator.side=64",
)


@pytest.fixture
def birds(tmp_path, run) -> Path:
    """A copy of the synthetic birds, in CUB's layout."""
    root = tmp_path / "my [red]birds[/red]"
    assert run("task=doctor", *BIRDS, f'dataset.root="{root}"', bare=True).code == 0
    shutil.rmtree(tmp_path / "outputs")
    return root


def as_cub(root: Path, *overrides: str) -> tuple[str, ...]:
    counts = (2, 6, 4)
    names = ("classes", "train", "test")
    official = [f"dataset.official.{n}={c}" for n, c in zip(names, counts, strict=True)]
    return ("task=doctor", "dataset=cub", f'dataset.root="{root}"', *official, *overrides)


def examination(tmp_path: Path, name: str = "cub") -> dict[str, Any]:
    return json.loads((tmp_path / "outputs" / "doctor" / f"{name}.json").read_text())


def table_width(out: str) -> int:
    return max(len(line) for line in out.splitlines() if line[:1] in "┏┃┡│├└")


def test_a_sound_copy_exits_with_0(birds, run, tmp_path):
    ran = run(*as_cub(birds), bare=True)
    assert ran.code == 0, ran.err
    assert "cub: SOUND" in ran.out
    assert "[red]birds[/red]" in ran.out.replace("\n", "")
    assert table_width(ran.out) == 80
    report = examination(tmp_path)
    assert (report["verdict"], report["findings"]) == ("sound", [])
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["doctor"]


def test_a_wrong_copy_exits_with_1_and_reports_the_fix(birds, run, tmp_path):
    images = sorted((birds / "images").rglob("*.jpg"))
    images[0].write_bytes(images[0].read_bytes()[:500])
    images[-1].unlink()
    ran = run(*as_cub(birds), bare=True)
    assert ran.code == 1
    assert ran.err == ""
    lines = ran.out.splitlines()
    verdict = next(line for line in lines if line.startswith("cub: "))
    assert verdict.strip() == "cub: WRONG: 2 errors"
    assert "unpack the images again" in ran.out
    assert table_width(ran.out) == 80
    report = examination(tmp_path)
    assert report["verdict"] == "wrong"
    assert [finding["check"] for finding in report["findings"]] == ["files", "pictures"]
    assert all(finding["count"] == 1 and finding["mend"] for finding in report["findings"])


def test_task_output_sets_the_file(birds, run, tmp_path):
    file = tmp_path / "else where" / "found.json"
    assert run(*as_cub(birds, f"task.output={file}"), bare=True).code == 0
    assert json.loads(file.read_text())["verdict"] == "sound"
    assert not (tmp_path / "outputs").exists()


def test_an_operation_ignores_weights_and_resolution(birds, run, tmp_path):
    """Both would be refused by an experiment."""
    wrong = ("backbone.weights=/nowhere.pth", "resolution=r256", "backbone=dinov2")
    assert run(*as_cub(birds, *wrong), bare=True).code == 0
    assert run("dataset=cub", "task=probe", *wrong, bare=True).code == 2


def test_a_missing_root_is_a_finding(run, tmp_path):
    ran = run("task=doctor", "dataset=cub", f"dataset.root={tmp_path / 'no'}", bare=True)
    assert ran.code == 1
    assert "no such folder" in ran.out.replace("\n", " ")
    assert examination(tmp_path)["findings"][0]["check"] == "layout"


def test_a_dry_run_shows_no_hash_and_a_sweep_no_records(birds, run, sweep):
    plan = run(*as_cub(birds, "runtime.dry_run=true"), bare=True).out.splitlines()
    assert plan[1].split()[0] == "operation"
    code, out = sweep(*as_cub(birds), "dataset.partial=true,false")
    assert code == 0
    assert out.count("cub: SOUND") == 2
    assert "records:" not in out


def test_only_doctor_downloads(run, tmp_path):
    ran = run("dataset=cub", "dataset.download=true", bare=True)
    assert ran.code == 2
    assert "task=doctor dataset.download=true" in ran.err
    ran = run("task=doctor", "dataset.download=true", *BIRDS, bare=True)
    assert ran.code == 1
    assert "remove dataset.download" in ran.err
    assert not (tmp_path / "outputs").exists()


def test_an_unreachable_address_is_reported_in_one_line(run, tmp_path, monkeypatch):
    from fgvc.data.download import http

    monkeypatch.setattr(http, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    url = "dataset.archives.cub.url=http://127.0.0.1:9/gone.tgz"
    ran = run("task=doctor", "dataset=cub", "dataset.download=true", url, bare=True)
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "http://127.0.0.1:9/gone.tgz" in ran.err
    assert "0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081" in ran.err
    assert not (tmp_path / "outputs").exists()


@pytest.mark.real
@pytest.mark.skipif("FGVC_REAL_DATA" not in os.environ, reason="FGVC_REAL_DATA is not set")
def test_the_real_partial_copy_is_partial_and_nothing_else_is_wrong(run, tmp_path):
    root = Path(os.environ["FGVC_REAL_DATA"]) / "data" / "cub20" / "CUB_200_2011"
    ran = run(
        "task=doctor", "dataset=cub", f"dataset.root={root}", "dataset.partial=true", bare=True
    )
    assert ran.code == 0
    assert "PARTIAL COPY, as declared; no other finding" in ran.out
    report = examination(tmp_path)
    assert [(f["severity"], f["check"]) for f in report["findings"]] == [
        ("note", "counts"),
        ("note", "boxes"),
    ]
    assert report["pictures"]["read"] == 1115


PARTIAL = {
    "cars whole": lambda copies: copies.cars("whole"),
    "cars devkit": lambda copies: copies.cars("devkit", labels=".", nested="{}/"),
    "dogs": lambda copies: copies.dogs(),
    "nabirds": lambda copies: copies.nabirds("nabirds/nabirds"),
    "inat2017": lambda copies: copies.inat2017(),
}


@pytest.mark.parametrize("layout", PARTIAL)
def test_a_declared_partial_copy_of_every_layout(run, copies, tmp_path, layout):
    root, name = PARTIAL[layout](copies), layout.split()[0]
    places = f"dataset={name}", f'dataset.root="{root}"'
    ran = run("task=doctor", *places, "dataset.partial=true", bare=True)
    assert ran.code == 0, ran.out
    assert f"{name}: PARTIAL COPY, as declared; no other finding" in ran.out
    report = examination(tmp_path, name)
    assert {f["severity"] for f in report["findings"]} == {"note"}
    assert report["pictures"]["read"] == 18


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table(run, copies, tmp_path, kind):
    ran = run("task=doctor", "dataset=table", f'dataset.table="{copies.table(kind)}"', bare=True)
    assert ran.code == 0, ran.out
    assert "table: SOUND" in ran.out
    assert examination(tmp_path, "table")["pictures"]["read"] == 18


@pytest.mark.parametrize("layout", ["cars whole", "nabirds"])  # by boxes, by stated sizes
def test_a_cropped_copy_of_every_layout(run, copies, tmp_path, layout):
    root, name = PARTIAL[layout](copies), layout.split()[0]
    for file in root.rglob("*.jpg"):
        Image.open(file).crop((0, 0, 20, 20)).save(file, quality=95)
    ran = run(
        "task=doctor",
        f"dataset={name}",
        f'dataset.root="{root}"',
        "dataset.partial=true",
        bare=True,
    )
    assert ran.code == 1
    errors = [f for f in examination(tmp_path, name)["findings"] if f["severity"] == "error"]
    assert [f["check"] for f in errors] == ["sizes"]
    assert "resized or cropped copy" in errors[0]["says"]


def test_cars_without_test_classes_are_refused_by_name(run, copies, tmp_path):
    root = copies.cars("devkit", labels=None)
    ran = run("task=doctor", "dataset=cars", f'dataset.root="{root}"', bare=True)
    assert ran.code == 1
    report = examination(tmp_path, "cars")
    (finding,) = report["findings"]
    assert finding["check"] == "layout"
    assert "cars_test_annos_withlabels.mat" in finding["says"] + finding["mend"]
    assert report["pictures"]["read"] == 18


def test_inaturalist_in_one_file_is_refused_by_name(run, copies, tmp_path):
    root = copies.inat2017()
    (root / "val2017.json").rename(root / "train_val2017.json")
    (root / "train2017.json").unlink()
    ran = run("task=doctor", "dataset=inat2017", f'dataset.root="{root}"', bare=True)
    assert ran.code == 1
    assert "merged" in examination(tmp_path, "inat2017")["findings"][0]["says"]
