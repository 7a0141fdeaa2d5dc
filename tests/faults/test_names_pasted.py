"""Suggested commands are pasted into a shell: no other command runs, and Hydra reads the value."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from fgvc.config import image_argument
from fgvc.config.compose import composed, typed
from fgvc.config.errors import ConfigError
from fgvc.config.experiment_file import expand_experiment
from fgvc.config.overrides import jobs_of
from fgvc.config.search_space import Search
from fgvc.config.synonyms.advice import Advice
from fgvc.config.weight_files.run_folder import locate_run
from fgvc.data.datasets.folder import read
from fgvc.launch import search
from fgvc.model.backbone.weights.hints import removal_hint
from fgvc.record import env_stamp
from fgvc.run import main
from fgvc.store import atomic
from fgvc.types import UserError
from fgvc.untrusted import shell
from tests.faults.test_names import TINY, assert_inert, parse_overrides, pasted
from tests.test_shell import received

HOSTILE = (
    "a'$(touch X)'b c",
    'it\'s (1) [x], {y}: "z"\\',
    "-rf",
    "${HOME}",
    "~/x (1)",
    "a;b",
    "`id`",
)


@pytest.fixture
def desk(tmp_path) -> Path:
    """An empty folder in which commands are pasted."""
    (tmp_path / "desk").mkdir()
    return tmp_path / "desk"


def refused(*arguments: str, multirun: bool = False) -> str:
    with pytest.raises(ConfigError) as error:
        jobs_of(arguments, multirun)
    return str(error.value)


def hinted(message: str, before: str, desk: Path) -> list[str]:
    """The shell words of the text after `before` in a message."""
    assert before in message, message
    (words,) = received(
        f"dump {message[message.rindex(before) + len(before) if before else 0 :]}", desk
    )
    return words


@pytest.mark.fault(39)
@pytest.mark.fault(53)
@pytest.mark.parametrize("text", [HOSTILE[0], HOSTILE[1], "~/x (1)", "a (${HOME})"])
def test_the_hint_for_special_characters_can_be_pasted(text, desk):
    message = refused("task=doctor", "dataset=folder", f"dataset.root={text}")
    (word,) = hinted(message, "special characters: ", desk)
    assert parse_overrides([word]) == {"dataset.root": str(Path(text).expanduser())}


@pytest.mark.fault(53)
def test_hints_for_lists_paths_and_colons_can_be_pasted(desk):
    message = refused("dataset=folder", "dataset.root=a b,c")
    (word,) = hinted(message, "as one path: ", desk)
    assert parse_overrides([word]) == {"dataset.root": "a b,c"}
    message = refused("task=predict", "checkpoint=x", "image=a $b,c*")
    (word,) = hinted(message.removesuffix(")"), "as a list: ", desk)
    assert parse_overrides([word]) == {"image": ["a $b", "c*"]}
    message = refused("backbone=clip", "head=text", "dataset.prompts=[a (b),it's $(touch X)]")
    (word,) = hinted(message, "each item of the list: ", desk)
    assert parse_overrides([word]) == {"dataset.prompts": ["a (b)", "it's $(touch X)"]}
    message = refused("dataset.root: a'$(touch X)'b (1)")
    (word,) = hinted(message.removesuffix(" (no colon)"), "; write ", desk)
    assert parse_overrides([word]) == {"dataset.root": "a'$(touch X)'b (1)"}


@pytest.mark.fault(53)
@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_peer_typed_is_answered_with_one_inert_word(text, desk):
    (word,) = hinted(str(Advice((f"backbone.weights={text}",))), "write ", desk)
    assert parse_overrides([word]) == {"backbone.weights": text}


@pytest.mark.fault(39)
@pytest.mark.fault(53)
def test_several_images_in_one_text_are_offered_as_a_list(tmp_path, desk, monkeypatch):
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path / "pictures")
    names = ["it's (1).jpg", "$(touch X) \\", "a${HOME}"]
    for name in names:
        Path(name).touch()
    with pytest.raises(ConfigError) as error:
        image_argument.find_sources(",".join(names))
    (word,) = hinted(str(error.value), "several are a list: ", desk)
    assert parse_overrides([word]) == {"image": names}
    os.mkfifo("pipe;touch X")
    with pytest.raises(ConfigError, match="a pipe, not a file") as error:
        image_argument.find_sources("pipe;touch X")
    assert str(error.value).endswith("image=- < 'pipe;touch X'")
    with pytest.raises(ConfigError) as error:
        image_argument.refuse_address("https://x/'$(touch X)'")
    (words,) = received(f"dump {error.value.args[0].partition('curl')[2].partition(' |')[0]}", desk)
    assert words == ["-sSL", "--", "https://x/'$(touch X)'"]


@pytest.mark.fault(39)
@pytest.mark.parametrize("text", HOSTILE)
def test_a_folder_that_is_offered_can_be_pasted(text, tmp_path, desk, jpeg):
    root = tmp_path / text.replace("/", "_")
    for place in ("one/a", "one/b", "two/a", "two/c"):
        for split in ("train", "val"):
            folder = root / place.replace("/", f"/{split}/")
            folder.mkdir(parents=True)
            (folder / "1.jpg").write_bytes(jpeg(len(place)))
    with pytest.raises(UserError) as error:
        read(root, 0.2, 0)
    advice = re.sub(r"\bor\b", ";", str(error.value).partition(": ")[2])
    start = re.search(r"'?dataset\.root=", advice)
    assert start is not None, advice
    (word,) = hinted(advice[start.start() :].partition(" ; ")[0], "", desk)
    assert parse_overrides([word])["dataset.root"] in {str(root / "one"), str(root / "two")}


@pytest.mark.fault(53)
def test_the_command_that_drops_tensors_is_read_by_python_as_meant(tmp_path, desk):
    path = tmp_path / HOSTILE[1] / 'w"$(touch X)`.pth'
    names = ["blocks.0", "decoder.'\"x"]
    message = removal_hint(names[1:], names[:1], names, path)
    line = re.search(r"`(python -c .*)` and name", message)
    assert line is not None
    (words,) = received(line[1].replace("python", "dump", 1), desk)
    constants = {
        node.value for node in ast.walk(ast.parse(words[1])) if isinstance(node, ast.Constant)
    }
    assert {str(path), "decoder."} <= constants


@pytest.mark.fault(53)
def test_the_way_out_for_a_checkout_names_it_inertly(tmp_path, desk):
    checkout = tmp_path / "a'$(touch X)'b c"
    (checkout / ".git").mkdir(parents=True)
    error = env_stamp.git_state(checkout).error
    assert error is not None
    (words,) = received(error.rpartition("): ")[2].replace("git", "dump", 1), desk)
    assert words == ["-C", str(checkout), "status"]


@pytest.mark.fault(53)
def test_an_unfinished_run_names_its_run_id_inertly(tmp_path, desk):
    (tmp_path / "-rf $(touch X)" / "c" / "in-progress").mkdir(parents=True)
    with pytest.raises(ConfigError) as error:
        locate_run(tmp_path, "run", ("artifacts.json",))
    (word,) = hinted(str(error.value), "its command and ", desk)
    assert parse_overrides([word]) == {"runtime.run_id": "-rf $(touch X)"}


@pytest.mark.fault(53)
def test_the_winner_of_a_search_can_be_pasted_and_read(tmp_path, desk, monkeypatch):
    folder = tmp_path / "it's $(touch X), ${HOME} (1)" / "r"
    conf = typed(composed(["runtime.run_id=r"]))
    conf.runtime.multirun_root = str(folder.parent)
    values = {"dataset.name": "a ${HOME} b", "seed": 3}
    best = {"choices": {"axes": {"task": "probe"}, "values": values}, "number": 0}
    best |= {"config_hash": "0" * 64, "top1": 0.5, "loss": 1.0, "n": 4, "state": "done"}
    best |= {"search": "d" * 64, "values": {}, "seconds": 1.0, "error": None, "epoch": 1}
    atomic.write_json(folder / search.TRIALS / "00000.json", best)
    messages: list[str] = []
    monkeypatch.setattr(search.console, "say", messages.append)
    finished = Search({}, "top1", "tpe", {}, trials=1, parallel=1, digest="d" * 64)
    assert search.finish(finished, conf, stopped=False) == 0
    (words,) = pasted("\n".join(messages), desk)
    assert parse_overrides(words) == {"experiment": str(folder / "best.yaml")}
    (comment,) = re.findall(r"^#   (python.*)", (folder / "best.yaml").read_text(), re.MULTILINE)
    assert pasted(comment, desk) == [words]
    (job,) = jobs_of(expand_experiment(words), multirun=False)
    assert job.conf.dataset.name == "a ${HOME} b"


@pytest.mark.fault(53)
def test_the_commands_of_a_plan_are_one_command_each_and_its_text_is_inert(tmp_path, desk):
    title = "[x](javascript:1) <script>`$(touch X)`"
    root = tmp_path / "it's (1), {y}: =z"
    arguments = ["task=plan", "task.plans=probe", *TINY, shell.override("task.title", title)]
    arguments += [shell.override("task.output", tmp_path / "plan")]
    main([*arguments, shell.override("runtime.output_root", root)])
    text = (tmp_path / "plan" / "plan.md").read_text(encoding="utf-8")
    assert_inert(re.sub(r"<!-- /?stamp -->", "", text))
    (block,) = re.findall(r"```\n(# check of the dataset.*?)\n```", text, re.DOTALL)
    script = f"OUTPUT_ROOT={shell.word(str(root))}\n{block}"
    script = re.sub(r"^python -m fgvc\.run", "dump", script, flags=re.MULTILINE)
    calls = received(script, desk)
    assert len(calls) == 6
    assert {parse_overrides(words)["runtime.output_root"] for words in calls} == {str(root)}
    (checkpoint,) = [
        value for words in calls if (value := parse_overrides(words).get("checkpoint"))
    ]
    assert str(checkpoint).startswith(f"{root}/RUN_ID/")
    (plan_command,) = pasted(re.findall(r"Written by ``(.*)``\. The", text)[0], desk)
    assert parse_overrides(plan_command)["task.title"] == title
