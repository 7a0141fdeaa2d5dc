"""A table on the terminal: 80 columns, explained marks, provenance printed once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.terminal_table import print_table
from fgvc.run import main
from fgvc.types import UserError

SEEN = {"dataset_card": {"license": "research", "contamination": "some test images are known"}}
OVERLAP = {"overlap": {"images": 12}}
HUB = {"weights": {"kind": "hub", "revision": "main"}, "weights_digest": "a" * 64}


@pytest.fixture
def printed(capsys, monkeypatch):
    """The output of print_table for a root, at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def say(root) -> str:
        capsys.readouterr()
        print_table(build_table(root.glob("*/*/*")))
        return capsys.readouterr().out

    return say


def blocks(out: str) -> list[str]:
    return out.split("comparable (")[1:]


def test_one_block_per_key_with_a_readable_title(real, printed):
    out = printed(real)
    first, second = blocks(out)
    for block, fit in ((first, "train"), (second, "trainval")):
        title = " ".join(block.partition("┏")[0].split())
        # what every row shares is in the title, so that a name fits its column
        assert title.endswith(
            f"synthetic · shared preprocessing · fit on {fit} · 30 test images · every row: "
            "vit tiny random · 64 px · 2 seeds"
        )
        rows = [line.split("│")[1].split()[0] for line in block.splitlines() if "│" in line]
        assert sorted(rows) == ["knn", "linear"]
        assert block.count("best ") >= 1
    drawn = [line for line in out.splitlines() if line[:1] in "┏┃┡│└"]
    assert len(drawn) > 10
    assert max(map(len, drawn)) <= 80
    assert out.count("synthetic, licence: CC0-1.0") == 1


def test_the_numbers_are_percent_with_an_interval_or_a_spread(forge, output_root, printed):
    forge("one", right=np.arange(200) < 150, numbers={"cost": {"images_per_s": 123.4}})
    out = printed(output_root)
    assert "75.0 [68.6, 80.5]" in out
    assert " 123 " in out
    forge("two", right=np.arange(200) < 160, config={"seed": 1})
    assert "77.5 ± 3.5" in printed(output_root)
    assert "±  standard deviation over seeds" in printed(output_root)


def test_marks_are_explained_where_they_occur(forge, output_root, printed):
    right_N = np.arange(300) < 200
    forge("a", config={"head": {"name": "a"}}, right=right_N)
    assert "best" not in printed(output_root)
    forge("c", config={"head": {"name": "c"}}, right=~right_N)
    assert "best │" in printed(output_root)
    assert "not distinguishable" not in printed(output_root)
    forge("b", config={"head": {"name": "b"}}, right=np.roll(right_N, 3))
    out = printed(output_root)
    assert out.count("= │") == 1
    words = "= not distinguishable from the best: p > 0.05 after Holm over all pairs of its group"
    assert words in " ".join(out.split())
    legend = (
        "p: McNemar's exact test (one prediction per image). Null: these trained models have equal"
    )
    assert legend in " ".join(out.split())


def test_the_legend_names_each_kind_of_test_once(forge, output_root, printed):
    """Two lines of two seeds, and one of a single seed against the best of these."""
    for number, (name, seeds) in enumerate((("a", 2), ("b", 2), ("c", 1))):
        for seed in range(seeds):
            right_N = np.random.default_rng((number, seed)).random(300) < 0.7 - 0.2 * (seeds == 1)
            forge(f"{name}{seed}", config={"head": {"name": name}, "seed": seed}, right=right_N)
    legend = " ".join(printed(output_root).split()).partition(" p: ")[2].partition(" Null: ")[0]
    assert legend == (
        "exact sign-flip test (several seeds; unequal numbers of seeds: geometric mean of p over "
        "equal numbers)."
    )


