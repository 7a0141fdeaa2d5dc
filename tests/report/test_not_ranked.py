"""A run that is not ranked beside plain runs -> the same reason in every output."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf

from fgvc.config.compose import typed
from fgvc.pipeline.write_run import print_summary
from fgvc.record import checkpoint
from fgvc.report import model_card
from fgvc.report.baselines import build_table, write_baselines
from fgvc.report.terminal_table import print_table
from fgvc.task.audit import render_page
from fgvc.types import Dataset, LabelMap, Manifest, Split
from fgvc.untrusted.escape import markdown

PAGES = ("run page", "baselines page")
DIGEST = "abcdef01" * 8


def case(name: str, badge: str, text: str, consequence: str, **change: object):
    return pytest.param(change, badge, text, consequence, id=name)


def forced(**resumed: object) -> dict[str, object]:
    return {"resumed": {"forced": True, **resumed}, "comparability": {"forced": True}}


def overlap(**images: int) -> dict[str, object]:
    return {"overlap": images}


NO_PLACE, APART = "not ranked", "not ranked beside plain runs"
HEAD = "12 of the 30 test images fitted or chose the head"
OTHER_DATA = "fitted on other data (abcdef01)"
CASES = [
    case("head", "12 of 30 test images", HEAD, NO_PLACE, numbers=overlap(images=12)),
    case(
        "backbone",
        "12 of 30 test images",
        f"{HEAD} or, in earlier runs, the backbone (4)",
        NO_PLACE,
        numbers=overlap(images=12, backbone=4),
    ),
    case(
        "forced", "forced resume", "resumed by force under another config", APART, numbers=forced()
    ),
    case(
        "best lost",
        "forced resume",
        "resumed by force without its best weights",
        APART,
        numbers=forced(best_lost={"epoch": 1, "step": 3}),
    ),
    case(
        "debug",
        "debug: overfit",
        "a debugging run, task.debug=overfit",
        APART,
        config={"task": {"debug": "overfit"}},
        numbers={"comparability": {"debug": "overfit"}},
    ),
    case(
        "images",
        OTHER_DATA,
        OTHER_DATA,
        APART,
        facts={"answer": {"manifest_digest": DIGEST}},
        numbers={"comparability": {"fitted_manifest": DIGEST}},
    ),
    case(
        "split",
        OTHER_DATA,
        OTHER_DATA,
        APART,
        facts={"split_digest": DIGEST},
        numbers={"comparability": {"fitted_split": DIGEST}},
    ),
]


@pytest.fixture
def outputs_of(output_root, capsys, monkeypatch):
    """outputs_of(folder) -> every output that prints a run, by name; each in one line."""
    monkeypatch.setenv("COLUMNS", "80")

    def printed() -> str:
        return capsys.readouterr().out

    def outputs(folder: Path) -> dict[str, str]:
        config = OmegaConf.load(folder / "config.yaml")
        shown = OmegaConf.to_container(config)
        assert isinstance(config, DictConfig)
        assert isinstance(shown, dict)
        numbers = json.loads((folder / "metrics.json").read_text())
        _, facts, checkpoint_id = checkpoint.read(folder)
        labelmap, none_N = LabelMap(("1", "2"), ("A", "B")), np.empty(0, np.int64)
        manifest = Manifest(folder, (), none_N, none_N.astype(np.uint8), ())
        dataset = Dataset("synthetic", manifest, labelmap, Split(none_N, none_N, none_N))
        texts = {
            "run page": render_page(folder, {str(key): value for key, value in shown.items()}),
            "model card": model_card.render_model_card(
                folder,
                facts,
                ids={"checkpoint": checkpoint_id, "exported_from": checkpoint_id},
                weights={"license": "none", "contamination": "nothing"},
                agreement={},
                digests={},
            ),
        }
        printed()
        print_summary(typed(config), dataset, "validated", numbers, folder)
        texts["run summary"] = printed()
        print_table(write_baselines(output_root, output_root))
        texts["terminal table"] = printed()
        texts["baselines page"] = (output_root / "baselines.html").read_text(encoding="utf-8")
        return {name: unescape(" ".join(text.split())) for name, text in texts.items()}

    return outputs


def titles(page: str) -> dict[str, str]:
    """The title of each badge of a page, by its text."""
    badges = re.findall(r'<span class="badge warn" title="([^"]*)">([^<]*)</span>', page)
    return {text: title for title, text in badges}


@pytest.mark.parametrize(("change", "badge", "text", "consequence"), CASES)
def test_every_output_states_the_reason_in_the_same_words(
    forge, outputs_of, change, badge, text, consequence
):
    outputs = outputs_of(forge("odd", **change))
    for name in PAGES:
        (title,) = [title for own, title in titles(outputs[name]).items() if badge in own]
        assert title == f"{consequence}: {text}", name
    assert f"note: {consequence}: {text} " in outputs["run summary"]
    assert f"**{consequence}: {markdown(text)}." in outputs["model card"]
    if consequence == NO_PLACE:
        assert re.search(rf"out {NO_PLACE}: [^:]+: {re.escape(text)} ", outputs["terminal table"])
        assert f"<td>{text}</td>" in outputs["baselines page"]
    else:
        assert f"{consequence}: {text} " in outputs["terminal table"]
        assert f"fit on trainval · {badge} ·" in outputs["terminal table"]
        assert f"fit on trainval · {badge}</h2>" in outputs["baselines page"]


def test_a_plain_run_has_no_reason_in_any_output(forge, outputs_of):
    outputs = outputs_of(forge("plain"))
    for name, output in outputs.items():
        for _, badge, text, _ in (case.values for case in CASES):
            assert isinstance(badge, str)
            assert markdown(text) not in output, name
            assert not any(badge in own for own in titles(output)), name


def test_an_evaluation_that_contradicts_its_run_is_noted_in_table_and_page(
    forge, output_root, capsys
):
    right_N = np.arange(60) < 50
    run = forge("run", right=right_N)
    forge("eval", stamp={"task": "eval"}, right=np.roll(right_N, 1))
    place = "/".join(run.parts[-3:])
    text = f"its predictions differ from those of {place}, the same checkpoint"
    write_baselines(output_root, output_root)
    page = (output_root / "baselines.html").read_text(encoding="utf-8")
    assert titles(page)["other predictions"] == f"not ranked: {text}"
    assert f"<td>{text}</td>" in page
    print_table(build_table(output_root.glob("*/*/*")))
    assert text in " ".join(capsys.readouterr().out.split())


def test_every_reason_of_a_line_is_stated_also_if_only_another_seed_has_it(forge, output_root):
    """The seed with the largest overlap is not the first, and its evaluation contradicts it."""
    right_N = np.arange(60) < 50
    forge("first", config={"seed": 0}, right=right_N)
    second = {"config": {"seed": 1}, "numbers": {"overlap": {"images": 7}}}
    forge("second", **second, right=right_N)
    forge("eval", **second, stamp={"task": "eval"}, right=np.roll(right_N, 1))
    (group,) = build_table(output_root.glob("*/*/*")).groups
    by_run = {line.first.run_id: line for line in group.unranked}
    assert by_run["first"].why_unranked == "7 of the 60 test images fitted or chose the head"
    why = by_run["eval"].why_unranked
    assert why is not None
    assert why.startswith("7 of the 60 test images fitted or chose the head; ")
    assert "second/" in why
    write_baselines(output_root, output_root)
    page = (output_root / "baselines.html").read_text(encoding="utf-8")
    assert page.count(">fitted or chosen on 7 of 60 test images</span>") == 1
