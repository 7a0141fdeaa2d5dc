"""How the repository is laid out, the shorter documents, and what deviates."""

from __future__ import annotations

from fgvc.report.plan.inputs import PlanInputs


def documents(about: PlanInputs) -> str:
    return (
        "```\nspecs/\n├── stack.json        # environments in which task=check has passed\n"
        "└── NNN-name/\n    └── plan.md       # this document, written by task=plan\n```\n\n"
        "Research, data model, quickstart and contracts are sections below; tasks are left out: "
        "the commands above are all there is to do."
    )


def source_tree(about: PlanInputs) -> str:
    rooms = "\n".join(
        f"│   ├── {room + '/':<10} # {', '.join(modules)}" for room, modules in about.rooms.items()
    )
    groups = ", ".join(about.groups)
    return (
        f"```\n.\n├── conf/              # {groups}\n├── fgvc/\n{rooms}\n"
        "│   ├── run.py     # the one entrypoint\n"
        "│   └── types.py   # what one room hands the next\n"
        "├── tests/             # the same rooms again\n├── benchmarks/\n├── specs/\n"
        "└── outputs/           # run folders; only its .gitignore is tracked\n```"
    )


def decision(about: PlanInputs) -> str:
    return (
        "A single package. Rooms that turn one thing into another (pixels, tokens, weights, "
        "records) know nothing of each other and meet in `fgvc/task/`; a test reads every import "
        "and holds them to it."
    )


def research(about: PlanInputs) -> str:
    return (
        f"Left out: every choice here is an option with its source in `conf/` "
        f"(`conf/backbone/{about.backbone['name']}.yaml`), and earlier results, negative ones "
        "too, stand dated in `LOG.md`."
    )


def data_model(about: PlanInputs) -> str:
    return (
        "`fgvc/types.py`: Manifest (each image once: path, label, split, digest), LabelMap, Split, "
        "Features, Predictions. A run folder's files are listed in README; `env_stamp.json` has a "
        "JSON Schema."
    )


def quickstart(about: PlanInputs) -> str:
    return f"```\nmake smoke\n{about.experiment.command} runtime.dry_run=true\n```"


def contracts(about: PlanInputs) -> str:
    return (
        "The command line (keys that do not exist are refused with their nearest neighbour; exit "
        "codes 0 done, 1 failed, 2 wrong command, 75 resumable), the config hash, the names of a "
        "run's files and the schema of its stamp. No network interface."
    )


def complexity(about: PlanInputs) -> str:
    deviations = []
    if about.dataset["partial"]:
        deviations.append(
            (
                "a partial copy of the dataset",
                "it is the copy at hand",
                "the whole would be better: numbers are marked and never ranked with those of "
                "the whole",
            )
        )
    if not about.backbone["pretrained"]:
        deviations.append(
            ("random weights", "a trial of the machinery", "pretrained ones answer no such trial")
        )
    if about.needs_stack and not about.conf["runtime"]["stack_check"]:
        deviations.append(
            ("runtime.stack_check=false", "asked for in the command", "task=check takes a minute")
        )
    if not deviations:
        return "None."
    rows = "\n".join(f"| {' | '.join(row)} |" for row in deviations)
    return f"| deviation | why | why nothing simpler |\n|---|---|---|\n{rows}"
