"""Config, dataset card, machine and records of an experiment -> its plan as a Markdown document.

items.py      the items of a plan, and who answers each item
inputs.py     the inputs of the texts, as plain data
sections/     item -> text, or the reason why it is open and what to do
document.py   texts -> Markdown
"""

from fgvc.report.plan.document import Document, render_plan
from fgvc.report.plan.inputs import PlanInputs, PlannedRun, Unanswered
from fgvc.report.plan.items import ITEMS, Item

__all__ = ["ITEMS", "Document", "Item", "PlanInputs", "PlannedRun", "Unanswered", "render_plan"]
