"""Who may import whom, read from the syntax tree of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fgvc"

LOWEST = {"untrusted", "shell", "escape", "notices"}  # standard library only
MAY_IMPORT = {
    "types": set(),
    "untrusted": set(),
    "notices": set(),
    "shell": set(),
    "escape": {"shell"},
    "config": LOWEST,
    "store": {"types"} | LOWEST,
    "metrics": {"types"},
    "data": {"config.schema", "types", "store"} | LOWEST,
    "model": {"config.schema", "types", "store"} | LOWEST,
    "learn": {"config.schema", "types", "metrics"} | LOWEST,
    "record": {"config.schema", "types", "store", "metrics"} | LOWEST,
    "report": {"record", "metrics", "store", "types"} | LOWEST,
    "task": {
        "config",
        "types",
        "store",
        "metrics",
        "data",
        "model",
        "learn",
        "record",
        "report",
    }
    | LOWEST,
    "run": {"config", "record", "report", "task"} | LOWEST,
}
# each heavy library has one door
DOORS = {
    "hydra": {"run", "config", "task.launch"},
    "hydra_plugins": {"task.launch"},
    "submitit": {"task.launch"},
    "joblib": {"task.launch"},
    "timm": {"model"},
    "transformers": {"model"},
    "open_clip": {"model"},
    "fiftyone": {"record"},
    "huggingface_hub": {"model"},
    "tensorboard": {"record"},
}
# rooms that must answer without these at all
WITHOUT = {"config": {"torch", "numpy", "timm"}, "store": {"torch"}}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> set[str]:
    """Every module a file imports, inside functions too; fgvc's own without the `fgvc.`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(name: str, allowed: set[str]) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in allowed)


def test_every_module_is_read():
    tracked = {path.relative_to(PACKAGE) for path in modules()}
    rooms = {path.parts[0].removesuffix(".py") for path in tracked} - {"__init__"}
    assert rooms == set(MAY_IMPORT)
    assert len(tracked) >= 60


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_stay_within_the_rules(path):
    me = dotted(path)
    room = me.split(".")[0]
    if not room:
        return
    for name in imports(path):
        if name.startswith("fgvc."):
            theirs = name.removeprefix("fgvc.")
            assert within(theirs, MAY_IMPORT[room] | {room}), f"{me} imports {name}"
        top = name.split(".")[0]
        assert top not in WITHOUT.get(room, set()), f"{me} imports {top}"
        if top in DOORS:
            assert within(me, DOORS[top]), f"{me} imports {top}: its door is {DOORS[top]}"


def test_run_imports_record_and_task_only_when_needed():
    tree = ast.parse((PACKAGE / "run.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
    assert {name for name in names if name.startswith("fgvc")} <= {
        "fgvc",  # shell
        "fgvc.config.arguments",
        "fgvc.config.compose",
        "fgvc.config.errors",
        "fgvc.config.flags",
        "fgvc.config.grid",
        "fgvc.config.fit",
        "fgvc.config.help",
        "fgvc.config.left_out",
        "fgvc.config.lists",
        "fgvc.config.overlay",
        "fgvc.config.overrides",
        "fgvc.config.search",
        "fgvc.config.sweep",
        "fgvc.config.version",
        "fgvc.escape",
    }


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_modules_say_what_they_do_and_stay_small(path):
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path} opens with no docstring"
    assert len(text.splitlines()) <= 400, f"{path} wants splitting"
