"""--help of a task, and --cfg job of a task without its inputs."""

from __future__ import annotations

import dataclasses

import pytest

from fgvc.config.schema import TASKS
from fgvc.run import main


@pytest.mark.parametrize("name", TASKS)
def test_help_of_a_task_explains_its_keys_and_inputs(name, capfd):
    assert main([f"task={name}", "--help"]) == 0
    page = capfd.readouterr().out
    lines = page.splitlines()
    assert lines[0].startswith(f"task={name}: ")
    assert max(map(len, lines)) <= 80
    spec = TASKS[name]
    for key in (*spec.inputs, *spec.optional_inputs):
        assert f"\n  {key}=PATH" in page
    for field in dataclasses.fields(spec.options):
        if field.name == "name":
            continue
        index = next(i for i, line in enumerate(lines) if line.startswith(f"  task.{field.name}="))
        text = f"{lines[index]} {lines[index + 1]}".split()
        own = len(lines[index].split()) > 1 or lines[index + 1].startswith("          ")
        assert own, text  # every key has a comment
    assert ("\n  seed=0" in page) == (spec.experiment and name != "eval")
    assert "\n  runtime.output_root=" in page


def test_help_shows_the_values_of_the_chosen_recipe(capfd):
    assert main(["-h", "task=train", "recipe=transfg"]) == 0
    page = capfd.readouterr().out
    assert "task.optimiser=sgd" in page
    assert "of the head, at the peak" in page  # comments of recipe=modern


@pytest.mark.parametrize("argument", ["task=predit", "task=", "recipe=moden"])
def test_help_of_an_unknown_option_is_the_usual_error(argument, capfd):
    assert main(["task=train", argument, "--help"]) == 2
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"fgvc: {argument}")
    assert output.err.count("\n") == 1


def test_help_lists_options_of_an_own_folder(tmp_path, capfd):
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/pond.yaml").write_text("# dataset=pond: ducks of a pond.\nname: pond\n")
    assert main(["--config-dir", str(tmp_path), "--help"]) == 0
    page = capfd.readouterr().out
    assert "  pond            ducks of a pond." in page
    assert "task=NAME --help" in page


@pytest.mark.parametrize("name", ["compare", "predict", "eval", "view"])
def test_the_config_of_a_task_is_printed_without_its_inputs(name, capfd):
    assert main([f"task={name}", "--cfg", "job", "--resolve"]) == 0
    lines = capfd.readouterr().out.splitlines()
    missing = [line.removesuffix(": ???") for line in lines if line.endswith(": ???")]
    assert sorted(missing) == sorted(TASKS[name].inputs)


@pytest.mark.parametrize("command", ["task=prune task.pin=why --cfg job", "task=compare -i config"])
def test_a_config_is_printed_though_its_command_could_not_run(command, capfd):
    assert main(command.split()) == 0
    assert capfd.readouterr().err == ""


def test_help_of_a_quoted_task_is_that_of_the_task(capfd):
    assert main(["task='probe'", "--help"]) == 0
    assert capfd.readouterr().out.startswith("task=probe: ")


@pytest.mark.parametrize("arguments", [["--help"], ["task=train", "-h"]])
def test_a_reader_of_the_help_may_close_the_pipe(arguments, monkeypatch):
    """`--help | head` is no error of the command; `script` handles the closed pipe."""

    def closed(text: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(BrokenPipeError):
        main(arguments)


def test_one_missing_input_is_printed_alone(capfd):
    assert main(["task=compare", "--cfg", "job", "-p", "against"]) == 0
    assert main(["dataset=table", "--cfg", "job", "-p", "dataset.table"]) == 0
    assert capfd.readouterr().out == "???\n???\n"
