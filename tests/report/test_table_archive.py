"""A replaced table is kept whole under its date, with its own retention."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgvc.record import retention
from fgvc.report import table_archive
from tests.narrow import not_none


@pytest.fixture
def write(tmp_path):
    def written(text, **more):
        formats = {"csv": text.encode(), "json": f'["{text}"]'.encode(), **more}
        table_archive.write_table(tmp_path, formats, 90)

    return written


def stems(folder):
    return [table.stem for table in table_archive.list_tables(folder)]


def test_the_replaced_table_stays_under_its_date(write, tmp_path):
    write("one", html=b"<p>one")
    created = retention.read(tmp_path / "baselines.retention.json").created
    write("two")
    old, new = sorted(
        table_archive.list_tables(tmp_path), key=lambda table: table.stem == "baselines"
    )
    assert old.stem == f"baselines-{created:%Y%m%dT%H%M%S%fZ}"
    assert {path.name.removeprefix(old.stem) for path in old.files} == {
        ".csv",
        ".html",
        ".json",
        ".retention.json",
    }
    assert not_none(old.retention).created == created < not_none(new.retention).created
    assert (tmp_path / "baselines" / f"{old.stem}.csv").read_text() == "one"
    assert (tmp_path / "baselines.csv").read_text() == "two"


def test_the_same_table_again_leaves_no_older_one(write, tmp_path):
    write("one")
    first = retention.read(tmp_path / "baselines.retention.json")
    write("one")
    assert stems(tmp_path) == ["baselines"]
    assert retention.read(tmp_path / "baselines.retention.json").created > first.created


@pytest.mark.parametrize("moves", range(3))
def test_an_interrupted_move_is_completed_by_the_next_table(write, tmp_path, monkeypatch, moves):
    write("one", html=b'<a href="r/report.html">one</a> <a href="#x">')
    created = retention.read(tmp_path / "baselines.retention.json").created
    done, real = [], Path.rename

    def rename(self, target):
        if len(done) == moves:
            raise KeyboardInterrupt
        done.append(target)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write("two")
    monkeypatch.undo()
    write("two")
    moved = f"baselines-{created:%Y%m%dT%H%M%S%fZ}"
    assert stems(tmp_path) == ["baselines", moved]
    older = tmp_path / "baselines"
    assert (older / f"{moved}.csv").read_text() == "one"
    assert (older / f"{moved}.json").read_text() == '["one"]'
    assert (
        older / f"{moved}.html"
    ).read_text() == '<a href="../r/report.html">one</a> <a href="#x">'
    assert not list(tmp_path.glob("baselines-*"))
    assert retention.read(older / f"{moved}.retention.json").created == created


def test_a_table_from_before_retention_counts_from_now(write, tmp_path):
    (tmp_path / "baselines.csv").write_text("old")
    write("two")
    old, _ = sorted(
        table_archive.list_tables(tmp_path), key=lambda table: table.stem == "baselines"
    )
    assert [path.suffix for path in old.files] == [".csv", ".json"]
    assert old.retention is not None


def test_a_dated_table_of_an_earlier_version_is_listed_beside_the_moved_ones(write, tmp_path):
    write("one")
    write("two")
    (table,) = (table for table in table_archive.list_tables(tmp_path) if table.stem != "baselines")
    for file in table.files:
        file.rename(tmp_path / file.name)
    write("three")
    assert len(set(stems(tmp_path))) == len(stems(tmp_path)) == 3


def test_other_files_are_not_tables(tmp_path):
    for name in ("baselines-mine.csv", "baselines_old.csv", "table.csv"):
        (tmp_path / name).touch()
    assert table_archive.list_tables(tmp_path) == []
