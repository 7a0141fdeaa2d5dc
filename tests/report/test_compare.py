"""Two runs: test results equal scipy's, changed images by name, incomparable runs."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import binomtest

from fgvc.report.compare import compare_runs
from fgvc.run import main
from fgvc.types import UserError
from tests.report.conftest import OTHER_N, RIGHT_N


def paths(run):
    return np.array(pq.read_table(run / "predictions.parquet")["path"].to_pylist())


def test_the_p_value_equals_scipy_and_the_counts_equal_the_images(pair):
    result = compare_runs(*pair, force=False)
    gained, lost = paths(pair[0])[RIGHT_N & ~OTHER_N], paths(pair[0])[OTHER_N & ~RIGHT_N]
    assert [image["path"] for image in result["wrong_to_right"]] == sorted(gained)
    assert [image["path"] for image in result["right_to_wrong"]] == sorted(lost)
    assert result["mcnemar"]["only_a"] == len(gained)
    assert result["mcnemar"]["only_b"] == len(lost)
    oracle = binomtest(len(gained), len(gained) + len(lost)).pvalue
    assert result["mcnemar"]["p"] == pytest.approx(oracle, rel=1e-12)
    assert result["top1"]["value"] == pytest.approx(RIGHT_N.mean() - OTHER_N.mean())
    assert result["top1"]["low"] < result["top1"]["value"] < result["top1"]["high"]
    assert result["comparable"]
    assert result["run"]["top1"] == RIGHT_N.mean()
    assert result["run"]["top1_ci95"][0] < result["run"]["top1"]


def test_classes_are_sorted_by_the_size_of_their_change(pair):
    rows = compare_runs(*pair, force=False)["classes"]
    changes = [abs(row["difference"]) for row in rows]
    assert changes == sorted(changes, reverse=True)
    assert sum(row["images"] for row in rows) == 300
    label_N = np.arange(300) % 6
    differences = sorted(row["difference"] for row in rows)
    expected = [RIGHT_N[label_N == k].mean() - OTHER_N[label_N == k].mean() for k in range(6)]
    assert differences == pytest.approx(sorted(expected))


def test_other_differences_are_listed_by_key(forge, pair):
    third = forge("c", stamp={"git_commit": "1" * 40, "timm_version": "9"}, right=RIGHT_N)
    assert compare_runs(*pair, force=False)["config"] == {
        "head.k": [None, 20],
        "head.name": ["linear", "knn"],
    }
    result = compare_runs(pair[0], third, force=False)
    assert result["config"] == {}
    assert result["environment"]["git_commit"][1] == "1" * 40
    assert result["environment"]["timm_version"][1] == "9"
    assert not {"run_id", "started"} & result["environment"].keys()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"stamp": {"manifest_digest": "1" * 64}}, "images (manifest)"),
        ({"stamp": {"split_digest": "1" * 64}}, "split"),
        ({"stamp": {"labelmap_digest": "1" * 64}}, "label map"),
        ({"numbers": {"metric_version": "0"}}, "metric code"),
        ({"config": {"preprocess": "native"}}, "preprocess"),
        ({"config": {"final_fit": "train"}}, "final_fit"),
    ],
)
def test_incomparable_runs_are_refused_unless_forced(forge, pair, change, name):
    other = forge("other", right=OTHER_N, **change)
    with pytest.raises(UserError, match="are not comparable") as caught:
        compare_runs(pair[0], other, force=False)
    assert f"differ in {name}:" in str(caught.value)
    assert "task.force=true" in str(caught.value)
    result = compare_runs(pair[0], other, force=True)
    assert not result["comparable"]
    assert list(result["differs_in"]) == [name]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"facts": {"answer": {"manifest_digest": "1" * 64}}}, "images of the fit (manifest)"),
        ({"facts": {"split_digest": "1" * 64}}, "split of the fit"),
        ({"numbers": {"resumed": {"forced": True}}}, "forced resume"),
        ({"config": {"task": {"debug": "overfit"}}}, "task.debug"),
    ],
)
def test_another_fit_is_not_comparable(forge, pair, change, name):
    other = forge("other", right=OTHER_N, **change)
    with pytest.raises(UserError, match="are not comparable") as caught:
        compare_runs(pair[0], other, force=False)
    assert f"differ in {name}:" in str(caught.value)


def test_a_side_that_was_fitted_on_test_images_is_named(forge, pair, capsys):
    contaminated = forge("seen", right=OTHER_N, numbers={"overlap": {"images": 12}})
    assert compare_runs(pair[0], contaminated, force=False)["against"]["overlap"] == 12
    root = pair[0].parents[2]
    paths = [f"run={pair[0]}", f"against={contaminated}", f"runtime.output_root={root}"]
    assert main(["task=compare", *paths]) == 0
    assert (
        "note: against: 12 of its test images fitted or chose its head" in capsys.readouterr().out
    )


def test_zero_shot_is_comparable_with_any_fit(forge, pair):
    config = {"task": {"name": "zero_shot"}, "head": {"name": "text"}, "final_fit": "train"}
    assert compare_runs(pair[0], forge("z", config=config, right=OTHER_N), False)["comparable"]


def test_force_compares_the_common_images_and_counts_the_others(forge, pair):
    fewer = forge("fewer", stamp={"manifest_digest": "1" * 64}, right=OTHER_N[:120])
    result = compare_runs(pair[0], fewer, force=True)
    assert result["images"] == {"common": 120, "only_run": 180, "only_against": 0}
    assert result["run"]["top1"] == RIGHT_N[:120].mean()


def test_force_does_not_help_where_labels_disagree(forge, pair, seal):
    other = forge("other", stamp={"labelmap_digest": "1" * 64}, right=OTHER_N)
    plain = json.loads((other / "labelmap.json").read_text())
    plain["classes"][0]["id"], plain["classes"][1]["id"] = "2", "1"
    (other / "labelmap.json").write_text(json.dumps(plain))
    seal(other)
    with pytest.raises(UserError, match=r"\.jpg has class 2 in one run and 1 in the other"):
        compare_runs(pair[0], other, force=True)


def test_no_common_images_and_damage_are_one_line(runs, pair):
    with pytest.raises(UserError, match="differ in .*images"):
        compare_runs(pair[0], runs(final_fit="train"), force=False)
    (pair[1] / "predictions.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"against=.*predictions\.parquet: sha256 mismatch"):
        compare_runs(*pair, force=False)


@pytest.mark.parametrize(
    "change", [{"parents": [["genus 1"]]}, {"nodes": {}}, {"parents": None}, {"nodes": [1]}]
)
def test_a_tree_that_does_not_fit_its_classes_is_one_line(forge, pair, seal, change):
    file = pair[1] / "labelmap.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    seal(pair[1])
    with pytest.raises(UserError, match="against=.*: not a record that this version reads"):
        compare_runs(*pair, force=False)


def test_the_command_shows_it_in_80_columns_and_writes_json(pair, tmp_path, capfd):
    target = tmp_path / "a = b.json"
    places = [f"run={pair[0]}", f"against={pair[1]}", f"task.output='{target}'"]
    assert main(["task=compare", *places]) == 0
    out = capfd.readouterr().out
    tables = [line for line in out.splitlines() if line[:1] in "┏┃┡│└├"]
    assert tables
    assert max(map(len, tables)) <= 80
    assert "p of the pair alone: McNemar's exact test." in out
    assert "Null: these trained models have equal accuracy" in " ".join(out.split())
    assert json.loads(target.read_text()) == json.loads(
        json.dumps(compare_runs(*pair, force=False))
    )


def test_swapping_the_runs_changes_signs_and_nothing_else(pair):
    forward, backward = compare_runs(*pair, force=False), compare_runs(*pair[::-1], force=False)
    for number in ("top1", "mean_per_class"):
        left, other = forward[number], backward[number]
        assert (left["value"], left["low"], left["high"]) == (
            -other["value"],
            -other["high"],
            -other["low"],
        )
    assert forward["top1"]["p"] == backward["top1"]["p"] == forward["mcnemar"]["p"]
    swapped = [
        {**image, "run": image["against"], "against": image["run"]}
        for image in backward["right_to_wrong"]
    ]
    assert forward["wrong_to_right"] == swapped


@pytest.mark.parametrize(("wrong", "identical"), [(1, True), (2, False)])
def test_identical_answers_are_called_identical(forge, pair, capfd, wrong, identical):
    """Different wrong predictions on the same images are not distinguishable, not identical."""
    other = forge("other", config={"head": {"name": "knn"}}, right=RIGHT_N, wrong=wrong)
    assert compare_runs(pair[0], other, force=False)["identical"] is identical
    assert main(["task=compare", f"run={pair[0]}", f"against={other}"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    words = "identical predictions: both predict the same class for each of the 300 test images"
    assert (words in out) is identical
    assert ("the same images are right, with other mistakes" in out) is not identical
    assert ("not distinguishable" in out) is not identical


def test_the_command_prints_that_it_was_forced_and_why(forge, pair, capfd):
    other = forge("other", stamp={"split_digest": "1" * 64}, right=OTHER_N)
    command = ["task=compare", f"run={pair[0]}", f"against={other}"]
    assert main(command) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "differ in split:" in line
    assert main([*command, "task.force=true"]) == 0
    assert capfd.readouterr().out.startswith(
        "FORCED: these runs are not comparable, they differ in"
    )


def test_identical_answers_of_a_forced_comparison_are_those_to_the_common_images(
    forge, pair, capfd
):
    fewer = forge("fewer", stamp={"manifest_digest": "1" * 64}, right=RIGHT_N[:120])
    assert main(["task=compare", f"run={pair[0]}", f"against={fewer}", "task.force=true"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "both predict the same class for each of the 120 common images" in out
