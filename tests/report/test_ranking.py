"""Lines -> ranked groups: no ranking across keys, ties as by scipy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from fgvc import metrics
from fgvc.report import ranking
from fgvc.report import run_rows as runs_module
from fgvc.report.aggregate_seeds import Line
from fgvc.report.compare import compare_runs
from fgvc.report.pairwise_tests import PairwiseTest
from fgvc.report.predictions import RunPredictions
from fgvc.report.run_rows import scan_runs
from fgvc.store import hashing
from tests.narrow import not_none

N = 300
ZERO_SHOT = {"head": {"name": "text"}, "task": {"name": "zero_shot"}}


def ranked(root):
    return ranking.rank_lines(scan_runs(root.glob("*/*/*"))[0])


def comparisons(entries: Iterable[ranking.RankingEntry]) -> list[PairwiseTest]:
    return [not_none(entry.versus) for entry in entries]


def hits(number: int, seed: int, n: int = N) -> np.ndarray:
    """right_N with `number` right predictions."""
    right_N = np.arange(n) < number
    return np.random.default_rng(seed).permutation(right_N)


def head(name: str, **more: object) -> dict[str, object]:
    return {"head": {"name": name}, **more}


@pytest.fixture
def five(forge, output_root):
    """Five heads of one key with known predictions."""
    answers = {f"h{count}": hits(count, count) for count in (270, 262, 250, 235, 200)}
    for name, right_N in answers.items():
        forge(name, config=head(name), right=right_N)
    return answers


def test_real_runs_are_never_ranked_across_keys(real):
    groups, damaged = ranked(real)
    assert damaged == []
    assert len(groups) == 2
    for group in groups:
        runs = [run for entry in group.entries for run in entry.line.runs]
        assert {run.comparability_key for run in runs} == {group.key}
        assert {run.head for run in runs} == {"linear", "knn"}
        assert len({run.final_fit for run in runs}) == 1
        best, *others = group.entries
        assert best.versus is None
        assert {test.test for test in comparisons(others)} <= {"mcnemar", "sign_flip"}
        tops = [entry.line.top1 for entry in group.entries]
        assert tops == sorted(tops, reverse=True)


def test_ties_are_those_of_scipy_and_holm(five, output_root):
    ((group,), _) = ranked(output_root)
    names = [entry.line.first.head for entry in group.entries]
    assert names == ["h270", "h262", "h250", "h235", "h200"]
    p = []
    for name in names[1:]:
        b, c = (five["h270"] & ~five[name]).sum(), (five[name] & ~five["h270"]).sum()
        p.append(stats.binomtest(int(b), int(b + c)).pvalue)
    versus = comparisons(group.entries[1:])
    assert [test.test for test in versus] == ["mcnemar"] * 4
    assert [test.p for test in versus] == pytest.approx(p, rel=1e-9)
    adjusted = metrics.holm([*p, *[1.0] * 6])[:4]  # all ten pairs of five lines
    assert [test.family for test in versus] == [10] * 4
    assert [test.p_holm for test in versus] == pytest.approx(adjusted)
    assert [test.verdict for test in versus] == ["tie" if q > 0.05 else "lower" for q in adjusted]
    assert {test.verdict for test in versus} == {"tie", "lower"}
    for test, name in zip(versus, names[1:], strict=True):
        assert test.value == pytest.approx(five[name].mean() - five["h270"].mean())
        assert test.low < test.value < test.high


def test_predictions_are_joined_on_path_in_any_order(five, output_root, seal):
    ((before,), _) = ranked(output_root)
    folder = next(output_root.glob("h262/*/*"))
    table = pq.read_table(folder / "predictions.parquet")
    order_N = np.random.default_rng(0).permutation(len(table))
    pq.write_table(table.take(order_N), folder / "predictions.parquet")
    seal(folder)
    ((after,), damaged) = ranked(output_root)
    assert damaged == []
    versus = [[entry.versus for entry in group.entries] for group in (before, after)]
    assert versus[0] == versus[1]


def test_several_seeds_are_paired_by_their_fraction_of_right_predictions(forge, output_root):
    answers = {("cosine", s): hits(280 + s, s) for s in (0, 1)}
    answers |= {("mlp", s): hits(240 + s, 10 + s) for s in (0, 1, 2)}
    answers |= {("linear", 0): hits(275, 20)}
    for (name, seed), right_N in answers.items():
        forge(f"{name}{seed}", config=head(name, seed=seed), right=right_N)
    ((group,), _) = ranked(output_root)
    assert [len(entry.line.runs) for entry in group.entries] == [2, 1, 3]
    linear, mlp = comparisons(group.entries[1:])
    assert (linear.test, mlp.test) == ("sign_flip_subsets", "sign_flip_subsets")
    assert linear.verdict == "tie"
    assert mlp.verdict == "lower"
    assert mlp.value == pytest.approx((241 - 280.5) / N)
    assert mlp.high < 0


def test_changed_predictions_exclude_only_that_run(five, output_root):
    victim = next(output_root.glob("h270/*/*"))
    data = bytearray((victim / "predictions.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (victim / "predictions.parquet").write_bytes(data)
    ((group,), (damaged,)) = ranked(output_root)
    assert damaged.folder.startswith("h270/")
    assert damaged.why.startswith("predictions.parquet: sha256 mismatch")
    assert [entry.line.first.head for entry in group.entries] == ["h262", "h250", "h235", "h200"]
    assert group.entries[0].versus is None


def test_an_older_repeat_replaces_a_damaged_run(forge, output_root):
    forge("other", config=head("mlp"), right=hits(200, 1))
    for day in (1, 2):
        time = {"started": f"2026-11-0{day}T00:00:00+00:00"}
        folder = forge(f"day{day}", right=hits(250, 2), stamp=time)
    (folder / "predictions.parquet").unlink()
    ((group,), (damaged,)) = ranked(output_root)
    assert damaged.why == "predictions.parquet: missing"
    assert [entry.line.first.run_id for entry in group.entries] == ["day1", "other"]


def test_other_images_under_the_same_key_are_not_paired(five, forge, output_root):
    forge("fewer", config=head("fewer"), right=hits(200, 0, n=240))
    ((group,), (damaged,)) = ranked(output_root)
    assert damaged.folder.startswith("fewer/")
    assert "other test images" in damaged.why
    assert len(group.entries) == 5


def test_predictions_that_contradict_the_metrics_are_damaged(five, forge, output_root):
    forge("boast", config=head("boast"), right=hits(200, 0), numbers={"test": {"top1": 0.99}})
    (_, (damaged,)) = ranked(output_root)
    assert damaged.why == "predictions.parquet: contradicts metrics.json"


def test_a_file_that_is_not_parquet_is_damaged(five, forge, output_root, seal):
    folder = forge("text", config=head("text2"), right=hits(200, 0))
    (folder / "predictions.parquet").write_text("path,split,label,pred\n")
    seal(folder)
    (_, (damaged,)) = ranked(output_root)
    assert damaged.why == "predictions.parquet: not readable by this version"


def test_predictions_are_read_only_where_there_is_something_to_compare(forge, output_root):
    folder = forge("lonely")
    (folder / "predictions.parquet").unlink()
    ((group,), damaged) = ranked(output_root)
    assert damaged == []
    assert [entry.versus for entry in group.entries] == [None]


def test_zero_shot_joins_every_group_of_its_base_and_no_other(forge, output_root):
    for name in ("train", "both"):
        forge(name, config={"final_fit": name}, right=hits(250, 1))
    forge("other fit", facts={"answer": {"manifest_digest": "a" * 64}}, right=hits(250, 1))
    forge("far", stamp={"manifest_digest": "b" * 64}, right=hits(250, 1))
    forge("forced", numbers={"resumed": {"forced": True}}, right=hits(250, 1))
    forge("debug", config={"task": {"debug": "overfit"}}, right=hits(250, 1))
    forge("words", config=ZERO_SHOT, stamp={"task": "zero_shot"}, right=hits(9, 2))
    groups, _ = ranked(output_root)
    joined = {(name, "words") for name in ("train", "both", "other fit")}
    assert {tuple(members(group)[0]) for group in groups} == {
        *joined,
        ("far",),
        ("forced",),
        ("debug",),
    }
    assert {group.fitted.fitted for group in groups} == {True}


def test_zero_shot_alone_is_a_group_of_its_base(forge, output_root):
    for size in ("small", "base"):
        config = {**ZERO_SHOT, "backbone": {"checkpoint": {"size": size}}}
        forge(size, config=config, right=hits(99, 3))
    ((group,), _) = ranked(output_root)
    assert group.key == group.fitted.first.comparability_base
    assert [entry.versus and entry.versus.p for entry in group.entries] == [None, 1.0]
    assert not group.fitted.fitted


def test_a_finetune_is_compared_with_the_probe_of_its_weights(forge, output_root):
    """Neither a better kNN nor a better probe of other weights is chosen."""
    answers = {"knn": hits(280, 1), "linear": hits(230, 2), "other": hits(275, 3)}
    forge("knn", config=head("knn"), right=answers["knn"])
    forge("linear", config=head("linear"), right=answers["linear"])
    other = {"weights_digest": "b" * 64}
    forge(
        "other", config=head("linear", matmul_precision="high"), right=answers["other"], stamp=other
    )
    tuned_N = hits(260, 4)
    forge(
        "tuned",
        config=head("linear", task={"name": "train"}),
        right=tuned_N,
        stamp={"task": "train"},
    )
    (group,), damaged = ranked(output_root)
    assert damaged == []
    over_probes = {
        entry.line.first.task: entry.over_probe for entry in group.entries if entry.over_probe
    }
    assert set(over_probes) == {"train"}
    over = over_probes["train"]
    assert over.value == pytest.approx((260 - 230) / N)
    only_tuned = int((tuned_N & ~answers["linear"]).sum())
    only_probe = int((~tuned_N & answers["linear"]).sum())
    exact = stats.binomtest(only_tuned, only_tuned + only_probe).pvalue
    assert over.p == over.p_holm == pytest.approx(exact, rel=1e-12)
    assert over.low < over.value < over.high


def members(group) -> tuple[list[str], list[str]]:
    """run_ids of the entries and of the lines outside the ranking."""
    return (
        [entry.line.first.run_id for entry in group.entries],
        [line.first.run_id for line in group.unranked],
    )


@pytest.mark.parametrize(
    "change",
    [
        {"numbers": {"resumed": {"forced": True}}},
        {"config": {"task": {"debug": "overfit"}}},
        {"facts": {"answer": {"manifest_digest": "a" * 64}}},
        {"facts": {"split_digest": "a" * 64}},
    ],
    ids=["forced", "debug", "other images", "other split"],
)
def test_unusual_runs_are_in_no_group_of_plain_runs(five, forge, output_root, change):
    forge("odd", config=head("h270", **change.pop("config", {})), right=hits(299, 9), **change)
    groups, _ = ranked(output_root)
    assert sorted(members(group)[0] for group in groups) == [
        ["h270", "h262", "h250", "h235", "h200"],
        ["odd"],
    ]


def test_a_forced_resume_never_replaces_the_run_of_its_seed(forge, output_root):
    late = {"started": "2099-01-01T00:00:00+00:00"}
    forge("plain", right=hits(125, 1))
    for name in ("forced", "again"):
        forge(name, right=hits(275, 1), stamp=late, numbers={"resumed": {"forced": True}})
    groups, _ = ranked(output_root)
    assert sorted(members(group)[0] for group in groups) == [["again", "forced"], ["plain"]]


def test_a_line_with_an_overlap_has_no_place_and_changes_no_comparison(five, forge, output_root):
    ((before,), _) = ranked(output_root)
    forge("seen", config=head("best"), right=hits(299, 9), numbers={"overlap": {"images": 12}})
    ((after,), _) = ranked(output_root)
    assert after.entries == before.entries
    assert members(after) == (["h270", "h262", "h250", "h235", "h200"], ["seen"])
    assert f"12 of the {N} test images" in not_none(after.unranked[0].why_unranked)


def test_a_group_of_nothing_but_overlap_is_shown(forge, output_root):
    forge("seen", right=hits(299, 9), numbers={"overlap": {"images": 12}})
    ((group,), damaged) = ranked(output_root)
    assert (members(group), damaged) == (([], ["seen"]), [])
    assert group.fitted is group.unranked[0]


@pytest.fixture
def join(forge, output_root):
    """join(**config) -> run_id of the probe that a finetune with this config is compared with."""

    def joined(**config: object) -> str | None:
        tuned = head("linear", task={"name": "train"}, **config)
        if not (output_root / "tuned").exists():
            forge("tuned", config=tuned, right=hits(260, 4), stamp={"task": "train"})
        ((group,), _) = ranked(output_root)
        lines = [entry.line for entry in group.entries]
        (finetune,) = [line for line in lines if line.first.run_id == "tuned"]
        probe = ranking._find_probe(finetune, lines)
        return None if probe is None else probe.first.run_id

    return joined


def test_a_finetune_is_compared_with_no_probe_of_another_model(forge, join):
    """Random weights have no digest, so the model itself must be in the key."""
    other = {"name": "dinov2", "checkpoint": {"model": "vit_base_patch14_reg4_dinov2"}}
    forge("dinov2", config={"backbone": other}, right=hits(280, 1))
    assert join() is None


def test_a_finetune_is_compared_with_a_probe_of_its_part_attention_or_of_none(forge, join):
    """A finetune without part attention is not compared with a probe with part attention."""
    for name, count in (("transfg", 270), ("centre", 280)):
        parts = {"name": name, "tokens": 3, "stride": None, "last_block": "pretrained"}
        forge(name, config={"part_attention": parts}, right=hits(count, 1))
    assert join() is None
    forge("plain", right=hits(200, 1))
    assert join() == "plain"


PARTS = {"name": "transfg", "tokens": 3, "stride": None, "last_block": "pretrained"}


@pytest.mark.parametrize("other", [{"tokens": 4}, {"stride": 8}, {"last_block": "random"}])
def test_a_finetune_with_part_attention_prefers_the_probe_with_the_same(forge, join, other):
    forge("plain", right=hits(270, 1))
    forge("other", config={"part_attention": {**PARTS, **other}}, right=hits(280, 1))
    parts = {**PARTS, "contrastive": 1.0, "margin": 0.4}
    assert join(part_attention=parts) == "plain"
    forge("same", config={"part_attention": PARTS}, right=hits(200, 1))
    assert join(part_attention=parts) == "same"


def test_among_several_probes_validation_decides(forge, join):
    for name, count, loss in (("a", 290, 1.2), ("b", 100, 1.1), ("c", 280, None)):
        numbers = {"val": None if loss is None else {"loss": loss}}
        forge(name, config={"task": {"c_count": count}}, right=hits(count, 2), numbers=numbers)
    assert join() == "b"


def test_among_equal_probes_the_smallest_hash_decides(forge, join):
    folders = [
        forge(name, config={"task": {"c_count": count}}, right=hits(count, 2))
        for name, count in (("a", 200), ("b", 290), ("c", 280))
    ]
    first = min(folders, key=lambda folder: folder.parent.name)
    assert join() == first.parents[1].name


def test_random_weights_need_a_probe_of_the_same_seeds(forge, join):
    forge("seed 0", right=hits(280, 1))
    forge("seed 1", config={"seed": 1}, right=hits(280, 1))
    assert join() is None


def notes_of_the_finetune(output_root) -> tuple[str, ...]:
    ((group,), _) = ranked(output_root)
    (entry,) = [item for item in group.entries if item.line.first.task == "train"]
    assert entry.over_probe is None
    return entry.line.notes


@pytest.mark.parametrize(
    ("tuned", "probed", "expected"),
    [
        ((1, 2), (0, 1), "and the probe lacks seed=2. Run the probe with seed=2"),
        ((1,), (0,), "and the probe lacks seed=1. Run the probe with seed=1"),
        ((0, 1), (0, 1, 2), "and the probe has seed=2 too. Run the finetune with seed=2"),
    ],
)
def test_a_note_names_the_seeds_that_keep_random_weights_from_their_probe(
    forge, output_root, tuned, probed, expected
):
    for seed in probed:
        forge(f"probe {seed}", config={"seed": seed}, right=hits(280, seed), numbers={"notes": []})
    for seed in tuned:
        config = head("linear", seed=seed, task={"name": "train"})
        numbers, stamp = {"notes": []}, {"task": "train"}
        forge(f"tuned {seed}", config=config, right=hits(260, 9), stamp=stamp, numbers=numbers)
    (note,) = notes_of_the_finetune(output_root)
    assert note.startswith("vit tiny random · linear finetuned · 64 px: not compared with")
    assert note.endswith(expected)


def test_no_note_names_seeds_where_no_probe_of_the_model_was_run(forge, output_root):
    config = head("linear", seed=1, task={"name": "train"})
    numbers, stamp = {"notes": []}, {"task": "train"}
    forge("tuned", config=config, right=hits(260, 9), stamp=stamp, numbers=numbers)
    other = {"name": "dinov2", "checkpoint": {"model": "vit_base_patch14_reg4_dinov2"}}
    forge("dinov2", config={"backbone": other}, right=hits(280, 1))
    (note,) = notes_of_the_finetune(output_root)
    about, _, command = note.partition(" To add it: ")
    assert about.endswith("none of these settings was fitted on trainval like the finetune.")
    words = command.split()
    assert words[:5] == ["python", "-m", "fgvc.run", "task=probe", "head=linear"]
    assert {"backbone=vit_tiny", "seed=1", "final_fit=trainval"} <= set(words)


def test_repeating_runs_that_draw_nothing_under_other_seeds_changes_no_p(forge, output_root):
    """Identical seeds do not change the test."""
    answers = {"a": hits(270, 1), "b": hits(258, 2)}
    for name, right_N in answers.items():
        forge(name, config=head(name), right=right_N)
    ((before,), _) = ranked(output_root)
    for seed in (1, 2):
        for name, right_N in answers.items():
            forge(f"{name}{seed}", config=head(name, seed=seed), right=right_N)
    ((after,), _) = ranked(output_root)
    assert [len(entry.line.runs) for entry in after.entries] == [3, 3]
    assert after.entries[1].versus == before.entries[1].versus
    assert not_none(after.entries[1].versus).test == "mcnemar"
    assert [entry.seeds_identical for entry in after.entries] == [True, True]
    assert [entry.seeds_identical for entry in before.entries] == [False, False]


def test_an_obvious_difference_is_found_in_a_table_of_252_lines(runs):
    """Three seeds each. The smallest p of a bootstrap of 10,000 is .0002, which is .0502 after Holm
    over the 251 comparisons alone: every line would be a tie."""
    rng = np.random.default_rng(0)
    accuracy_N = rng.beta(4.5, 0.5, size=300)
    pool_SN = rng.random((15, 3, 300)) < accuracy_N  # repeated, because each new pair is resampled
    worse_SN = rng.random((3, 300)) < accuracy_N * 0.5
    run = runs_module.read_run(runs())
    lines, read = [], {}
    for number in range(252):
        members = []
        for seed in range(3):
            right_N = (worse_SN if number == 100 else pool_SN[number % 15])[seed]
            place = Path(f"{number}/{seed}")
            read[place] = RunPredictions(right_N, "images", hashing.sha256_bytes(right_N.tobytes()))
            members.append(replace(run, path=place, seed=seed, top1=float(right_N.mean())))
        lines.append(Line(tuple(members)))
    lines.sort(key=lambda line: -line.top1)
    entries = ranking._compare_ranked(lines, read)
    versus = comparisons(entries[1:])
    assert {test.verdict for test in versus[:-1]} == {"identical", "tie"}
    assert (versus[-1].verdict, versus[-1].family) == ("lower", 252 * 251 // 2)
    assert versus[-1].p_holm < 1e-6


def test_lines_and_seeds_with_identical_predictions_are_marked(forge, output_root):
    right_N = hits(250, 1)
    forge("best", config=head("best"), right=hits(290, 2))
    forge("twin", config=head("twin"), right=hits(290, 2))
    forge("x", config=head("x"), right=right_N)
    forge("y", config=head("y"), right=right_N, wrong=2)
    for seed in (0, 1):
        forge(f"z{seed}", config=head("z", seed=seed), right=right_N)
    for seed in (0, 1, 2):
        answers = hits(200, 5 + seed // 2)
        forge(f"mixed{seed}", config=head("mixed", seed=seed), right=answers)
    ((group,), _) = ranked(output_root)
    by_head = {entry.line.first.head: entry for entry in group.entries}
    places = {name: place for place, name in enumerate(by_head, 1)}
    first, second = (name for name in by_head if name in ("best", "twin"))
    assert not_none(by_head[second].versus).verdict == "identical"
    assert by_head[second].identical_to == places[first] == 1
    assert by_head["z"].identical_to == places["x"]
    assert by_head["y"].identical_to is by_head["x"].identical_to is None
    assert not not_none(by_head["y"].versus).identical
    seeds = {name: entry.distinct_answers for name, entry in by_head.items()}
    assert (seeds["x"], seeds["z"], seeds["mixed"]) == (1, 1, 2)
    assert by_head["z"].seeds_identical
    assert not by_head["mixed"].seeds_identical
    assert not by_head["x"].seeds_identical


def test_the_same_images_right_are_not_the_same_predictions(forge, output_root):
    right_N = hits(250, 1)
    forge("x", config=head("x"), right=right_N)
    forge("y", config=head("y"), right=right_N, wrong=2)
    ((group,), _) = ranked(output_root)
    (versus,) = comparisons(group.entries[1:])
    assert (versus.verdict, versus.identical, versus.same_right) == ("tie", False, True)
    assert (versus.value, versus.low, versus.high, versus.p) == (0, 0, 0, 1)


def test_report_and_compare_give_the_same_numbers_either_way(five, output_root):
    ((group,), _) = ranked(output_root)
    best, *others = group.entries
    for entry in others:
        pair = entry.line.first.path, best.line.first.path
        forward, backward = (
            compare_runs(*order, force=False)["top1"] for order in (pair, pair[::-1])
        )
        versus = not_none(entry.versus)
        expected = (versus.test, versus.value, versus.low, versus.high, versus.p)
        assert tuple(forward[key] for key in ("test", "value", "low", "high", "p")) == expected
        assert (forward["value"], forward["low"], forward["high"], forward["p"]) == (
            -backward["value"],
            -backward["high"],
            -backward["low"],
            backward["p"],
        )
