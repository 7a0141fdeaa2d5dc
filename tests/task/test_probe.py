"""task=probe on the synthetic birds: the record is complete, consistent and reproducible."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from sklearn import metrics as sklearn_metrics
from sklearn.linear_model import LogisticRegression
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fgvc.config.compose import composed, config_hash, resolved
from fgvc.html.class_names import display_names
from fgvc.record import checkpoint
from fgvc.record.env_stamp import schema
from fgvc.record.tensorboard import KEYS
from fgvc.record.writers import WRITERS
from tests.jobs import BIRDS, MINI

oracle: Any = sklearn_metrics  # without annotations: pyright would guess them from the defaults
FILES = {
    "artifacts.json",
    "ckpt.bin",
    "command.txt",
    "config.canonical.json",
    "config.yaml",
    "confusion.csv",
    "confusion.svg",
    "env_stamp.json",
    "fiftyone",
    "labelmap.json",
    "metrics.json",
    "per_class.csv",
    "predictions.parquet",
    "report.html",
    "run.log",
    "splits",
    "status.json",
    "retention.json",
    "tb",
}
# 16 patches and the smallest backbone: for what is not about pixels
SMALL = ("backbone=vit", "backbone.size=mini", "resolution.side=64", "resolution.name=r64")


def sha256(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_run_folder_is_complete_and_named_by_its_digests(finished):
    ran = finished()
    assert ran.code == 0
    names = {path.name for path in ran.folder.iterdir()}
    assert names - {"code.patch", "untracked.json"} == FILES
    # by writers, when the run starts (open_run), and when the folder is sealed
    written = {file.rstrip("/") for writer in WRITERS for file in writer.files}
    opened = {"command.txt", "config.canonical.json", "config.yaml", "run.log"}
    sealed = {"artifacts.json", "status.json", "retention.json"}
    absent = {"overlays", "unreadable.json"}  # no part attention, every image readable
    assert written | opened | sealed == FILES | absent
    run_id, short_hash, short_id = ran.folder.parts[-3:]
    assert sha256(ran.folder / "ckpt.bin").startswith(short_id)
    assert sha256(ran.folder / "config.canonical.json").startswith(short_hash)
    stamp = ran.json("env_stamp.json")
    jsonschema.validate(stamp, schema())
    assert stamp["run_id"] == run_id
    assert stamp["config_hash"] == sha256(ran.folder / "config.canonical.json")
    assert ran.json("status.json")["state"] == "done"
    assert "record: " in ran.out


def test_every_artefact_is_indexed_with_its_digest(finished):
    ran = finished()
    artifacts = ran.json("artifacts.json")
    on_disk = {
        path.relative_to(ran.folder).as_posix()
        for path in ran.folder.rglob("*")
        if path.is_file() and path.name not in ("artifacts.json", "status.json", "retention.json")
    }
    assert set(artifacts) == on_disk
    for name, entry in artifacts.items():
        assert entry["sha256"] == sha256(ran.folder / name), name
    status = ran.json("status.json")
    assert status["artifacts_sha256"] == sha256(ran.folder / "artifacts.json")
    claimed = status.pop("checksum")
    canonical = json.dumps(status, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert claimed == hashlib.sha256(canonical.encode()).hexdigest()


def test_every_number_follows_from_the_predictions(finished):
    ran = finished()
    table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    numbers = ran.json("metrics.json")
    for split in ("val", "test"):
        rows, recorded = table[table.split == split], numbers[split]
        classes = list(range(6))
        assert recorded["n"] == len(rows)
        assert recorded["top1"] == pytest.approx(oracle.accuracy_score(rows.label, rows.pred))
        in_top = [label in top for label, top in zip(rows.label, rows.topk_labels, strict=True)]
        assert recorded["top5"] == pytest.approx(np.mean(in_top))
        assert recorded["loss"] == pytest.approx(-rows.label_logprob.mean())
        assert recorded["macro_f1"] == pytest.approx(
            oracle.f1_score(rows.label, rows.pred, average="macro", zero_division=0)
        )
        recall = oracle.recall_score(
            rows.label, rows.pred, average=None, labels=classes, zero_division=0
        )
        present = [c for c in classes if (rows.label == c).any()]
        assert recorded["mean_per_class"] == pytest.approx(recall[present].mean())
        low, high = recorded["top1_ci95"]
        assert 0 <= low <= recorded["top1"] <= high <= 1
        for key in ("top1", "mean_per_class", "macro_f1"):
            value, low, high = (f"{100 * v:.1f}" for v in (recorded[key], *recorded[f"{key}_ci95"]))
            assert f"{value} [{low}, {high}]" in ran.out, key
        note = recorded["intervals_note"]
        assert (f"note: {split}: " in ran.out) == (note is not None)
    assert "top-5" not in ran.out  # of six classes: nearly every answer is right
    test = table[table.split == "test"]
    matrix = np.array(
        [row[1:] for row in csv.reader(io.StringIO((ran.folder / "confusion.csv").read_text()))][
            1:
        ],
        dtype=int,
    )
    np.testing.assert_array_equal(
        matrix, oracle.confusion_matrix(test.label, test.pred, labels=classes)
    )
    wrong = np.where(np.eye(6, dtype=bool), 0, matrix)
    pairs = [(pair["label"], pair["pred"], pair["count"]) for pair in numbers["worst_pairs"]]
    assert [count for *_, count in pairs] == sorted(wrong[wrong > 0], reverse=True)[:10]
    assert all(wrong[label, pred] == count for label, pred, count in pairs)
    per_class = list(csv.DictReader(io.StringIO((ran.folder / "per_class.csv").read_text())))
    precision, recall, f1, support = oracle.precision_recall_fscore_support(
        test.label, test.pred, labels=classes, zero_division=0
    )
    for i, row in enumerate(per_class):
        recorded = [float(row[k]) for k in ("precision", "recall", "f1", "support")]
        assert recorded == pytest.approx([precision[i], recall[i], f1[i], support[i]])


def test_test_is_read_once_and_last(finished):
    ran = finished()
    assert ran.json("metrics.json")["test_reads"] == 1
    assert ran.out.index("features train") < ran.out.index("logistic regression")
    assert ran.out.index("logistic regression") < ran.out.index("features test")


def test_a_second_run_uses_cached_features_and_gives_the_same_numbers(run, tmp_path):
    first = run(f"runtime.cache_root={tmp_path / 'cache'}")
    second = run(
        f"runtime.cache_root={tmp_path / 'cache'}",
        f"runtime.output_root={tmp_path / 'elsewhere'}",
        "runtime.eval_batch_size=7",
    )
    cost = first.json("metrics.json")["cost"]
    assert (cost["decoded"], cost["forwarded"]) == (90, 90)
    again = second.json("metrics.json")["cost"]
    assert (again["decoded"], again["forwarded"]) == (0, 0)
    assert (again["parameters"], again["macs"]) == (cost["parameters"], cost["macs"])
    assert again["parameters"] == pytest.approx(5.5e6, rel=0.02)
    assert again["images_per_s"] == cost["images_per_s"] > 0
    assert first.folder.parts[-2] == second.folder.parts[-2]
    for name in (
        "predictions.parquet",
        "ckpt.bin",
        "confusion.svg",
        "per_class.csv",
        "labelmap.json",
        "splits/val.txt",
        "fiftyone/samples.json",
    ):
        assert sha256(first.folder / name) == sha256(second.folder / name), name


def test_without_caches_the_bytes_are_the_same(run, tmp_path):
    first = run(f"runtime.cache_root={tmp_path / 'one'}", *SMALL)
    second = run(f"runtime.cache_root={tmp_path / 'two'}", *SMALL)
    assert second.json("metrics.json")["cost"]["forwarded"] == 90
    assert sha256(first.folder / "predictions.parquet") == sha256(
        second.folder / "predictions.parquet"
    )
    assert sha256(first.folder / "ckpt.bin") == sha256(second.folder / "ckpt.bin")


def test_the_hash_in_the_record_is_the_one_a_script_outside_computes(finished):
    ran = finished()
    assert ran.folder.parts[-2] == config_hash(resolved(composed(ran.overrides)))[:16]


def test_probe_agrees_with_scikit_learn_on_the_same_cached_features(run, tmp_path):
    """Identical predictions if the margin of scikit-learn exceeds 1e-3, at the chosen C."""
    ran = run(*SMALL, *own_cache(tmp_path), "task.c_low=1", "task.c_high=100", "task.c_count=5")
    features = cached_features(tmp_path)
    table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    test = table[table.split == "test"]
    x, y = features["train"]
    c = ran.json("metrics.json")["selection"]["c"]
    model = LogisticRegression(C=c, tol=1e-12, max_iter=10_000).fit(x.astype(np.float64), y)
    logits = model.decision_function(features["test"][0].astype(np.float64))
    top = np.sort(logits, axis=1)
    sure = top[:, -1] - top[:, -2] > 1e-3
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(test.pred.to_numpy()[sure], logits.argmax(axis=1)[sure])


LOOSE = ("task.gap=1", "task.c_low=1", "task.c_high=1", "task.c_count=1")


def test_the_reported_solution_is_solved_to_the_final_gap_when_nothing_is_refitted(run, tmp_path):
    """With a loose gap on the path, predictions are still those of scikit-learn's optimum."""
    ran = run(*SMALL, *own_cache(tmp_path), *LOOSE, "final_fit=train")
    final = ran.json("metrics.json")["selection"]["final"]
    assert final["converged"]
    assert final["gap"] <= 1e-10
    features = cached_features(tmp_path)
    fitted = (ran.folder / "splits/train.txt").read_text().splitlines()
    chosen = (ran.folder / "splits/val.txt").read_text().splitlines()
    kept_N = np.isin(sorted([*fitted, *chosen]), fitted)
    x, y = features["train"][0][kept_N].astype(np.float64), features["train"][1][kept_N]
    model = LogisticRegression(C=1, tol=1e-12, max_iter=10_000).fit(x, y)
    table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    for split, rows in (("test", features["test"][0]), ("val", features["train"][0][~kept_N])):
        oracle_N = model.predict(rows.astype(np.float64))
        np.testing.assert_array_equal(table[table.split == split].pred.to_numpy(), oracle_N, split)


