"""The fault table itself: every row has a test, and a red row makes a red run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.table import GROUPS, ROWS

TESTS = Path(__file__).parents[1]
_OF_GROUPS = tuple(f"{group}_" for group in GROUPS)


def marked(file: Path) -> set[int]:
    """Rows of the marks in a file: pytest.mark.fault(1, 2)."""
    calls = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))
    named = (node for node in calls if isinstance(node.func, ast.Attribute))
    return {
        argument.value
        for node in named
        if ast.unparse(node.func) == "pytest.mark.fault"
        for argument in node.args
        if isinstance(argument, ast.Constant) and isinstance(argument.value, int)
    }


def test_every_row_has_a_test_and_every_mark_a_row():
    rows_of_file = {
        file: marked(file) for file in TESTS.rglob("test_*.py") if file != Path(__file__)
    }
    assert set().union(*rows_of_file.values()) == set(ROWS)


def test_every_file_is_named_after_a_group():
    tools = {"table", "kills", "fuzz"}
    names = {file.stem[5:] for file in Path(__file__).parent.glob("test_*.py")} - tools
    assert {name for name in names if not f"{name}_".startswith(_OF_GROUPS)} == set()


Report = tuple[int, str]
TWO = """
import pytest
@pytest.mark.fault(1)
@pytest.mark.parametrize("x", [1, 2])
def test_first(x): pass
@pytest.mark.fault(1, 2)
def test_second(): assert {second}
def test_unmarked(): assert False
"""


@pytest.fixture
def report(tmp_path) -> Callable[..., Report]:
    """report(source, *options) -> exit code and output of pytest with the plugin on one file."""

    def run(source: str, *options: str) -> Report:
        (tmp_path / "test_small.py").write_text(source)
        command = [sys.executable, "-m", "pytest", "-p", "tests.faults.plugin", "-p", "no:randomly"]
        done = subprocess.run(
            [*command, "--rootdir=.", "-o", "addopts=", *options],
            env={**os.environ, "PYTHONPATH": str(TESTS.parent), "COLUMNS": "96"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    return run


@pytest.mark.parametrize("workers", ["0", "2"])
def test_passed_rows_end_with_0_under_workers_too(report, workers):
    code, text = report(TWO.format(second=True), "--fault-row=1,2", "-n", workers)
    assert code == 0, text
    assert "  1 passed     3 tests  interruptions: SIGKILL at random moments" in text
    assert "            small::first, small::second" in text
    assert "  2 passed     1 test   interruptions: " in text
    assert "2 rows: 2 passed, 0 FAILED, 0 no test, 0 open; 3 tests" in text
    assert all(len(line) <= 96 for line in text.partition("fault table")[2].splitlines()[1:-1])


def test_a_failed_row_ends_with_1_and_names_the_test(report):
    code, text = report(TWO.format(second=False), "--fault-row=1,2")
    assert code == 1
    assert "  1 FAILED     3 tests" in text
    assert "failed: small::second" in text
    assert "2 rows: 0 passed, 2 FAILED" in text


def test_a_row_without_a_test_ends_with_1(report):
    code, text = report(TWO.format(second=True), "--fault-group=interruptions")
    assert code == 1
    assert "  4 no test    0 tests" in text
    assert "4 rows: 2 passed, 0 FAILED, 2 no test, 0 open" in text
    assert report(TWO.format(second=True), "--fault-row=58")[0] == 1


def test_a_skipped_test_is_no_test(report):
    code, text = report("import pytest\n@pytest.mark.fault(5)\ndef test_a(): pytest.skip()\n",
                        "--fault-row=5")  # fmt: skip
    assert code == 1
    assert "  5 no test" in text


OPEN = """
import pytest
@pytest.mark.fault({row})
@pytest.mark.xfail(strict={strict}, reason="later")
def test_a(): assert {passes}
@pytest.mark.fault({row})
def test_b(): pass
"""


def test_an_open_row_is_red_in_print_alone_while_its_test_fails(report):
    code, text = report(OPEN.format(row=55, strict=True, passes=False), "--fault-row=55")
    assert code == 0, text
    assert " 55 open       2 tests" in text
    assert "open until replay is implemented" in text


@pytest.mark.parametrize("strict", [True, False])
def test_an_unexpected_pass_ends_with_1(report, strict):
    code, text = report(OPEN.format(row=55, strict=strict, passes=True), "--fault-row=55")
    assert code == 1
    assert "failed: small::a" in text


def test_an_open_row_whose_tests_all_pass_is_no_longer_open(report):
    code, text = report("import pytest\n@pytest.mark.fault(55)\ndef test_a(): pass\n",
                        "--fault-row=55")  # fmt: skip
    assert code == 1
    assert "remove `open` from its entry" in text


def test_an_expected_failure_hides_no_other_row(report):
    code, text = report(OPEN.format(row=5, strict=True, passes=False), "--fault-row=5")
    assert code == 1
    assert "the table does not mark the row as open" in text


def test_wrong_choices_are_a_line(report):
    code, text = report("", "--fault-group=dsik")
    assert code == 4
    assert "--fault-group=dsik: the groups are interruptions, " in text
    code, text = report("", "--fault-row=59")
    assert code == 4
    assert "--fault-row=59: the rows are 1 to 58" in text
    code, text = report("import pytest\n@pytest.mark.fault(99)\ndef test_a(): pass\n")
    assert code == 4
    assert "test_a: the fault table has no row 99" in text
