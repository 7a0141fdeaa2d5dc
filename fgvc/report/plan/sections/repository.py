"""Texts on the layout of the repository, the shorter documents, and deviations."""

from __future__ import annotations

from fgvc.report.plan.inputs import PlanInputs


def documents(inputs: PlanInputs) -> str:
    return (
        "```\nspecs/\n├── stack.json        # environments in which task=check has passed\n"
        "└── NNN-name/\n    └── plan.md       # this document, written by task=plan\n```\n\n"
        "Research, data model, quickstart and contracts are sections below; a task list is "
        "omitted: the commands above are the complete work."
    )


def source_tree(inputs: PlanInputs) -> str:
    rooms = "\n".join(
        f"│   ├── {room + '/':<10} # {', '.join(modules)}" for room, modules in inputs.rooms.items()
    )
    groups = ", ".join(inputs.groups)
    return (
        f"```\n.\n├── conf/              # {groups}\n├── fgvc/\n{rooms}\n"
        "│   ├── run.py     # the one entrypoint\n"
        "│   └── types.py   # types that rooms share\n"
        "├── tests/             # the same rooms\n├── benchmarks/\n├── specs/\n"
        "└── outputs/           # run folders; only its .gitignore is tracked\n```"
    )


def decision(inputs: PlanInputs) -> str:
    return (
        "A single package. The rooms for pixels, tokens, weights and records do not import each "
        "other; `fgvc/pipeline/` and `fgvc/task/` combine them. A test checks every import."
    )


def research(inputs: PlanInputs) -> str:
    return (
        f"Omitted: every choice here is an option with its source in `conf/` "
        f"(`conf/backbone/{inputs.backbone['name']}.yaml`), and `LOG.md` has the dated earlier "
        "results, including negative ones."
    )


def data_model(inputs: PlanInputs) -> str:
    return (
        "`fgvc/types.py`: Manifest (each image once: path, label, split, digest), LabelMap, Split, "
        "Features, Predictions. A run folder's files are listed in README; `env_stamp.json` has a "
        "JSON Schema."
    )


def quickstart(inputs: PlanInputs) -> str:
    return f"```\nmake smoke\n{inputs.experiment.command} runtime.dry_run=true\n```"


def contracts(inputs: PlanInputs) -> str:
    return (
        "The command line (unknown keys are refused with the nearest legal name; exit "
        "codes 0 done, 1 failed, 2 wrong command, 75 resumable), the config hash, the names of a "
        "run's files and the schema of its stamp. No network interface."
    )


def complexity(inputs: PlanInputs) -> str:
    deviations = []
    if inputs.dataset["partial"]:
        deviations.append(
            (
                "a partial copy of the dataset",
                "no complete copy is available",
                "a complete copy would be better: the numbers are marked and never ranked with "
                "numbers on complete data",
            )
        )
    if not inputs.backbone["pretrained"]:
        deviations.append(
            (
                "random weights",
                "a test of the pipeline",
                "the test does not need pretrained weights",
            )
        )
    if inputs.needs_stack and not inputs.conf["runtime"]["stack_check"]:
        deviations.append(
            ("runtime.stack_check=false", "set in the command", "task=check takes a minute")
        )
    if not deviations:
        return "None."
    rows = "\n".join(f"| {' | '.join(row)} |" for row in deviations)
    return f"| deviation | reason | why not the simpler way |\n|---|---|---|\n{rows}"
