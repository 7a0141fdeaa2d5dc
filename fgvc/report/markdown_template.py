"""Facts -> a Markdown document: a Jinja template of `fgvc/report`, in which every value is inert.

A text that a template prints is escaped as Markdown, unless a filter or a macro has written it. In
a code span or a code block it is printed by `code`, `code_in_table` (where a pipe would end the
cell) or `fenced`, because a backslash is not an escape there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from fgvc.html.formats import interval, number, percent
from fgvc.html.render import new_environment
from fgvc.untrusted.escape import code, fenced, markdown

if TYPE_CHECKING:
    import jinja2

FILTERS: Mapping[str, Callable[..., str]] = {
    "code": code,
    "code_in_table": functools.partial(code, in_table=True),
    "exponent": "{:.1e}".format,
    "fenced": fenced,
    "interval": interval,
    "literal": ascii,  # a Python literal, for code in the document
    "number": number,
    "percent": percent,
    "thousands": "{:,}".format,
}


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Render a template, named by its path in `fgvc/report`.

    Raises:
        jinja2.TemplateError: the template uses a value that is not among the facts.
    """
    return _environment().get_template(template).render(facts)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = new_environment("fgvc.report", "", finalize=_escape, keep_trailing_newline=True)
    for name, function in FILTERS.items():
        # Markup is the text that Jinja does not escape
        environment.filters[name] = lambda *values, function=function: Markup(function(*values))
    return environment


def _escape(value: object) -> object:
    """A value as inert Markdown. Results of filters and macros, and numbers, are inert already."""
    if isinstance(value, int | float) or hasattr(value, "__html__"):
        return value
    return Markup(markdown(value))
