"""Printed commands: a shell and Hydra read back the values, and no other command runs."""

from __future__ import annotations

import ast
import itertools
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fgvc.untrusted import shell

PACKAGE = Path(__file__).resolve().parents[1] / "fgvc"
NASTY = (
    "a'$(touch X)'b c",
    'it\'s (1) [x], {y}: "z"\\',
    "-rf",
    "${HOME}",
    "\\${HOME}\\\\${a.b}",
    "$HOME `id` $(id) $((1+1))",
    "; rm -rf ~ & | > x < y #",
    "~/x y",
    "~root",
    "=ls",
    "!! !$ ^a^b",
    "* ? [a-z] {a,b}",
    "",
    " ",
    "  leading and trailing  ",
    "a=b",
    "a,b",
    "null",
    "True",
    "1e3",
    "-0.5",
    "1_000",
    "nan",
    "+inf",
    ".5",
    "007",
    "2024",
    "2024-11-29",
    "Größe/é/日本 語",
    "cafe\u0301",
    "tab\there",
    "two\nlines\r\n! % %s \\n \\041 end",
    "-\x1b[201~\x03touch X",
    "\u202egpj.exe",
    "caf\udce9",
    "C:\\birds\\",
    'ends in "',
    '\\"',
    "\\\\\\",
    "'",
    '"',
    "'\"'\"'",
    "a\\'b",
    "choice(a,b)",
    "range(1,3)",
    "glob(*)",
    "[a,b]",
    "{a:b}",
    "{{x}}",
    "%d %%",
    "trailing newline kept in quotes\n",
    "//server/x",
    "../x",
    ".",
)


def special_texts() -> list[str]:
    generator = random.Random(0)
    letters = "\\\\\"''$${}()[],:=~ !`%;|&*?#\n\t\x1b-aé1"
    random_texts = [
        "".join(generator.choices(letters, k=generator.randint(1, 12))) for _ in range(600)
    ]
    pairs = ["".join(pair) for pair in itertools.product("\\'\"${a", repeat=2)]
    return [*NASTY, *random_texts, *pairs]


def received(line: str, folder: Path, program: str = "sh") -> list[list[str]]:
    """The arguments of every `dump` in a script, which can run no other program."""
    script = folder / "script"
    script.write_bytes(f"dump() {{ printf '%s\\0' \"$@\" ''; }}\n{line}\n".encode())
    done = subprocess.run(
        [shutil.which(program) or program, str(script)],
        cwd=folder,
        env={"PATH": "/nowhere", "HOME": "/home/x", "LC_ALL": "C.UTF-8"},
        capture_output=True,
        check=False,
    )
    assert not done.stderr, done.stderr
    assert done.returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == ["script"], "something was executed"
    calls: list[list[str]] = [[]]
    for text in done.stdout.decode("utf-8", "surrogateescape").split("\0")[:-1]:
        calls[-1].append(text) if text else calls.append([])
    return calls[:-1]


def value(word: str) -> object:
    """The config value of an override, with interpolations resolved."""
    (override,) = OverridesParser.create().parse_overrides([word])
    assert not override.is_sweep_override(), word
    config = OmegaConf.to_container(OmegaConf.create({"value": override.value()}), resolve=True)
    return config["value"]  # pyright: ignore


@pytest.mark.fault(39)
@pytest.mark.fault(53)
@pytest.mark.parametrize("program", ["sh", "bash"])
def test_a_shell_and_hydra_read_back_what_was_printed(tmp_path, program):
    texts = special_texts()
    line = "\n".join(shell.command(["dump", shell.override("image", text)]) for text in texts)
    assert not any(char in line.replace("\n", "") for char in "\t\r\x1b\x03\u202e")
    calls = received(line, tmp_path, program)
    assert [value(word) for (word,) in calls] == texts


@pytest.mark.fault(53)
@pytest.mark.parametrize("program", ["sh", "bash"])
def test_a_word_is_read_back_by_a_shell_and_by_split(tmp_path, program):
    texts = [text for text in special_texts() if text]
    line = shell.command(["dump", *texts])
    assert received(line, tmp_path, program) == [texts]
    assert shell.split(line) == ["dump", *texts]


@pytest.mark.parametrize(
    "typed", [True, False, None, 3, -2, 0.5, 1e-05, ["a b", 1, None, "${x}"], []]
)
def test_a_value_keeps_its_type(typed):
    assert value(shell.override("key", typed)) == typed
    assert type(value(shell.override("key", typed))) is type(typed)


def test_a_plain_value_has_no_quotes():
    assert shell.setting("dataset.root", "/data/CUB_200-2011/x.y") == (
        "dataset.root=/data/CUB_200-2011/x.y"
    )
    assert shell.setting("run", "outputs/20260101T000000Z-abcdef/a1/b2") == (
        "run=outputs/20260101T000000Z-abcdef/a1/b2"
    )
    assert shell.setting("runtime.run_id", "20260101T000000Z-abcdef") == (
        "runtime.run_id=20260101T000000Z-abcdef"
    )
    assert shell.setting("dataset.root", "my birds") == "'dataset.root=\"my birds\"'"


def test_a_file_is_no_option_and_a_nul_is_shown():
    assert shell.file_word("-rf") == "./-rf"
    assert shell.word("a\0b") == "'a␀b'"


def test_a_broken_line_is_no_command():
    with pytest.raises(ValueError, match="not a command that fgvc wrote"):
        shell.split("python 'a")


def test_no_other_module_quotes_for_a_shell():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"shlex", "pipes"} & set(names), (
                f"{path}: fgvc.untrusted.shell makes commands"
            )
