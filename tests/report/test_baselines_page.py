"""Run folders -> the bytes of baselines.html, which is derived and self-contained."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from fgvc import metrics
from fgvc.html.class_names import display_names
from fgvc.record import verify
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.baselines_page import render_baselines
from fgvc.report.class_heatmap import class_heatmap
from fgvc.report.dataset_matrix import dataset_matrices
from fgvc.report.pairwise_tests import PairwiseTest
from fgvc.report.ranking import RankingEntry
from fgvc.report.run_rows import scan_runs
from tests.narrow import not_none

RIGHT_N = np.arange(300) < 270


def text_of(target: Path) -> str:
    return (target / "baselines.html").read_text(encoding="utf-8")


def rows_of(text: str) -> list[str]:
    """The rows of the tables of lines."""
    return re.findall(r'<tr id="[0-9a-f]{8}-\d+".*?</tr>', text, re.DOTALL)


def three(forge):
    """A group of three lines: the best, a tie, and one that is worse."""
    answers = {
        "linear": RIGHT_N,
        "knn": np.roll(RIGHT_N, 3),
        "mlp": RIGHT_N & (np.arange(300) > 99),
    }
    for head, right_N in answers.items():
        forge(head, config={"head": {"name": head}}, right=right_N)


def test_the_same_folders_give_the_same_page_at_any_place(outputs, tmp_path):
    moved = shutil.copytree(outputs, tmp_path / "elsewhere")
    for root in (outputs, moved):
        write_baselines(root, root)
    assert text_of(outputs) == text_of(moved)
    assert str(tmp_path) not in text_of(moved)


def test_every_line_links_to_its_runs_from_any_place_of_the_page(outputs, tmp_path):
    for target in (outputs, tmp_path / "a b" / "deep"):
        write_baselines(outputs, target)
        links = set(re.findall(r'href="([^"#]+report\.html)"', text_of(target)))
        assert len(links) == 8
        for link in links:
            assert (target / link.replace("%20", " ")).resolve().is_file(), link


def test_a_run_without_a_page_is_linked_as_a_folder(forge, output_root, seal, tmp_path):
    folder = forge("old")
    (folder / "report.html").unlink()
    seal(folder)
    write_baselines(output_root, output_root)
    assert f'href="{"/".join(folder.parts[-3:])}"' in text_of(output_root)


def test_ties_are_marked_and_groups_are_not_mixed(forge, output_root):
    three(forge)
    other = forge("other", numbers={"comparability_key": "f" * 64})
    write_baselines(output_root, output_root)
    first, tie, worse, lone = (unescape(row) for row in rows_of(text_of(output_root)))
    assert ">best<" in first
    assert ">not distinguishable<" in tie
    assert ">not distinguishable<" not in worse
    assert "p < .001" in worse
    assert ">best<" not in lone
    ((run,), _) = scan_runs([other])
    assert f'id="{run.comparability_key[:8]}-1"' in lone


def test_lines_outside_the_ranking_have_a_table_of_their_own(forge, output_root):
    three(forge)
    write_baselines(output_root, output_root)
    before = rows_of(text_of(output_root))
    head = {"config": {"head": {"name": "best"}}}
    forge("seen", **head, right=np.arange(300) < 299, numbers={"overlap": {"images": 12}})
    alone = {"labelmap_digest": "f" * 64}
    forge("alone", right=RIGHT_N, stamp=alone, numbers={"overlap": {"images": 300}})
    forge("forced", right=RIGHT_N, numbers={"resumed": {"forced": True}})
    write_baselines(output_root, output_root)
    text = text_of(output_root)
    assert rows_of(text)[:3] == before[:3]
    assert text.count("<h3>Outside the ranking</h3>") == 2
    assert "12 of the 300 test images fitted or chose the head" in text
    assert ">fitted or chosen on 300 of 300 test images</span>" in text
    assert ">forced resume</span>" in text
    main = text.partition('<table class="lines sortable">')[2].partition("</table>")[0]
    assert "seen/" not in main


def test_identical_answers_are_marked_so_and_the_null_is_stated(forge, output_root):
    for head in ("a", "b"):
        forge(head, config={"head": {"name": head}}, right=RIGHT_N)
    for seed in (0, 1):
        other_N = np.roll(RIGHT_N, 3)
        forge(f"c{seed}", config={"head": {"name": "c"}, "seed": seed}, right=other_N)
    write_baselines(output_root, output_root)
    rows = [unescape(row) for row in rows_of(text_of(output_root))]
    assert ">not distinguishable<" not in rows[1] + rows[0]
    (best,) = (row for row in rows if ">best<" in row)
    (twin,) = (row for row in rows if ">identical<" in row)
    assert ">identical to #1</span>" in twin
    assert "identical" not in best
    (seeds,) = (row for row in rows if ">seeds identical</span>" in row)
    assert ">not distinguishable<" in seeds
    assert "After Holm over 3 pairs" in twin
    assert metrics.NULL_HYPOTHESIS in unescape(text_of(output_root))


def test_warnings_are_badges_of_the_row(forge, output_root):
    forge("a", stamp={"partial": True, "weights": {"kind": "file"}, "git_dirty": True})
    card = {"contamination": "seen & <known>", "license": "own terms", "label_noise": "4 %"}
    forge("b", config={"head": {"name": "knn"}}, stamp={"dataset_card": card, "partial": True})
    write_baselines(output_root, output_root)
    text = text_of(output_root)
    both = " ".join(rows_of(text))
    for badge in ("random weights", "label noise", "licence", "uncommitted code"):
        assert f">{badge}</span>" in both
    assert "own terms" in both
    assert "<known>" not in text
    # what all lines share is stated once, at the head of the group
    assert ">partial copy</span>" not in both
    (head,) = re.findall(r'<p class="shared">.*?</p>', text, re.DOTALL)
    assert ">partial copy</span>" in head
    assert "random weights" not in head
    assert " · partial copy · " in re.findall("<h2>(.*?)</h2>", text)[0]


def test_damage_is_listed_and_never_fatal(outputs):
    damaged, other = sorted(file.parent for file in outputs.glob("*/*/*/ckpt.bin"))[:2]
    (damaged / "metrics.json").unlink()
    (other / "per_class.csv").write_text("index,name\n")
    write_baselines(outputs, outputs)
    text = text_of(outputs)
    assert "metrics.json: missing" in text.partition('id="damaged"')[2]
    assert "per_class.csv: sha256 mismatch, it changed since the run" in text


def test_every_control_becomes_a_column(outputs):
    """The controls have their own table, because more columns would hide the cost."""
    table = build_table(outputs.glob("*/*/*"))
    group = table.groups[0]
    helps = PairwiseTest(*(0.021, 0.004, 0.05), "mcnemar", 0.01, False, *(0.02, 0.001, 0.06, 0.02))
    entries = tuple(
        RankingEntry(
            replace(
                entry.line,
                runs=tuple(replace(run, part_attention="transfg") for run in entry.line.runs),
            ),
            entry.versus,
            None,
            {"off": helps},
        )
        for entry in group.entries
    )
    text = render_baselines([type(group)(group.key, entries)], [], outputs)
    main, controls = text.split('<table class="controls sortable">')
    assert "− off" not in main
    controls = controls.partition("</table>")[0]
    assert "− off" in controls
    assert controls.count("not run:<br>part_attention=random") == len(entries)
    assert controls.count('<span class="badge plain">higher</span>') == len(entries)
    assert controls.count("+2.1") >= len(entries)
    assert "− its probe" not in text


def test_the_heatmap_averages_seeds_and_sorts_the_hardest_class_first(outputs):
    group = build_table(outputs.glob("*/*/*")).groups[0]
    lines = [(entry.line.first.name, entry.line) for entry in group.entries]
    heat = not_none(class_heatmap(lines))
    assert heat["classes"] == len(heat["rows"]) == 6
    assert [place for place, _ in heat["columns"]] == [1, 2]
    means = [mean for _, mean, _ in heat["rows"]]
    assert means == sorted(means)
    for column, (_, line) in enumerate(lines):
        per_class = np.mean([values[column] for _, _, values in heat["rows"]])
        assert per_class == pytest.approx(line.mean("mean_per_class"))
    assert class_heatmap(lines[:1]) is None


def test_of_many_classes_the_heatmap_shows_the_super_categories_too(outputs, monkeypatch):
    """Each is the mean over its classes; the hardest classes follow."""
    group = build_table(outputs.glob("*/*/*")).groups[0]
    lines = [(entry.line.first.name, entry.line) for entry in group.entries]
    whole = not_none(class_heatmap(lines))
    assert whole["groups"] == []
    monkeypatch.setattr("fgvc.report.class_heatmap.CLASSES", 4)
    heat = not_none(class_heatmap(lines))
    assert heat["rows"] == whole["rows"][:4]
    labelmap = json.loads((lines[0][1].first.path / "labelmap.json").read_text())
    names = display_names([row["name"] for row in labelmap["classes"]])
    parent_of = dict(zip(names, labelmap["parents"], strict=True))
    for name, mean, values in heat["groups"]:
        nodes = [node for node, text in labelmap["nodes"].items() if name.startswith(f"{text} (")]
        members = [row for row in whole["rows"] if parent_of[row[0]][-1] in nodes]
        assert name.endswith(f"({len(members)})")
        assert values == pytest.approx(np.mean([row[2] for row in members], axis=0).tolist())
        assert mean == pytest.approx(np.mean(values))
    assert len(heat["groups"]) == len(labelmap["nodes"])
    text = render_baselines([group], [], outputs)
    assert text.count('aria-label="Accuracy by super-category"') == 1
    assert "the 4 hardest of 6 classes" in text


def test_without_a_cost_there_is_no_plot(forge, output_root):
    for head in ("linear", "knn"):
        forge(head, config={"head": {"name": head}}, numbers={"cost": {"macs": None}})
    write_baselines(output_root, output_root)
    assert "<svg" not in text_of(output_root)
    assert len(rows_of(text_of(output_root))) == 2


def test_how_many_files_a_table_reads(forge, output_root, monkeypatch):
    for number in range(14):
        right_N = np.arange(300) < 200 + number
        forge(f"r{number:02}", config={"head": {"name": f"h{number:02}"}}, right=right_N)
    read, real = Counter(), verify.read_file

    def counted(path, file):
        read[file] += 1
        return real(path, file)

    monkeypatch.setattr(verify, "read_file", counted)
    write_baselines(output_root, output_root)
    read_once = ("config.canonical.json", "env_stamp.json", "metrics.json", "predictions.parquet")
    assert {file: read.pop(file) for file in read_once} == dict.fromkeys(read_once, 14)
    # status.json and artifacts.json before every read; per_class.csv of the best lines only
    assert read == {"status.json": 40, "artifacts.json": 40, "per_class.csv": 12}
    assert "12 best lines of 14" in text_of(output_root)


def test_notes_are_in_the_row_and_below_the_table(forge, output_root):
    note = "C = 1e5 is the last of its range <raise task.c_high>"
    forge("a", config={"head": {"name": "a"}}, numbers={"notes": [note]})
    forge("b", config={"head": {"name": "b"}}, numbers={"notes": [note]})
    forge("c", config={"head": {"name": "c"}})
    write_baselines(output_root, output_root)
    text = text_of(output_root)
    assert sorted(row.count(">note 1</span>") for row in rows_of(text)) == [0, 1, 1]
    below = unescape(text.split("</table>", 1)[1])
    assert below.count(note) == 1


def test_patches_in_the_box_never_stand_without_random_and_central_ones(forge, output_root):
    """Their own record states them; in an older record, the runs of the controls do."""
    own = {"in_box": {"value": 0.72}}
    shares = {"random": {"in_box": {"value": 0.513}}, "centre": {"in_box": {"value": 0.937}}}
    chosen = {
        "measured": ("transfg", {"transfg": own, **shares}),
        "older": ("rollout", {"rollout": own}),
        "central": ("centre", {"centre": {"in_box": {"value": 0.941}}}),
    }
    for run_id, (name, parts) in chosen.items():
        config = {"part_attention": {"name": name, "tokens": None, "stride": None}}
        forge(run_id, config=config, numbers={"parts": {**parts, "tokens": 3}}, right=RIGHT_N)
    write_baselines(output_root, output_root)
    table = text_of(output_root).partition('<table class="controls sortable">')[2]
    rows = re.findall("<tr data-of.*?</tr>", table.partition("</table>")[0], re.DOTALL)
    cells = {
        row.partition("<td>")[2].partition("<")[0].rpartition(" ")[2]: re.findall(
            r">(\d\d\.\d|not run:<br>part_attention=random)<", row
        )
        for row in rows
    }
    assert cells["transfg"][:3] == ["72.0", "51.3", "93.7"]
    assert cells["rollout"][:3] == ["72.0", "not run:<br>part_attention=random", "94.1"]
    assert "sweep=part_attention_controls" in text_of(output_root)


def test_a_finetune_without_its_probe_shows_the_command_that_adds_it(forge, output_root, runs):
    forge("probe", right=RIGHT_N)
    config = {"task": {"name": "train"}, "final_fit": "train"}
    forge("tuned", config=config, stamp={"task": "train"}, right=RIGHT_N)
    write_baselines(output_root, output_root)
    (command,) = re.findall(r"To add it: </p>\s*<pre>(.*?)</pre>", text_of(output_root))
    words = unescape(command).split()
    assert words[3:5] == ["task=probe", "head=linear"]
    assert {"final_fit=train", "backbone=vit_tiny", "seed=0"} <= set(words)
    assert "− its probe" not in text_of(output_root)
    forge("added", runs("linear", 0, "train"), right=RIGHT_N)
    write_baselines(output_root, output_root)
    assert "To add it" not in text_of(output_root)
    assert "− its probe" in text_of(output_root)


def test_models_on_several_datasets_have_a_matrix_under_one_protocol(forge, output_root):
    """Two datasets; the best of one is measured there only. Debugging runs stay out."""
    other = {"stamp": {"dataset": "moths", "manifest_digest": "d" * 64}}
    for head, n in (("linear", 200), ("knn", 190), ("mlp", 180)):
        forge(head, config={"head": {"name": head}}, right=np.arange(300) < n)
    for head, n in (("linear", 150), ("cosine", 160)):
        right_N = np.arange(300) < n
        facts = {"answer": {"manifest_digest": "d" * 64}}
        forge(f"m{head}", config={"head": {"name": head}}, right=right_N, facts=facts, **other)
    forge("debug", config={"task": {"debug": "overfit"}}, right=RIGHT_N)
    table = build_table(output_root.glob("*/*/*"))
    (matrix,) = dataset_matrices(table.groups)
    assert matrix.headers == ["moths", "synthetic"]
    assert matrix.protocol[:2] == ("shared preprocessing", "fit on trainval")
    assert matrix.models == 4
    assert {
        name.split(" · ")[1]: [cell and cell.place for cell in cells] for name, cells in matrix.rows
    } == {"linear": [2, 1], "cosine": [1, None]}
    text = render_baselines(table.groups, [], output_root)
    drawn = text.partition('<table class="matrix sortable">')[2].partition("</table>")[0]
    assert drawn.count(">best</span>") == 2
    assert "<b>66.7</b> " in drawn
    for place in re.findall('href="#(.*?)"', drawn):
        assert f'id="{place}"' in text
    synthetic_only = [group for group in table.groups if group.fitted.first.dataset == "synthetic"]
    assert dataset_matrices(synthetic_only) == []


def test_groups_of_equal_titles_also_name_what_differs(forge, output_root):
    forge("a")
    forge("b", stamp={"split_digest": "e" * 64}, facts={"split_digest": "e" * 64})
    write_baselines(output_root, output_root)
    titles = re.findall("<h2>(synthetic.*?)</h2>", text_of(output_root))
    assert len(set(titles)) == 2
    assert any(title.endswith(" · split eeeeeeee") for title in titles)


def test_the_chart_shows_head_and_part_attention(forge, output_root):
    for head, parts in (("linear", "off"), ("knn", "off"), ("linear", "random")):
        config = {"head": {"name": head}, "part_attention": {"name": parts, "tokens": None}}
        forge(f"{head}-{parts}", config=config, right=RIGHT_N)
    write_baselines(output_root, output_root)
    text = text_of(output_root)
    points = re.findall(r'<g class="point".*?data-fill="(\w+)" d="M[\d. ]+(.*?)"', text)
    assert sorted(fill for fill, _ in points) == ["dotted", "full", "full"]
    assert len({shape for _, shape in points}) == 2
    (keys,) = re.findall('<div class="keys">.*?</div>', text, re.DOTALL)
    for name in ("linear", "knn", "part attention random", "part attention off"):
        assert f"</svg> {name}</span>" in keys


def test_the_page_of_a_probe_on_trainval_shows_the_one_to_compare_with_a_finetune(runs):
    pages = {
        fit: unescape((runs("linear", 0, fit) / "report.html").read_text(encoding="utf-8"))
        for fit in ("train", "trainval")
    }
    assert "stands beside a finetune" not in pages["train"]
    command = pages["trainval"].partition("stands beside a finetune:")[2].partition("</pre>")[0]
    assert "python -m fgvc.run task=probe head=linear " in command
    assert " final_fit=train " in f"{command} "