@pytest.mark.parametrize("final_fit", ["train", "trainval"])
def test_the_gap_of_the_path_does_not_change_the_reported_text_head(run, final_fit):
    clip = ("backbone=clip", "backbone.size=mini", "runtime.stack_check=false", "head=text_linear")
    heads = []
    for gap in ("task.gap=1", "task.gap=1e-11"):
        ran = run(*clip, *LOOSE, gap, f"final_fit={final_fit}")
        numbers = ran.json("metrics.json")
        assert numbers["selection"]["final"]["gap"] <= 1e-10
        tensors, _, _ = checkpoint.read(ran.folder)
        heads.append((tensors["head.weight_CD"], numbers["val"]["loss"]))
    torch.testing.assert_close(heads[0][0], heads[1][0], atol=1e-3, rtol=1e-3)
    assert heads[0][1] == pytest.approx(heads[1][1], rel=1e-4)


def own_cache(tmp_path):
    return (f"runtime.cache_root={tmp_path / 'cache'}",)


def cached_features(tmp_path):
    """Train and test features with labels, read from the files of a cache that one run filled."""
    features = {}
    for folder in (tmp_path / "cache" / "features").iterdir():
        role = json.loads((folder / "key.json").read_text())["value"]["key"]["role"]
        with safe_open(folder / "00000.safetensors", "np") as file:
            features[role] = file.get_tensor("x")
    each = {"train": 10, "test": 5}
    return {role: (x, np.repeat(np.arange(6), each[role])) for role, x in features.items()}


