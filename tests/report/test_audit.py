"""A real run passes its audit; a changed byte, a forged record and a renamed folder fail."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from fgvc.html.class_names import display_names
from fgvc.record import prediction_tables, retention
from fgvc.record.comparability import Comparability
from fgvc.record.fitted_images import short_digests
from fgvc.record.verify import DamageError
from fgvc.report.audit import CHECKS, files, pull_request_block, run_audit, stated_facts
from fgvc.report.audit.check import check_id
from fgvc.report.audit.record import Record
from fgvc.run import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run(runs, tmp_path):
    """A copy of a real run under folders of the same names, to be damaged."""
    source = runs()
    return shutil.copytree(source, tmp_path / "a = ü" / Path(*source.parts[-3:]))


def results(run):
    return {check.id: check for check in run_audit(run)[1]}


def failures(run):
    return {name: check.evidence for name, check in results(run).items() if check.state == "FAIL"}


def changed(run, name, change):
    """Change the values of a JSON file."""
    plain = json.loads((run / name).read_text())
    change(plain)
    (run / name).write_text(json.dumps(plain))


def test_a_real_run_passes(run):
    by_id = results(run)
    assert failures(run) == {}
    states = {check.id: check.state for check in by_id.values() if check.state != "pass"}
    assert states == {
        "code": "missing",  # these runs use code outside git
        **dict.fromkeys(("requirements", "versions", "viewer-follows"), "not checked"),
        **dict.fromkeys(("command-follows", "page-follows", "plot-follows"), "not checked"),
        "licence": "person",
        "approval": "person",
    }
    assert all(check.evidence and check.question.endswith((")", "?")) for check in by_id.values())
    assert len({check.question for check in by_id.values()}) == len(CHECKS)


def test_a_knn_run_passes_too(runs):
    assert failures(runs("knn", 1, "train")) == {}


def test_a_run_of_a_named_checkpoint_passes(tmp_path, monkeypatch, small_probe):
    """`backbone.checkpoint` names a row of the table in config.yaml, and that row is compared."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    places = [f"runtime.{name}_root={tmp_path / name}" for name in ("output", "cache", "data")]
    named = ("backbone.checkpoint=own", "backbone.checkpoints.own={model: vit_small_patch16_224,"
             "patch: 16, width: 64, native: 224, heads: 2, architecture: {depth: 1, num_heads: 2,"
             "embed_dim: 64}}")  # fmt: skip
    assert main(["dataset=synthetic", *small_probe, *named, *places]) == 0
    (status,) = (tmp_path / "output").glob("*/*/*/status.json")
    assert failures(status.parent) == {}


def test_ids_are_stable():
    assert [check_id(check) for check in CHECKS] == [
        *("status", "hashes", "names", "retention", "config"),
        *("stamp", "environment", "code", "command-recorded", "command-follows"),
        *("checkpoint", "checkpoint-ignored", "checkpoint-config", "stamp-follows", "card-follows"),
        *("requirements", "versions"),
        *("minimum-contents", "labelmap", "splits", "counts", "subset"),
        *("metrics-follow", "comparability", "cascade-follows", "certificate-follows"),
        *("selection-follows", "curves-follow"),
        *("viewer-follows", "page-follows", "plot-follows"),
        *("plain-fit", "fitted-on", "no-test-image-fitted", "unreadable-images", "notes"),
        "test-read-once",
        *("stack-validated", "source", "licence", "approval"),
    ]


