"""A complete run -> the commands that use it: predict, view, compare, report."""

from __future__ import annotations

from pathlib import Path

from fgvc import untrusted
from fgvc.config.run_reference import OUTPUT_ROOT, CompleteRun, complete_runs, newest, reference
from fgvc.untrusted import shell

WIDTH = 80
IMAGE = "image=PICTURE.jpg"
SEARCHED = 50  # newest runs in which a comparable run is looked for


def next_commands(run_id: str, config_hash: str | None, root: Path, is_default: bool) -> list[str]:
    """The lines of the commands for the newest complete run of a command; empty without one.

    compare is left out if no other run is comparable.

    Args:
        config_hash: of the run; None if only its run_id is known.
        root: the output root. is_default: whether commands without runtime.output_root read it.
    """
    runs = complete_runs(root)
    own = [run for run in runs if run.names[0] == run_id]
    if config_hash is not None:
        own = [run for run in own if config_hash.startswith(run.names[1])]
    if (run := newest(own)) is None:
        return []
    name = reference(run, runs)
    checkpoint = reference(run, runs, "checkpoint")
    commands = [["task=predict", f"checkpoint={checkpoint}", IMAGE], ["task=view", f"run={name}"]]
    if (other := _comparable(run, runs)) is not None:
        commands.append(["task=compare", f"run={name}", f"against={reference(other, runs)}"])
    commands.append(["task=report"])
    place = [] if is_default else [shell.override(OUTPUT_ROOT, str(root))]
    return ["next:", *(line for words in commands for line in _lines([*words, *place]))]


def _comparable(run: CompleteRun, runs: list[CompleteRun]) -> CompleteRun | None:
    """The newest other run of the same comparability key."""
    key = _comparability_key(run)
    others = sorted((other for other in runs if other != run), key=lambda other: other.finished)
    for other in others[: -SEARCHED - 1 : -1]:
        if key is not None and _comparability_key(other) == key:
            return other
    return None


def _comparability_key(run: CompleteRun) -> str | None:
    try:
        return untrusted.read_json(run.folder / "metrics.json", untrusted.LIST)["comparability_key"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _lines(words: list[str]) -> list[str]:
    """A command in lines of at most WIDTH columns, continued with a backslash."""
    lines, line = [], f"  {shell.command(shell.PROGRAM)}"
    for index, text in enumerate(map(shell.word, words), start=1):
        if len(line) + 1 + len(text) > (WIDTH if index == len(words) else WIDTH - 2):
            lines.append(f"{line} \\")
            line = "   "
        line += f" {text}"
    return [*lines, line]
