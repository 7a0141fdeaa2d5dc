"""Facts on an experiment -> its plan in Markdown, with every item answered or listed as open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fgvc.report.plan.inputs import PlanInputs, Unanswered
from fgvc.report.plan.items import CHECK, ITEMS, PLAN, SECTIONS, Item
from fgvc.report.plan.sections import SECTION_TEXTS
from fgvc.untrusted.escape import code, markdown

OPENS, CLOSES = "<!-- stamp -->", "<!-- /stamp -->"  # around the time and the environment


@dataclass(frozen=True)
class Document:
    """text: Markdown. unanswered: open items by id."""

    text: str
    unanswered: Mapping[str, Unanswered]


def render_plan(inputs: PlanInputs) -> Document:
    """Render the plan. The text of an experiment is always the same, except the stamp."""
    open_items: dict[str, Unanswered] = {}
    texts: dict[str, str] = {}
    for item in ITEMS:
        if item.answered_by == PLAN:
            try:
                texts[item.id] = SECTION_TEXTS[item.id](inputs)
            except Unanswered as error:
                open_items[item.id] = error
                texts[item.id] = f"**NOT ANSWERED**: {item.asks.lower()}, {error}."
    head = f"Written by {code(inputs.plan_command)}. The question below is the whole specification."
    parts = [
        f"# Plan: {markdown(inputs.title)}",
        head,
        _stamp(inputs),
        *_list_open_items(open_items),
    ]
    for section in SECTIONS:
        parts += [f"## {section}", *_section(section, texts)]
    return Document("\n\n".join(parts) + "\n", open_items)


def _stamp(inputs: PlanInputs) -> str:
    rows = "\n".join(
        f"| {key} | {'–' if value is None else markdown(value)} |"
        for key, value in inputs.stamp.items()
    )
    return f"{OPENS}\n| planned on | |\n|---|---|\n{rows}\n{CLOSES}"


def _list_open_items(open_items: Mapping[str, Unanswered]) -> list[str]:
    if not open_items:
        return ["Every item that the plan itself must answer is answered."]
    lines = "\n".join(f"- `{key}`, {error}" for key, error in open_items.items())
    return [
        f"**{len(open_items)} NOT ANSWERED**, so the experiment must not be run yet:\n\n{lines}"
    ]


def _section(section: str, texts: Mapping[str, str]) -> list[str]:
    items = [item for item in ITEMS if item.section == section]
    parts = [
        f"**{item.asks}** (`{item.id}`)\n\n{texts[item.id]}" for item in items if item.id in texts
    ]
    return [*parts, *_items_after_run(items)] if section == CHECK else parts


def _items_after_run(items: list[Item]) -> list[str]:
    """Items that the finished run or a named person answers."""
    rows = [
        f"| `{item.id}` | {item.asks} | {item.answered_by} | |"
        for item in items
        if item.answered_by != PLAN
    ]
    head = "| item | condition | answered by | name, date |\n|---|---|---|---|"
    return [
        "**After the run**: `task=audit` answers the first ten items and prints the block for "
        "a pull request; named persons sign the others.\n\n" + "\n".join([head, *rows])
    ]