@pytest.mark.fault(9)
def test_one_flipped_byte_in_any_file_is_found_and_named(run):
    files = [path for path in sorted(run.rglob("*")) if path.is_file()]
    names = {path.relative_to(run).as_posix() for path in files}
    assert {"status.json", "retention.json", "artifacts.json", "run.log", "ckpt.bin"} <= names
    assert any(name.startswith("tb/") for name in names)
    for path in files:
        data = path.read_bytes()
        name = path.relative_to(run).as_posix()
        for place in {0, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            failed = failures(run)
            assert any(name in evidence for evidence in failed.values()), (name, place, failed)
        path.write_bytes(data)
    assert failures(run) == {}


def test_changed_whitespace_in_json_is_found(run):
    for name in ("status.json", "retention.json", "artifacts.json"):
        data = (run / name).read_bytes()
        (run / name).write_bytes(data.replace(b"  ", b" \t", 1))
        assert any(name in evidence for evidence in failures(run).values()), name
        (run / name).write_bytes(data)


def test_missing_and_extra_files_are_named(run):
    (run / "run.log").unlink()
    (run / "tb" / "status.json").touch()
    (run / "link").symlink_to("metrics.json")
    assert failures(run)["hashes"] == "missing: run.log; extra: link, tb/status.json"


@pytest.mark.parametrize("name", ["status.json", "retention.json", "artifacts.json", "ckpt.bin"])
def test_a_missing_file_fails_only_its_own_checks(run, name):
    (run / name).unlink()
    failed = failures(run)
    assert any(
        f"{name}: " in evidence or f"missing: {name}" in evidence for evidence in failed.values()
    ), failed
    assert results(run)["labelmap"].state == "pass"


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("top1", 0.99),
        ("loss", 0.1),
        ("ece", 0.0),
        ("macro_f1", 1.0),
        ("top1_ci95", [0, 1]),
        ("macro_f1_ci95", [0, 1]),
        ("intervals_note", "narrow"),
    ],
)
def test_a_wrong_number_is_found_despite_new_digests(run, seal, number, value):
    changed(run, "metrics.json", lambda plain: plain["test"].update({number: value}))
    seal(run)
    assert set(failures(run)) <= {"metrics-follow", "curves-follow"}
    assert f"metrics.json test {number}" in failures(run)["metrics-follow"]


def own_names(run):
    """Let the FiftyOne files name the classes as the dataset does; returns old -> new name."""
    labelmap = json.loads((run / "labelmap.json").read_text())
    names = [row["name"] for row in labelmap["classes"]]
    own_of = dict(zip(display_names(names), names, strict=True))
    assert all(shown != name for shown, name in own_of.items())
    for file in (run / "fiftyone").rglob("*.json"):
        text = file.read_text()
        for shown, name in own_of.items():
            text = text.replace(json.dumps(shown), json.dumps(name))
        file.write_text(text)
    return own_of


def test_samples_of_earlier_code_are_verified_too(run, seal):
    """It named the classes as the dataset does, and wrote no outcome into the predictions."""
    own_of = own_names(run)
    samples = run / "fiftyone" / "samples.json"
    samples.write_text(re.sub(r'"right":(true|false),', "", samples.read_text()))
    seal(run)
    assert "samples follow" in results(run)["viewer-follows"].evidence
    first, second = (json.dumps(name) for name in list(own_of.values())[:2])
    samples.write_text(samples.read_text().replace(first, second, 1))
    seal(run)
    assert "samples.json" in failures(run)["viewer-follows"]


def test_an_outcome_that_contradicts_the_prediction_is_found(run, seal):
    samples = run / "fiftyone" / "samples.json"
    samples.write_text(samples.read_text().replace('"right":false', '"right":true', 1))
    seal(run)
    assert "samples.json" in failures(run)["viewer-follows"]


def test_predictions_that_contradict_their_logits_are_found(run, seal):
    table = pq.read_table(run / "predictions.parquet")
    pred_N = np.roll(table["pred"].to_numpy(), 1)
    at = table.column_names.index("pred")
    pq.write_table(table.set_column(at, "pred", pa.array(pred_N)), run / "predictions.parquet")
    seal(run)
    assert "columns of" in failures(run)["metrics-follow"]


