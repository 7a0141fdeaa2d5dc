"""The files for contributors: they parse, agree with each other, and name what exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import CHROMIUM, PICTURES
from tests.narrow import not_none
from tests.test_layers import FLOORS

ROOT = Path(__file__).resolve().parents[1]
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md")
# of the schema of CFF 1.2.0, https://citation-file-format.github.io/1.2.0/schema.json
CITATION_REQUIRED = {"authors", "cff-version", "message", "title"}
CITATION_KEYS = CITATION_REQUIRED | {
    *("abstract", "commit", "contact", "date-released", "doi", "identifiers", "keywords"),
    *("license", "license-url", "preferred-citation", "references", "repository"),
    *("repository-artifact", "repository-code", "type", "url", "version"),
}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def parse(name: str) -> Any:
    """All scalars as text: otherwise the key `on` is true, and a version may be a number."""
    return yaml.load(text_of(name), Loader=yaml.BaseLoader)


def project() -> dict[str, Any]:
    return tomllib.loads(text_of("pyproject.toml"))["project"]


def make_targets() -> set[str]:
    phony = re.search(r"^\.PHONY: (.*)$", text_of("Makefile"), re.MULTILINE)
    return set(not_none(phony)[1].split())


FENCE = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)


def code_of(markdown: str) -> str:
    """Fenced blocks and code spans, one per line."""
    return "\n".join([*FENCE.findall(markdown), *re.findall(r"`([^`]+)`", FENCE.sub("", markdown))])


def anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


# --- continuous integration ---


def test_ci_runs_what_the_makefile_names():
    workflow = parse(".github/workflows/ci.yml")
    assert set(workflow["on"]) == {"pull_request", "push"}
    assert workflow["on"]["push"] == {"branches": ["main"]}
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]
    (job,) = workflow["jobs"].values()
    assert job["runs-on"] == "ubuntu-latest"
    assert 0 < int(job["timeout-minutes"]) <= 60
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == ".ci/run"
    used = {step["uses"].split("@")[0]: step["with"] for step in job["steps"] if "uses" in step}
    assert used["actions/checkout"]["fetch-depth"] == "0"
    assert f">={used['actions/setup-python']['python-version']}," in project()["requires-python"]
    ran = re.findall(r"^make ([a-z-]+)", text_of(".ci/run"), re.MULTILINE)
    assert ran == ["check", "test", "test-slow"]
    assert set(ran) <= make_targets()


def test_ci_provides_the_browser_without_which_tests_are_skipped():
    (job,) = parse(".github/workflows/ci.yml")["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    checks = [number for number, run in enumerate(commands) if f"{CHROMIUM} --version" in run]
    assert len(checks) == 1
    assert checks[0] < commands.index(".ci/run")


def test_ci_uploads_the_pictures_of_pages():
    (job,) = parse(".github/workflows/ci.yml")["jobs"].values()
    (upload,) = (s for s in job["steps"] if "upload-artifact" in s.get("uses", ""))
    assert upload["if"] == "always()"
    assert upload["with"]["path"] == job["env"][PICTURES]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands.index(f'mkdir -p "${PICTURES}"') < commands.index(".ci/run")
    for text in (PICTURES, upload["with"]["name"]):
        assert text in text_of("CONTRIBUTING.md")


def test_pre_commit_runs_the_ruff_of_the_lock():
    (repo,) = parse(".pre-commit-config.yaml")["repos"]
    locked = not_none(re.search(r"^ruff==(\S+)$", text_of("requirements.txt"), re.MULTILINE))[1]
    assert repo["repo"].endswith("/ruff-pre-commit")
    assert repo["rev"] == f"v{locked}"
    hooks = [(hook["id"], hook.get("args", [])) for hook in repo["hooks"]]
    assert hooks == [("ruff-check", ["--fix"]), ("ruff-format", [])]


# --- issues ---


def test_every_form_of_an_issue_is_checked():
    assert [path.stem for path in FORMS] == ["bug", "config", "idea", "number"]
    chooser = parse(".github/ISSUE_TEMPLATE/config.yml")
    assert chooser == {"blank_issues_enabled": "false"}


@pytest.mark.parametrize(
    "form", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.stem
)
def test_a_form_asks_for_something(form):
    parsed = parse(form.relative_to(ROOT).as_posix())
    assert set(parsed) == {"name", "description", "labels", "body"}
    assert all(parsed.values())
    fields = [field for field in parsed["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} == {"textarea"}
    assert all(field["attributes"]["label"] for field in fields)
    ids = [field["id"] for field in fields]
    assert len(set(ids)) == len(ids) >= 3
    assert [field.get("validations", {}).get("required") for field in fields].count("true") >= 2


def test_the_forms_ask_for_what_a_record_holds():
    bug = text_of(".github/ISSUE_TEMPLATE/bug.yml")
    number = text_of(".github/ISSUE_TEMPLATE/number.yml")
    assert "env_stamp.json" in bug
    for name in re.findall(r"\b\w+\.(?:json|txt)\b", bug + number):
        assert f"`{name}`" in text_of("docs/record.md"), name


# --- pages ---


def test_contributing_names_targets_that_exist():
    named = set(re.findall(r"\bmake ([a-z-]+)", code_of(text_of("CONTRIBUTING.md"))))
    assert named >= {"smoke", "test", "test-slow", "check"}
    assert named <= make_targets()


@pytest.mark.parametrize("page", PAGES)
def test_relative_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\(([^)]+)\)", text_of(page))
    relative = [link for link in links if "://" not in link]
    assert len(relative) >= 3
    for link in relative:
        path, _, anchor = link.partition("#")
        assert (ROOT / path).is_file(), f"{page} links to {link}"
        assert not anchor or anchor in anchors(path), f"{page} links to {link}"


def test_paths_in_contributing_exist():
    rooms = r"(?<![\w/])((?:fgvc|conf|tests|docs|benchmarks|\.ci|\.github)/[\w./-]*)"
    paths = re.findall(rooms, code_of(text_of("CONTRIBUTING.md")))
    assert len(paths) >= 5
    for path in paths:
        assert (ROOT / path).exists(), f"CONTRIBUTING.md names {path}"


def test_contributing_lists_the_floors():
    line = re.search(r"^- Upwards: (.*?)\n- ", text_of("CONTRIBUTING.md"), re.DOTALL | re.MULTILINE)
    floors = re.findall(r"`([^`]+)`", not_none(line)[1])
    assert [tuple(floor.split()) for floor in floors] == list(FLOORS)


@pytest.mark.parametrize(("page", "most"), [("CONTRIBUTING.md", 120), ("CHANGELOG.md", 80)])
def test_pages_stay_short(page, most):
    assert len(text_of(page).splitlines()) <= most


def test_the_changelog_describes_the_version_of_the_project():
    headings = re.findall(r"^## (.*)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert any(project()["version"] in heading for heading in headings)
    sections = re.findall(r"^### (.*)$", text_of("CHANGELOG.md"), re.MULTILINE)
    assert {"Added", "Changed", "Fixed"} <= set(sections)
    assert set(sections) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    log_dates = set(re.findall(r"^## (\d{4}-\d\d-\d\d):", text_of("LOG.md"), re.MULTILINE))
    assert set(re.findall(r"\d{4}-\d\d-\d\d", text_of("CHANGELOG.md"))) <= log_dates


def test_the_citation_follows_its_schema_and_the_project():
    citation = parse("CITATION.cff")
    assert set(citation) >= CITATION_REQUIRED
    assert set(citation) <= CITATION_KEYS
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"]
    assert citation["authors"]
    for author in citation["authors"]:
        assert "name" in author or {"family-names", "given-names"} <= set(author)


def test_readme_names_the_files_for_contributors():
    readme = text_of("README.md")
    for name in (*PAGES, "CITATION.cff", "LOG.md"):
        assert f"]({name})" in readme
    files = text_of("docs/code.md")
    for name in (*PAGES, "CITATION.cff", ".github/", ".ci/", ".pre-commit-config.yaml"):
        assert f"`{name}`" in files
