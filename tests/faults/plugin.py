"""Run the tests that inject faults, and print the fault table with their results.

`pytest -p tests.faults.plugin -m fault` runs them all; `--fault-group=disk` and
`--fault-row=20,21` run some of them. The exit code is 1 if a row failed or no test of it ran. A
row that the table marks as open is printed red and does not change the exit code, while its tests
are strict expected failures and do fail. Once none of them fails, remove its `open` entry.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.faults.table import GROUPS, ROWS, Row

PROPERTY = "fault"  # property of a test report; reaches the controller of pytest-xdist
WIDTH = 96
COLOURS = {"passed": "green", "FAILED": "red", "no test": "red", "open": "red"}


@dataclass
class Outcomes:
    """Node ids of the tests of one row, by outcome."""

    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    expected: set[str] = field(default_factory=set)  # failed as their xfail mark expects

    def add(self, report: pytest.TestReport) -> None:
        expected = hasattr(report, "wasxfail")
        if report.failed or (expected and report.passed):  # including an unexpected pass
            self.failed.add(report.nodeid)
        elif expected:
            self.expected.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)

    @property
    def tests(self) -> set[str]:
        return self.passed | self.failed | self.expected

    def result(self, row: Row) -> tuple[str, str]:
        """("passed", "FAILED", "open" or "no test", an explanation or "")."""
        if not self.tests:
            return "no test", "no test with its mark ran"
        if self.failed:
            return "FAILED", "failed: " + ", ".join(sorted(map(_short_node, self.failed)))
        if row.open and not self.expected:
            return "FAILED", "none of its tests fails as expected: remove `open` from its entry"
        if self.expected and not row.open:
            return "FAILED", "an expected failure, but the table does not mark the row as open"
        return ("open", row.open) if row.open else ("passed", "")


def _short_node(node: str) -> str:
    """tests/store/test_array_cache.py::test_a_cut[x] -> store/memo::a_cut[x]"""
    file, _, name = node.partition("::")
    folder, _, stem = file.removesuffix(".py").removeprefix("tests/").rpartition("/")
    place = f"{folder}/{stem.removeprefix('test_')}" if folder else stem.removeprefix("test_")
    return f"{place}::{name.removeprefix('test_')}"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fault table")
    group.addoption("--fault-group", default="", help=f"only these rows: {', '.join(GROUPS)}")
    group.addoption("--fault-row", default="", help="only these rows, by number: 20,21")


def pytest_configure(config: pytest.Config) -> None:
    rows = select_rows(str(config.getoption("--fault-group")), str(config.getoption("--fault-row")))
    config.addinivalue_line("markers", "fault(row): injects this row of the fault table")
    config.pluginmanager.register(FaultTable(rows), "fault-table")


def select_rows(groups: str, numbers: str) -> list[Row]:
    """Rows of these groups and numbers; all rows if neither is given."""
    names, row_numbers = _words(groups), _words(numbers)
    if unknown := [name for name in names if name not in GROUPS]:
        raise pytest.UsageError(f"--fault-group={unknown[0]}: the groups are {', '.join(GROUPS)}")
    if unknown := [
        number for number in row_numbers if not number.isdecimal() or int(number) not in ROWS
    ]:
        raise pytest.UsageError(f"--fault-row={unknown[0]}: the rows are 1 to {max(ROWS)}")
    every = not names and not row_numbers
    return [
        row
        for row in ROWS.values()
        if every or row.group in names or str(row.number) in row_numbers
    ]


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def rows_of(item: pytest.Item) -> list[int]:
    return sorted({number for mark in item.iter_markers("fault") for number in mark.args})


class FaultTable:
    """Selects the tests of the chosen rows, collects their reports and prints the table."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.outcomes: dict[Row, Outcomes] = {row: Outcomes() for row in rows}
        self.numbers = {row.number: row for row in self.outcomes}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list) -> None:
        selected, deselected = [], []
        for item in items:
            rows = rows_of(item)
            if unknown := [row for row in rows if row not in ROWS]:
                raise pytest.UsageError(f"{item.nodeid}: the fault table has no row {unknown[0]}")
            item.user_properties += [(PROPERTY, row) for row in rows]
            (selected if any(row in self.numbers for row in rows) else deselected).append(item)
        items[:] = selected
        if deselected:
            config.hook.pytest_deselected(items=deselected)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for name, number in report.user_properties:
            if name == PROPERTY and isinstance(number, int) and number in self.numbers:
                self.outcomes[self.numbers[number]].add(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        worker = hasattr(session.config, "workerinput")
        endings = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        if worker or session.exitstatus not in endings or session.config.option.collectonly:
            return
        red = [row for row in self.outcomes if self._result(row)[0] in ("FAILED", "no test")]
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if red else pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if terminalreporter.config.option.collectonly:
            return
        terminalreporter.section("fault table")
        for row in sorted(self.outcomes, key=lambda row: (GROUPS.index(row.group), row.number)):
            result, _ = self._result(row)
            for place, line in enumerate(self.lines(row)):
                terminalreporter.write_line(line, **({COLOURS[result]: True} if not place else {}))
        terminalreporter.write_line(self.total())

    def _result(self, row: Row) -> tuple[str, str]:
        return self.outcomes[row].result(row)

    def lines(self, row: Row) -> Iterator[str]:
        """Lines of one row: number, result, number of tests and fault, then the test names."""
        result, remark = self._result(row)
        tests = self.outcomes[row].tests
        head = f"{row.number:>3} {result:<8}{len(tests):>4} test{'s' if len(tests) != 1 else ' '}  "
        yield from _wrapped(f"{row.group}: {row.fault}", head, " " * len(head))
        names = sorted({_short_node(node).partition("[")[0] for node in tests})
        for text in (", ".join(names), remark):
            yield from _wrapped(text, " " * 12, " " * 12) if text else ()

    def total(self) -> str:
        results = [self._result(row)[0] for row in self.outcomes]
        tests = set().union(*(outcome.tests for outcome in self.outcomes.values()))
        counts = ", ".join(f"{results.count(name)} {name}" for name in COLOURS)
        return f"{len(results)} rows: {counts}; {len(tests)} tests"


def _wrapped(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )
