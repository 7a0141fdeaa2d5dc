"""Every file is opened by `fgvc.untrusted`, or by a library that gets a file from `untrusted`.

Checked in the syntax tree of every module: a new reader that opens a path itself fails here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.test_layers import PACKAGE, dotted, modules

# calls that open the path in the first argument: functions of libraries, and methods of Path
LIBRARIES = {
    "EventAccumulator",
    "Image.open",
    "OmegaConf.load",
    "ParquetFile",
    "ZipFile",
    "cv2.imread",
    "is_zipfile",
    "json.load",
    "load_file",
    "loadmat",
    "np.fromfile",
    "np.load",
    "np.memmap",
    "os.open",
    "pickle.load",
    "pq.read_metadata",
    "pq.read_schema",
    "read_csv",
    "read_table",
    "safe_open",
    "tarfile.open",
    "torch.load",
    "yaml.safe_load",
}
METHODS = {"read_bytes", "read_text"}
# calls whose result may be opened
CHECKED = {
    "BytesIO",
    "BufferReader",
    "StringIO",
    "open_regular",
    "read_yaml",
    "require_regular",
}
ALLOWED = {
    "untrusted.files": {"os.open", "open", "read_bytes", "read_text"},  # the readers themselves
    "store.atomic": {"os.open"},  # O_DIRECTORY
    # a file that was opened or checked before
    "data.download.unpack": {"tarfile.open", "ZipFile"},
    "data.matlab_parser": {"json.load", "open"},  # standard input, and paths that were checked
    "record.tensorboard.events": {"EventAccumulator"},  # a folder, whose files it checks
    "record.stack_check.tensorboard_steps": {"EventAccumulator"},  # written by this process
    "run": {"os.open"},  # the null device
    # the package's own files
    "config.checkpoint_rows": {"OmegaConf.load"},
    "config.help": {"read_text"},
    "config.launcher": {"OmegaConf.load"},
    "config.node_cache": {"read_text"},
    "config.sweep_expansion": {"OmegaConf.load", "read_text"},
    "config.synonyms.options": {"read_text", "yaml.safe_load"},
    "config.version": {"read_text"},
    "pipeline.restore": {"OmegaConf.load"},
    "record.env_stamp": {"read_text"},
}


def called_name(node: ast.Call) -> str:
    """`module.name` of a call if the module is a plain name, otherwise the last name."""
    function = node.func
    if isinstance(function, ast.Name):
        return function.id
    if not isinstance(function, ast.Attribute):
        return ""
    if isinstance(function.value, ast.Name):
        return f"{function.value.id}.{function.attr}"
    return function.attr


def opening_call(node: ast.Call) -> str | None:
    """The name of a call that opens a file for reading; None for any other call."""
    name = called_name(node)
    last = name.rpartition(".")[2]
    for candidate in (name, last):
        if candidate in LIBRARIES:
            return candidate
    if name.startswith("untrusted."):
        return None
    if last in METHODS:
        return last
    if last == "open":
        return None if _writes(node, 0 if "." in name else 1) else "open"
    return None


def _writes(node: ast.Call, position: int) -> bool:
    """Whether the mode of an `open` is a constant for writing."""
    arguments = [keyword.value for keyword in node.keywords if keyword.arg == "mode"]
    arguments += node.args[position : position + 1]
    modes = [mode.value for mode in arguments if isinstance(mode, ast.Constant)]
    return any(isinstance(mode, str) and set(mode) & set("wxa") for mode in modes)


def unchecked(tree: ast.Module) -> list[tuple[int, str]]:
    """Line and name of every call that opens an unchecked path."""
    checked_names = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name)
        and isinstance(item.context_expr, ast.Call)
        and (called_name(item.context_expr).rpartition(".")[2] in CHECKED | LIBRARIES)
    }
    calls = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or (name := opening_call(node)) is None:
            continue
        first = node.args[0] if node.args else None
        if name == "open" and isinstance(node.func, ast.Attribute):
            first = node.func.value  # archive.open(member)
        by_call = isinstance(first, ast.Call) and called_name(first).rpartition(".")[2] in CHECKED
        by_name = isinstance(first, ast.Name) and first.id in checked_names
        if not (by_call or by_name):
            calls.append((node.lineno, name))
    return calls


@pytest.mark.fault(52)
@pytest.mark.parametrize("path", modules(), ids=dotted)
def test_no_module_opens_an_unchecked_path(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = ALLOWED.get(dotted(path), set())
    assert not [call for call in unchecked(tree) if call[1] not in allowed]


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("path.read_text()", 1),
        ("(a / b).read_bytes()", 1),
        ("open(path)", 1),
        ("open(path, 'w')", 0),
        ("path.open('rb')", 1),
        ("path.open(mode='ab')", 0),
        ("safe_open(path, framework='np')", 1),
        ("safe_open(untrusted.require_regular(path), framework='np')", 0),
        ("with untrusted.open_regular(path) as file:\n    pq.ParquetFile(file)", 0),
        ("with path.open('rb') as file:\n    torch.load(file)", 2),
        ("untrusted.read_bytes(path, 9)", 0),
    ],
)
def test_unchecked_calls_are_counted(source, count):
    assert len(unchecked(ast.parse(source))) == count


def test_every_exception_is_needed():
    names = {dotted(path) for path in modules()}
    assert names >= ALLOWED.keys()
    for module, allowed in ALLOWED.items():
        path = PACKAGE / Path(*module.split(".")).with_suffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert {name for _, name in unchecked(tree)} == allowed
