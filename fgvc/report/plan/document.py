"""What is known of an experiment -> its plan in Markdown, each item answered or named as open."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fgvc.report.plan.inputs import PlanInputs, Unanswered
from fgvc.report.plan.items import CHECK, ITEMS, PLAN, SECTIONS, Item
from fgvc.report.plan.sections import ANSWERS
from fgvc.untrusted.escape import code, markdown

OPENS, CLOSES = "<!-- stamp -->", "<!-- /stamp -->"  # around all that tells when and where


@dataclass(frozen=True)
class Document:
    """text: Markdown. unanswered: the items that are owed an answer, by id."""

    text: str
    unanswered: Mapping[str, Unanswered]


def render_plan(about: PlanInputs) -> Document:
    """The plan. The same experiment gives the same text, but for the stamp between its marks."""
    owed: dict[str, Unanswered] = {}
    told: dict[str, str] = {}
    for item in ITEMS:
        if item.answered_by == PLAN:
            try:
                told[item.id] = ANSWERS[item.id](about)
            except Unanswered as error:
                owed[item.id] = error
                told[item.id] = f"**NOT ANSWERED**: {item.asks.lower()}, {error}."
    head = f"Written by {code(about.asked)}. The question below is the whole specification."
    parts = [f"# Plan: {markdown(about.title)}", head, _stamp(about), *_owed(owed)]
    for section in SECTIONS:
        parts += [f"## {section}", *_section(section, told)]
    return Document("\n\n".join(parts) + "\n", owed)


def _stamp(about: PlanInputs) -> str:
    rows = "\n".join(
        f"| {key} | {'–' if value is None else markdown(value)} |"
        for key, value in about.stamp.items()
    )
    return f"{OPENS}\n| planned on | |\n|---|---|\n{rows}\n{CLOSES}"


def _owed(owed: Mapping[str, Unanswered]) -> list[str]:
    if not owed:
        return ["Every item that the plan itself must answer is answered."]
    lines = "\n".join(f"- `{key}`, {error}" for key, error in owed.items())
    return [f"**{len(owed)} NOT ANSWERED**, so nothing is to be run yet:\n\n{lines}"]


def _section(section: str, told: Mapping[str, str]) -> list[str]:
    mine = [item for item in ITEMS if item.section == section]
    parts = [
        f"**{item.asks}** (`{item.id}`)\n\n{told[item.id]}" for item in mine if item.id in told
    ]
    return [*parts, *_later(mine)] if section == CHECK else parts


def _later(items: list[Item]) -> list[str]:
    """What the finished run and named persons answer."""
    rows = [
        f"| `{item.id}` | {item.asks} | {item.answered_by} | |"
        for item in items
        if item.answered_by != PLAN
    ]
    head = "| item | what is held | answered by | name, date |\n|---|---|---|---|"
    return [
        "**After the run**: `task=audit` answers the first ten, and prints the block that a pull "
        "request cites; persons sign the rest by name.\n\n" + "\n".join([head, *rows])
    ]