def without_logits(run, **changed):
    """Rewrite the predictions as those of a run that kept no logits; changed: columns."""
    table = pq.read_table(run / "predictions.parquet")
    logits_NC = np.array(table["logits"].to_pylist())
    prob_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    prob_NC /= prob_NC.sum(axis=1, keepdims=True)
    entropy_N = -(prob_NC * np.log(prob_NC)).sum(axis=1)
    table = table.drop_columns(["logits"]).append_column("entropy", pa.array(entropy_N))
    for column, change in changed.items():
        value_N, at = np.array(table[column].to_pylist()), table.column_names.index(column)
        values = pa.array(change(value_N).tolist(), table.schema.field(column).type)
        table = table.set_column(at, column, values)
    pq.write_table(table, run / "predictions.parquet")
    samples = run / "fiftyone" / "samples.json"
    vector = re.compile(r'"logits":\{"\$binary":\{[^}]*\}\},')
    samples.write_text(vector.sub("", samples.read_text()))


def test_without_logits_numbers_and_samples_follow_from_the_columns(run, seal):
    without_logits(run)
    seal(run)
    found = results(run)
    assert [name for name, result in found.items() if result.state == "FAIL"] == []
    assert "logits were not kept" in found["metrics-follow"].evidence
    assert "samples follow" in found["viewer-follows"].evidence
    samples = run / "fiftyone" / "samples.json"
    samples.write_text(re.sub(r'"hardness":\d', '"hardness":9', samples.read_text(), count=1))
    seal(run)
    assert "hardness: 9" in failures(run)["viewer-follows"]


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("confidence", lambda value_N: value_N * 0.999),
        ("label_logprob", lambda value_N: value_N * 0.999),
        ("entropy", lambda value_N: value_N * 0.5),
        ("entropy", lambda value_N: value_N + 0.5),
        ("entropy", lambda value_N: value_N * np.nan),
        ("topk_labels", lambda value_NK: np.where(value_NK == value_NK[:, -1:], 6, value_NK)),
        ("topk_labels", lambda value_NK: value_NK[:, [0, 1, 2, 3, 3]]),
        ("topk_scores", lambda value_NK: value_NK[:, ::-1]),
        ("topk_scores", lambda value_NK: value_NK * 1.5),
    ],
)
def test_without_logits_columns_that_contradict_each_other_are_found(run, seal, column, change):
    without_logits(run, **{column: change})
    seal(run)
    assert "columns of" in failures(run)["metrics-follow"]


def test_predictions_of_earlier_code_without_logits_are_verified_too(run, seal):
    """It did not write the entropy, so that the samples cannot be derived."""
    table = pq.read_table(run / "predictions.parquet").drop_columns(["logits"])
    pq.write_table(table, run / "predictions.parquet")
    seal(run)
    assert failures(run) == {}
    assert "need logits" in results(run)["viewer-follows"].evidence


@pytest.mark.parametrize("name", ["per_class.csv", "confusion.csv"])
def test_a_table_of_classes_that_does_not_follow_is_found(run, seal, name):
    text = (run / name).read_text().splitlines()
    (run / name).write_text("\n".join([text[0], *text[:0:-1]]) + "\n")
    seal(run)
    assert name in failures(run)["metrics-follow"]


def test_the_confusions_of_many_classes_follow_too(run, seal, monkeypatch):
    """Beyond a number of classes, confusion.csv has another form."""
    monkeypatch.setattr(prediction_tables, "MATRIX_UP_TO", 5)
    assert "confusion.csv" in failures(run)["metrics-follow"]
    record = Record(run)
    counts = record.tally(record.predictions["test"])
    text = prediction_tables.confusion_csv(counts, record.labelmap.names)
    (run / "confusion.csv").write_text(text)
    seal(run)
    assert failures(run) == {}
    (run / "confusion.csv").write_text(text.replace(",1\n", ",2\n", 1))
    seal(run)
    assert "confusion.csv" in failures(run)["metrics-follow"]


@pytest.mark.fault(26)
def test_an_image_in_two_splits_is_found(run, seal):
    train = (run / "splits" / "train.txt").read_text()
    with (run / "splits" / "test.txt").open("a") as file:
        file.write(train.splitlines()[0] + "\n")
    seal(run)
    assert "splits/test.txt" in failures(run)["splits"]
    assert "counts" in failures(run)


