"""Part attention and its controls: matched by their settings; test results equal scipy's."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from scipy import stats

from fgvc import metrics
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.pairwise_tests import PairwiseTest
from fgvc.report.terminal_table import print_table

N = 300
RIGHT = {"off": 230, "transfg": 262, "rollout": 200, "random": 232, "centre": 228}


def hits(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(N) < number)


def chosen(name: str, **more: object) -> dict[str, object]:
    """The hashed config of part attention."""
    if name == "off":
        return {"part_attention": {"name": "off"}}
    plain = {"name": name, "tokens": None, "stride": None, "last_block": "pretrained", **more}
    return {"part_attention": plain}


def parts(name: str, tokens: int = 3, share: float = 0.641) -> dict[str, object]:
    if name == "off":
        return {}
    shares = {"random": 0.513, "centre": 0.937, name: share}
    found = {selection: {"in_box": {"value": value}} for selection, value in shares.items()}
    return {"parts": {**found, "tokens": tokens}}


@pytest.fixture
def sweep(forge):
    """A sweep of controls with known predictions; returns these by name."""
    answers = {name: hits(count, seed) for seed, (name, count) in enumerate(RIGHT.items())}
    for name, right_N in answers.items():
        forge(name, config=chosen(name), numbers=parts(name), right=right_N)
    return answers


def controls(output_root) -> dict[str, dict[str, PairwiseTest]]:
    """Comparisons of each line by run_id."""
    (group,) = build_table(output_root.glob("*/*/*")).groups
    return {entry.line.first.run_id: dict(entry.controls) for entry in group.entries}


def test_each_choice_is_compared_with_its_controls_as_by_scipy_and_holm(sweep, output_root):
    by_name = controls(output_root)
    scored = ["off", "random", "centre"]
    assert {name: list(tests) for name, tests in by_name.items()} == {
        "off": [],
        "transfg": scored,
        "rollout": scored,
        "random": ["off"],
        "centre": ["off"],
    }
    pairs = [(name, other) for name, against in by_name.items() for other in against]
    exact = []
    for name, other in pairs:
        b, c = (sweep[name] & ~sweep[other]).sum(), (sweep[other] & ~sweep[name]).sum()
        exact.append(stats.binomtest(int(b), int(b + c)).pvalue)
    tests = [by_name[name][other] for name, other in pairs]
    assert [test.p for test in tests] == pytest.approx(exact, rel=1e-9)
    assert [test.p_holm for test in tests] == pytest.approx(metrics.holm(exact))
    assert by_name["transfg"]["off"].value == pytest.approx((262 - 230) / N)


def test_a_control_differs_in_nothing_else(sweep, forge, output_root):
    """Other heads, other tokens, another stride: none of these is a control."""
    right_N = hits(299, 9)
    forge("knn", config={**chosen("off"), "head": {"name": "knn"}}, right=right_N)
    many = chosen("random", tokens=12)
    forge("many", config=many, numbers=parts("random", tokens=12), right=right_N)
    forge("fine", config=chosen("centre", stride=12), numbers=parts("centre"), right=right_N)
    by_name = controls(output_root)
    assert by_name["knn"] == {}
    assert by_name["transfg"]["off"].value == pytest.approx((262 - 230) / N)
    assert by_name["transfg"]["random"].value == pytest.approx((262 - 232) / N)
    assert by_name["transfg"]["centre"].value == pytest.approx((262 - 228) / N)


def test_explicit_and_per_head_token_counts_match(sweep, forge, output_root):
    three = chosen("cls_topk", tokens=3)
    forge("three", config=three, numbers=parts("cls_topk"), right=hits(250, 8))
    assert list(controls(output_root)["three"]) == ["off", "random", "centre"]


def test_a_random_last_block_is_compared_with_the_pretrained_one(sweep, forge, output_root):
    anew = chosen("transfg", last_block="random")
    forge("anew", config=anew, numbers=parts("transfg"), right=hits(240, 7))
    by_name = controls(output_root)["anew"]
    assert list(by_name) == ["off", "pretrained_block"]
    assert by_name["pretrained_block"].value == pytest.approx((240 - 262) / N)


@pytest.mark.parametrize("kind", ["random", "file"])
def test_random_weights_of_another_seed_are_no_control(forge, output_root, kind):
    weights = {"weights": {"kind": kind}, "weights_digest": None if kind == "random" else "a" * 64}
    for seed, name in enumerate(("transfg", "off")):
        config = {**chosen(name), "seed": seed}
        right_N = hits(250 - seed, seed)
        forge(name, config=config, numbers=parts(name), stamp=weights, right=right_N)
    assert list(controls(output_root)["transfg"]) == ([] if kind == "random" else ["off"])


def test_a_control_of_the_same_code_is_preferred_to_a_better_one(sweep, forge, output_root):
    other_commit = {"git_commit": "e" * 40}
    forge("better", config=chosen("off"), stamp=other_commit, right=hits(299, 9))
    assert controls(output_root)["transfg"]["off"].value == pytest.approx((262 - 230) / N)


def test_among_controls_of_other_code_the_newest_is_chosen(sweep, forge, output_root):
    """A choice on the test images would require an adjustment of every p."""
    for day, count in ((1, 299), (2, 215), (3, 298)):
        code = {"git_commit": str(day) * 40, "started": f"2026-10-0{4 - day}T00:00:00+00:00"}
        forge(f"day{day}", config=chosen("off"), stamp=code, right=hits(count, 10 + day))
    stamp = {"git_commit": "e" * 40, "started": "2026-10-09T00:00:00+00:00"}
    forge(
        "mine", config=chosen("transfg"), stamp=stamp, numbers=parts("transfg"), right=hits(250, 3)
    )
    newest = max(
        (run.started, run.top1)
        for (group,) in [build_table(output_root.glob("*/*/*")).groups]
        for run in (entry.line.first for entry in group.entries)
        if run.part_attention == "off"
    )
    assert controls(output_root)["mine"]["off"].value == pytest.approx(250 / N - newest[1])
    assert newest[1] not in (299 / N, 298 / N)


def test_a_name_contains_the_settings_of_part_attention(forge, output_root):
    forge("all", config=chosen("transfg", tokens=12, stride=12, last_block="random"))
    forge("none", config=chosen("transfg"))
    (group,) = build_table(output_root.glob("*/*/*")).groups
    names = {entry.line.first.run_id: entry.line.first.name for entry in group.entries}
    assert names["all"].endswith(" px · transfg tokens 12 stride 12 random block")
    assert names["none"].endswith(" px · transfg")


def test_seeds_are_aggregated_before_they_are_compared(forge, output_root):
    for seed in (0, 1):
        for name, count in (("off", 230), ("random", 240 + 20 * seed)):
            right_N = hits(count, 3 + seed)
            config = {**chosen(name), "seed": seed}
            numbers = parts(name, share=0.3 + 0.2 * seed)
            forge(f"{name}{seed}", config=config, numbers=numbers, right=right_N)
    test = controls(output_root)["random0"]["off"]
    assert (test.test, test.value) == ("sign_flip", pytest.approx((250 - 230) / N))
    (group,) = build_table(output_root.glob("*/*/*")).groups
    assert [entry.line.mean("in_box") for entry in group.entries] == [pytest.approx(0.4), None]


def test_the_csv_has_every_control_and_empty_cells_for_missing_ones(sweep, output_root, tmp_path):
    write_baselines(output_root, tmp_path)
    with (tmp_path / "baselines.csv").open(newline="") as file:
        rows = {row["part_attention"]: row for row in csv.DictReader(file)}
    assert float(rows["transfg"]["top1_minus_off"]) == pytest.approx(32 / N)
    shares = [rows["transfg"][name] for name in ("in_box", "in_box_random", "in_box_centre")]
    assert shares == ["0.641", "0.513", "0.937"]
    assert rows["transfg"]["part_tokens"] == "3"
    for column in ("top1_minus_off", "p_random_holm", "in_box", "part_tokens"):
        assert rows["off"][column] == ""
    assert rows["random"]["top1_minus_centre"] == ""


def test_the_verdicts_are_printed_in_80_columns(sweep, output_root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    capsys.readouterr()
    print_table(build_table(output_root.glob("*/*/*")))
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(
        "part attention against its controls: top-1 in points, after Holm over 8 pairs"
    )
    printed_lines = lines[start:]
    about = "  vit tiny random · linear · 64 px · transfg · 3 patches · 64.1 % of them in the"
    assert printed_lines[1:3] == [about, "  box (random 51.3, centre 93.7)"]
    assert printed_lines[3].startswith("    against off: +10.7 [+")
    assert printed_lines[3].endswith(": higher")
    assert any(line.endswith(": lower") for line in printed_lines)
    assert any(line.endswith(": not distinguishable") for line in printed_lines)
    assert max(map(len, printed_lines[:16])) <= 80