def test_tensorboard_holds_exactly_the_listed_keys(finished):
    ran = finished()
    events = EventAccumulator(
        str(ran.folder / "tb"), size_guidance={"scalars": 0, "images": 0, "tensors": 0}
    )
    events.Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == set(KEYS)
    numbers = ran.json("metrics.json")
    assert events.Scalars("test/top1")[0].value == pytest.approx(numbers["test"]["top1"])
    losses = [point.value for point in events.Scalars("select/val_loss")]
    assert losses == pytest.approx(
        [point["val_loss"] for point in numbers["selection"]["path"]], rel=1e-6
    )


def test_c_is_the_smallest_within_a_tolerance_of_the_lowest_validation_loss(finished):
    ran = finished("task.c_count=45", "task.c_search=path")
    selection = ran.json("metrics.json")["selection"]
    lowest = min(point["val_loss"] for point in selection["path"])
    assert selection["c"] == min(
        point["c"] for point in selection["path"] if point["val_loss"] <= lowest + 1e-4
    )
    assert len(selection["path"]) == 45
    solved = [point for point in selection["path"] if point["c"] <= 10.0]
    assert max(point["gap"] for point in solved) <= 1e-4
    assert all(point["converged"] for point in solved)
    assert selection["whole"] == "path"


def test_a_search_that_finds_two_minima_selects_the_c_of_the_path_and_says_so(finished):
    """Six validation images and random weights: the curve does have two minima."""
    whole = finished("task.c_count=45", "task.c_search=path").json("metrics.json")["selection"]
    losses = [point["val_loss"] for point in whole["path"]]
    rises = [second > first for first, second in pairwise(losses)]
    assert rises != sorted(rises)
    ran = finished("task.c_count=45")
    selection = ran.json("metrics.json")["selection"]
    assert (selection["c"], selection["whole"]) == (whole["c"], "two minima")
    assert selection["units"] == pytest.approx(sum(point["units"] for point in selection["path"]))
    assert not any(point["loose"] for point in selection["path"])
    (note,) = [note for note in ran.json("metrics.json")["notes"] if "c_search" in note]
    assert note in ran.out
    assert "45 of 45 values solved" in ran.out