@pytest.mark.fault(25)
def test_classes_in_another_order_are_found(run, seal):
    def swap(plain):
        first, second = plain["classes"][:2]
        first["name"], second["name"] = second["name"], first["name"]

    changed(run, "labelmap.json", swap)
    seal(run)
    assert {"labelmap", "checkpoint", "metrics-follow"} <= failures(run).keys()


def test_a_stamp_of_another_seed_and_one_that_breaks_its_schema_are_found(run, seal):
    changed(run, "env_stamp.json", lambda plain: plain.update(seed=7))
    seal(run)
    assert "seed is 7, the config says 0" in failures(run)["stamp"]
    changed(run, "env_stamp.json", lambda plain: plain.update(seed="7"))
    seal(run)
    assert "schema" in failures(run)["stamp"]


def test_a_config_yaml_that_differs_from_the_hashed_config_is_found(run, seal):
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("final_fit: trainval", "final_fit: train"))
    seal(run)
    assert "final_fit" in failures(run)["config"]


def test_a_folder_under_another_name_is_found(run):
    assert "the sha256 is" in failures(run.rename(run.with_name("0" * 16)))["names"]


def test_too_short_a_retention_is_found(run):
    file = run / retention.FILE
    stored = retention.read(file)
    retention.write(file, replace(stored, expires=stored.created + timedelta(days=89)))
    assert failures(run)["retention"] == "retention.json: 89.0 days, at least 90"


def test_a_stack_that_was_not_validated_is_found(run, seal):
    changed(run, "env_stamp.json", lambda plain: plain.update(stack_check="skipped"))
    seal(run)
    assert "task=check" in failures(run)["stack-validated"]


def test_a_wrong_key_and_a_second_read_of_test_are_found(run, seal):
    changed(run, "metrics.json", lambda plain: plain.update(comparability_key="0" * 64))
    changed(run, "metrics.json", lambda plain: plain.update(test_reads=2))
    seal(run)
    assert failures(run).keys() == {"comparability", "test-read-once"}


@pytest.mark.parametrize("part", [field.name for field in fields(Comparability)])
def test_a_part_of_the_key_that_the_rest_of_the_record_contradicts_is_found(run, seal, part):
    """The key follows from the forged value, so metrics.json must not be its only check."""

    def lie(plain):
        plain["comparability"][part] = "a lie"
        parts = Comparability(**plain["comparability"])
        plain |= {"comparability_key": parts.key, "comparability_base": parts.base}

    changed(run, "metrics.json", lie)
    seal(run)
    assert list(failures(run)) == ["comparability"]
    assert "a lie" in failures(run)["comparability"]


def test_a_forced_resume_and_a_debugging_run_are_named(forge):
    resumed = {"step": 4, "forced": True, "from": "r/abc", "changed": ["final_fit"]}
    failed = failures(forge("forced", numbers={"resumed": resumed}))
    assert "forced resume from r/abc under another final_fit" in failed["plain-fit"]
    assert "forced" in failed["comparability"]  # the recorded key is that of a plain run
    again = forge("again", facts={"fit": {"forced": True}}, stamp={"task": "eval"})
    assert "forced resume" in failures(again)["plain-fit"]
    debug = forge("debug", config={"task": {"debug": "overfit", "batch_size": 8}})
    assert "task.debug=overfit" in failures(debug)["plain-fit"]


