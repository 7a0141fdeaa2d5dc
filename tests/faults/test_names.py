"""Names and values with formulas, markup, shell characters and terminal codes (rows 39 and 53)."""

from __future__ import annotations

import contextlib
import csv
import html
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

from fgvc.config.overrides import jobs_of
from fgvc.pipeline.prediction_output import PredictionHeader, PredictionRow, as_csv
from fgvc.record import checkpoint, console, retention
from fgvc.record.stack_check import published
from fgvc.report import model_card
from fgvc.report.audit import pull_request_block
from fgvc.report.audit.check import FAIL, Result
from fgvc.report.audit.record import Record
from fgvc.run import main
from fgvc.untrusted import escape, shell
from tests.test_shell import NASTY, received, value

NAMES = (
    "=cmd|' /C calc'!A0",
    "+1",
    "-2+3",
    "@SUM(1)",
    "'quoted",
    "a;=1+1",
    "<script>alert(1)</script>",
    "[x](javascript:alert(1)) ![y](http://evil.example/z.png)",
    "`code` | pipe <http://evil.example> www.evil.example &lt;b&gt; **bold**",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egpj.exe",
    "a'$(touch X)'b ${HOME}",
)
PLACE = "it's (1) [x], {y}: \"z\" =\\/${ a'$(touch X)'b ${HOME}\\"
KEPT = "r/0000000000000000/1111111111111111"
TINY = (
    "backbone=vit",
    "backbone.size=mini",
    "backbone.pretrained=false",
    "head=knn",
    "head.k=1",
    "runtime.num_workers=0",
    "resolution.side=32",
    "resolution.name=r32",
)
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]")


