"""Item -> its answer, one function each, in the order in which a plan is read."""

from __future__ import annotations

from collections.abc import Callable

from fgvc.report.plan.inputs import PlanInputs
from fgvc.report.plan.sections import context, data, experiment, record, repository

ANSWERS: dict[str, Callable[[PlanInputs], str]] = {
    "question": experiment.question,
    "language": context.language,
    "dependencies": context.dependencies,
    "storage": context.storage,
    "testing": context.testing,
    "platform": context.platform,
    "project-type": context.project_type,
    "performance": context.performance,
    "constraints": context.constraints,
    "scale": context.scale,
    "commands": experiment.commands,
    "configs": experiment.configs,
    "seeds": experiment.seeds,
    "outputs": experiment.outputs,
    "source": data.source,
    "licence": data.licence,
    "approval": data.approval,
    "filtering": data.filtering,
    "counts": data.counts,
    "smoke": data.smoke,
    "evaluation": experiment.evaluation,
    "devices": experiment.devices,
    "axes": experiment.axes,
    "backbone": experiment.backbone,
    "normalization": experiment.normalization,
    "stack": context.stack,
    "baseline": experiment.baseline,
    "environment": context.environment,
    "tensorboard": record.tensorboard,
    "fiftyone": record.fiftyone,
    "table": record.table,
    "labels": record.labels,
    "stamp": record.stamp,
    "retention": record.retention,
    "contents": record.contents,
    "sanity": record.sanity,
    "checkpoints": record.checkpoints,
    "documents": repository.documents,
    "source-tree": repository.source_tree,
    "decision": repository.decision,
    "research": repository.research,
    "data-model": repository.data_model,
    "quickstart": repository.quickstart,
    "contracts": repository.contracts,
    "complexity": repository.complexity,
}