@pytest.mark.parametrize("final_fit", ["train", "trainval"])
def test_a_wrong_number_of_fitted_images_is_found(runs, forge, final_fit):
    source = runs("linear", 0, final_fit)
    count = json.loads((source / "metrics.json").read_text())["fitted_on"]
    wrong = forge("one more", source=source, numbers={"fitted_on": count + 1})
    assert f"images of the fit is {count + 1}" in failures(wrong)["fitted-on"]
    other = {"train": "trainval", "trainval": "train"}[final_fit]
    wrong = forge("other", source=source, config={"final_fit": other})
    assert f"images of the fit is {count}, final_fit" in failures(wrong)["fitted-on"]
    wrong = forge("unread", source=source, numbers={"unreadable": {"train": 1}})
    assert "fitted-on" in failures(wrong)


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("notes", {"numbers": {"notes": []}}),
        ("unreadable-images", {"numbers": {"unreadable": {"test": 5}}}),
        ("test-read-once", {"numbers": {"test_read_log": []}}),
        ("plain-fit", {"numbers": {"resumed": {"step": 4, "changed": ["seed"], "forced": False}}}),
        ("subset", {"stamp": {"subset": {"train": 36}}}),
        ("checkpoint", {"stamp": {"weights": {"kind": "hub", "revision": "0" * 40}}}),
    ],
)
def test_a_contradiction_between_files_is_found(forge, check, change):
    note = "task.c_low=1e-06: the chosen C = 1e-06 is the first of 45 values"
    honest = {"facts": {"fit": {"notes": [note]}}, "numbers": {"notes": [note]}}
    assert check not in failures(forge("honest", **honest))
    numbers = {**honest["numbers"], **change.get("numbers", {})}
    assert check in failures(forge("wrong", **{**honest, **change, "numbers": numbers}))


def test_an_evaluation_keeps_the_notes_of_its_fit(forge):
    facts = {"fit": {"notes": ["a note", "2 images cannot be read (2 of train): a, b"]}}
    notes = [f"of the fit: {note}" for note in facts["fit"]["notes"]]
    fields = {"facts": facts, "stamp": {"task": "eval"}}
    assert "notes" not in failures(forge("honest", **fields, numbers={"notes": notes}))
    assert "notes" in failures(forge("lost", **fields, numbers={"notes": notes[:1]}))
    plain = forge("run", facts=facts, numbers={"notes": ["a note", "3 images cannot be read (…)"]})
    assert "notes" not in failures(plain)


def test_test_images_of_the_fit_are_recounted(runs, forge):
    rows = pq.read_table(runs() / "predictions.parquet").to_pylist()
    test = [row["sha256"] for row in rows if row["split"] == "test"]

    def with_three(tensors):
        image_N = tensors["fit.images"].numpy().copy()
        image_N[:3] = short_digests(test[:3])
        return {**tensors, "fit.images": torch.from_numpy(np.sort(image_N))}

    wrong = failures(forge("silent", tensors=with_three))["no-test-image-fitted"]
    assert "overlap is 0" in wrong
    open_about_it = forge("open", tensors=with_three, numbers={"overlap": {"images": 3}})
    evidence = failures(open_about_it)["no-test-image-fitted"]
    assert f"3 of {len(test)} test images" in evidence


def test_validation_images_that_chose_the_head_are_recounted(runs, forge):
    """final_fit=train: they chose C; final_fit=trainval: they are part of the fit."""
    chosen, joined = (runs("linear", 0, final_fit) for final_fit in ("train", "trainval"))
    rows = pq.read_table(chosen / "predictions.parquet").to_pylist()
    sha256 = {
        name: [row["sha256"] for row in rows if row["split"] == name] for name in ("val", "test")
    }

    def with_validation(digests):
        validation = torch.from_numpy(short_digests(digests))
        return lambda tensors: {**tensors, "fit.validation": validation}

    wrong = forge("none", source=chosen, tensors=with_validation([]))
    assert "validation images that chose the head" in failures(wrong)["fitted-on"]
    wrong = forge("more", source=joined, tensors=with_validation(sha256["val"]))
    assert "validation images that chose the head" in failures(wrong)["fitted-on"]
    swapped = [*sha256["val"][3:], *sha256["test"][:3]]
    wrong = failures(forge("others", source=chosen, tensors=with_validation(swapped)))
    assert "images of fit and choice" in wrong["fitted-on"]
    assert "overlap is 0" in wrong["no-test-image-fitted"]