@pytest.mark.parametrize(
    ("low", "high", "end", "key"),
    [("0.01", "0.1", "last", "task.c_high"), ("1", "100", "first", "task.c_low")],
)
def test_a_c_at_an_end_of_its_range_is_noted_everywhere(run, low, high, end, key):
    path = (f"task.c_low={low}", f"task.c_high={high}", "task.c_count=3")
    ran = run(*path)
    numbers = ran.json("metrics.json")
    assert numbers["selection"]["end"] == end
    (note,) = [note for note in numbers["notes"] if key in note]
    assert f"the {end} of 3 values" in note
    assert note in ran.out
    assert note in html.unescape((ran.folder / "report.html").read_text())
    table = run("task=report", bare=True)
    assert key in table.out


def test_a_c_within_its_range_and_a_single_c_are_not_noted(run, finished):
    assert finished().json("metrics.json")["selection"]["end"] is None
    ran = run("task.c_low=1e-6", "task.c_high=1e-6")
    selection = ran.json("metrics.json")["selection"]
    assert selection["end"] is None
    assert [row["c"] for row in selection["path"]] == [1e-6]
    assert "c_low" not in ran.out


def test_checkpoint_is_plain_and_deterministic_and_names_no_place(finished, shelf):
    ran = finished()
    tensors, facts, checkpoint_id = checkpoint.read(ran.folder)
    assert checkpoint_id[:16] == ran.folder.name
    head, fit = {"head.weight_CD", "head.bias_C"}, {"fit.images", "fit.validation"}
    assert set(tensors) == head | fit | {"class.means"}
    assert tensors["class.means"].shape == (6, 192)
    assert tensors["head.weight_CD"].shape == (6, 192)
    with safe_open(ran.folder / "ckpt.bin", "pt") as file:
        assert list(file.metadata()) == ["fgvc"]
    assert str(shelf.root.parent) not in json.dumps(facts)
    assert facts["labelmap"]["names"] == [
        label["name"] for label in ran.json("labelmap.json")["classes"]
    ]
    assert facts["backbone"]["weights"]["kind"] == "random"


