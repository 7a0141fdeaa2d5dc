"""task.output=: a file if it has a suffix, otherwise a folder, for every operation."""

from __future__ import annotations

import pytest

from fgvc.store.output_path import output_file, output_folder
from fgvc.types import UserError

FILES = ("baselines.csv", "baselines.json", "baselines.html")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("new/plan.md", "new/plan.md"),
        ("plan.md", "plan.md"),
        ("other.MD", "other.MD"),
        ("new", "new/plan.md"),
        ("new/", "new/plan.md"),
        ("new.md/", "new.md/plan.md"),  # a trailing slash is a folder
        ("there", "there/plan.md"),
        ("there.md", "there.md/plan.md"),  # so is a folder that exists
        ("there.txt", "there.txt/plan.md"),
        ("run.2026-11-29", "run.2026-11-29/plan.md"),  # no suffix of a file
        ("v1.0", "v1.0/plan.md"),
    ],
)
def test_a_suffix_makes_a_file_and_all_else_a_folder(text, expected, tmp_path):
    for name in ("there", "there.md", "there.txt"):
        (tmp_path / name).mkdir()
    assert output_file(f"{tmp_path}/{text}", "plan.md", (".md",)) == tmp_path / expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "there.md", "there.txt"]


def test_a_home_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_file("~/plan.md", "plan.md", (".md",)) == tmp_path / "plan.md"
    assert output_folder("~/out", FILES) == tmp_path / "out"


@pytest.mark.parametrize("path", ["plan.txt", "plan.json", "x/plan.pdf"])
def test_another_kind_of_file_is_refused_with_the_name_that_works(path, tmp_path):
    with pytest.raises(UserError, match="task.output=.*: the output is .md") as caught:
        output_file(f"{tmp_path}/{path}", "plan.md", (".md",))
    suggestion = str(caught.value).partition("name ")[2].partition(",")[0]
    assert output_file(suggestion, "plan.md", (".md",)) == (tmp_path / path).with_suffix(".md")


def test_a_refusal_names_every_kind_of_file_that_works(tmp_path):
    with pytest.raises(UserError, match=r"the output is \.json or \.html; name .*x\.json"):
        output_file(f"{tmp_path}/x.pdf", "x.json", (".json", ".html"))


@pytest.mark.parametrize("path", ["new", "new/", "new/baselines.csv", "new/baselines.html"])
def test_a_folder_of_several_files_is_meant_by_each_of_them(path, tmp_path):
    assert output_folder(f"{tmp_path}/{path}", FILES) == tmp_path / "new"


@pytest.mark.fault(14)
def test_what_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    run = tmp_path / "run"
    (run / "splits").mkdir(parents=True)
    (run / "status.json").touch()
    for path in ("file/x.md", "file/x"):
        with pytest.raises(UserError, match=r"task.output=.*file is a file"):
            output_file(f"{tmp_path}/{path}", "plan.md", (".md",))
    for path in ("run", "run/x.md", "run/splits/x"):
        with pytest.raises(UserError, match="is a run, which is never changed"):
            output_file(f"{tmp_path}/{path}", "plan.md", (".md",))
    for path in ("run", "run/export", "run/baselines.csv"):
        with pytest.raises(UserError, match="is a run, which is never changed"):
            output_folder(f"{tmp_path}/{path}", FILES)
    with pytest.raises(UserError, match="a folder of baselines.csv"):
        output_folder(f"{tmp_path}/mine.csv", FILES)
