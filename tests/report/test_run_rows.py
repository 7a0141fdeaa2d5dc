"""Run folders -> rows: rows have the values of the files, and damage affects only its own run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from fgvc.report.run_rows import scan_runs

RUNS = 8


def scanned(root: Path):
    return scan_runs(root.glob("*/*/*"))


def test_every_complete_run_is_a_row(real):
    runs, damaged = scanned(real)
    assert len(runs) == RUNS
    assert damaged == []
    assert {run.path for run in runs} == {file.parent for file in real.glob("*/*/*/ckpt.bin")}
    assert {(run.head, run.seed, run.final_fit) for run in runs} == {
        (head, seed, fit)
        for head in ("linear", "knn")
        for seed in (0, 1)
        for fit in ("train", "trainval")
    }


@pytest.mark.parametrize("head", ["linear", "knn"])
def test_a_row_has_the_values_of_the_files(runs, head):
    folder = runs(head)
    (row,), _ = scan_runs([folder])
    config, stamp, numbers, artifacts = (
        json.loads((folder / name).read_text())
        for name in ("config.canonical.json", "env_stamp.json", "metrics.json", "artifacts.json")
    )
    for split, prefix in (("test", ""), ("val", "val_")):
        for key in ("top1", "loss"):
            assert getattr(row, prefix + key) == numbers[split][key]
    assert [row.top1_low, row.top1_high] == numbers["test"]["top1_ci95"]
    for key in ("n", "top5", "mean_per_class", "macro_f1", "ece"):
        assert getattr(row, key) == numbers["test"][key]
    for key in ("parameters", "macs", "images_per_s", "peak_memory_mib"):
        assert getattr(row, key) == numbers["cost"][key]
    assert row.comparability_key == numbers["comparability_key"]
    for key in ("run_id", "config_hash", "manifest_digest", "started", "finished", "partial"):
        assert getattr(row, key) == stamp[key]
    assert row.stack_check == stamp.get("stack_check")
    assert row.checkpoint_sha256 == artifacts["ckpt.bin"]["sha256"]
    assert len(row.config_hash) == len(row.checkpoint_sha256) == 64
    assert (row.backbone, row.size, row.weights_kind) == ("vit", "tiny", "random")
    assert row.token_grid == "4x4"
    assert row.seed == config["seed"]
    assert row.name == f"vit tiny random · {head} · 64 px"
    assert row.backbone_license == "Apache-2.0"
    assert row.dataset_license == "CC0-1.0"
    assert row.backbone_contamination.startswith("Trained with the labels of ImageNet-21k")
    with safe_open(folder / "ckpt.bin", framework="np") as opened:
        names = [name for name in opened.keys() if name.startswith("head.")]  # noqa: SIM118
        stored = sum(opened.get_tensor(name).size for name in names)
    assert row.head_size == stored > 0
    if head == "linear":
        assert row.head_size == 192 * 6 + 6


def test_incomplete_runs_are_skipped(outputs):
    (outputs / "doctor" / "deep" / "er").mkdir(parents=True)
    (outputs / "baselines.csv").write_text("")
    (outputs / "first" / "0123456789abcdef" / "in-progress").mkdir(parents=True)
    runs, damaged = scanned(outputs)
    assert (len(runs), damaged) == (RUNS, [])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def make_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


FILES = (
    "status.json",
    "artifacts.json",
    "config.canonical.json",
    "env_stamp.json",
    "metrics.json",
    "ckpt.bin",
)
HARM = {"missing": Path.unlink, "cut": truncate, "a folder": make_a_folder, "flipped": flip}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_folder_is_listed_with_the_file_and_the_rest_stays(outputs, file, harm):
    if (file, harm) == ("ckpt.bin", "flipped"):
        harm = "cut"  # only loading verifies the digest, a report does not
    victim = sorted(outputs.glob("*/*/*/ckpt.bin"))[3].parent
    HARM[harm](victim / file)
    runs, (damaged,) = scanned(outputs)
    assert len(runs) == RUNS - 1
    assert victim not in {run.path for run in runs}
    assert damaged.folder == "/".join(victim.parts[-3:])
    assert damaged.why.startswith(file)
    assert "\n" not in damaged.why
    assert str(outputs) not in damaged.why


def nan(text: str) -> str:
    return text.replace('"top1":', '"top1": NaN, "other":', 1)


def word(text: str) -> str:
    plain = json.loads(text)
    plain["test"]["top1"] = "high"
    return json.dumps(plain)


def no_test(text: str) -> str:
    return json.dumps({**json.loads(text), "test": None})


def other_document(text: str) -> str:
    return json.dumps({"top1": 1})


def no_cost(text: str) -> str:
    return json.dumps({key: value for key, value in json.loads(text).items() if key != "cost"})


def notes_of_a_letter_each(text: str) -> str:
    return json.dumps({**json.loads(text), "notes": "one line"})


@pytest.mark.parametrize(
    "wrong",
    [
        nan,
        word,
        no_test,
        no_cost,
        other_document,
        notes_of_a_letter_each,
        lambda _: "[]",
        lambda _: "{",
    ],
)
def test_a_record_with_wrong_types_is_damaged(outputs, seal, wrong):
    victim = sorted(outputs.glob("*/*/*/ckpt.bin"))[0].parent
    file = victim / "metrics.json"
    file.write_text(wrong(file.read_text()))
    seal(victim)
    runs, (damaged,) = scanned(outputs)
    assert len(runs) == RUNS - 1
    assert "\n" not in damaged.why


def moved(victim: Path) -> None:
    victim.rename(victim.with_name("0123456789abcdef"))


def mixed(victim: Path) -> None:
    files = victim.parents[1].glob("*/*/ckpt.bin")
    other = next(file.parent for file in files if file.parent != victim)
    for file in ("env_stamp.json", "status.json", "artifacts.json"):
        shutil.copy(other / file, victim / file)


@pytest.mark.parametrize("mix", [moved, mixed])
def test_a_folder_under_a_wrong_name_is_damaged(outputs, mix: Callable[[Path], None]):
    mix(sorted(outputs.glob("*/*/*/ckpt.bin"))[0].parent)
    runs, damaged = scanned(outputs)
    assert (len(runs), len(damaged)) == (RUNS - 1, 1)


def test_a_state_other_than_done_is_damage(outputs):
    from fgvc.record.run_dir import now, write_status

    victim = sorted(outputs.glob("*/*/*/ckpt.bin"))[0].parent
    write_status(victim, "failed", now())
    assert [run.why for run in scanned(outputs)[1]] == [
        "status.json: state failed in a sealed folder"
    ]


def test_names_contain_unusual_settings(forge):
    folder = forge(
        "odd",
        config={"precision": "bf16", "part_attention": {"name": "transfg"}},
        stamp={"task": "eval"},
    )
    (row,), _ = scan_runs([folder])
    assert row.name == "vit tiny random · linear · 64 px · bf16 · transfg · eval"


WEIGHTS = {"weights_digest": "a" * 64}


def test_a_finetune_shares_the_join_key_of_its_probe(forge):
    tuned = {"config": {"head": {"name": "cosine"}, "seed": 1}}
    folders = [
        forge("probe", stamp=WEIGHTS),
        forge("tuned", stamp={**WEIGHTS, "task": "train"}, **tuned),
    ]
    assert len({run.join_key for run in scan_runs(folders)[0]}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"stamp": {"weights_digest": "b" * 64}},
        {"stamp": {**WEIGHTS, "resolution": 448}},
        {"stamp": WEIGHTS, "config": {"precision": "bf16"}},
        {"stamp": WEIGHTS, "config": {"backbone": {"features": "patch_mean"}}},
        {"stamp": WEIGHTS, "config": {"backbone": {"checkpoint": {"model": "another"}}}},
        {"stamp": WEIGHTS, "config": {"backbone": {"checkpoint": {"architecture": {"depth": 1}}}}},
        {"stamp": WEIGHTS, "config": {"backbone": {"position_resize": "zoom"}}},
        {"stamp": {**WEIGHTS, "manifest_digest": "c" * 64}},
        {"stamp": WEIGHTS, "config": {"final_fit": "train"}},
        {"stamp": WEIGHTS, "numbers": {"resumed": {"forced": True}}},
    ],
)
def test_settings_that_change_the_join_key(forge, other):
    folders = [forge("probe", stamp=WEIGHTS), forge("other", **other)]
    assert len({run.join_key for run in scan_runs(folders)[0]}) == 2


def test_the_source_of_the_weights_does_not_change_the_join_key(forge):
    hub = {"revision": "0" * 40, "checkpoint": {"repo": "timm/x", "revision": "0" * 40}}
    places = {"hub": hub, "file": {"weights_sha256": "a" * 64}}
    folders = [
        forge(name, stamp=WEIGHTS, config={"backbone": node}) for name, node in places.items()
    ]
    assert len({run.join_key for run in scan_runs(folders)[0]}) == 1


def test_random_weights_are_joined_by_their_seed(forge):
    folders = [
        forge("probe", config={"seed": 3}),
        forge("tuned", stamp={"task": "train"}, config={"seed": 3, "head": {"name": "mlp"}}),
        forge("other", config={"seed": 4}),
    ]
    keys = {run.run_id: run.join_key for run in scan_runs(folders)[0]}
    assert keys["probe"] == keys["tuned"] != keys["other"]


def test_a_record_older_than_a_field_is_read_without_it(forge):
    folder = forge("old", numbers={"overlap": None, "predictions_digest": None})
    (row,), _ = scan_runs([folder])
    assert row.overlap is row.predictions_digest is None


def test_a_report_derives_the_key_and_does_not_take_it_from_metrics_json(forge, seal):
    folder = forge("claims")
    before = scan_runs([folder])[0][0]
    plain = json.loads((folder / "metrics.json").read_text())
    assert plain["comparability_key"] == before.comparability_key
    plain |= {"comparability_key": "0" * 64, "comparability_base": "0" * 64}
    (folder / "metrics.json").write_text(json.dumps(plain))
    seal(folder)
    assert scan_runs([folder])[0][0] == before


def test_a_record_without_notes_has_none(forge, outputs):
    folder = forge("noted", numbers={"notes": ["first", "second"]})
    (row,), _ = scan_runs([folder])
    assert row.notes == ("first", "second")
    runs, _ = scanned(outputs)
    assert {run.notes for run in runs if run.head == "knn"} == {()}
