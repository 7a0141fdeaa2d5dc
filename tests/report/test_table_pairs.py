"""Every pair that a table shows has the same numbers in task=compare, on the terminal and pages."""

from __future__ import annotations

import re
import shutil
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from fgvc.html.formats import level, p_value, points
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.compare import class_display_names, compare_runs
from fgvc.report.compare_page import PairAlbum, render_comparison
from fgvc.report.pairwise_tests import WORDS, PairwiseTest
from fgvc.run import main

N = 300
PARTS = {"tokens": None, "stride": None, "last_block": "pretrained"}


def hits(number: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.arange(N) < number)


@pytest.fixture
def table(forge, output_root):
    """Two groups; seeds, part attention with controls, and a finetune with its probe."""
    for seed in (0, 1):
        for name, count in (("off", 216), ("transfg", 262), ("random", 226)):
            settings = {} if name == "off" else PARTS
            config = {"part_attention": {"name": name, **settings}, "seed": seed}
            right_N = hits(count + 4 * seed, seed)
            forge(f"{name}{seed}", config=config, right=right_N)
    for head, count in (("knn", 236), ("cosine", 257)):
        forge(head, config={"head": {"name": head}}, right=hits(count, count))
    finetune = {"config": {"task": {"name": "train"}, "seed": 0}, "stamp": {"task": "train"}}
    other = {"numbers": {"comparability_key": "f" * 64}}
    weights = {"weights": {"kind": "file"}, "weights_digest": "a" * 64, "labelmap_digest": "f" * 64}
    forge("probe", **other, stamp=weights, right=hits(230, 8))
    finetune["stamp"] |= weights
    forge("finetune", **finetune, right=hits(256, 9))
    return build_table(output_root.glob("*/*/*"))


def shown(table) -> list[tuple[Path, Path, str, PairwiseTest]]:
    """Every comparison of the table: the folders of two of its runs, its kind, and its numbers."""
    pairs = []
    for group in table.groups:
        path_of = {e.line.first.folder: e.line.runs[-1].path for e in group.entries}
        for entry in group.entries:
            tests = [*entry.comparisons.items()]
            tests += [("control", test) for test in entry.controls.values()]
            pairs += [
                (entry.line.runs[-1].path, path_of[test.against], kind, test)
                for kind, test in tests
            ]
    return pairs


def test_every_pair_of_the_table_has_the_same_numbers_in_compare(table):
    pairs = shown(table)
    assert {kind for *_, kind, _ in pairs} == {"versus", "over_probe", "control"}
    assert {test.verdict for *_, test in pairs} >= {"tie", "higher", "lower"}
    assert any(len(entry.line.runs) == 2 for group in table.groups for entry in group.entries)
    for path, other, kind, test in pairs:
        expected = {
            "value": test.value,
            "low": test.low_holm,
            "high": test.high_holm,
            "p": test.p_holm,
            "verdict": test.verdict,
            "pairs": test.family,
        }
        forward, backward = compare_runs(path, other, False), compare_runs(other, path, False)
        of_kind = [row for row in forward["table"]["pairs"] if row["kind"] == kind]
        assert {key: of_kind[0][key] for key in expected} == expected
        (turned,) = [row for row in backward["table"]["pairs"] if row["kind"] == kind]
        assert (turned["value"], turned["low"]) == (-test.value, -test.high_holm)
        assert turned["p"] == test.p_holm
        excludes_0 = not of_kind[0]["low"] <= 0 <= of_kind[0]["high"]
        assert excludes_0 == (test.p_holm <= 0.05) == (test.verdict in ("higher", "lower"))
        if len({run.seed for group in table.groups for run in group.lines[0].runs}) == 1:
            alone = forward["top1"]
            assert (alone["value"], alone["p"]) == (test.value, test.p)