def test_the_confusion_plot_shows_the_matrix(finished):
    ran = finished()
    plot = ElementTree.parse(ran.folder / "confusion.svg")
    texts = [text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "vit tiny on synthetic, test"
    rows = list(csv.reader(io.StringIO((ran.folder / "confusion.csv").read_text())))[1:]
    for name in display_names([row[0] for row in rows]):
        assert sum(bool(text) and name.startswith(text.rstrip("…")) for text in texts) >= 2
    counts = [count for row in rows for count in row[1:] if count != "0"]
    assert Counter(texts[-len(counts) :]) == Counter(counts)


# Each takes more than a tenth of a second to import, and cached features need none of them
UNUSED = {"boto3", "matplotlib", "pandas", "sklearn", "sympy", "timm", "torchvision", "triton"}
IMPORTS = """
import sys
from fgvc.run import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def test_a_second_probe_imports_little(run, tmp_path):
    first = run(*SMALL, *own_cache(tmp_path))
    command = [sys.executable, "-c", IMPORTS, *first.overrides]
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "0 images forwarded now" in second.stdout
    modules = second.stderr.split()
    assert not UNUSED & {name.partition(".")[0] for name in modules}
    assert not any(name.startswith("torch._dynamo") for name in modules)
    assert 1000 < len(modules) < 2400


def test_a_probe_never_imports_matplotlib(start_job):
    """The server that forks the jobs of a sweep does not either."""
    setup = "assert 'matplotlib' not in sys.modules; sys.modules['matplotlib'] = None"
    job = start_job(*SMALL, setup=setup)
    assert job.wait() == 0, job.output


def test_knn_head(run, tmp_path):
    ran = run("head=knn", "head.k=5", *SMALL, *own_cache(tmp_path))
    assert ran.code == 0
    numbers = ran.json("metrics.json")
    assert numbers["selection"] is None
    tensors, facts, _ = checkpoint.read(ran.folder)
    assert facts["head"] == {"name": "knn", "k": 5, "temperature": 0.07}
    features = cached_features(tmp_path)
    x, y = features["train"]
    bank = torch.nn.functional.normalize(torch.from_numpy(x), dim=1)
    torch.testing.assert_close(tensors["head.bank_ND"], bank)
    # DINO's rule, spelt out
    queries = torch.from_numpy(features["test"][0])
    similarity = torch.nn.functional.normalize(queries, dim=1) @ bank.T
    value, index = similarity.topk(5, dim=1)
    votes = torch.zeros(len(queries), 6)
    votes.scatter_add_(1, torch.from_numpy(y)[index], (value / 0.07).exp())
    table = pq.read_table(ran.folder / "predictions.parquet").to_pandas()
    pred = table[table.split == "test"].pred.to_numpy()
    np.testing.assert_array_equal(pred, votes.argmax(dim=1).numpy())


def test_k_above_the_bank_is_refused(run):
    ran = run("head=knn", "head.k=100")
    assert ran.code == 1
    assert "100" in ran.err
    assert ran.err.count("\n") == 1
    assert ran.folder is None


def test_bf16_changes_the_hash_and_hardly_the_features(run, tmp_path):
    features, folders = {}, []
    for precision in ("fp32", "bf16"):
        place = tmp_path / precision
        ran = run(f"precision={precision}", *SMALL, *own_cache(place))
        assert ran.json("env_stamp.json")["precision"] == precision
        folders.append(ran.folder.parts[-2])
        features[precision] = torch.from_numpy(cached_features(place)["test"][0])
    assert folders[0] != folders[1]
    cosine = torch.nn.functional.cosine_similarity(features["fp32"], features["bf16"])
    assert cosine.min() > 0.999
    assert not torch.equal(features["fp32"], features["bf16"])


# of the images that are drawn by default
HALF = ("dataset.generator.train_per_class=20", "dataset.generator.test_per_class=10")


@pytest.mark.slow
@pytest.mark.smoke
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_tiny_subset_end_to_end(run, precision):
    ran = run("experiment=smoke", *HALF, f"precision={precision}", birds=False)
    assert ran.code == 0
    subset = ran.json("env_stamp.json")["subset"]
    assert (subset["train"], subset["val"], subset["test"]) == (
        16,
        8,
        16,
    )  # two batches of 8 at most
    assert subset["coverage"] == {"train": 8, "val": 8, "test": 8}
    assert subset["expected_seconds"] > 0
    assert subset["checksum"] == ran.json("env_stamp.json")["manifest_digest"]
    assert ran.json("env_stamp.json")["tiny_train_subset_path"] == "splits/train.txt"
    assert len((ran.folder / "splits/train.txt").read_text().splitlines()) == 16


@pytest.mark.slow
def test_synthetic_birds_are_clearly_above_chance(run):
    """The last job of `make smoke` on half of its images: random weights, 12 similar classes."""
    ran = run("experiment=synthetic_probe", *HALF, birds=False)
    assert ran.json("metrics.json")["test"]["top1_ci95"][0] > 1.5 / 12


@pytest.mark.slow
def test_multirun_is_one_run_id_and_one_table(sweep, tmp_path):
    mini = (*MINI, *BIRDS, "dataset.subset=tiny")
    code, out = sweep(*mini, "resolution=r224,r336", "precision=fp32,bf16")
    assert code == 0
    (run_folder,) = (path for path in (tmp_path / "outputs").iterdir() if path.is_dir())
    assert len(list(run_folder.glob("*/*/metrics.json"))) == 4
    file_names = {path.name for path in (tmp_path / "multirun" / run_folder.name).iterdir()}
    assert file_names == {"multirun.yaml", "sweep.json", "sweep.html", "jobs", ".lock"}
    table = out[out.rindex("comparable") :]
    rows = table.partition("└")[0]  # below it, lines with identical answers are named again
    assert rows.count("│\n") == 4
    assert rows.count("every row: vit mini random") == 1
    assert table.count("comparable") == 1
    assert str(run_folder) in table
    assert "synthetic, licence: CC0-1.0" in table


@pytest.mark.slow
def test_rows_of_different_keys_are_never_in_one_block(sweep):
    code, out = sweep(*BIRDS, "dataset.split_seed=0,1", "dataset.subset=tiny")
    assert code == 0
    assert out.count("comparable (") == 2
