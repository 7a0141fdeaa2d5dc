"""help.txt and conf/ -> the pages that `--help` prints: of all axes, or of `task=NAME`."""

from __future__ import annotations

import dataclasses
import itertools
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from omegaconf import OmegaConf

from fgvc.config.compose import composed, parse_config
from fgvc.config.option_files import (
    AXES,
    CONFIG_NAME,
    conf_dir,
    option_file,
    own_folders,
    search_path_override,
)
from fgvc.config.override_grammar import key_of, value_of
from fgvc.config.overrides import check_option, normalized
from fgvc.config.parse_errors import parse_argument
from fgvc.config.schema import TASKS, Config
from fgvc.untrusted.shell import override

WIDTH = 80
PAGE = Path(__file__).with_name("help.txt")
COLUMN, WIDE_COLUMN = 18, 30  # where the description of an option, of a key begins
# shown in the help of every task, and of an experiment
RUNTIME = ("output_root", "run_id", "device", "dry_run")
EXPERIMENT = ("seed", "precision", "preprocess", "final_fit")
_LINE = re.compile(r"( *)(\w+):([^#]*)(?:# *(.*))?")


def page(arguments: Sequence[str]) -> str:
    """The help page of a command: of its `task=`, or of all axes.

    Raises:
        ConfigError: an unknown task, or a folder of options that is missing.
    """
    arguments = search_path_override([normalized(argument) for argument in arguments])
    names = [value_of(argument) for argument in arguments if key_of(argument) == "task"]
    if names:
        chosen = [item for item in arguments if key_of(item) in ("hydra.searchpath", "recipe")]
        return "\n\n".join(_task_page(name, chosen) for name in names[-1].split(","))
    text = PAGE.read_text(encoding="utf-8").rstrip("\n")
    folders = (conf_dir(), *own_folders(arguments))
    return text.format(groups="".join(_group(group, folders) for group in AXES))


def _group(group: str, folders: Iterable[Path]) -> str:
    files = [file for folder in folders for file in sorted((folder / group).glob("*.yaml"))]
    if group == "resolution":
        return _wrap(f"\n{group}=", ", ".join(file.stem for file in files))
    described = {file.stem: _description(file) for file in files}
    lines = [_wrap(f"  {name}", text) for name, text in described.items() if text is not None]
    shorthands = [name for name, text in described.items() if text is None]
    if shorthands:
        lines.append(_wrap("  shorthands", ", ".join(shorthands)))
    return f"\n{group}=\n{''.join(lines)}"


def _description(file: Path) -> str | None:
    """The first comment of an option file, without its name; None for a shorthand."""
    comments = []
    for text in _comments(file):
        if comments and text.startswith("   "):
            break  # the command begins
        comments.append(text.strip())
    comment = " ".join(comments)
    head, colon, rest = comment.partition(": ")
    if rest.startswith("short for"):
        return None
    return rest if colon and "=" in head else comment


def _comments(file: Path) -> Iterator[str]:
    """The lines of the comment at the top of an option file, without #."""
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#")
        if text == line:
            return
        if not text.strip().startswith("@package"):
            yield text


# --- the help of one task ---


def _task_page(name: str, chosen: Sequence[str]) -> str:
    arguments = [*chosen, f"task={name}"]
    for argument in arguments:
        check_option(parse_argument(argument), arguments)
    conf = parse_config(composed(arguments))
    file, spec = option_file("task", name, arguments), TASKS[conf.task.name]
    assert file is not None  # check_option found it
    sections = [_head(file)]
    comments = dict(_key_comments(conf_dir() / f"{CONFIG_NAME}.yaml", ""))
    inputs = [(key, "required: ") for key in spec.inputs]
    inputs += [(key, "") for key in spec.optional_inputs]
    if inputs:
        lines = [_wrap(f"  {key}=PATH", need + comments[key]) for key, need in inputs]
        sections.append("Inputs:\n" + "".join(lines))
    own = "".join(_own_keys(conf, file, arguments))
    sections.append(
        f"Keys of the task, with their values:\n{own}" if own else "No keys of its own.\n"
    )
    common = [*(EXPERIMENT if spec.experiment else ()), *(f"runtime.{key}" for key in RUNTIME)]
    if conf.task.name == "eval":  # its config is that of the checkpoint
        common = common[len(EXPERIMENT) :]
    elif spec.experiment:
        axes = [*AXES[1:6], *(["recipe"] if conf.task.name == "train" else [])]
        names = ", ".join(f"{axis}=" for axis in axes)
        sections.append(_wrap("Axes:", f"{names}; --help lists their options"))
    plain = OmegaConf.create(dataclasses.asdict(conf))
    lines = [_key_line(key, OmegaConf.select(plain, key), comments[key]) for key in common]
    sections.append("Common keys (--cfg job prints all of them):\n" + "".join(lines))
    return "\n".join(sections).rstrip("\n")


def _head(file: Path) -> str:
    """The comment of an option file: its sentences in paragraphs, its commands line by line."""
    lines = []
    for is_command, group in itertools.groupby(_comments(file), lambda text: text[:3] == "   "):
        texts = [text.strip() for text in group]
        if is_command:
            lines += ["  " + " \\\n    ".join(_wrap_words(text)) for text in texts]
        else:
            lines.append(textwrap.fill(" ".join(texts), WIDTH))
    return "\n".join(lines) + "\n"


def _wrap_words(command: str) -> list[str]:
    """A command in lines that leave room for an indent and a backslash."""
    return textwrap.wrap(command, WIDTH - 6, break_on_hyphens=False, break_long_words=False)


def _own_keys(conf: Config, file: Path, arguments: Sequence[str]) -> Iterator[str]:
    """A line per key of the task, with comments of its file and of the recipes."""
    package = "" if "@package _global_" in file.read_text(encoding="utf-8") else "task."
    comments: dict[str, str] = {}
    if conf.task.name == "train":
        recipes = [option_file("recipe", name, arguments) for name in ("modern", "transfg")]
        for recipe in filter(None, recipes):
            comments |= {**dict(_key_comments(recipe, "")), **comments}
    comments |= dict(_key_comments(file, package))
    for field in dataclasses.fields(conf.task):
        key, choices = f"task.{field.name}", field.metadata.get("choices")
        if field.name == "name":
            continue
        comment = comments.get(key, "")
        if choices and not comment:
            comment = " | ".join("null" if item is None else str(item) for item in choices)
        yield _key_line(key, getattr(conf.task, field.name), comment)


def _key_comments(file: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """The dotted keys of a YAML file with their comments."""
    parents: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if (match := _LINE.fullmatch(line)) is None:
            continue
        indent, name, value, comment = len(match[1]), match[2], match[3].strip(), match[4]
        parents = [parent for parent in parents if parent[0] < indent]
        if not value:
            parents.append((indent, name))
        else:
            yield prefix + ".".join([*(parent for _, parent in parents), name]), comment or ""


def _key_line(key: str, value: object, comment: str) -> str:
    return _wrap(f"  {override(key, value)}", comment, WIDE_COLUMN)


def _wrap(head: str, text: str, column: int = COLUMN) -> str:
    indent = " " * column
    first = head.ljust(column) if len(head.strip("\n")) < column else f"{head}\n{indent}"
    body = textwrap.wrap(text, WIDTH - len(indent)) or [""]
    return (first + f"\n{indent}".join(body)).rstrip() + "\n"
