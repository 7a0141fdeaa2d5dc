"""Facts -> one self-contained HTML file: a Jinja template with its style inside.

Everything that a template prints is escaped, so a class may be called `<b>`. The content security
policy of a page blocks every external resource.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fgvc.html import formats

if TYPE_CHECKING:
    from jinja2 import Environment

FILTERS = ("percent", "points", "p_value", "level", "si", "decimals", "duration", "plain", "named")


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Render a template of `fgvc/html/templates`; the same facts give the same text."""
    return _environment().get_template(template).render(facts)


def new_environment(package: str, folder: str = "templates", **options: Any) -> Environment:
    """An environment that escapes every printed value and refuses an unknown name."""
    import jinja2  # here: only a finished run needs it

    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )


@functools.cache
def _environment() -> Environment:
    environment = new_environment("fgvc.html")
    environment.filters |= {name: getattr(formats, name) for name in FILTERS}
    return environment
