"""The glossary is in the header of every page, and explains the words of the tables."""

from __future__ import annotations

import re
from importlib import resources

from fgvc.html.render import render

TEMPLATES = resources.files("fgvc.html") / "templates"
FRAGMENTS = {"base.html", "classes.html", "glossary.html", "macros.html"}


def test_every_page_has_it_in_its_header():
    pages = [file for file in TEMPLATES.iterdir() if file.name.endswith(".html")]
    pages = [file for file in pages if file.name not in FRAGMENTS]
    assert len(pages) >= 4
    for page in pages:
        assert page.read_text(encoding="utf-8").startswith('{% extends "base.html" %}'), page
    header = render("base.html", {}).partition("<header>")[2].partition("</header>")[0]
    terms = re.findall("<dt>(.*?)</dt>", header)
    assert len(terms) == len(set(terms)) == header.count("<dd>") > 15
    words = ("not distinguishable", "identical", "Holm", "comparable", "trainval", "shared")
    for word in (*words, "mean per class", "ECE", "interval"):
        assert any(word in term for term in terms), word
    assert not re.search(r"\btie\b|\bfinding\b", header)