class Ran:
    """One probe whose class names, paths and places are nasty, and what it printed."""

    def __init__(self, home: Path, printed: str, arguments: list[str]) -> None:
        self.home, self.printed, self.arguments = home, printed, arguments
        self.folder = next((home / PLACE).glob("*/*/*/ckpt.bin")).parent

    def text(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> Iterator[Ran]:
    home = tmp_path_factory.mktemp("names")
    data = home / PLACE / "data"
    data.mkdir(parents=True)
    with (data / "birds.csv").open("w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(("path", "label", "split"))
        for number in range(3 * len(NAMES)):
            name = f"=1+{number};$(touch X)'\".jpg"
            pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(data / name, "JPEG")
            split = "test" if number < len(NAMES) else "train"
            table.writerow((name, NAMES[number % len(NAMES)], split))
    arguments = [
        *TINY,
        "dataset=table",
        shell.override("dataset.table", data / "birds.csv"),
        shell.override("dataset.name", "set](javascript:x) <script>"),
        shell.override("runtime.output_root", home / PLACE),
        shell.override("runtime.cache_root", home / "cache"),
    ]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(arguments)
    assert code == 0, printed.getvalue()
    yield Ran(home, printed.getvalue(), arguments)
    assert not list(home.rglob("X")), "something was executed"


def pasted(text: str, folder: Path, **variables: str) -> list[list[str]]:
    """The arguments of every command of this program in a text, as a shell passes them."""
    folder.mkdir(exist_ok=True)
    lines = re.findall(r"python -m fgvc\.run.*", text)
    assert lines
    lines = [line.replace("python", "dump", 1) for line in lines]
    calls = received("\n".join([*map("=".join, variables.items()), *lines]), folder)
    assert all(call[:2] == ["-m", "fgvc.run"] for call in calls)
    return [call[2:] for call in calls]


def parse_overrides(words: list[str]) -> dict[str, object]:
    return {word.partition("=")[0]: value(word) for word in words}


def rendered(text: str) -> list:
    """Every token of a Markdown document, those within paragraphs and cells too."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    return [*tokens, *(child for token in tokens for child in token.children or ())]


def assert_inert(text: str) -> None:
    """No HTML, no link, no picture and no autolink."""
    kinds = {token.type for token in rendered(text)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image"}, text
    assert not CONTROL.search(text)


# --- the record of a run whose names are nasty ---


@pytest.mark.fault(39)
@pytest.mark.fault(53)
def test_the_page_repeats_the_evaluation_of_this_very_folder(ran, tmp_path):
    page_text = html.unescape(re.sub(r"<[^>]*>", "", ran.text("report.html")))
    root = tmp_path / "outputs"  # Hydra's quotes do not hold every name that a root may have
    root.symlink_to(ran.folder.parents[2])
    calls = pasted(page_text, tmp_path / "sh", OUTPUT_ROOT=str(root))
    (words,) = [words for words in calls if "task=eval" in words]
    below = ran.folder.relative_to(ran.folder.parents[2])
    assert parse_overrides(words) == {"task": "eval", "checkpoint": str(root / below)}
    places = [word for word in ran.arguments if word.startswith("runtime.")]
    assert main([*words, *places]) == 0


@pytest.mark.fault(39)
def test_the_recorded_command_is_this_very_run(ran, tmp_path):
    (words,) = pasted(ran.text("command.txt"), tmp_path / "sh")
    stamp = json.loads(ran.text("env_stamp.json"))
    typed = parse_overrides([*ran.arguments, f"runtime.run_id={stamp['run_id']}"])
    assert parse_overrides(words) == typed
    (job,) = jobs_of(words, multirun=False)
    assert job.conf.dataset.name == typed["dataset.name"]


@pytest.mark.fault(53)
def test_no_cell_of_a_csv_is_a_formula_and_readers_get_the_names_back(ran):
    with (ran.folder / "per_class.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (ran.folder / "confusion.csv").open(newline="", encoding="utf-8") as file:
        confusion = list(csv.reader(file))
    names = [entry["name"] for entry in json.loads(ran.text("labelmap.json"))["classes"]]
    assert set(names) == set(NAMES)
    for cells in (
        [row["name"] for row in rows],
        confusion[0][1:],
        [row[0] for row in confusion[1:]],
    ):
        assert not [cell for cell in cells if re.match(r"[=+@\t\r-]", cell)]
        assert [escape.uncell(cell) for cell in cells] == names
    tsv = next(ran.folder.rglob("metadata.tsv")).read_text(encoding="utf-8").splitlines()
    cells = [cell for line in tsv for cell in line.split("\t")]
    assert {len(line.split("\t")) for line in tsv} == {5}
    assert not [cell for cell in cells if cell[:1] in set("=+@-")]


@pytest.mark.fault(53)
def test_the_page_holds_names_as_text_only(ran):
    """Its only script is a file of ours, without a name in it."""
    active_content: list[str] = []
    own = resources.files("fgvc.html") / "templates" / "place.js"

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            active_content.extend(
                f"{name}={value}" for name, value in attrs if name.startswith("on")
            )
            targets = [
                value or "" for name, value in attrs if name in ("href", "src", "xlink:href")
            ]
            active_content.extend(value for value in targets if "javascript" in value)

        def handle_data(self, data):
            active_content.extend(
                [data.strip()] if self.lasttag == "script" and data.strip() else []
            )

        def handle_endtag(self, tag):
            self.lasttag = "" if tag == "script" else self.lasttag

    Reader().feed(ran.text("report.html"))
    assert active_content == [own.read_text(encoding="utf-8").strip()]


@pytest.mark.fault(53)
def test_no_printed_text_is_interpreted_by_a_terminal(ran):
    assert "javascript" in ran.printed  # the name of the dataset was printed at all
    assert not CONTROL.search(ran.printed)


@pytest.mark.fault(53)
def test_lines_tables_and_errors_spell_terminal_codes_out(tmp_path, capsys):
    name = "\x1b]0;t\x07\rforged\nline \u202egpj"
    console.say(f"note: {name}")
    console.table(name, [name, "n"], [[name, "1"]])
    data = ["dataset=folder", shell.override("dataset.root", f"/no/{name}")]
    places = [f"runtime.{root}_root={tmp_path}" for root in ("output", "cache")]
    code = main([*TINY, *data, *places])
    out, err = capsys.readouterr()
    assert code != 0
    assert err.count("\n") == 1
    assert not CONTROL.search(out + err)
    assert out.startswith("note: \\x1b]0;t\\x07\\rforged\\nline \\u202egpj\n")
    assert "\\x1b" in err


@pytest.mark.fault(53)
def test_the_audit_prints_its_block_line_by_line(ran, capsys):
    main(["task=audit", shell.override("run", ran.folder), *ran.arguments[-2:]])
    out = capsys.readouterr().out
    assert not CONTROL.search(out)
    headings = [line for line in out.splitlines() if line.startswith("### ")]
    assert headings == [f"### {heading}" for heading in pull_request_block.HEADINGS]


@pytest.mark.fault(53)
def test_the_pull_request_block_is_inert_and_its_commands_are_real(ran, tmp_path):
    copy = tmp_path / "OUT" / KEPT
    shutil.copytree(ran.folder, copy)
    retention.pin(copy / retention.FILE, NAMES[6])
    results = [Result("licence", "licence", FAIL, name) for name in NAMES]
    text = pull_request_block.render_block(Record(copy), results)
    assert_inert(text)
    for name in NAMES:
        kinds = ("text", "code_inline")
        lines_shown = [token.content for token in rendered(text) if token.type in kinds]
        assert any(escape.visible(name) in line for line in [*lines_shown, "".join(lines_shown)])
    recorded, audit, *_ = pasted(text, tmp_path / "sh", OUTPUT_ROOT="'/a b'")
    assert parse_overrides(audit) == {"task": "audit", "run": f"OUTPUTS/{KEPT}"}
    assert parse_overrides(recorded)["runtime.output_root"] == "/a b"


@pytest.mark.fault(53)
@pytest.mark.parametrize("more", ["; rm -rf ~", " `id`", "\nrm -rf ~", " $(id)", " x > y", " 'a"])
def test_a_forged_command_is_not_printed(ran, tmp_path, more):
    copy = tmp_path / "OUT" / KEPT
    shutil.copytree(ran.folder, copy)
    forged = ran.text("command.txt").rstrip() + more + "\n"
    (copy / "command.txt").write_text(forged, encoding="utf-8")
    text = pull_request_block.render_block(Record(copy), [])
    assert "### Commands\n\nnot readable" in text
    assert "rm -rf" not in text


@pytest.mark.fault(53)
def test_the_model_card_is_inert_and_shows_every_text(ran):
    _, facts, checkpoint_id = checkpoint.read(ran.folder)
    card = {key: NAMES[place] for place, key in enumerate(facts["config"]["dataset"]["card"])}
    config = facts["config"]
    config = {**config, "dataset": {**config["dataset"], "card": card, "name": "x\n---\n# y: z"}}
    preprocess = {**facts["preprocess"], "side": "1); import os  #"}
    text = model_card.render_model_card(
        ran.folder,
        {**facts, "config": config, "preprocess": preprocess},
        ids={"checkpoint": checkpoint_id, "exported_from": checkpoint_id},
        weights={"license": NAMES[6], "contamination": NAMES[8]},
        agreement={NAMES[8]: {"images": 1, "other_top1": 0, "difference": 0.1}},
        digests={NAMES[8]: "0" * 64},
    )
    assert_inert(text)
    texts = [token.content for token in rendered(text)]
    for key in ("source", "license", "approval", "filtering", "label_noise", "contamination"):
        assert any(escape.visible(card[key]) in line for line in inline_texts(text)), key
    assert "# y" not in text.splitlines()
    (snippet,) = [line for line in texts if "onnxruntime" in line]
    assert "'1); import os  #'" in snippet
    compile(snippet, "card", "exec")


def inline_texts(text: str) -> list[str]:
    """The text of each paragraph and cell, as a reader sees it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    return ["".join(child.content for child in token.children or ()) for token in tokens]


# --- escaping, one text after the other ---


@pytest.mark.fault(53)
def test_every_text_is_restored_from_a_cell_and_no_cell_is_a_formula():
    texts = [*NAMES, *NASTY, "", "'", "''=x", "'=x", " =x", "\t=x", "\r=x", "\n-x", "a;=x;'=y;''@z",
             "a; =x", "\uff1dx", "-0.5", "a'b", "x\r=y"]  # fmt: skip
    cells = [escape.cell(text) for text in texts]
    assert [escape.uncell(cell) for cell in cells] == texts
    assert len(set(cells)) == len(set(texts))
    assert not [cell for cell in cells if re.match(r"\s*[=+@\uff1d-]|[\t\r\n]", cell)]
    assert not [cell for cell in cells if re.search(r"[;\t\r\n] *[=+@-]", cell)]
    table = escape.csv_text([(text, 1, None) for text in texts])
    assert [row[0] for row in csv.reader(io.StringIO(table, newline=""))] == cells


def test_numbers_stay_numbers():
    assert escape.csv_text([(-0.5, 3, None, True, np.float64(-1.5), "x")]) == (
        "-0.5,3,,True,-1.5,x\n"
    )


@pytest.mark.fault(53)
def test_any_text_is_one_inert_line_of_markdown():
    for text in [
        *NAMES,
        *NASTY,
        "a@b.example",
        "https://evil.example",
        "# h",
        "- x",
        "1. x",
        "> q",
    ]:
        visible_text = " ".join(escape.visible(text).split())
        for document in (
            f"- note: {escape.markdown(text)}",
            f"| a |\n|---|\n| {escape.markdown(text)} |",
        ):
            assert_inert(document)
            text_lines = [line for line in inline_texts(document) if line]
            assert (
                " ".join(text_lines[-1].removeprefix("note:").split()) == visible_text
                if visible_text
                else True
            )
        fence = f"```\n{text}\n```"
        (token,) = rendered(escape.fenced(fence))
        assert token.type == "fence"
        if text.strip():
            spans = [token for token in rendered(escape.code(text)) if token.type == "code_inline"]
            assert [token.content.strip() for token in spans] == [escape.visible(text).strip()]


@pytest.mark.fault(53)
def test_the_table_of_the_stack_keeps_its_columns():
    record = dict.fromkeys(published.COLUMNS.values(), NAMES[8])
    text = published.table([record])
    assert_inert(text)
    assert len([token for token in rendered(text) if token.type == "td_open"]) == len(
        published.COLUMNS
    )


@pytest.mark.fault(53)
def test_answers_as_csv_hold_no_formula():
    answers = [PredictionRow("=1+1.jpg", [(0, 0.5)]), PredictionRow("-x.jpg", error="@SUM(1)")]
    header = PredictionHeader("", "", "", "", "no class means")
    rows = list(csv.DictReader(io.StringIO(as_csv(answers, [("+1", "=cmd|'x'!A0")], header))))
    assert [row["path"] for row in rows] == ["'=1+1.jpg", "'-x.jpg"]
    assert (rows[0]["id"], rows[0]["class"], rows[0]["probability"]) == (
        "'+1",
        "'=cmd|'x'!A0",
        "0.5",
    )
    assert rows[1]["error"] == "'@SUM(1)"
