"""Which room may import which, checked in the syntax tree of every module."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fgvc"

# a room imports only lower floors; a tuple is one floor, whose rooms do not import each other
FLOORS = (
    ("untrusted", "exit_codes"),  # standard library only
    ("config", "types"),
    ("parallel", "html", "metrics", "store"),
    ("record", "data", "model", "learn"),
    ("report",),
    ("pipeline",),
    ("launch",),
    ("task",),
    ("run",),
)
LOWEST = set(FLOORS[0])
CHOICES = {"config.schema", "config.weight_files", "config.errors"}  # without Hydra
MAY_IMPORT = {
    "exit_codes": set(),
    "untrusted": set(),
    "types": set(),
    "config": LOWEST,
    "parallel": {"types"} | LOWEST,
    "html": {"types"} | LOWEST,
    "metrics": {"types"},
    "store": {"types"} | LOWEST,
    "data": CHOICES | {"types", "store", "parallel"} | LOWEST,
    "model": CHOICES | {"types", "store"} | LOWEST,
    "learn": CHOICES | {"types", "metrics", "parallel"} | LOWEST,
    "record": CHOICES | {"types", "store", "metrics", "html"} | LOWEST,
    "report": {"record", "metrics", "store", "html", "types"} | LOWEST,
    "pipeline": {room for floor in FLOORS[:5] for room in floor},
    "launch": {room for floor in FLOORS[:6] for room in floor},
    "task": {room for floor in FLOORS[:6] for room in floor},
    "run": {room for floor in FLOORS[:7] for room in floor},
}
# the rooms that may import a heavy library
DOORS = {
    "hydra": {"run", "config", "launch"},
    "hydra_plugins": {"launch"},
    "submitit": {"launch"},
    "joblib": {"launch"},
    "optuna": {"launch"},
    "timm": {"model"},
    "transformers": {"model"},
    "open_clip": {"model"},
    "fiftyone": {"record"},
    "huggingface_hub": {"model"},
    "tensorboard": {"record"},
}
# libraries that a room must not import at all
WITHOUT = {"config": {"torch", "numpy", "timm"}, "store": {"torch"}}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def plugins() -> list[Path]:
    return sorted((ROOT / "hydra_plugins").rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, allowed: set[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in allowed)


def test_every_module_is_checked():
    tracked = {path.relative_to(PACKAGE) for path in modules()}
    rooms = {path.parts[0].removesuffix(".py") for path in tracked} - {"__init__"}
    assert rooms == set(MAY_IMPORT)
    assert len(tracked) >= 60


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_imports_stay_within_the_rules(path):
    module = dotted(path)
    room = module.split(".")[0]
    if not room:
        return
    for name in imports(path):
        if name.startswith("fgvc."):
            allowed = MAY_IMPORT[room] | {room}
            assert within(name.removeprefix("fgvc."), allowed), f"{module} imports {name}"
        top = name.split(".")[0]
        assert top not in WITHOUT.get(room, set()), f"{module} imports {top}"
        if top in DOORS:
            assert within(module, DOORS[top]), f"{module} imports {top}; only {DOORS[top]} may"


def test_no_room_may_import_its_own_floor_or_a_higher_one():
    floor_of = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    assert set(floor_of) == set(MAY_IMPORT)
    for room, allowed in MAY_IMPORT.items():
        for other in allowed:
            assert floor_of[other.split(".")[0]] < floor_of[room], f"{room} imports {other}"


@pytest.mark.parametrize("path", plugins(), ids=relative)
def test_a_plugin_imports_fgvc_only_when_a_sweep_starts(path):
    """Hydra imports every plugin whenever it starts."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        names = [getattr(node, "module", None)] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            top = str(name).split(".")[0]
            assert top in {"hydra", "omegaconf"} | sys.stdlib_module_names, f"{path}: {name}"
    assert {name for name in imports(path) if name.startswith("fgvc.")} <= {
        "fgvc.launch.hydra_app.Jobs",
        "fgvc.launch.launcher_job.LauncherJob",
        "fgvc.launch.launchers",
        "fgvc.store.atomic",
    }


@pytest.mark.parametrize("path", [*modules(), *plugins()], ids=relative)
def test_nothing_is_imported_from_internals_of_hydra(path):
    assert not [name for name in imports(path) if name.startswith("hydra._internal")]


def test_what_the_config_gathers_is_cheap_to_import():
    """config is below model but imports the descriptions of heads, which are beside the heads."""
    gathered = [path for path in modules() if path.parent == PACKAGE / "model" / "head"]
    assert {path.stem for path in gathered} >= {"linear", "knn"}
    for path in gathered:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [getattr(node, "module", None)] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in map(str, names):
                is_config = within(name, {"fgvc.config.schema", "fgvc.model.head"})
                top = name.split(".")[0]
                assert is_config or top in {"omegaconf"} | sys.stdlib_module_names, (
                    f"{path}: {name}"
                )


def test_run_imports_record_and_task_only_when_needed():
    tree = ast.parse((PACKAGE / "run.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module for node in top if isinstance(node, ast.ImportFrom) and node.module}
    assert {name for name in names if name.startswith("fgvc")} <= {
        "fgvc.config.arguments",
        "fgvc.config.compose",
        "fgvc.config.errors",
        "fgvc.config.experiment_file",
        "fgvc.config.flags",
        "fgvc.config.help",
        "fgvc.config.sweep_expansion",
        "fgvc.config.option_files",
        "fgvc.config.overrides",
        "fgvc.config.run_reference",
        "fgvc.config.search_space",
        "fgvc.config.version",
        "fgvc.exit_codes",
        "fgvc.parallel",
        "fgvc.untrusted",
        "fgvc.untrusted.escape",
    }


@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_modules_have_a_docstring_and_stay_small(path):
    text = path.read_text(encoding="utf-8")
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
    assert len(text.splitlines()) <= 400, f"{path} is too long"
