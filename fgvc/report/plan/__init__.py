"""An experiment's config, card, machine and records -> its plan document, every item answered.

items.py      what a plan must tell, and who answers each item
about.py      what the answers draw on, as plain data
answers/      item -> text, or why there is none and what to do about it
document.py   the answers -> Markdown
"""

from fgvc.report.plan.document import Document, render_plan
from fgvc.report.plan.inputs import PlanInputs, PlannedRun, Unanswered
from fgvc.report.plan.items import ITEMS, Item

__all__ = ["ITEMS", "Document", "Item", "PlanInputs", "PlannedRun", "Unanswered", "render_plan"]