def test_both_pages_show_the_same_text_for_every_pair(table, output_root, tmp_path):
    write_baselines(output_root, tmp_path)
    baselines = unescape((tmp_path / "baselines.html").read_text())
    for path, other, _, test in shown(table):
        result = compare_runs(path, other, False)
        names = class_display_names(path, other)
        page = render_comparison(result, (path, other), names, PairAlbum(None, []), tmp_path)
        interval = f"[{points(test.low_holm)}, {points(test.high_holm)}]</span>"
        word = f">{WORDS[test.verdict]}</span>"
        cell = f'{points(test.value)} <span class="range">{interval}<br>'
        cell += f'<span class="range">p {p_value(test.p_holm)}</span> <span class="badge plain"'
        assert cell in baselines
        row = f'{points(test.value)}<br><span class="range">{interval}</td>'
        row += f'<td class="n">{p_value(test.p_holm)}</td><td>{level(1 - test.alpha_holm)}'
        assert row in unescape(page)
        assert word in baselines
        assert re.search(rf">(run is )?{WORDS[test.verdict]}</span>", page)
    headers = re.findall(r"<button[^>]*>(− [^<]*)</button>", baselines)
    assert headers
    assert all(header.endswith(", after Holm") for header in headers)
    for badge in ("tie", "helps", "no finding"):
        assert f">{badge}<" not in baselines
    assert f'badge good">{WORDS["tie"]}' not in baselines


def test_a_pair_that_the_table_does_not_show_is_one_of_all_pairs_of_its_group(table):
    (group,) = [group for group in table.groups if len(group.entries) > 2]
    path_of = {entry.line.first.name: entry.line.first.path for entry in group.entries}
    names = [name for name in path_of if "knn" in name or "cosine" in name]
    best = group.entries[0].line.first.name
    first, second = sorted(names, key=lambda name: name == best)
    if best in names:  # another line then
        second = next(name for name in path_of if name not in (first, best))
    result = compare_runs(path_of[first], path_of[second], False)
    (pair,) = result["table"]["pairs"]
    assert (pair["kind"], pair["pairs"]) == ("pair", 10)
    assert result["top1"]["p"] <= pair["p"] <= min(1.0, 10 * result["top1"]["p"])


def test_the_terminal_says_that_the_verdicts_differ(forge, output_root, capfd):
    base_N = np.arange(N) < 240
    less_N = base_N & ~((np.arange(N) > 10) & (np.arange(N) < 21))  # 10 fewer: p = .002
    worse_N = base_N & (np.arange(N) >= 6)  # 6 fewer: p = .031
    runs = {}
    for head, right_N in (("a", base_N), ("b", less_N), ("c", worse_N)):
        runs[head] = forge(head, config={"head": {"name": head}}, right=right_N)
    for head in "defg":
        forge(head, config={"head": {"name": head}}, right=np.roll(base_N, 60))
    assert main(["task=compare", f"run={runs['c']}", f"against={runs['a']}"]) == 0
    out = " ".join(capfd.readouterr().out.replace("│", " ").split())
    assert "this pair alone -2.0 [-3.7, -0.7]" in out
    assert "None" not in out
    assert "one of 21 pairs: all pairs" in out
    assert "the verdicts differ: the table adjusts for all pairs it compares" in out
    result = compare_runs(runs["c"], runs["a"], False)
    (pair,) = result["table"]["pairs"]
    assert (result["verdict"], pair["verdict"], pair["high"]) == ("lower", "tie", 0.0)
    assert pair["low"] < result["top1"]["low"]


def test_why_a_table_has_no_such_pair(forge, runs, output_root, tmp_path):
    first = forge("a", right=hits(250, 1))
    twin = forge("b", config={"seed": 1}, right=hits(240, 2))
    seen = forge(
        "c", config={"head": {"name": "k"}}, numbers={"overlap": {"images": 3}}, right=hits(9, 1)
    )
    moved = tmp_path / "moved" / twin.parent.name / twin.name
    shutil.copytree(twin, moved)
    for other, words in (
        (twin, "both are seeds of one row"),
        (first, "run and against are the same run"),
        (seen, "is not ranked: 3 of the 300 test images"),
        (moved, "the runs are not in one output root"),
    ):
        table = compare_runs(first, other, False)["table"]
        assert (table["pairs"], words in str(table["why_none"])) == ([], True), table
    older = forge("d", stamp={"started": "2020-01-01T00:00:00+00:00"}, right=hits(230, 3))
    assert (
        "is an older run of its question" in compare_runs(older, seen, False)["table"]["why_none"]
    )
