"""Every rule of the style sheets applies to something that a template prints."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from fgvc.html.charts import COLOURS

TEMPLATES = resources.files("fgvc.html") / "templates"
TEXTS = {file.name: file.read_text(encoding="utf-8") for file in TEMPLATES.iterdir()}
STYLE = re.compile(r"{% block style %}(.*?){% endblock %}", re.DOTALL)
SHARED = ("base.html", "macros.html", "sortable.js", "filter.js")


def style_of(page: str) -> str:
    """The style block of a page, or the whole shared sheet."""
    return "".join(STYLE.findall(TEXTS[page])) if page.endswith(".html") else TEXTS[page]


def markup_of(page: str) -> str:
    """The markup of a page without its style; for the shared sheet, of all pages."""
    pages = TEXTS if page == "style.css" else (page, *SHARED)
    return "".join(STYLE.sub("", TEXTS[name]) for name in pages if name != "style.css")


def selectors(page: str) -> str:
    """The style without its declarations."""
    printed = re.sub(r"{%.*?%}|{{.*?}}|/\*.*?\*/", "", style_of(page))
    return re.sub(r"{[^{}]*}", " ", printed)


@pytest.mark.parametrize("page", ["style.css", "baselines.html", "run.html", "sweep.html"])
def test_every_class_and_element_of_a_style_is_printed(page):
    classes = set(re.findall(r"\.([a-z][a-z-]*)", selectors(page)))
    quoted = " ".join(re.findall(r'"([^"<>]*)"', markup_of(page)))
    assert classes - set(re.findall(r"[a-z][a-z-]*", quoted)) == set()
    plain = re.sub(r"@media[^{]*|[.#:][\w()-]+|\[[^]]*\]", " ", selectors(page))
    elements = set(re.findall(r"\b[a-z][a-z0-9]*\b", plain)) - {"page", "root"}
    assert elements - set(re.findall(r"<([a-z][a-z0-9]*)", markup_of(page))) == set()
    assert classes or elements


def test_every_colour_is_used():
    declared = set(re.findall(r"(--[\w-]+):", TEXTS["style.css"]))
    series = {f"--s{number}" for number in range(COLOURS)}
    used = {f"--{name}" for name in re.findall(r"var\(--([\w-]+)\)", " ".join(TEXTS.values()))}
    assert "var(--s{{" in TEXTS["macros.html"]
    assert declared == used | series