def test_a_partial_copy_has_fewer_classes_or_images_than_the_official_one(forge):
    full_copy = {"dataset": {"official": {"classes": 6, "train": 36, "test": 30}}}
    more = {"dataset": {"official": {"classes": 6, "train": 37, "test": 30}}}
    assert "counts" not in failures(forge("whole", config=full_copy))
    assert "counts" not in failures(forge("part", config=more, stamp={"partial": True}))
    assert "train" in failures(forge("short", config=more))["counts"]
    claimed = failures(forge("claimed", config=full_copy, stamp={"partial": True}))["counts"]
    assert "partial" in claimed


def test_a_checkpoint_must_be_ignored_by_git(run):
    def git(*arguments):
        subprocess.run(["git", "-C", run, *arguments], check=True, capture_output=True)

    git("init", "-q")
    shutil.move(run / ".git", run.parent / ".git")  # the run itself is unchanged
    assert "does not ignore it" in failures(run)["checkpoint-ignored"]
    (run.parent / ".gitignore").write_text("*.bin\n")
    assert failures(run) == {}
    git("add", "-f", "ckpt.bin")
    assert "tracked by git" in failures(run)["checkpoint-ignored"]


def test_a_missing_required_file_fails(run, monkeypatch):
    monkeypatch.setitem(files.MINIMUM, "poster.svg", "poster")
    assert failures(run) == {"minimum-contents": "missing: poster.svg (poster)"}


def test_the_template_has_the_headings_of_the_block(run):
    template = (ROOT / ".github" / "pull_request_template.md").read_text()
    assert tuple(re.findall(r"^### (.*)$", template, re.MULTILINE)) == pull_request_block.HEADINGS
    text = pull_request_block.render_block(*run_audit(run))
    assert tuple(re.findall(r"^### (.*)$", text, re.MULTILINE)) == pull_request_block.HEADINGS
    stamp = json.loads((run / "env_stamp.json").read_text())
    stored = retention.read(run / retention.FILE)
    for value in (
        stamp["config_hash"],
        stamp["env_hash"],
        stored.expires.isoformat(),
        "- [ ] licence",
    ):
        assert value in text
    assert str(run.parents[2]) not in text.replace((run / "command.txt").read_text().strip(), "")


def test_the_command_prints_80_columns_writes_json_and_ends_with_1_on_a_failure(run, capfd):
    root = run.parents[2]
    command = ["task=audit", f"run='{run}'", f"runtime.output_root='{root}'"]
    assert main(command) == 0
    out = capfd.readouterr().out
    table = out[: out.index("### Commands")].splitlines()
    assert max(map(len, table)) <= 80
    (file,) = (root / "audit").glob("*.json")
    written = json.loads(file.read_text())
    assert written["outcome"] == "not checked"  # the run used code outside git
    assert len(written["checks"]) == len(CHECKS)
    (run / "run.log").write_text("")
    assert main([*command, f"task.output='{root / 'b.json'}'"]) == 1
    assert json.loads((root / "b.json").read_text())["outcome"] == "failed"
    assert "changed: run.log" in capfd.readouterr().out


