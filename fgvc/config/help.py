"""help.txt and conf/ -> the page that `--help` prints: axes with their options, examples."""

from __future__ import annotations

import textwrap
from pathlib import Path

from fgvc.config.option_files import AXES, conf_dir

WIDTH = 80
PAGE = Path(__file__).with_name("help.txt")


def page() -> str:
    """The help page, from the first comment of every option file."""
    text = PAGE.read_text(encoding="utf-8").rstrip("\n")
    return text.format(groups="".join(_group(conf_dir() / group) for group in AXES))


def _group(folder: Path) -> str:
    files = sorted(folder.glob("*.yaml"))
    if folder.name == "resolution":
        return _wrap(f"\n{folder.name}=", ", ".join(file.stem for file in files))
    described = {file.stem: _description(file) for file in files}
    lines = [_wrap(f"  {name}", text) for name, text in described.items() if text]
    shorthands = [name for name, text in described.items() if text is None]
    if shorthands:
        lines.append(_wrap("  shorthands", ", ".join(shorthands)))
    return f"\n{folder.name}=\n{''.join(lines)}"


def _description(file: Path) -> str | None:
    """The first comment of an option file, without its name; None for a shorthand."""
    comments = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#")
        if text == line or (comments and text.startswith("   ")):
            break  # the values, or the command, begin
        if not text.strip().startswith("@package"):
            comments.append(text.strip())
    comment = " ".join(comments)
    head, colon, rest = comment.partition(": ")
    if not comment or rest.startswith("short for"):
        return None
    return rest if colon and "=" in head else comment


def _wrap(head: str, text: str) -> str:
    indent = " " * 18
    first = head.ljust(18) if len(head.strip("\n")) < 18 else f"{head}\n{indent}"
    body = textwrap.wrap(text, WIDTH - len(indent)) or [""]
    return first + f"\n{indent}".join(body) + "\n"