def test_identical_answers_are_called_identical_and_not_a_tie(forge, output_root, printed):
    right_N = np.arange(300) < 200
    forge("a", config={"head": {"name": "a"}}, right=right_N)
    forge("b", config={"head": {"name": "b"}}, right=right_N)
    out = printed(output_root)
    assert out.count("≡ │") == 1
    assert "not distinguishable" not in out
    assert "≡  identical to the best: the same predicted class for every image" in out
    assert (
        "identical predictions: vit tiny random · a · 64 px; vit tiny random · b · 64 px"
        in " ".join(out.split())
    )
    forge("b1", config={"head": {"name": "b"}, "seed": 1}, right=right_N)
    forge("b2", config={"head": {"name": "b"}, "seed": 2}, right=right_N)
    (row,) = (line for line in printed(output_root).splitlines() if "3 seeds" in line)
    assert row.split("│")[1].strip() == "b · 3 seeds, identical"
    forge("b3", config={"head": {"name": "b"}, "seed": 3}, right=~right_N)
    out = " ".join(printed(output_root).replace("│", " ").split())
    assert "4 seeds, 2 different" in out


def test_seeds_of_a_lone_line_are_called_identical_too(forge, output_root, printed):
    for seed in (0, 1):
        forge(f"s{seed}", config={"seed": seed}, right=np.arange(300) < 200)
    out = " ".join(printed(output_root).replace("│", " ").split())
    assert "2 seeds, identical predictions" in out


def test_lines_of_the_same_name_are_distinguished(forge, output_root, printed):
    right_N = np.arange(300) < 200
    forge("a", right=right_N)
    name = forge("b", config={"head": {"k": 3}}, right=right_N).parent.name
    assert f"#{name[:8]}" in printed(output_root)
    forge("c", config={"head": {"k": 3}}, stamp={"git_commit": "c" * 40}, right=right_N)
    assert "@ccccccc" in printed(output_root)


def test_partial_copies_and_random_weights_are_marked(forge, output_root, printed):
    forge("a", stamp={"partial": True})
    out = printed(output_root)
    assert "synthetic, PARTIAL COPY" in out
    assert "tiny random" in out


def test_one_partial_run_does_not_make_a_group_partial(forge, output_root, printed):
    """Only the declaration in a config marks a partial copy, and one of two runs may lack it."""
    forge("a", stamp={"partial": True}, config={"head": {"name": "a"}})
    forge("b", config={"head": {"name": "b"}})
    out = printed(output_root)
    assert "PARTIAL COPY" not in out
    assert out.count("· partial") == 1


def test_a_finetune_and_its_probe_are_named_as_in_the_table(forge, output_root, printed):
    """Two finetunes that differ only in a setting: each printed line names its run."""
    right_N = np.arange(300) < 200
    forge("probe", right=right_N)
    train = {"task": "train"}
    for rate in (0.1, 0.2):
        config = {"task": {"name": "train", "learning_rate": rate}}
        forge(f"train{rate}", right=right_N[::-1], config=config, stamp=train)
    lines = " ".join(printed(output_root).split()).split(", against its linear probe")[:-1]
    assert len(lines) == 2
    assert len({line[-9:] for line in lines}) == 2
    assert all(line[-9] == "#" for line in lines)


def test_contamination_of_pretrained_backbones_is_printed(forge, output_root, printed):
    pretrained = {"backbone": {"pretrained": True}}
    forge("generated", config=pretrained, stamp=HUB)
    assert "vit, contamination" not in printed(output_root)
    forge("random", stamp=SEEN)
    assert "vit, contamination" not in printed(output_root)
    forge("known", config=pretrained, stamp={**HUB, **SEEN, "manifest_digest": "e" * 64})
    out = printed(output_root)
    assert out.count("vit, contamination: Trained with the labels of ImageNet-21k") == 1
    assert out.count("synthetic, licence") == 1


def test_damaged_folders_are_listed(outputs, printed):
    folder = next(outputs.glob("*/*/*/ckpt.bin")).parent
    (folder / "env_stamp.json").unlink()
    name = "/".join(folder.parts[-3:])
    assert f"damaged, left out: {name}: env_stamp.json: missing" in printed(outputs)


