"""Records that were forged, mixed or filled with odd content (rows 55 and 56 of the fault table).

The owner of a folder can recompute every digest. The tests check which forgeries the audit still
finds, and that it states which ones it cannot find.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fgvc import metrics
from fgvc.learn.logistic import path
from fgvc.record import checkpoint, prediction_tables, privacy, retention
from fgvc.record.prediction_tables import confusion_plot
from fgvc.record.run_dir import write_status
from fgvc.record.verify import DamageError, parse_object
from fgvc.report import audit, predictions, sweep_table
from fgvc.report.audit import derived_files, pull_request_block, stated_facts
from fgvc.report.audit.check import check_id, outcome, run_check
from fgvc.report.audit.record import Recompute, Record
from fgvc.report.prune import OutputRoot
from fgvc.report.run_rows import scan_runs
from fgvc.run import main
from fgvc.task.audit import compose_command, current_code, render_page
from fgvc.types import Manifest
from fgvc.untrusted import shell
from fgvc.untrusted.escape import one_line
from tests.faults import forger, fuzz_records
from tests.narrow import not_none

SMALL = ("backbone=vit", "backbone.size=mini", "task.c_count=3", "runtime.device=cpu")
LATER = datetime(2036, 1, 1, tzinfo=UTC)


@pytest.fixture
def probe(copied) -> Path:
    """A copy of a small finished probe, made by this very code."""
    return copied(*SMALL).folder


@pytest.fixture
def other(copied) -> Path:
    """Another finished run below the same output root."""
    return copied(*SMALL, "seed=1").folder


def failures(folder: Path, recompute: Recompute | None = None) -> dict[str, str]:
    return {
        result.id: result.evidence
        for result in audit.run_audit(folder, recompute)[1]
        if result.state == "FAIL"
    }


def states(folder: Path, recompute: Recompute | None = None) -> dict[str, str]:
    return {result.id: result.state for result in audit.run_audit(folder, recompute)[1]}


# --- row 55: a consistent forgery ---


@pytest.mark.fault(55)
def test_a_consistent_forgery_passes_and_the_audit_states_it(probe, capfd):
    """All predictions are correct, and every derived file is recomputed."""
    folder = all_right(probe)
    assert failures(folder) == {}
    root = folder.parents[2]
    arguments = ["task=audit", f"run='{folder}'", f"runtime.output_root='{root}'"]
    assert main(arguments) == 0
    out = " ".join(capfd.readouterr().out.split())
    record = json.loads(next((root / "audit").glob("*.json")).read_text())
    again = pull_request_block.eval_command(str(folder / "ckpt.bin"))
    for line in (pull_request_block.PROVES, *pull_request_block.NOT_PROVEN, again):
        assert " ".join(line.split()) in out
    assert record["not_proven"] == list(pull_request_block.NOT_PROVEN)
    portable_path = f"OUTPUTS/{'/'.join(folder.parts[-3:])}/ckpt.bin"
    assert record["measure_again"] == pull_request_block.eval_command(
        portable_path
    )  # no place of this machine
    assert all(line in record["pull_request"] for line in pull_request_block.NOT_PROVEN)


@pytest.mark.fault(55)
def test_the_command_that_measures_again_finds_the_forgery(probe, copied, places, capfd):
    truth = json.loads((probe / "metrics.json").read_text())["test"]["top1"]
    folder = all_right(probe)
    assert json.loads((folder / "metrics.json").read_text())["test"]["top1"] == 1.0 != truth
    words = shlex.split(pull_request_block.eval_command(str(folder / "ckpt.bin")))
    measured = [item for item in places if not item.startswith("runtime.output_root")]
    root = folder.parents[2].with_name("measured again")
    own = ["runtime.num_workers=0", f"runtime.output_root='{root}'"]
    assert main([*words[3:], *measured, *own]) == 0, capfd.readouterr().err
    (file,) = root.glob("*/*/*/metrics.json")
    assert json.loads(file.read_text())["test"]["top1"] == pytest.approx(truth)


def all_right(folder: Path) -> Path:
    """The forgery of the adversary: every test image is right, and every number follows."""
    table = pq.read_table(folder / "predictions.parquet")
    split_N = np.array(table["split"].to_pylist())
    logits_NC = np.array(table["logits"].to_pylist(), np.float32)
    label_N = table["label"].to_numpy()
    test_N = split_N == "test"
    best_N = logits_NC[test_N].argmax(1)
    rows = np.flatnonzero(test_N)
    swapped = (logits_NC[rows, label_N[test_N]].copy(), logits_NC[rows, best_N].copy())
    logits_NC[rows, best_N], logits_NC[rows, label_N[test_N]] = swapped
    path, sha256 = tuple(table["path"].to_pylist()), tuple(table["sha256"].to_pylist())
    manifest = Manifest(Path(), path, label_N, np.zeros(len(path), np.uint8), sha256)
    splits = {
        name: metrics.from_logits(rows, label_N[rows], logits_NC[rows])
        for name in dict.fromkeys(split_N.tolist())
        for rows in [np.flatnonzero(split_N == name)]
    }
    with (folder / "predictions.parquet").open("wb") as file:
        prediction_tables.write_predictions(file, manifest, splits)
    test, record = splits["test"], Record(folder)
    matrix = metrics.tally(test.pred_N, test.label_N, len(record.labelmap))
    numbers = metrics.evaluate(test, len(record.labelmap))
    numbers |= metrics.class_intervals(matrix)
    if record.hierarchy is not None:
        numbers |= metrics.hierarchical_metrics(test.top_NK, test.label_N, record.hierarchy)
    path = [manifest.path[row] for row in test.row_N.tolist()]
    digest = prediction_tables.predictions_digest(path, test.pred_N)

    def change(plain):
        plain.update(test=numbers, worst_pairs=[], predictions_digest=digest)

    forger.rewrite_json(folder / "metrics.json", change)
    names = record.labelmap.names
    rows = metrics.class_rows(matrix, names)
    (folder / "per_class.csv").write_text(prediction_tables.class_rows_csv(rows, record.labelmap))
    (folder / "confusion.csv").write_text(prediction_tables.confusion_csv(matrix, names))
    forge_viewers(folder)
    return forger.seal(folder)


def forge_viewers(folder: Path) -> None:
    """Curves and samples that agree with the forged numbers."""
    from torch.utils.tensorboard import SummaryWriter

    from fgvc.record.fiftyone import dataset, json_documents, samples
    from fgvc.record.tensorboard import EVALUATION
    from fgvc.report.audit import viewers

    record = Record(folder)
    curves = viewers.scalars(folder)
    shutil.rmtree(folder / "tb")
    with SummaryWriter(str(folder / "tb")) as board:
        for tag, points in curves.items():
            split, _, name = tag.partition("/")
            recorded = name in EVALUATION and split in record.numbers
            for step, value in points:
                board.add_scalar(tag, record.numbers[split][name] if recorded else value, step)
    lines = (folder / "fiftyone" / "samples.json").read_text().splitlines()[1:-1]
    stored = [json.loads(line.removesuffix(",")) for line in lines]
    predictions = viewers.predictions_of(record, viewers.images_root(record, stored[0]))
    sample_rows = [json.loads(line) for line in samples.sample_lines(predictions)]
    for new, old in zip(
        sample_rows, stored, strict=True
    ):  # no other file records what the network saw
        new |= {name: old[name] for name in viewers.UNVERIFIED if name in old}
    dataset.write_samples(folder / "fiftyone", map(json_documents.json_line, sample_rows))
    for split in record.predictions:
        file = folder / "fiftyone" / "evaluations" / f"{samples.EVALUATED[split]}.json"
        file.write_bytes(json_documents.json_line(samples.evaluation_results(predictions, split)))
    described = viewers.expected_metadata(record, predictions, ("embedding",))
    (folder / "fiftyone" / "metadata.json").write_text(json.dumps(described))
    test, names = record.predictions["test"], record.labelmap.names
    matrix = metrics.tally(test.pred_N, test.label_N, len(names))
    plot = confusion_plot(matrix, names, None, "vit mini", "synthetic", partial=False)
    (folder / "confusion.svg").write_text(plot)
    (folder / "report.html").write_text(render_page(folder, record.shown_config))


def rewrite(name: str, change: Callable) -> Callable[[Path], None]:
    return lambda folder: forger.rewrite_json(folder / name, change)


def _all_loose(plain: dict) -> None:
    for row in plain["selection"]["path"]:
        row["loose"] = True


def _without_the_smallest_c(plain: dict) -> None:
    selection = plain["selection"]
    removed = selection["path"].pop(0)
    selection |= {"whole": None, "units": selection["units"] - removed["units"]}


def put(*path: str | int, value: object) -> Callable:
    return lambda plain: forger.put(plain, path, value)


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        content = (folder / name).read_text()
        assert old in content, (name, old)
        (folder / name).write_text(content.replace(old, new, 1))

    return change


def facts(*path: str, value: object) -> Callable[[Path], None]:
    return lambda folder: forger.rewrite_checkpoint(folder, put(*path, value=value))


STAMP, NUMBERS = "env_stamp.json", "metrics.json"
BY_ID = {check_id(check): check for check in audit.CHECKS}
LIES = {  # name of the check that finds it -> lies, each in one file, every digest recomputed
    "page-follows": (text("report.html", "top-1 on", "top-1 over"),),
    "command-follows": (
        text("command.txt", "backbone.size=mini", "backbone.size=tiny"),
        text("config.yaml", "contamination: ", "contamination: none, "),
    ),
    "command-recorded": (text("command.txt", "python -m", "rm -rf ~; python -m"),),
    "card-follows": (
        rewrite(STAMP, put("dataset_card", "license", value="public domain")),
        rewrite(STAMP, put("dataset_card", "approval", value="approved by all")),
    ),
    "versions": (
        rewrite(STAMP, put("torch_version", value="3.0")),
        rewrite(STAMP, put("os_version", value="Plan 9")),
    ),
    "requirements": (rewrite(STAMP, put("requirements_checksum", value="0" * 64)),),
    "stamp-follows": (
        rewrite(STAMP, put("gpu_name", value="H100")),
        rewrite(STAMP, put("token_grid", value=[7, 7])),
        rewrite(STAMP, put("eval_batch_size", value=7)),
        rewrite(NUMBERS, put("cost", "images_per_s", value=-1.0)),
        rewrite(NUMBERS, put("cost", "macs", value="few")),
    ),
    "checkpoint-config": (
        rewrite(STAMP, put("preprocess", "resize", value=1)),
        facts("config", "seed", value=7),
        facts("config", "backbone", "contamination", value="none"),
        facts("backbone", "model", value="another"),
    ),
    "selection-follows": (
        rewrite(NUMBERS, put("selection", "c", value=1.0)),
        rewrite(NUMBERS, put("selection", "path", 2, "c", value=10.0)),
        rewrite(NUMBERS, put("selection", "end", value="last")),
        rewrite(NUMBERS, put("selection", "units", value=1.0)),
        rewrite(NUMBERS, _all_loose),
        rewrite(NUMBERS, _without_the_smallest_c),
    ),
    "curves-follow": (rewrite(NUMBERS, put("selection", "path", 0, "val_loss", value=9.0)),),
    "viewer-follows": (
        text("fiftyone/samples.json", '"eval":false', '"eval":true'),
        rewrite("fiftyone/metadata.json", put("info", "metrics", "test", "top1", value=1.0)),
        rewrite(STAMP, put("started", value="2026-11-01T00:00:00+00:00")),
        rewrite("fiftyone/evaluations/eval.json", put("confs", 0, value=1.0)),
    ),
    "plot-follows": (
        text("confusion.svg", "share of the true class", "share of all images"),
        lambda folder: (folder / "confusion.svg").rename(folder / "confusion.png"),
    ),
}


@pytest.mark.fault(55)
def test_a_forgery_with_recomputed_digests_is_found(probe, tmp_path):
    """Each copy has one forged value, which the named check finds."""
    here = current_code()
    assert not {"FAIL", "not checked"} & set(states(probe, here).values())
    for check, lies in LIES.items():
        for number, lie in enumerate(lies):
            home = tmp_path / f"{check}-{number}"
            folder = Path(shutil.copytree(probe, home.joinpath(*probe.parts[-3:])))
            lie(folder)
            record = Record(forger.seal(folder), here)
            assert run_check(BY_ID[check], record).state == "FAIL", (check, number)


@pytest.mark.fault(55)
@pytest.mark.parametrize("files", [[{"path": "specs/1/plan.md", "reason": "is no source"}], []])
def test_a_tree_is_dirty_by_a_file_beside_the_code_too(probe, files):
    rewrite(STAMP, lambda plain: plain.update(git_dirty=True, code_patch_sha256=None))(probe)
    (probe / "untracked.json").write_text(json.dumps({"files": files, "more": 0}))
    result = run_check(BY_ID["stamp-follows"], Record(forger.seal(probe)))
    assert result.state == ("pass" if files else "FAIL"), result.evidence


@pytest.mark.fault(55)
def test_the_plot_of_an_older_record_counts_but_is_not_checked(probe):
    """Its code drew confusion.png; a record without any plot misses one."""
    here = current_code()
    later = replace(here, code=replace(here.code, commit="0" * 40))
    (probe / "confusion.svg").rename(probe / "confusion.png")
    record = Record(forger.seal(probe), later)
    result = run_check(BY_ID["plot-follows"], record)
    assert (result.state, "confusion.png" in result.evidence) == ("not checked", True)
    assert run_check(BY_ID["minimum-contents"], record).state == "pass"
    (probe / "confusion.png").unlink()
    record = Record(forger.seal(probe), later)
    assert run_check(BY_ID["plot-follows"], record).state == "FAIL"
    assert run_check(BY_ID["minimum-contents"], record).state == "FAIL"


@pytest.mark.fault(55)
def test_the_plot_is_compared_in_every_environment(probe):
    rewrite(STAMP, put("env_hash", value="0" * 64))(probe)
    record = Record(forger.seal(probe), current_code())
    assert run_check(BY_ID["plot-follows"], record).state == "pass"
    assert run_check(BY_ID["versions"], record).state == "not checked"


@pytest.mark.fault(55)
def test_another_code_checks_neither_page_nor_command(probe):
    text("report.html", "top-1 on", "top-1 over")(probe)
    folder, here = forger.seal(probe), current_code()
    others = (
        None,
        replace(here, code=replace(here.code, commit="0" * 40)),
        replace(here, code=replace(here.code, commit=None)),
        replace(here, code=replace(here.code, patch=b"a patch")),
    )
    for other_code in others:
        results = audit.run_audit(folder, other_code)[1]
        by_id = {result.id: result for result in results}
        assert by_id["page-follows"].state == by_id["command-follows"].state == "not checked"
        assert by_id["page-follows"].evidence
        assert outcome(results) == "not checked"
    assert outcome(audit.run_audit(folder, here)[1]) == "failed"


@pytest.mark.fault(55)
@pytest.mark.parametrize(
    "line",
    [
        "python -m fgvc.run seed=0; rm -rf ~",
        "python -m fgvc.run `touch X`",
        "python -m fgvc.run $(touch X)",
        "python -m fgvc.run seed=0\nrm -rf ~",
        "python -m fgvc.run seed=0 \x1b[2Jseed=1",
        "python -m fgvc.run seed=0 \u202eseed=1",
        "python -m fgvc.run 'seed=0",
        "python -m fgvc.run > /etc/passwd",
        "python -m fgvc.run ~/x *",
        "sudo python -m fgvc.run seed=0",
        "```\n<script>alert(1)</script>",
        "",
    ],
)
def test_a_forged_command_is_not_shown(probe, line):
    (probe / "command.txt").write_text(line + "\n")
    folder = forger.seal(probe)
    record, results = audit.run_audit(folder)
    block = pull_request_block.render_block(record, results)
    assert next(result.state for result in results if result.id == "command-recorded") == "FAIL"
    assert "not shown" in block
    assert not line or line not in block
    assert all(part.isprintable() for part in block.splitlines())


@pytest.mark.fault(55)
@pytest.mark.parametrize("blank", ["\u3000", "\u00a0", "\u200d"])
def test_a_blank_of_another_script_is_no_control_character(probe, blank):
    line = (probe / "command.txt").read_text().rstrip()
    place = shell.setting("dataset.card.source", f"鳥{blank}a")
    (probe / "command.txt").write_text(f"{line} {place}\n")
    assert Record(probe).command_words()[-1].endswith(f'"鳥{blank}a"')
    assert blank in one_line(f"x 鳥{blank}a") or blank.isspace()


@pytest.mark.fault(55)
def test_a_real_command_is_shown_without_its_places(probe):
    line = (probe / "command.txt").read_text()
    portable = privacy.portable_command(line.removesuffix("\n"))
    assert f"\n{portable}\n" in pull_request_block.render_block(*audit.run_audit(probe))


@pytest.mark.fault(55)
def test_no_text_of_a_record_is_interpreted_by_a_terminal_or_by_markdown(probe, capfd):
    evil = "\x1b]0;x\x07 `</code>`<script>alert(1)</script>](javascript:x) | \u202e\n# heading"

    def change(plain):
        plain.update(os_version=evil, gpu_name=evil, env_hash_method=evil, env_hash=evil)
        plain["dataset_card"].update(license=evil, approval=evil, source=evil)

    forger.rewrite_json(probe / STAMP, change)
    folder = forger.seal(probe)
    arguments = ["task=audit", f"run='{folder}'", f"runtime.output_root='{folder.parents[2]}'"]
    assert main(arguments) == 1
    captured = capfd.readouterr()
    block = pull_request_block.render_block(*audit.run_audit(folder))
    for part in (captured.out, captured.err, block):
        assert all(line.isprintable() for line in part.splitlines())
    outside, _, stamp = block.partition("```json")
    for prose in (outside, stamp.partition("```")[2]):
        for line in prose.splitlines():
            without_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", line)  # what is no code span
            assert "<script>" not in without_code, line
            assert "](" not in without_code, line
            assert not line.startswith("# ")


@pytest.mark.fault(55)
def test_a_sweep_too_large_to_compose_is_not_composed():
    with pytest.raises(ValueError, match="more than 1000"):
        compose_command(["-m", "seed=range(0,1000000000)"], "a")


def test_the_rule_of_the_path_is_that_of_the_fit():
    assert stated_facts.TIE == path.TOLERANCE
    assert derived_files.PAGE == "report.html"


# --- row 56: files of another run ---


@pytest.mark.fault(56)
def test_a_retention_of_another_run_is_found_and_never_deletes(probe, other):
    root = probe.parents[2]
    due = {item.name for item in OutputRoot(root, LATER, 90).survey() if item.decision.remove}
    own = "/".join(probe.parts[-3:])
    assert own in due
    shutil.copy(other / retention.FILE, probe / retention.FILE)
    assert "of another run" in failures(probe)["retention"]
    (item,) = [run_row for run_row in OutputRoot(root, LATER, 90).survey() if run_row.name == own]
    assert not item.decision.remove
    assert "of another run" in item.decision.reason
    prune = OutputRoot(root, LATER, 90)
    assert own not in [run_row.name for run_row in prune.remove(prune.survey())]
    assert probe.exists()
    (row,) = scan_runs([probe])[0]
    assert "of another run" in row.notes[-1]


@pytest.mark.fault(56)
def test_a_retention_that_was_made_at_another_time_is_found(probe):
    original = retention.read(probe / retention.FILE)
    early = replace(original, created=original.created - timedelta(days=200))
    retention.write(probe / retention.FILE, early)
    assert "status.json says" in failures(probe)["retention"]
    own = "/".join(probe.parts[-3:])
    items = OutputRoot(probe.parents[2], original.created + timedelta(days=1), 90).survey()
    assert [item.decision.remove for item in items if item.name == own] == [False]


@pytest.mark.fault(56)
def test_a_pin_keeps_the_binding(probe):
    retention.pin(probe / retention.FILE, "release")
    assert "retention" not in failures(probe)


@pytest.mark.fault(56)
def test_a_status_of_another_run_is_found(probe, other):
    shutil.copy(other / "status.json", probe / "status.json")
    assert "of another run" in failures(probe)["status"]
    assert "of another run" in scan_runs([probe])[1][0].why
    items = OutputRoot(probe.parents[2], LATER, 90).survey()
    decision = {item.name: item.decision for item in items}["/".join(probe.parts[-3:])]
    assert (decision.remove, "of another run" in decision.reason) == (False, True)


@pytest.mark.fault(56)
def test_a_status_in_progress_of_another_run_keeps_the_folder(tmp_path):
    folders = [tmp_path / name / ("0" * 16) / "in-progress" for name in ("a", "b")]
    for folder in folders:
        folder.mkdir(parents=True)
        write_status(folder, "preempted", datetime(2026, 2, 1, tzinfo=UTC))
    shutil.copy(folders[1] / "status.json", folders[0] / "status.json")
    decisions = {item.name: item.decision for item in OutputRoot(tmp_path, LATER, 90).survey()}
    assert "of another run" in decisions[f"a/{'0' * 16}/in-progress"].reason
    assert not decisions[f"a/{'0' * 16}/in-progress"].remove
    assert decisions[f"b/{'0' * 16}/in-progress"].remove


@pytest.mark.fault(56)
def test_a_row_of_another_job_or_sweep_is_damaged(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    rows = [sweep_table.Row((f"seed={seed}",), "done", 0, seconds=1.0) for seed in (0, 1)]
    for row in rows:
        sweep_table.write_row(first, row)
    sweep_table.write_row(second, replace(rows[0], state="failed"))
    files = [sweep_table.row_file(home, rows[0].choices) for home in (first, second)]
    assert sweep_table.read_row(first, rows[0].choices).state == "done"
    shutil.copy(sweep_table.row_file(first, rows[1].choices), files[0])
    line = not_none(sweep_table.read_row(first, rows[0].choices).line)
    assert line.startswith("the row of the job is damaged")
    sweep_table.write_row(first, rows[0])
    shutil.copy(files[0], files[1])
    line = not_none(sweep_table.read_row(second, rows[0].choices).line)
    assert line.startswith("the row of the job is damaged")


@pytest.mark.fault(56)
@pytest.mark.parametrize("name", ["metrics.json", "predictions.parquet", "tb", "report.html"])
def test_a_file_of_another_run_is_found_though_it_was_sealed(probe, other, name):
    """tb/ and the page of another seed: only recomputing them finds the change."""
    if (other / name).is_dir():
        shutil.rmtree(probe / name)
        shutil.copytree(other / name, probe / name)
    else:
        shutil.copy(other / name, probe / name)
    assert failures(forger.seal(probe), current_code())


# --- odd content ---


@pytest.mark.parametrize(
    "config",
    [
        "a: &a [x]\nb: [*a, *a]\n",
        "a: !!python/object/apply:os.system [touch X]\n",
        "[" * 5000,
        "- a list\n",
        "a: " + "x" * (2 << 20),
    ],
)
def test_a_config_that_yaml_would_act_on_is_one_line(probe, config):
    (probe / "config.yaml").write_text(config)
    failed = failures(forger.seal(probe), current_code())
    assert failed["config"].startswith("config.yaml: ")
    assert "\n" not in failed["config"]


@pytest.mark.parametrize("data", fuzz_records.RAW)
def test_odd_json_is_one_line(data):
    with pytest.raises(DamageError, match=r"^metrics\.json: not "):
        parse_object("metrics.json", data)


@pytest.mark.parametrize("seed", range(6))
def test_readers_refuse_odd_content_in_one_line(finished, tmp_path, seed):
    fuzz_records.fuzz(finished(*SMALL).folder, tmp_path / "fuzz", seed)


def test_a_checkpoint_id_that_leaves_the_root_is_refused(probe):
    """Nothing outside the folder is opened for a name in artifacts.json."""
    names = {"../../../secret": {"sha256": "0" * 64, "bytes": 1}, "/etc/passwd": {}}
    forger.rewrite_json(probe / "artifacts.json", lambda plain: plain.update(names))
    write_status(probe, "done", datetime.now(UTC))
    assert "missing: ../../../secret, /etc/passwd" in failures(probe)["hashes"]
    assert checkpoint.read(probe)[2].startswith(probe.name)


# --- row 47's kind: a small record that takes much memory ---


@pytest.mark.fault(55)
def test_a_table_that_unpacks_to_gigabytes_is_refused_while_it_is_read(probe):
    """A path that is stored once and stands in every row: 12 GB from a file of 70 kB."""
    rows, file = 200_000, probe / "predictions.parquet"
    path = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int32), ["x" * 60_000])
    original = pq.read_table(file)
    others = {name: pa.repeat(original[name][0], rows) for name in ("split", "label", "pred")}
    pq.write_table(pa.table({"path": path, **others}), file, store_schema=False)
    assert file.stat().st_size < 200_000
    with pytest.raises(ValueError, match="unpacks to more than 67108864 bytes"):
        prediction_tables.read_predictions(file.read_bytes(), predictions.COLUMNS)
    assert "predictions.parquet: not readable" in failures(probe)["metrics-follow"]


@pytest.mark.fault(55)
def test_a_label_map_or_label_cannot_ask_for_a_huge_matrix(probe):
    forger.rewrite_json(
        probe / "labelmap.json",
        lambda plain: plain.update(
            classes=[{"index": at, "id": str(at), "name": str(at)} for at in range(100_000)]
        ),
    )
    record = Record(probe)
    rows = record.predictions["test"]
    assert len(record.labelmap) == 100_000
    tracemalloc.start()
    counts = record.tally(rows)
    errors, peak = counts.errors, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert errors == (rows.pred_N != rows.label_N).sum()
    assert peak < 2**23  # a matrix would take 75 GiB
    assert "metrics-follow" in failures(probe)
    for label in (2**31 - 1, -2):
        with pytest.raises(ValueError, match="not of the 2 classes"):
            metrics.tally(np.array([0]), np.array([label]), 2)
        with pytest.raises(ValueError, match="not of the 2 classes"):
            metrics.tally(np.array([label]), np.array([0]), 2)
