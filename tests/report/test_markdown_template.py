"""A value in a Markdown template is inert in every position."""

from __future__ import annotations

import jinja2
import pytest

from fgvc.report import markdown_template
from tests.narrow import not_none

HOSTILE = "[x](y) <b> | `z`"
ESCAPED = r"\[x\](y) &lt;b&gt; &#124; \`z\`"


@pytest.fixture
def render(monkeypatch):
    """render(text, **facts): the text as a template."""

    def from_text(text, **facts):
        environment = markdown_template._environment()
        monkeypatch.setattr(environment, "loader", jinja2.DictLoader({"t": text}))
        not_none(environment.cache).clear()
        return markdown_template.render("t", facts)

    yield from_text
    not_none(markdown_template._environment().cache).clear()


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ x }}", ESCAPED),
        ("{{ [x] }}", rf"\['{ESCAPED}'\]"),
        ("{{ x ~ '' }}", ESCAPED),
        ("{{ [x, x] | join(', ') }}", f"{ESCAPED}, {ESCAPED}"),
        ("{% set y %}{{ x }}{% endset %}{{ y }}", ESCAPED),
        ("{% macro m(y) %}*{{ y }}*{% endmacro %}{{ m(x) }}", f"*{ESCAPED}*"),
        ("{% macro m() %}*{{ caller() }}*{% endmacro %}{% call m() %}{{ x }}{% endcall %}",
         f"*{ESCAPED}*"),
        ("{{ x | code }}", "`` [x](y) <b> | `z` ``"),
        ("{{ x | code_in_table }}", r"`` [x](y) <b> \| `z` ``"),
        ("{{ x | fenced }}", f"```\n{HOSTILE}\n```"),
        ("{{ x | literal }}", repr(HOSTILE)),
        ("{{ -1 }} {{ n }}", "-1 -2"),
        ("{{ none }}", "None"),
    ],
)  # fmt: skip
def test_every_value_is_escaped_once(render, template, text):
    assert render(template, x=HOSTILE, n=-2) == text


@pytest.mark.parametrize("template", ["{{ y }}", "{{ x.y }}"])
def test_a_missing_value_is_an_error(render, template):
    with pytest.raises(jinja2.UndefinedError):
        render(template, x={})