@pytest.fixture
def make_older(seal):
    """Turn a record into an intact older record, whose stamp has no test_source."""

    def make(folder: Path) -> None:
        file = folder / "env_stamp.json"
        stamp = json.loads(file.read_text())
        del stamp["test_source"]
        file.write_text(json.dumps(stamp))
        seal(folder)

    return make


def test_records_of_another_version_are_skipped_in_one_line_each(
    outputs, printed, make_older, tmp_path
):
    folders = [file.parent for file in sorted(outputs.glob("*/*/*/ckpt.bin"))]
    for folder in folders[:2]:
        make_older(folder)
    out = printed(outputs)
    for folder in folders[:2]:
        name = "/".join(folder.parts[-3:])
        message = f"{name}: a record of another version of fgvc (it lacks 'test_source'), skipped"
        assert out.count(message) == 1
    assert "damaged" not in out
    for folder in folders[2:]:
        make_older(folder)
    with pytest.raises(UserError, match=r"runtime\.output_root=.*8 skipped") as caught:
        write_baselines(outputs, tmp_path / "target")
    assert "\n" not in str(caught.value)


def test_an_audit_of_another_version_is_one_line(outputs, make_older, tmp_path, capfd):
    folder = next(outputs.glob("*/*/*/ckpt.bin")).parent
    make_older(folder)
    root = f"runtime.output_root={tmp_path / 'outputs'}"
    assert main(["task=audit", f"run={folder}", root]) == 1
    (line,) = capfd.readouterr().err.strip().splitlines()
    assert line.startswith(f"fgvc: run={folder}: a record of another version of fgvc")


def test_lines_outside_the_ranking_are_below_it_with_the_reason(forge, output_root, printed):
    right_N = np.arange(300) < 200
    forge("a", config={"head": {"name": "a"}}, right=right_N)
    forge("b", config={"head": {"name": "b"}}, right=~right_N)
    plain = printed(output_root)
    forge("best", config={"head": {"name": "best"}}, numbers=OVERLAP, right=np.arange(300) < 299)
    out = printed(output_root)
    drawn = [line for line in out.splitlines() if line[:1] in "┏┃┡│└"]
    (at,) = [place for place, line in enumerate(drawn) if "99.7" in line]
    assert "out │" in drawn[at]
    assert not any("%" in line or "." in line for line in drawn[at + 1 :])  # the last row
    reason = "vit tiny random · best · 64 px: 12 of the 300 test images fitted or chose"
    assert f"out not ranked: {reason}" in " ".join(out.split())
    assert max(map(len, out.partition("[1]  ")[0].splitlines())) <= 80  # before the notes
    before, after = (
        next(line.split() for line in text.splitlines() if "66.7" in line) for text in (plain, out)
    )
    assert before == after


def test_unusual_runs_have_a_block_with_a_marked_title(forge, output_root, printed):
    forge("plain")
    forge("forced", numbers={"resumed": {"forced": True}})
    forge("debug", config={"task": {"debug": "overfit"}})
    forge("elsewhere", facts={"answer": {"manifest_digest": "abcdef01" * 8}})
    titles = [" ".join(block.partition("┏")[0].split()) for block in blocks(printed(output_root))]
    assert sum("· forced resume ·" in title for title in titles) == 1
    assert sum("· debug: overfit ·" in title for title in titles) == 1
    assert sum("· fitted on other data (abcdef01) ·" in title for title in titles) == 1
    assert len(titles) == 4


def test_each_note_is_printed_once_below_the_table_and_marked_in_every_row_that_has_it(
    forge, output_root, printed
):
    shared, own = "2 pictures occur in both train and test", "C is the last of its range"
    forge("a", config={"head": {"name": "a"}}, numbers={"notes": [shared]})
    forge("b", config={"head": {"name": "b"}}, numbers={"notes": [shared, own]})
    forge("c", config={"head": {"name": "c"}}, numbers={"notes": []})
    out = printed(output_root)
    assert out.count(f"[1]  {shared}\n") == 1
    assert out.count(f"[2]  {own}\n") == 1
    drawn = " ".join(line for line in out.splitlines() if line[:1] == "│")
    assert (drawn.count("[1]"), drawn.count("[2]")) == (2, 1)