def test_a_folder_that_is_not_a_run_is_refused_in_one_line(tmp_path, capfd):
    assert main(["task=audit", f"run={tmp_path}"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "no complete run" in line
    unfinished = tmp_path / "a" / "b" / "in-progress"
    unfinished.mkdir(parents=True)
    (unfinished / "status.json").write_text("{}")
    assert main(["task=audit", f"run={unfinished}"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "not complete" in line


@pytest.mark.parametrize(("key", "wrong"), [("checksum", "0" * 64), ("test", 1), ("classes", 7)])
def test_a_smoke_subset_must_match_its_stamp(runs, forge, key, wrong):
    splits = json.loads((runs() / "splits" / "digests.json").read_text())
    stamp = json.loads((runs() / "env_stamp.json").read_text())
    counts = {name: splits[name]["images"] for name in ("train", "val", "test")}
    subset = {"name": "tiny", "classes": 6, "coverage": {"test": 6}, "expected_seconds": 30}
    subset |= {**counts, "checksum": stamp["manifest_digest"]}
    paths = {f"tiny_{part}_subset_path": "splits/test.txt" for part in ("train", "infer")}
    config = {"dataset": {"subset": "tiny"}}
    honest = forge("honest", config=config, stamp={"subset": subset, **paths})
    assert "subset" not in failures(honest)
    lie = forge("lie", config=config, stamp={"subset": {**subset, key: wrong}, **paths})
    assert "subset" in failures(lie)


SOLVED = {"gap": 1e-9, "iterations": 3, "units": 2.0, "converged": True}


def searched(**changes: object) -> Any:
    """A record of a search among 5 values of C, one of them solved to the gap."""
    losses = (0.9, 0.4, 0.29994, 0.2999, 0.6)
    path = [
        {**SOLVED, "c": 10.0**i, "loose": i != 3, "val_loss": loss, "val_top1": 0.5}
        for i, loss in enumerate(losses)
    ]
    selection = {"c": 100.0, "end": None, "whole": None, "units": 10.0, "path": path}
    selection |= {name: {**SOLVED, "c": 100.0} for name in ("chosen", "final")} | changes
    task = {"c_count": 5, "c_low": 1.0, "c_high": 1e4, "c_search": "bracket"}
    task |= {"gap": 1e-8, "final_gap": 1e-10}
    numbers = {"selection": selection, "val": {"n": 4}}
    return SimpleNamespace(numbers=numbers, config={"task": task})


def test_the_chosen_c_follows_from_the_values_that_a_search_solved():
    assert (
        stated_facts.selection_follows(searched()) == "C = 100 of 5 values, 5 of which were solved"
    )
    path = searched().numbers["selection"]["path"]

    def wide(*cs: float) -> list[Any]:
        """The path with a gap of 1e-3 at these values of C."""
        return [{**row, "gap": 1e-3, "loose": True} if row["c"] in cs else row for row in path]

    far = {"path": wide(1.0, 10.0, 10000.0)}
    assert stated_facts.selection_follows(searched(**far)).startswith("C = 100 of 5")
    # a lowest loss near 0 need not be known exactly
    low = [{**row, "val_loss": row["val_loss"] - 0.29985} for row in wide(1000.0)[2:4]]
    low = [*path[:2], *low, path[4]]
    assert stated_facts.selection_follows(searched(path=low)).startswith("C = 100 of 5")
    for changes in (
        {"path": wide(1000.0)},  # the lowest
        {"path": wide(100.0)},  # the chosen
        {"whole": "two minima"},  # with loose values
        {"whole": "path", "path": [{**row, "loose": False} for row in path]},  # of another search
        {"c": 10.0},
        {"units": 9.0},
        {"path": [*path[:1], *path[2:]], "units": 8.0},  # the neighbour below
        {"path": path[:-1], "units": 8.0},  # the largest C
        {"path": path[1:], "whole": "path", "units": 8.0},
        {"path": [{**row, "gap": 1e-7, "loose": False} for row in path]},
        {"path": [{**row, "gap": None} for row in path]},
        {"path": [{**row, "val_top1": -1.0} for row in path]},
        {"final": {**SOLVED, "c": 100.0, "gap": 1e-7}},
        {"final": {**SOLVED, "c": 100.0, "iterations": -1}},
        {"chosen": {**SOLVED, "c": 100.0, "converged": "yes"}},
    ):
        with pytest.raises(DamageError, match="selection"):
            stated_facts.selection_follows(searched(**changes))


def test_a_single_c_follows_from_the_config_which_names_no_highest_one():
    (row,) = searched().numbers["selection"]["path"][2:3]
    record = searched(path=[{**row, "loose": False}], units=2.0, whole="few values")
    record.config["task"] = {"c_count": 1, "c_low": 100.0, "gap": 1e-8, "final_gap": 1e-10}
    assert stated_facts.selection_follows(record) == "C = 100 of 1 values, 1 of which were solved"
    record.config["task"]["c_low"] = 10.0
    with pytest.raises(DamageError, match="selection"):
        stated_facts.selection_follows(record)
